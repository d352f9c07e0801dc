from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff import records
    from duodiff.metrics.evaluation import Evaluation
    from duodiff.metrics.features import Extractor
    from duodiff.metrics.reference import load_reference
    from duodiff.running.files import read_json, write_csv


def evaluate_samples(
    samples: list[Path],
    data: Path,
    metric: str,
    weights: Path,
    reference: Path,
    experiment: str,
    protocol: str,
    train_seed: int,
    images: int,
    device: str,
    out: Path,
    curves: Path,
    full: Path,
    shallow: Path,
    heads: Path | None = None,
    others: dict | None = None,
) -> str:
    """Measure every sample store of a study against the study's reference. Writes records to --out.

    --metric is fid, or fd_ and the name of a feature space. --weights are the weights of the feature space.
    --reference is the receipt of compute_reference. Every store must hold --images images made by the checkpoints
    --full, --shallow, --heads and --others, the JSON of further backbones' manifests by name. The distance against the
    number of images is written to --curves.
    """
    roles = {"full": full, "shallow": shallow, "heads": heads} | (others or {})
    checkpoints = {r: read_json(path)["weights_sha256"] for r, path in roles.items() if path}
    extract = Extractor(metric, weights, device)
    study = {"experiment": experiment, "protocol": protocol, "train_seed": train_seed}
    evaluation = Evaluation(
        data,
        extract,
        load_reference(reference, extract.name),
        study=study,
        images=images,
        checkpoints=checkpoints,
    )
    measured, rows = evaluation.of_study(samples)
    measured += evaluation.of_scale()
    write_csv(curves, rows)
    records.write(out, measured)
    distances = [r.value for r in measured if r.metric == metric and r.sampler]
    span = f", {metric} {min(distances):.2f} to {max(distances):.2f}" if distances else ""
    return f"{len(samples)} sample stores of {images} images{span}"


if __name__ == "__main__":
    job.run(evaluate_samples)
