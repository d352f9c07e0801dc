from pathlib import Path

from duodiff import job
from duodiff.metrics.inception import fetch_weights


def fetch_inception(weights: Path, out: Path) -> str:
    """Make sure Inception-v3's weights (2015-12-05) are at --weights, downloading them if absent."""
    receipt = fetch_weights(weights, out)
    return f"{weights}: sha256 {receipt['sha256'][:12]}"


if __name__ == "__main__":
    job.run(fetch_inception)
