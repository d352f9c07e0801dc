"""A GPU for each job of a machine with several: Snakemake counts them, but tells no job which (no torch)."""

import fcntl
import logging
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TextIO

log = logging.getLogger("duodiff")

_held: list[TextIO] = []  # open, and so locked, until the process ends


def claim(folder: Path | None = None) -> None:
    """Leaves this process one of the GPUs it sees, that no other process of ours has, until it ends; waits for one.

    The claim is a lock on a file in `folder`, that of temporary files, which the kernel gives back whatever ends the
    process. It sets CUDA_VISIBLE_DEVICES, so it comes before CUDA is first used. Where only one GPU is seen (a
    scheduler has chosen it, or the machine has no more) there is nothing to choose.
    """
    devices = _visible()
    if len(devices) < 2:
        return
    folder = folder or Path(tempfile.gettempdir())
    while (free := next(filter(None, (_lock(folder, name) for name in devices)), None)) is None:
        log.warning("all %d GPUs are taken; waiting for one", len(devices))
        time.sleep(5)
    name, file = free
    _held.append(file)
    os.environ["CUDA_VISIBLE_DEVICES"] = name


def _visible() -> list[str]:
    """Names of the GPUs that a process started here would see: those it is told of, or the driver's."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip()]
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    except (
        OSError,
        subprocess.CalledProcessError,
    ):  # no driver: whoever uses the device will say so
        return []


def _lock(folder: Path, name: str) -> tuple[str, TextIO] | None:
    """The device's name and its locked file; None if another process has it."""
    # of every user's: one that may not write it may read, and lock, it all the same
    path = folder / f"duodiff-gpu-{name}.lock"
    if not path.exists():
        path.touch(mode=0o666)
    file = open(path)  # noqa: SIM115  it stays open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return name, file
