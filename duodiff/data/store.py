"""The packed image store: uint8 images and labels as `.npy` memmaps beside a JSON manifest.

Datasets and generated samples are kept in the same form. A store is a folder with `images.npy`
(uint8 [N, C, H, W]), `labels.npy` (int64 [N], -1 where there is no class) and `manifest.json`
(count, shape, sha256 of both arrays, and whatever the writer adds). A store is named by the path of its
manifest, which is written last and pins the rest by content.
"""

from pathlib import Path

import numpy as np

from duodiff.files import atomic, read_json, sha256, write_json


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
    folder = Path(path).parent
    for name, array in (("images", images), ("labels", labels.astype(np.int64))):
        with atomic(folder / f"{name}.npy") as file:
            np.save(file, array)
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
