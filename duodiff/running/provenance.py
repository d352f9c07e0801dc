"""What is said of the making of a result: the code, the commit, the device and the libraries that made it.

It stands under the key `made` in manifests and records. It decides nothing: digests of contents, comparisons of shards
and the identities of unfinished trainings leave that key out. There is no time in it. No torch is imported for work
without tensors.
"""

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from duodiff.identity import ROOT
from duodiff.running import compiling

BASE = ("duodiff", "torch", "numpy")
"""The libraries that all work is made with."""

LIBRARIES = (*BASE, "openvino", "torch-fidelity", "timm", "diffusers", "scikit-learn")
"""The libraries that can decide a number."""


def made(
    code: str,
    device: str | None = None,
    *,
    libraries: Iterable[str] = (),
    of: Mapping[str, dict] | None = None,
) -> dict[str, Any]:
    """The object `made` of a result that this process makes.

    - `code`: the digest of the code that made it (`duodiff.identity.code_digest`)
    - `commit`, and `modified` where the tree differs from it: see `commit`
    - `device`: the name of the torch device, or of the processor for work without tensors (`device` None)
    - `kernels`, for torch on a CPU: the instructions that its kernels use, see `kernels`
    - `compiled`: what compiled the losses of a training in this process (`duodiff.running.compiling`)
    - `libraries`: versions of Python, `BASE` and `libraries`
    - `of`: the objects `made` of what it was made of, by role, such as the samples that were measured
    """
    found = {
        "code": code,
        **commit(),
        "device": cpu_name() if device is None else device_name(device),
        **({"kernels": kernels()} if device == "cpu" else {}),
        **({"compiled": sorted(compiling.used)} if compiling.used else {}),
        "libraries": library_versions([*BASE, *libraries]),
    }
    return made_of(found, of or {})


def made_of(made: dict[str, Any], of: Mapping[str, dict]) -> dict[str, Any]:
    """A `made` with `of`, the objects `made` of its parts by role; parts that do not say are left out."""
    known = {role: other for role, other in of.items() if other}
    return made | ({"of": known} if known else {})


def joined(parts: Sequence[dict]) -> dict[str, Any]:
    """The object `made` of what is put together from `parts`: theirs where all have the same, else all different ones.

    Different ones are listed under `parts`, in their order.
    """
    different = [one for i, one in enumerate(parts) if one not in parts[:i]]
    return different[0] if len(different) == 1 else {"parts": different}


def makers(made: Mapping[str, Any], role: str = "") -> Iterator[tuple[str, dict]]:
    """Each object of a `made` that names a machine, after the role of what it made; `role` is that of the whole."""
    if "device" in made:
        yield role, dict(made)
    for part in made.get("parts", []):
        yield from makers(part, role)
    for name, other in made.get("of", {}).items():
        yield from makers(other, name)


def without(value: Any) -> Any:
    """A JSON value without what is said of its making, anywhere in it."""
    if isinstance(value, Mapping):
        return {key: without(item) for key, item in value.items() if key != "made"}
    return [without(item) for item in value] if isinstance(value, list) else value


@cache
def commit() -> dict[str, Any]:
    """The `commit` of the clone that holds this code, and `modified` where its tree differs; empty without a clone."""
    if not (ROOT / ".git").exists():  # git would answer for a clone around an installed package
        return {}
    found = _git("rev-parse", "HEAD")
    if found is None:
        return {}
    return {"commit": found} | ({"modified": True} if _git("status", "--porcelain") else {})


def _git(*arguments: str) -> str | None:
    # without the optional lock, several jobs may ask at once, and a person may commit meanwhile
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, encoding="utf-8"
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Versions of those of the libraries that are installed, and Python's."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor's model name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def kernels() -> str:
    """The instructions that torch's kernels use on this CPU, and the environment's limits for oneDNN and MKL.

    The last bits of a result depend on them, and through a training its numbers do.
    """
    import torch

    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if name in os.environ]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *limits])


_LIMITS = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")


def device_name(device: str) -> str:
    """The name of the GPU behind a torch device, or of the processor with torch's number of threads."""
    import torch

    if device != "cpu":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {threads} thread{'s' * (threads > 1)}"
