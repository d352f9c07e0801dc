"""Finished parts of a long computation, kept until its output is written, so that an interrupted job continues."""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from duodiff.running.files import atomic

log = logging.getLogger("duodiff")


class Parts:
    """Named parts, each a set of named arrays, in a hidden folder beside `out`.

    `identity` (JSON) holds everything that decides the arrays. Its hash is in the folder's name. Parts with another
    identity but the same `out` are removed.
    """

    def __init__(self, out: Path, identity: dict):
        text = json.dumps(identity, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.folder = out.with_name(f".{out.stem}.{digest}.parts")
        for other in set(out.parent.glob(f".{out.stem}.*.parts")) - {self.folder}:
            shutil.rmtree(other)

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a part, by name. None if the part is missing or damaged; the log names a damaged part."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            return None
        try:
            # Reading compares the checksums of the zip. It is opened here: numpy leaves a damaged file open.
            with open(path, "rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (BadZipFile, ValueError, EOFError, OSError) as error:
            log.warning("%s: damaged (%s); computed again", path, error)
            return None

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes a part, atomically."""
        with atomic(self.folder / f"{name}.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes any name for allow_pickle

    def clear(self) -> None:
        """Removes all parts. Called once the output is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
