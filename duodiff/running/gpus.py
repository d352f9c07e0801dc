"""Claims GPUs for a job on a machine with several: Snakemake counts GPUs, but gives no job its own (no torch)."""

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
    """Claims `count` of the GPUs that this process sees, until it ends. Waits until so many are free.

    A claim is a lock on a file for each GPU in `folder`, by default the folder of temporary files. Another job cannot
    claim these GPUs. The kernel releases the locks, whatever ends the process. The claim sets CUDA_VISIBLE_DEVICES, so
    call this before CUDA is first used. Nothing is claimed where the process sees `count` GPUs or fewer, for example
    because a scheduler has chosen them.
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
    """Names of the GPUs that this process sees: from CUDA_VISIBLE_DEVICES, or all from nvidia-smi."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip()]
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, encoding="utf-8"
        ).stdout.split()
    except (
        OSError,
        subprocess.CalledProcessError,
    ):  # no driver: the job that uses the device reports it
        return []


def _lock_free(devices: list[str], count: int, folder: Path) -> dict[str, TextIO]:
    """Locks up to `count` of the devices that no other process has locked. Returns their files, by device."""
    tried = ((name, _lock(folder, name)) for name in devices)
    return dict(islice(((name, file) for name, file in tried if file), count))


def _lock(folder: Path, name: str) -> TextIO | None:
    """Locks the file of a device and returns it, open; None if another process has the lock."""
    # All users share this file. A lock needs only the permission to read it.
    path = folder / f"duodiff-gpu-{name}.lock"
    if not path.exists():
        path.touch(mode=0o666)
    file = open(path, encoding="utf-8")  # noqa: SIM115  it stays open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
