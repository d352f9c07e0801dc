from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.metrics.weights import fetch_weights


def fetch_extractor(name: str, weights: Path, out: Path) -> str:
    """Download the published weights --name (inception or dinov2) to --weights, unless they are there."""
    receipt = fetch_weights(name, weights, out)
    return f"{weights}: sha256 {receipt['sha256'][:12]}"


if __name__ == "__main__":
    job.run(fetch_extractor)
