"""ImageNet (ILSVRC2012): its training images, from the official tar of tars or from a folder of synset folders."""

import re
from pathlib import Path

from duodiff.data.archives import open_members, open_nested_tar
from duodiff.data.images import labels_of, only_images, transform_of
from duodiff.data.source import Source
from duodiff.running.download import require
from duodiff.running.files import read_text

PAGE = "https://image-net.org/download-images"
MAPPING_PAGE = "https://www.kaggle.com/c/imagenet-object-localization-challenge/data"


def _images_path(folder: Path) -> Path:
    if (folder / "train").is_dir():
        return folder / "train"
    return require(
        folder / "ILSVRC2012_img_train.tar", f"{PAGE} (or the folder {folder / 'train'})"
    )


def _mapping_path(dataset: dict, folder: Path) -> Path | None:
    path = folder / "LOC_synset_mapping.txt"
    if dataset["class_order"] == "alphabetical":
        return require(path, MAPPING_PAGE)
    return path if path.exists() else None


def fetch(dataset: dict, data: Path) -> dict:
    """The images, and the synset mapping if it is there. Raises FileNotFoundError if a needed file is missing."""
    folder = data / dataset["path"]
    mapping = _mapping_path(dataset, folder)
    return dict.fromkeys([_images_path(folder), *([mapping] if mapping else [])])


def read(dataset: dict, data: Path) -> Source:
    """The images, labelled in the order that `class_order` names.

    `synset` is the order of the WordNet ids (n01440764 = 0), as in the official weights. `alphabetical` is the order of
    the English names, as in the released code. `class_names` are the ids in the order of the labels. The manifest has
    `english_names` beside them if LOC_synset_mapping.txt is there. Raises ValueError for a folder that is no synset.
    """
    class_order, folder = dataset["class_order"], data / dataset["path"]
    if class_order not in ("synset", "alphabetical"):
        raise ValueError(
            f"dataset.class_order: found {class_order!r}; accepted: synset, alphabetical"
        )
    path, mapping = _images_path(folder), _mapping_path(dataset, folder)
    members = open_members(path) if path.is_dir() else open_nested_tar(path)
    found = only_images(members)
    images = found.images
    classes = sorted({name.partition("/")[0] for name in images.names()})
    for synset in classes:
        if not re.fullmatch(r"n\d{8}", synset):
            raise ValueError(f"{path}: found the class {synset!r}; accepted: ids such as n01440764")
    details = {"class_order": class_order} | found.details()
    if mapping is not None:
        english = _english_names(mapping, classes)
        if class_order == "alphabetical":
            # Equal names, such as the two cranes, stay in the order of their ids.
            classes.sort(key=lambda synset: english[synset].casefold())
        details["english_names"] = [english[synset] for synset in classes]
    synsets = (name.partition("/")[0] for name in images.names())
    labels = labels_of(synsets, classes)
    transform = transform_of(dataset)
    return Source(images, labels, classes, transform, details=details, skipped=found.skipped)


def _english_names(path: Path, synsets: list[str]) -> dict[str, str]:
    """The first English name of each synset, from lines such as 'n01440764 tench, Tinca tinca'."""
    lines = (line.strip().partition(" ") for line in read_text(path).splitlines())
    names = {synset: names.partition(",")[0] for synset, _, names in lines}
    for synset in synsets:
        if not names.get(synset):
            raise ValueError(f"{path}: no name for {synset}")
    return names
