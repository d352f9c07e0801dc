"""The dataset families, one module each, and the check that a dataset's files are in place.

A family's module has two functions, `read(dataset, data) -> Source` and `fetch(dataset, data) -> {path: verified sha256
or None}`. `dataset` is an entry of the configuration's `datasets`, `data` the folder that its `path` is under.
`duodiff.study.families` has the facts of each family that the rules of the configuration need.
"""

from pathlib import Path
from types import ModuleType

from duodiff.data import celeba, cifar10, digits, imagenet, images
from duodiff.running.files import read_json
from duodiff.study.families import FAMILIES, Contents, Split

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
    and the page to find it at. The user's own images are counted too (`contents`).
    """
    files = []
    for path, sha256 in family(dataset).fetch(dataset, data).items():
        size = None if path.is_dir() else path.stat().st_size
        files.append({"name": path.name, "bytes": size} | ({"sha256": sha256} if sha256 else {}))
    receipt = {"source": dataset["source"], "files": files}
    if not FAMILIES[dataset["source"]].counted:
        return receipt
    found = contents(dataset, data)
    counted = {"path": dataset["path"], "images": found.split.images, "test": found.split.test}
    return receipt | {"counted": counted | {"classes": found.classes}}


def contents(dataset: dict, data: Path) -> Contents:
    """The images of a dataset and the number of its classes, by the names of its files: nothing is decoded.

    Raises as the family's `read` does.
    """
    source = family(dataset).read(dataset, data)
    test = None if source.test is None else int(source.test.sum())
    split = Split(len(source.labels) - (test or 0), test)
    return Contents(split, len(source.class_names) or -1)


def fetched_contents(dataset: dict, receipt: Path) -> Contents | None:
    """As `contents`, from the receipt of `fetch_dataset`; None if it has none, or those of another path."""
    try:
        counted = read_json(receipt)["counted"]
        if counted["path"] != dataset["path"]:
            return None
        return Contents(Split(counted["images"], counted["test"]), counted["classes"])
    except (OSError, ValueError, KeyError, TypeError):  # missing, damaged, or of an earlier version
        return None
