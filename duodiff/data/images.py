"""Any folder, zip or tar of images. Its first-level folders are the classes, if every image is in one of them."""

import logging
import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from duodiff.data.archives import Members, open_members
from duodiff.data.decode import EXTENSIONS, UNSUPPORTED, Transform
from duodiff.data.source import Skipped, Source
from duodiff.running.download import refuse_stand_in

log = logging.getLogger("duodiff")


class Found(NamedTuple):
    """The images among some files, the files that are pictures of another format, and the number of other files."""

    images: Members
    skipped: Skipped
    ignored: int


def _path(dataset: dict, data: Path) -> Path:
    path = data / dataset["path"]
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; accepted: a folder, zip or tar of images")
    refuse_stand_in(path)
    return path


def fetch(dataset: dict, data: Path) -> dict:
    """The user's own folder or archive. Nothing is downloaded."""
    return {_path(dataset, data): None}


def read(dataset: dict, data: Path) -> Source:
    """Every image, sorted by name. `ignored` in the manifest is the number of other files."""
    images, skipped, ignored = only_images(open_members(_path(dataset, data)))
    class_names, labels = _classes(images)
    transform = transform_of(dataset, dataset["channels"])
    details = {"ignored": ignored}
    return Source(images, labels, class_names, transform, details=details, skipped=skipped)


def transform_of(dataset: dict, channels: int = 3) -> Transform:
    """The transform that the keys of `dataset` describe."""
    return Transform(dataset["crop"], dataset["size"], dataset["filter"], channels)


def only_images(members: Members) -> Found:
    """The images among `members`; the pictures that are not decoded, as `unsupported`; and the number of other files.

    An image is known by its extension. Hidden files and the folder `__MACOSX` hold none. Raises ValueError if there is
    no image.
    """
    images = members.select(_has(name, EXTENSIONS) for name in members.names())
    skipped = Skipped()
    for name in members.names():
        if _has(name, UNSUPPORTED) and not _has(name, EXTENSIONS):
            skipped.add("unsupported", name)
    if not len(images):
        found = "; ".join([f"found no image among {len(members)} files", *skipped.lines()])
        raise ValueError(f"{members.root}: {found}; accepted: {', '.join(EXTENSIONS)}")
    return Found(images, skipped, len(members) - len(images) - skipped.count)


def _has(name: str, extensions: tuple[str, ...]) -> bool:
    """Whether a file is one of those of an extension, and not hidden."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    return not hidden and name.lower().endswith(extensions)


def _classes(images: Members) -> tuple[list[str], np.ndarray]:
    """Class names and labels [N] of the images. Without classes there is no name and every label is -1."""
    # A folder around all images is no class. The names are sorted: the first and the last one show if there is such a
    # folder.
    ends = [posixpath.dirname(images[i].name) for i in (0, len(images) - 1)]
    wrapper = posixpath.commonpath(ends)
    start = len(wrapper) + 1 if wrapper else 0

    def folder(name: str) -> str:
        return name[start:].rpartition("/")[0].partition("/")[0]

    stray = next((name for name in images.names() if not folder(name)), None)
    if stray is not None:
        if any(map(folder, images.names())):
            log.warning("no classes: %s and others lie outside the class folders", stray)
        return [], unlabelled(images)
    class_names = sorted(set(map(folder, images.names())))
    return class_names, labels_of(map(folder, images.names()), class_names)


def labels_of(classes: Iterable[str], class_names: list[str]) -> np.ndarray:
    """The position in `class_names` of each of `classes`, int64 [N]."""
    ids = {name: i for i, name in enumerate(class_names)}
    return np.fromiter((ids[name] for name in classes), np.int64)


def unlabelled(images: Members) -> np.ndarray:
    """-1 for each of the images, int64 [N]."""
    return np.full(len(images), -1)
