"""Any folder, zip or tar of images. Its first-level folders are the classes, if every image is in one of them."""

import logging
import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from duodiff.clutter import clutter
from duodiff.data.archives import Member, Members, open_members
from duodiff.data.decode import EXTENSIONS, UNSUPPORTED, Transform
from duodiff.data.source import Skipped, Source, some_of
from duodiff.data.splits import Splits, find_splits
from duodiff.running.download import refuse_stand_in

log = logging.getLogger("duodiff")


class Found(NamedTuple):
    """The images among some files, the pictures that cannot be read, and the numbers of other files by name."""

    images: Members
    skipped: Skipped
    ignored: Counter

    def details(self) -> dict:
        """The numbers of other files, for a manifest."""
        by_name = {"ignored_by_name": dict(sorted(self.ignored.items()))} if self.ignored else {}
        return {"ignored": self.ignored.total()} | by_name


def _path(dataset: dict, data: Path) -> Path:
    path = data / dataset["path"]
    if not path.exists():
        found = (
            f"links to {path.readlink()}, which is missing" if path.is_symlink() else "is missing"
        )
        raise FileNotFoundError(f"{path} {found}; accepted: a folder, zip or tar of images")
    refuse_stand_in(path)
    return path


def fetch(dataset: dict, data: Path) -> dict:
    """The user's own folder or archive. Nothing is downloaded."""
    return {_path(dataset, data): None}


def read(dataset: dict, data: Path) -> Source:
    """Every image, sorted by name. Images of a split folder for testing are `test`.

    The manifest has the number of other files, `ignored`, and how `split_folders` are used.
    """
    found = only_images(open_members(_path(dataset, data)))
    splits = find_splits(found.images)
    images, test, unused = found.images, None, None
    if splits.pool is not None:
        used = (splits.train.around, splits.pool.around)
        images = images.select(name.startswith(used) for name in images.names())
        test = ~np.fromiter(map(splits.trained_on, images.names()), bool)
        unused = len(found.images) - len(images)
    class_names, labels = _classes(images, splits)
    return Source(
        images,
        labels,
        class_names,
        transform_of(dataset, dataset["channels"]),
        test=test,
        details=found.details() | splits.describe(),
        skipped=found.skipped,
        unused=unused,
    )


def transform_of(dataset: dict, channels: int = 3) -> Transform:
    """The transform that the keys of `dataset` describe."""
    return Transform(dataset["crop"], dataset["size"], dataset["filter"], channels)


def only_images(members: Members) -> Found:
    """The images among `members`; the pictures that cannot be read; and the numbers of other files by name.

    An image is known by its extension. What cannot be read is a broken link or a picture that is not decoded
    (`unsupported`). Ignored are what a system leaves in a folder (`duodiff.clutter`), and files of other extensions.
    Raises ValueError if there is no image.
    """
    skipped, without = Skipped(), set()
    ignored: Counter[str] = Counter()
    for member in members:
        fate, reason = _fate(member)
        if fate == "skipped":
            skipped.add(reason, member.name)
            without.add(posixpath.dirname(member.name))
        elif fate == "ignored":
            ignored[reason] += 1
    images = members.select(_fate(member)[0] == "image" for member in members)
    if not len(images):
        others = [f"{count} ignored as {name}" for name, count in sorted(ignored.items())]
        found = [f"found no image among {len(members)} files", *skipped.lines(), *others]
        raise ValueError(f"{members.root}: {'; '.join(found)}; accepted: {', '.join(EXTENSIONS)}")
    if without:
        without -= set(map(posixpath.dirname, images.names()))
    if without:
        log.warning("no image that can be read in %s", some_of(sorted(without)))
    return Found(images, skipped, ignored)


def _fate(member: Member) -> tuple[str, str]:
    """`image`; or `skipped` and the reason; or `ignored` and the name to count it by."""
    name = member.name.lower()
    if known := clutter(member.name):
        return "ignored", known
    if member.problem:
        return "skipped", member.problem
    if name.endswith(EXTENSIONS):
        return "image", ""
    if name.endswith(UNSUPPORTED):
        return "skipped", "unsupported"
    extension = re.search(r"\.[a-z][a-z0-9]{0,7}$", name)
    return "ignored", f"*{extension.group()}" if extension else "no extension"


def _classes(images: Members, splits: Splits) -> tuple[list[str], np.ndarray]:
    """Class names and labels [N] of the images. Without classes there is no name and every label is -1.

    Raises ValueError for a class that is not among those to train on.
    """
    folder = splits.class_folder
    stray = next((name for name in images.names() if not folder(name)), None)
    if stray is not None:
        if any(map(folder, images.names())):
            log.warning("no classes: %s and others lie outside the class folders", stray)
        return [], unlabelled(images)
    trained = set(map(folder, filter(splits.trained_on, images.names())))
    untrained = next((name for name in images.names() if folder(name) not in trained), None)
    if untrained is not None:
        raise ValueError(
            f"{images.root}: found {untrained}, and no class {folder(untrained)} in"
            f" {splits.train.around}; accepted: the classes there"
        )
    class_names = sorted(trained)
    return class_names, labels_of(map(folder, images.names()), class_names)


def labels_of(classes: Iterable[str], class_names: list[str]) -> np.ndarray:
    """The position in `class_names` of each of `classes`, int64 [N]."""
    ids = {name: i for i, name in enumerate(class_names)}
    return np.fromiter((ids[name] for name in classes), np.int64)


def unlabelled(images: Members) -> np.ndarray:
    """-1 for each of the images, int64 [N]."""
    return np.full(len(images), -1)
