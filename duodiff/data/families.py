"""The dataset families, one module each, and the check that a dataset's files are in place.

A family's module has two functions, `read(dataset, data) -> Source` and `fetch(dataset, data) -> {path: verified sha256
or None}`. `dataset` is an entry of the configuration's `datasets`, `data` the folder that its `path` is under.
`duodiff.study.families` has the facts of each family that the rules of the configuration need.
"""

from pathlib import Path
from types import ModuleType

from duodiff.data import celeba, cifar10, digits, imagenet, images

_FAMILIES = {
    "digits": digits,
    "cifar10": cifar10,
    "celeba": celeba,
    "imagenet": imagenet,
    "images": images,
}


def family(dataset: dict) -> ModuleType:
    """The module of the dataset's `source`. Raises ValueError for an unknown source."""
    name = dataset["source"]
    if name not in _FAMILIES:
        raise ValueError(f"dataset.source: {name!r} is unknown; accepted: {', '.join(_FAMILIES)}")
    return _FAMILIES[name]


def fetch_dataset(dataset: dict, data: Path) -> dict:
    """Receipt of the dataset's files: name, bytes (None for a folder), and sha256 where it was verified.

    A missing file that has a public address is downloaded; a failed download raises as
    `duodiff.running.download.fetch` does. Raises FileNotFoundError for another missing file, naming the file, its place
    and the page to find it at.
    """
    files = []
    for path, sha256 in family(dataset).fetch(dataset, data).items():
        size = None if path.is_dir() else path.stat().st_size
        files.append({"name": path.name, "bytes": size} | ({"sha256": sha256} if sha256 else {}))
    return {"source": dataset["source"], "files": files}
