"""Small file helpers: atomic writes, content hashes, room on the disk (no torch)."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UMASK = os.umask(0)  # the umask can only be read by setting it
os.umask(_UMASK)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames it to `path` when the block ends without error.

    The file is synced to the disk before it is renamed. So neither a kill nor a power cut leaves half a file at
    `path`. The file gets the permissions of any new file; safetensors would let only its owner read it. Raises OSError
    naming `path` if the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with naming_full_disk(path):
            yield temporary
            temporary.chmod(0o666 & ~_UMASK)
            _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_full_disk(path: str | Path) -> Iterator[None]:
    """Turns the error of a full disk, which names no file, into an OSError that names `path`."""
    try:
        yield
    except Exception as error:  # safetensors raises its own error
        if not _full_disk(error):
            raise
        raise OSError(f"{path}: the disk is full; free some of it and run again") from error


def _full_disk(error: Exception) -> bool:
    """Whether an error says that the disk, or the user's quota on it, is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # The message of safetensors has the error number. The message of numpy has the items requested and written.
    text = str(error)
    short = isinstance(error, OSError) and " requested and " in text and " written" in text
    return f"(os error {errno.ENOSPC})" in text or short


def _sync(path: Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def require_writable(folder: str | Path) -> None:
    """Raises OSError, which names the folder that is at fault, if no file can be written to `folder`.

    The folder need not be there yet.
    """
    there = next(path for path in (Path(folder), *Path(folder).parents) if os.path.lexists(path))
    if there.is_symlink() and not there.exists():
        raise OSError(f"{there}: found a link to {os.readlink(there)}, which is not there")
    if not there.is_dir():
        raise OSError(f"{there}: found a file; accepted: a folder to write to")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OSError(f"{there}: no permission to write to this folder")


def use_temporary_folder() -> str | None:
    """Makes TMPDIR the folder for temporary files that works, also for other programs; None if TMPDIR is no other.

    Returns a line to show if TMPDIR is missing, full or not to be written to. Raises OSError if no folder works.
    """
    try:
        works = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise OSError(f"TMPDIR: {error.strerror}") from error
    told = os.environ.get("TMPDIR", works)
    if Path(told).absolute() == Path(works):
        return None
    os.environ["TMPDIR"] = works
    return f"TMPDIR: found {told}, where nothing can be written; {works} is used"


def require_space(folder: str | Path, needed: int, what: str) -> None:
    """Raises OSError, with both sizes, if the disk of `folder` has fewer than `needed` bytes left for `what`."""
    there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    if (free := shutil.disk_usage(there).free) < needed:
        raise OSError(
            f"{folder}: {what} needs {_size(needed)}, the disk has {_size(free)} left; free some of it"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: str | Path) -> str:
    """The text in `path`. Raises ValueError naming the file if it is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise ValueError(f"{path}: found the byte {found:#x}; accepted: text in UTF-8") from error


def write_json(path: str | Path, value) -> None:
    """Writes `value` as indented JSON, atomically. Raises ValueError for NaN and infinities."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: str | Path, rows) -> None:
    """Writes a data frame or a list of dicts as CSV, atomically, floats to nine significant digits."""
    import pandas as pd

    write_text(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.9g"))


def read_json(path: str | Path):
    """The JSON value in `path`. Raises ValueError naming the file if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not text
        raise ValueError(f"{path}: damaged, it is not JSON ({error})") from error


def remove_leftovers(folder: Path) -> None:
    """Removes the half-written files of killed jobs from a folder. Only one job may write to this folder."""
    for path in folder.glob(".*.*"):
        if path.is_file() and path.name.split(".")[-2].isdecimal():  # the process id
            path.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """Hex digest of the file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
