from pathlib import Path

from duodiff import job, records
from duodiff.metrics.evaluation import evaluate


def evaluate_samples(
    samples: list[Path],
    data: Path,
    classifier: Path,
    metric: str,
    experiment: str,
    protocol: str,
    out: Path,
) -> str:
    """Measure every sample store of an experiment against its training images; writes records to --out."""
    found = evaluate(samples, data, classifier, metric, experiment, protocol)
    records.write(out, found)
    return f"{len(found)} records of {len(samples)} sample stores"


if __name__ == "__main__":
    job.run(evaluate_samples)
