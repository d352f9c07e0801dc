from pathlib import Path

from duodiff import job, records
from duodiff.metrics.evaluation import Evaluation, spreads


def evaluate_samples(
    samples: list[Path],
    data: Path,
    metric: dict,
    weights: Path,
    experiment: str,
    protocol: str,
    device: str,
    out: Path,
) -> str:
    """Measure every sample store of an experiment against its training images; writes records to --out.

    --metric is that section of the configuration; --weights is the classifier's file, or Inception's.
    """
    name, reference = metric["name"], metric.get("reference")
    evaluation = Evaluation(data, weights, name, reference, experiment, protocol, device)
    found = [record for path in samples for record in evaluation.of_store(path)]
    found += evaluation.of_scale() + spreads(found, name)
    records.write(out, found)
    return f"{len(found)} records of {len(samples)} sample stores"


if __name__ == "__main__":
    job.run(evaluate_samples)
