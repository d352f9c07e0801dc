"""Small file helpers: atomic writes and content hashes (no torch)."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UMASK = os.umask(0)  # which can only be read by setting it
os.umask(_UMASK)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it when the block ends without error.

    The file gets the permissions of any new one: safetensors would keep it to its owner.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_json(path: str | Path, value) -> None:
    """Writes `value` as indented JSON, atomically; NaN and infinities are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: str | Path, rows) -> None:
    """Writes a data frame or a list of dicts as CSV, atomically, floats to nine significant digits."""
    import pandas as pd

    write_text(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.9g"))


def read_json(path: str | Path):
    """The JSON value in `path`."""
    return json.loads(Path(path).read_text())


def sha256(path: str | Path) -> str:
    """Hex digest of the file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
