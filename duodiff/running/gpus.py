"""A GPU for each job of a machine with several: Snakemake counts them, but tells no job which (no torch)."""

import fcntl
import logging
import os
import subprocess
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TextIO

log = logging.getLogger("duodiff")

_held: list[TextIO] = []  # open, and so locked, until the process ends


def claim(count: int, folder: Path | None = None) -> None:
    """Leaves this process `count` of the GPUs it sees, which no other job has, until it ends; waits for them.

    The claim is a lock on a file in `folder`, that of temporary files, which the kernel gives back whatever ends the
    process. It sets CUDA_VISIBLE_DEVICES, so it comes before CUDA is first used. Where no more GPUs are seen (a
    scheduler has chosen them, or the machine has no more) there is nothing to choose.
    """
    devices = _visible()
    if len(devices) <= count:
        return
    while len(taken := _lock_free(devices, count, folder or Path(tempfile.gettempdir()))) < count:
        for file in taken.values():
            file.close()
        log.warning("of %d GPUs only %d are free; waiting for %d", len(devices), len(taken), count)
        time.sleep(5)
    _held.extend(taken.values())
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)


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


def _lock_free(devices: list[str], count: int, folder: Path) -> dict[str, TextIO]:
    """Up to `count` of the devices that no other process has, each with its locked file."""
    tried = ((name, _lock(folder, name)) for name in devices)
    return dict(islice(((name, file) for name, file in tried if file), count))


def _lock(folder: Path, name: str) -> TextIO | None:
    """The locked file of a device; None if another process has it."""
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
    return file
