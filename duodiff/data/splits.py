"""Split folders, such as `train` and `test`, around classes or images: what each of them is used for."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from duodiff.data.archives import Members
from duodiff.data.source import some_of

_PARTS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
}
_ENDING = r"([-_ ]?(set|images|data)|[-_ ]?\d{4})?"  # training_set, val2017
_PATTERNS = {
    part: re.compile(f"({'|'.join(names)}){_ENDING}", re.I) for part, names in _PARTS.items()
}


class Folder(NamedTuple):
    """A first-level folder, its number of images, and `around`: the path, with a slash, that they all begin with."""

    name: str
    images: int
    around: str


class Splits(NamedTuple):
    """The folder to train on, the one to hold images out from (None: images to train on), and those not used.

    Classes are the folders below `around` of the first two.
    """

    train: Folder
    pool: Folder | None = None
    unused: tuple[Folder, ...] = ()

    def class_folder(self, name: str) -> str:
        """The class of an image of `train` or `pool` by its folder; empty if it is in none."""
        inside = self.train if self.pool is None or self.trained_on(name) else self.pool
        return _top(name[len(inside.around) :])

    def trained_on(self, name: str) -> bool:
        """Whether an image may be trained on."""
        return name.startswith(self.train.around)

    def describe(self) -> dict[str, dict]:
        """The split folders and their numbers of images, for a manifest; empty if there are none."""
        if self.pool is None:
            return {}
        parts = {"trained_on": (self.train,), "held_out_from": (self.pool,), "unused": self.unused}
        counts = {part: {f.name: f.images for f in folders} for part, folders in parts.items()}
        return {"split_folders": counts}


def find_splits(images: Members) -> Splits:
    """The split folders of `images`; without any, all images are to train on.

    They may lie in a folder that is around all images. `test` is the pool, or else `val`; a `val` beside `test` is not
    used. Raises ValueError for split folders beside other folders or images, for two of one kind, without a `train`,
    and for split folders inside classes.
    """
    whole = Folder("", len(images), _around([images[0].name, images[len(images) - 1].name]))
    folders = _first_level(images, len(whole.around))
    parts = {name: part for name in folders if (part := _part(name))}
    if not parts:
        _refuse_inside(images, len(whole.around))
        return Splits(whole)
    if others := [name or "images in no folder" for name in folders if name not in parts]:
        raise ValueError(
            f"{images.root}: found {some_of(sorted(parts))} beside {some_of(others)}; accepted: split folders"
            " alone, or class folders alone (a class that is called as a split needs another name)"
        )
    by_part = {part: folders[name] for name, part in parts.items()}
    if len(by_part) < len(parts) or "train" not in by_part:
        raise ValueError(
            f"{images.root}: found the split folders {some_of(sorted(parts))}; accepted: one train, and one"
            " test or val or one of each"
        )
    train, pool = by_part.pop("train"), by_part.pop("test", None) or by_part.pop("val")
    below = [f.around.removeprefix(f"{whole.around}{f.name}/") for f in (train, pool)]
    inner = _around([f"{folder}x" for folder in below])  # a folder around the classes of both
    train, pool = (f._replace(around=f"{whole.around}{f.name}/{inner}") for f in (train, pool))
    return Splits(train, pool, (*by_part.values(),))


def _part(folder: str) -> str | None:
    """The key of _PARTS that a folder's name stands for."""
    return next((part for part, names in _PATTERNS.items() if names.fullmatch(folder)), None)


def _around(names: Iterable[str]) -> str:
    """The folder, with a slash, that all `names` are in; empty if there is none."""
    folder = posixpath.commonpath(map(posixpath.dirname, names))
    return f"{folder}/" if folder else ""


def _first_level(images: Members, start: int) -> dict[str, Folder]:
    """The folders that names have from the character `start` on, by name; the empty one is of images in none."""
    counts: Counter[str] = Counter()
    ends: dict[
        str, list[str]
    ] = {}  # the names are sorted: the first and the last one show what is around all
    for name in images.names():
        top = _top(name[start:])
        counts[top] += 1
        ends.setdefault(top, [name, name])[1] = name
    return {top: Folder(top, counts[top], _around(ends[top])) for top in counts}


def _top(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def _refuse_inside(images: Members, start: int) -> None:
    """Raises ValueError if a class has a folder to train on and one of another split."""
    inside: dict[str, set[str]] = {}
    for name in images.names():
        top, *below = name[start:].split("/")
        if len(below) > 1 and (part := _part(below[0])):
            inside.setdefault(top, set()).add(part)
            if "train" in inside[top] and len(inside[top]) > 1:
                raise ValueError(
                    f"{images.root}: found split folders inside {top}, such as {top}/{below[0]};"
                    f" accepted: split folders around the classes, such as {below[0]}/{top}"
                )
