"""The arrays of a store in the making, kept so that an interrupted packing continues."""

import hashlib
import io
import json
import math
import os
import shutil
import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from duodiff.running.files import atomic, naming_full_disk, read_json, write_json

_STATE = "state.json"


class Unfinished:
    """Images (uint8 of `shape`) and their labels, which grow in two `.npy` files of a hidden folder beside `manifest`.

    `identity` (JSON) holds everything that decides their bytes. Its hash is in the folder's name. What was kept with
    another identity for the same manifest is removed. `count` is the number of images there, `state` (JSON) what was
    kept with them; it is empty at first. As a context it closes its files and keeps them.
    """

    def __init__(self, manifest: Path, identity: list | dict, shape: tuple[int, int, int]):
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        self._target, self._shape = manifest.parent, shape
        self._folder = manifest.with_name(f".{manifest.stem}.{digest}.unfinished")
        for other in set(manifest.parent.glob(f".{manifest.stem}.*.unfinished")) - {self._folder}:
            shutil.rmtree(other)
        self._arrays = {"images.npy": ("|u1", tuple(shape)), "labels.npy": ("<i8", ())}
        self.count, self.state = self._kept()

    def _kept(self) -> tuple[int, dict]:
        """What was kept; nothing if a file is missing, damaged or too short."""
        try:
            kept = read_json(self._folder / _STATE)
            sizes = [(self._folder / name).stat().st_size for name in self._arrays]
        except (OSError, ValueError):
            return 0, {}
        whole = all(
            n >= self._end(name, kept["count"]) for name, n in zip(self._arrays, sizes, strict=True)
        )
        return (kept["count"], kept["state"]) if whole else (0, {})

    def _end(self, name: str, count: int) -> int:
        """Bytes of an array of `count` entries."""
        kind, shape = self._arrays[name]
        return len(self._header(name)) + count * np.dtype(kind).itemsize * math.prod(shape)

    def _header(self, name: str, count: int = 0) -> bytes:
        """The header of an array; numpy leaves room in it for any number of entries."""
        kind, shape = self._arrays[name]
        header = {"descr": kind, "fortran_order": False, "shape": (count, *shape)}
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue()

    @property
    def size(self) -> int:
        """Bytes of the images there."""
        return self.count * math.prod(self._shape)

    def __enter__(self) -> "Unfinished":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._images, self._labels = map(self._opened, self._arrays)
        return self

    def __exit__(self, *_) -> None:
        for file in (self._images, self._labels):
            with suppress(OSError):  # of a full disk; what was kept is there
                file.close()

    def _opened(self, name: str) -> BinaryIO:
        """A file, cut after its `count` entries."""
        path = self._folder / name
        path.touch()
        file = open(path, "r+b")  # noqa: SIM115  # closed with the context
        file.write(self._header(name))
        file.seek(self._end(name, self.count))
        file.truncate()
        return file

    def append(self, image: np.ndarray, label: int) -> None:
        """Adds an image. Raises ValueError for one of another type or shape, OSError naming the file of a full disk."""
        if image.dtype != np.uint8 or image.shape != self._shape:
            raise ValueError(
                f"image {self.count}: found {image.dtype} {image.shape}; accepted: uint8 {self._shape}"
            )
        with naming_full_disk(self._target / "images.npy"):
            self._images.write(image.tobytes())
            self._labels.write(struct.pack("<q", label))
        self.count += 1

    def keep(self, state: dict) -> None:
        """Writes what was added to the disk, with `state`: from here on a later run continues."""
        with naming_full_disk(self._target / "images.npy"):
            for name, file in zip(self._arrays, (self._images, self._labels), strict=True):
                file.seek(0)
                file.write(self._header(name, self.count))
                file.seek(self._end(name, self.count))
                file.flush()
                os.fsync(file.fileno())
            write_json(self._folder / _STATE, {"count": self.count, "state": state})

    def finish(self) -> None:
        """Moves the arrays, kept before, to where the manifest will lie."""
        for name in self._arrays:
            with atomic(self._target / name) as path:
                os.replace(self._folder / name, path)
        self.remove()

    def remove(self) -> None:
        """Removes what was kept."""
        shutil.rmtree(self._folder, ignore_errors=True)
