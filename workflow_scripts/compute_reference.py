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
    """Compute what samples are measured against, unless --folder has it: features of --count random training
    images (all by default), of the held-out ones, and the Gaussian of all training images. --out is the receipt.
    """
    receipt = compute(data, Extractor(metric, weights, device), count, folder, out)
    return f"{receipt['extractor']}: {', '.join(name[:12] for name in receipt['files'].values())}"


if __name__ == "__main__":
    job.run(compute_reference)
