"""Any folder, zip or tar of images; classes are its first-level folders, if all images are in one."""

import logging
import posixpath
from pathlib import Path

import numpy as np

from duodiff.data.archives import Members, open_members
from duodiff.data.decode import Transform
from duodiff.data.source import Source

log = logging.getLogger("duodiff")

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def _path(dataset: dict, data: Path) -> Path:
    path = data / dataset["path"]
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; accepted: a folder, zip or tar of images")
    return path


def fetch(dataset: dict, data: Path) -> dict:
    """The user's own folder or archive; nothing is downloaded."""
    return {_path(dataset, data): None}


def read(dataset: dict, data: Path) -> Source:
    """Every image, sorted by name; the manifest's `ignored` counts the other files."""
    images, ignored = only_images(open_members(_path(dataset, data)))
    class_names, labels = _classes(images.names)
    transform = transform_of(dataset, dataset["channels"])
    return Source(images, labels, class_names, transform, details={"ignored": ignored})


def transform_of(dataset: dict, channels: int = 3) -> Transform:
    """The transform that the dataset's keys describe."""
    return Transform(dataset["crop"], dataset["size"], dataset["filter"], channels)


def only_images(members: Members) -> tuple[Members, int]:
    """The images among `members` and the number of other files.

    Hidden files, the `__MACOSX` folder and other extensions are none. Raises ValueError if no image is
    left.
    """
    chosen = [i for i, name in enumerate(members.names) if _is_image(name)]
    if not chosen:
        raise ValueError(
            f"{members.root}: found no image among {len(members.names)} files; accepted:"
            f" {', '.join(_EXTENSIONS)}"
        )
    return members.take(np.array(chosen)), len(members.names) - len(chosen)


def _is_image(name: str) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    return not hidden and name.lower().endswith(_EXTENSIONS)


def _classes(names: list[str]) -> tuple[list[str], np.ndarray]:
    """Class names (empty: no classes) and labels int64 [N] (then -1) of sorted image names."""
    # A folder around everything is a wrapper, no class. Of sorted names the first and the last tell.
    wrapper = posixpath.commonpath([posixpath.dirname(name) for name in (names[0], names[-1])])
    start = len(wrapper) + 1 if wrapper else 0
    folders = [name[start:].rpartition("/")[0].partition("/")[0] for name in names]
    if not all(folders):
        if any(folders):
            stray = names[folders.index("")]
            log.warning("no classes: %s and others lie outside the class folders", stray)
        return [], np.full(len(names), -1)
    class_names = sorted(set(folders))
    ids = {name: i for i, name in enumerate(class_names)}
    return class_names, np.array([ids[folder] for folder in folders])
