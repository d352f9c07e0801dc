"""Measurement records: one JSON object for each measured number, with its circumstances (no torch)."""

import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from duodiff.running.files import write_json

_LIBRARIES = ("duodiff", "torch", "numpy", "torch-fidelity", "timm", "scikit-learn")


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that decide a number, and Python's."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor's model name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def device_name(device: str) -> str:
    """The name of the GPU behind a torch device, or of the processor with torch's number of threads."""
    import torch

    if device != "cpu":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {threads} thread{'s' * (threads > 1)}"


@dataclass
class Record:
    """One measurement; a field is None where it does not apply.

    `n` is the number of items measured, `unit` the unit of `value`. `interval` is [low, high], and `interval_covers`
    says which variation the interval covers. `parameters` holds t_s, or theta and the quantile that gave theta. `nfe`
    is the number of network calls for an image. `seeds` holds the training seed and the sampling seed. `resampled`
    holds the bootstrap values behind `interval`. It is kept where several records used the same resamples: a quantity
    computed from these records then has an interval too.
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
    device: str | None = None
    libraries: dict = field(default_factory=library_versions)
    checkpoint_sha256: dict = field(default_factory=dict)
    reference_sha256: dict = field(default_factory=dict)
    reference_n: int | None = None
    extractor: str | None = None
    resampled: list | None = None


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
