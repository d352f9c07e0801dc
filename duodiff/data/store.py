"""The packed image store: uint8 images and labels as `.npy` memmaps beside a JSON manifest.

Datasets and generated samples are kept in the same form. A store is a folder with `images.npy`
(uint8 [N, C, H, W]), `labels.npy` (int64 [N], -1 where there is no class) and `manifest.json`
(count, shape, sha256 of both arrays, and whatever the writer adds). A store is named by the path of its
manifest, which is written last and pins the rest by content.
"""

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from duodiff.running.files import atomic, read_json, sha256, write_json


class ImageStore:
    """Read access without loading: `images` and `labels` are memmaps, `manifest` a dict."""

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

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of one split, as the manifest delimits it ([first, past the last])."""
        first, end = self.manifest["splits"][name]
        return self.images[first:end], self.labels[first:end]


class LatentStore:
    """The latents of a store's images, as the moments they are drawn from anew in each training step.

    In place of images, `moments.npy` (float16 [N, F, 2C, h, w]: mean, then log-variance; F = 2 if the
    moments of the mirrored images follow those of the images, since mirroring does not commute with the
    encoder, else F = 1). float16 halves the size; it rounds a mean by at most 2^-11 of it, an eighth of
    what the bfloat16 that networks are trained in does.
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
        """What samples of the moments are multiplied by."""
        return self.manifest["scale"]

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Moments and labels of one split, as the manifest delimits it ([first, past the last])."""
        first, end = self.manifest["splits"][name]
        return self.moments[first:end], self.labels[first:end]


def write_store(
    path: str | Path, images: np.ndarray, labels: np.ndarray, description: dict
) -> dict:
    """Manifest of a new store, written to `path` after the arrays beside it; `description` is added to it.

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
    """Yields temporary paths of the two arrays in `folder`; they replace the files there as `atomic` does."""
    # The images inside: they are what fills a disk, and then named.
    with atomic(folder / "labels.npy") as labels, atomic(folder / "images.npy") as images:
        yield images, labels


def write_arrays(
    images: Path,
    labels: Path,
    shape: tuple[int, int, int],
    labelled: Iterable[tuple[np.ndarray, int]],
) -> None:
    """Writes pairs of an image (uint8 of `shape`) and its label to two `.npy` files, one at a time.

    The bytes are those of `np.save`, though their number need not be known: numpy's header leaves room
    for any. Raises ValueError for an image of another type or shape.
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
    """Manifest of the store whose two arrays are there already, written to `path`."""
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
    """uint8 images as float32 in [-1, 1], the range every network sees."""
    return images.astype(np.float32) / 127.5 - 1
