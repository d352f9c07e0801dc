"""The packed store of images: `images.npy` and `labels.npy` beside a JSON manifest, read as memmaps.

Datasets and generated samples are kept alike. `images.npy` is uint8 [N, C, H, W], `labels.npy` int64 [N] with -1 for an
image without a class. `manifest.json` has the count, the shape, the sha256 of both arrays, and what the writer adds. It
is written last. A store is named by the path of its manifest.
"""

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from duodiff.running.files import atomic, read_json, sha256, write_json


class ImageStore:
    """A store, open for reading: `images` and `labels` are memmaps, `manifest` is a dict."""

    def __init__(self, manifest: str | Path):
        self.folder = Path(manifest).parent
        self.manifest = read_json(manifest)
        self.images = np.load(self.folder / "images.npy", mmap_mode="r")
        self.labels = np.load(self.folder / "labels.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        return self.images.shape[1:]

    @property
    def num_classes(self) -> int:
        """Number of classes, -1 for an unlabelled store."""
        return self.manifest["num_classes"]

    @property
    def training_data(self) -> dict:
        """What decides the training images and their labels: the hashes of both arrays, and the limits of the split."""
        hashes = {key: self.manifest[key] for key in ("images_sha256", "labels_sha256")}
        return hashes | {"train": self.manifest["splits"]["train"]}

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of one split, as the manifest delimits it ([first, past the last])."""
        first, end = self.manifest["splits"][name]
        return self.images[first:end], self.labels[first:end]


class LatentStore:
    """The latents of a store's images, kept as moments. Each training step draws latents from them anew.

    `moments.npy` stands in place of the images: float16 [N, F, 2C, h, w], the mean, then the log-variance. F is 1, or 2
    if each image's moments are followed by the moments of the mirrored image. These are stored because the latents of a
    mirrored image are not mirrored latents. float16 halves the size and rounds a mean by at most 2^-11 of its value.
    bfloat16, which networks are trained in, rounds eight times as coarsely.
    """

    def __init__(self, manifest: str | Path):
        self.folder = Path(manifest).parent
        self.manifest = read_json(manifest)
        self.moments = np.load(self.folder / "moments.npy", mmap_mode="r")
        self.labels = np.load(self.folder / "labels.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, h, w of a latent."""
        return tuple(self.manifest["shape"])

    @property
    def num_classes(self) -> int:
        """Number of classes, -1 for an unlabelled store."""
        return self.manifest["num_classes"]

    @property
    def scale(self) -> float:
        """The factor that samples of the moments are multiplied by."""
        return self.manifest["scale"]

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Moments and labels of one split, as the manifest delimits it ([first, past the last])."""
        first, end = self.manifest["splits"][name]
        return self.moments[first:end], self.labels[first:end]


def write_store(
    path: str | Path, images: np.ndarray, labels: np.ndarray, description: dict
) -> dict:
    """Manifest of a new store, with `description` added. It is written to `path` after the arrays beside it.

    Raises ValueError unless images are uint8 [N, C, H, W] and labels [N].
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"images: found {images.dtype} {images.shape}; accepted: uint8 [N, C, H, W]"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels: found shape {labels.shape} for {len(images)} images")
    with new_arrays(Path(path).parent) as files:
        write_arrays(*files, images.shape[1:], zip(images, labels.astype(np.int64), strict=True))
    return finish_store(path, description)


@contextmanager
def new_arrays(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yields temporary paths of images and labels in `folder`. They replace the files there, as `atomic` does."""
    # Images are what fills a disk. Their `atomic` is the inner one: the error of a full disk names them.
    with atomic(folder / "labels.npy") as labels, atomic(folder / "images.npy") as images:
        yield images, labels


def write_arrays(
    images: Path,
    labels: Path,
    shape: tuple[int, int, int],
    labelled: Iterable[tuple[np.ndarray, int]],
) -> None:
    """Writes pairs of an image (uint8 of `shape`) and its label to two `.npy` files, one pair at a time.

    The bytes are those of `np.save`. The number of pairs need not be known: numpy's header leaves room for any number.
    Raises ValueError for an image of another type or shape.
    """
    count = 0
    with open(images, "wb") as pixels, open(labels, "wb") as numbers:
        _write_header(pixels, "|u1", 0, *shape)
        _write_header(numbers, "<i8", 0)
        for image, label in labelled:
            if image.dtype != np.uint8 or image.shape != shape:
                raise ValueError(
                    f"image {count}: found {image.dtype} {image.shape}; accepted: uint8 {shape}"
                )
            pixels.write(image.tobytes())
            numbers.write(struct.pack("<q", label))
            count += 1
        _write_header(pixels, "|u1", count, *shape)
        _write_header(numbers, "<i8", count)


def _write_header(file: BinaryIO, kind: str, *shape: int) -> None:
    file.seek(0)
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def finish_store(path: str | Path, description: dict) -> dict:
    """Manifest of a store whose two arrays are already there. It is written to `path`."""
    folder = Path(path).parent
    images = np.load(folder / "images.npy", mmap_mode="r")
    manifest = {
        "count": len(images),
        "shape": list(images.shape[1:]),
        "images_sha256": sha256(folder / "images.npy"),
        "labels_sha256": sha256(folder / "labels.npy"),
        **description,
    }
    write_json(path, manifest)
    return manifest


def to_unit_range(images: np.ndarray) -> np.ndarray:
    """uint8 images as float32 in [-1, 1], the range that every network is fed."""
    return images.astype(np.float32) / 127.5 - 1
