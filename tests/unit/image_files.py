"""Small images, in folders and archives, and the datasets of them that tests pack."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from duodiff.data.pack import pack
from duodiff.data.store import ImageStore

RNG = np.random.default_rng(0)
SIZE = 5

IMAGES = {
    "source": "images",
    "path": "images",
    "crop": "square",
    "size": SIZE,
    "filter": "box",
    "channels": 3,
    "held_out": 1,
}
CELEBA = {
    "source": "celeba",
    "path": "celeba",
    "split": "all",
    "crop": "celeba_128",
    "size": 128,
    "filter": "box",
    "held_out": 1,
}
IMAGENET = IMAGES | {"source": "imagenet", "path": "imagenet", "class_order": "synset"}
CIFAR10 = {"source": "cifar10", "path": "cifar10", "held_out": 2}
STAND_INS = {
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "an HTML page": b"\n<!DOCTYPE html><p>Log in",
}
"""What is found in place of a large file: where a download has gone wrong."""


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(size: int = SIZE, mode: str = "RGB") -> Image.Image:
    shape = (size, size, len(mode)) if len(mode) > 1 else (size, size)
    return Image.fromarray(RNG.integers(0, 256, shape).astype(np.uint8), mode)


def png(size: int = SIZE) -> bytes:
    return encoded(noise(size))


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def packed(dataset: dict, data: Path, workers: int = 1) -> ImageStore:
    manifest = data / f"store{workers}/manifest.json"
    pack(dataset, data, workers, manifest)
    return ImageStore(manifest)


def celeba(data: Path, images: dict[str, bytes], partition: str | None = None) -> None:
    files = {f"img_align_celeba/{name}": content for name, content in images.items()}
    write_zip(data / "celeba/img_align_celeba.zip", files)
    if partition is not None:
        (data / "celeba/list_eval_partition.txt").write_text(partition, encoding="utf-8")
