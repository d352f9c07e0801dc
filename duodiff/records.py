"""Measurement records: one JSON object for each measured number, with its circumstances (no torch)."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from duodiff.running.files import write_json


@dataclass
class Record:
    """One measurement; a field is None where it does not apply.

    `n` is the number of items measured, `unit` the unit of `value`. `interval` is [low, high], and `interval_covers`
    says which variation the interval covers. `parameters` holds t_s, or theta and the quantile that gave theta, or the
    name and intervals of a schedule (`settings.NamedSchedule`). `steps` are the sampler's own, and `nfe` is the number
    of network calls for an image. `seeds` holds the training seed and the sampling seed. `resampled`
    holds the bootstrap values behind `interval`. It is kept where several records used the same resamples: a quantity
    computed from these records then has an interval too. `rounds` is the number of undisturbed rounds that a time rests
    on (`duodiff.metrics.rounds`). They are too few where it is `disturbed`: such a time decides no claim. `made` says
    what measured it (`duodiff.running.provenance`), and under `of` what made its samples or its networks.
    """

    metric: str
    value: float
    unit: str
    n: int
    experiment: str
    protocol: str
    method: str
    parameters: dict = field(default_factory=dict)
    sampler: str | None = None
    steps: int | None = None
    nfe: int | None = None
    seeds: dict = field(default_factory=dict)
    interval: list | None = None
    interval_covers: str | None = None
    dtype: str = "float32"
    compiled: bool = False
    compute_batch: int | None = None
    made: dict = field(default_factory=dict)
    checkpoint_sha256: dict = field(default_factory=dict)
    reference_sha256: dict = field(default_factory=dict)
    reference_n: int | None = None
    extractor: str | None = None
    resampled: list | None = None
    rounds: int | None = None
    disturbed: bool | None = None


def of_samples(manifest: dict) -> dict:
    """The fields of a record that describe its samples, from the samples' manifest."""
    return {
        "method": manifest["method"],
        "parameters": manifest["parameters"],
        "sampler": manifest["sampler"]["name"],
        "steps": manifest["sampler"]["steps"],
        "nfe": manifest["nfe"],
        "seeds": {"train_seed": manifest["train_seed"], "sample_seed": manifest["seed"]},
        "dtype": manifest["dtype"],
        "compiled": manifest["compiled"],
        "compute_batch": manifest["compute_batch"],
        "checkpoint_sha256": manifest["checkpoint_sha256"],
    }


def write(path: str | Path, records: Iterable[Record]) -> None:
    """Writes the records as one JSON list. Raises ValueError for a value that is not finite."""
    write_json(path, [asdict(record) for record in records])
