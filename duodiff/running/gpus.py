"""Claims GPUs for a job on a machine with several: Snakemake counts GPUs, but gives no job its own (no torch)."""

import contextlib
import fcntl
import logging
import os
import pwd
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

    A claim is a lock on a file for each GPU in `folder`, by default /tmp, which all users of a machine share. Another
    job cannot claim these GPUs, whoever's it is. The kernel releases the locks, whatever ends the process. The claim
    sets CUDA_VISIBLE_DEVICES, so call this before CUDA is first used. Nothing is claimed where the process sees `count`
    GPUs or fewer, for example because a scheduler has chosen them. Raises OSError, which names the file, if a lock
    cannot be had.
    """
    devices = _visible()
    if len(devices) <= count:
        return
    while len(taken := _lock_free(devices, count, folder or _shared_folder())) < count:
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


def _shared_folder() -> Path:
    """The folder of the locks. It is not that of TMPDIR, where each user or job may have a folder of its own."""
    shared = Path("/tmp")
    return shared if os.access(shared, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _lock(folder: Path, name: str) -> TextIO | None:
    """Locks the file of a device and returns it, open; None if another process has the lock."""
    path = folder / f"duodiff-gpu-{name.replace('/', '-')}.lock"
    try:
        _make_for_all_users(path)
        file = open(path, encoding="utf-8")  # noqa: SIM115  it stays open
    except PermissionError as error:
        raise OSError(f"{path}: {_not_permitted(path)}") from error
    except OSError as error:
        raise OSError(f"{path}: the lock of a GPU cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        raise OSError(f"{path}: the file system has no locks: {error.strerror}") from error
    return file


def _make_for_all_users(path: Path) -> None:
    """Makes the file `path` if it is not there. All users may read it, whatever the umask, as soon as it is there.

    A lock needs only the permission to read.
    """
    if path.exists():
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.") as file:
        os.fchmod(file.fileno(), 0o644)
        with contextlib.suppress(FileExistsError):  # another job was faster
            os.link(file.name, path)


def _not_permitted(path: Path) -> str:
    """What to do about a lock file that may not be read, or about a folder that it cannot be made in."""
    if not os.path.lexists(path):
        return "the lock of a GPU cannot be made: no permission to write to this folder"
    owner = path.lstat().st_uid
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    return f"the lock of a GPU may not be read; user {name} can allow it: chmod a+r {path}"
