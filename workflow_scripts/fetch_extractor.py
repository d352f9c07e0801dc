from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.metrics.weights import fetch_weights


def fetch_extractor(name: str, weights: Path, out: Path) -> str:
    """Make sure the published weights --name (inception, dinov2) are at --weights, downloading them if absent."""
    receipt = fetch_weights(name, weights, out)
    return f"{weights}: sha256 {receipt['sha256'][:12]}"


if __name__ == "__main__":
    job.run(fetch_extractor)
