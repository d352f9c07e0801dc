from pathlib import Path

from duodiff import job, records
from duodiff.metrics.evaluation import Evaluation, spreads


def evaluate_samples(
    samples: list[Path],
    data: Path,
    classifier: Path,
    metric: str,
    experiment: str,
    protocol: str,
    device: str,
    out: Path,
) -> str:
    """Measure every sample store of an experiment against its training images; writes records to --out."""
    evaluation = Evaluation(data, classifier, metric, experiment, protocol, device)
    found = [record for path in samples for record in evaluation.of_store(path)]
    found += evaluation.of_scale() + spreads(found, metric)
    records.write(out, found)
    return f"{len(found)} records of {len(samples)} sample stores"


if __name__ == "__main__":
    job.run(evaluate_samples)
