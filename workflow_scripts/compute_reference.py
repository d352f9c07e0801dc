from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.metrics.features import Extractor
    from duodiff.metrics.reference import compute_reference as compute


def compute_reference(
    data: Path,
    metric: str,
    weights: Path,
    folder: Path,
    device: str,
    out: Path,
    count: int | None = None,
) -> str:
    """Compute the reference that samples are measured against. A file that --folder already has is kept.

    The reference is the features of --count random training images (by default all), the features of the held-out
    images, and the Gaussian of all training images. The receipt --out names its files.
    """
    receipt = compute(data, Extractor(metric, weights, device), count, folder, out)
    return f"{receipt['extractor']}: {', '.join(name[:12] for name in receipt['files'].values())}"


if __name__ == "__main__":
    job.run(compute_reference)
