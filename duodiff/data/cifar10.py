"""CIFAR-10: the official archive of pickled batches, read into memory. Its test images are the held-out ones."""

import gzip
import io
import pickle
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from duodiff.data.archives import MEMBER_LIMIT, tar_members
from duodiff.data.source import Source
from duodiff.running.download import fetch as download
from duodiff.running.download import require

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
_BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]

# All that a pickled array may call. numpy 1 and numpy 2 name the reconstructor differently. Both names stand for the
# reconstructor of the numpy installed.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _ALLOWED:
            raise ValueError(f"its pickle calls {module}.{name}; refused")
        return _ALLOWED[module, name]


def _archive(dataset: dict, data: Path) -> Path:
    return data / dataset["path"] / "cifar-10-python.tar.gz"


def fetch(dataset: dict, data: Path) -> dict:
    """The archive, downloaded if absent, and its verified sha256."""
    download(URL, _archive(dataset, data), SHA256)
    return {_archive(dataset, data): SHA256}


def read(dataset: dict, data: Path) -> Source:
    """Images uint8 [60000, 3, 32, 32] of ten classes (200 MB in memory); the last 10,000 are test images.

    A pickle may make arrays and call nothing else. Raises ValueError, naming the archive and the batch, for any other
    content.
    """
    path = require(_archive(dataset, data), URL)
    batches = {}
    try:
        with gzip.open(path) as file:
            for archive, member in tar_members(path, cast(IO[bytes], file)):
                name = Path(member.name).name
                if name in _BATCHES:
                    content = archive.extractfile(member)
                    assert content is not None  # a plain file has content
                    batches[name] = _batch(path, name, content.read(MEMBER_LIMIT))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged or cut short ({error})") from error
    missing = [name for name in _BATCHES if name not in batches]
    if missing:
        raise ValueError(f"{path}: {', '.join(missing)} missing")
    images = np.concatenate([batches[name][0] for name in _BATCHES])
    labels = np.concatenate([batches[name][1] for name in _BATCHES])
    test = np.arange(len(labels)) >= len(labels) - len(batches["test_batch"][1])
    return Source(images, labels, CLASSES, test=test)


def _batch(path: Path, name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3, 32, 32] and labels int64 [n] of one pickled batch."""
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        images, labels = batch[b"data"], np.array(batch[b"labels"], np.int64)
        right = images.dtype == np.uint8 and images.shape == (len(labels), 3 * 32 * 32)
        right = right and labels.ndim == 1 and ((labels >= 0) & (labels < len(CLASSES))).all()
    except Exception as error:  # a damaged pickle may raise any kind
        raise ValueError(f"{path}: {name}: {error}") from error
    if not right:
        raise ValueError(f"{path}: {name}: accepted: uint8 data [n, 3072] and n labels from 0 to 9")
    return images.reshape(-1, 3, 32, 32), labels
