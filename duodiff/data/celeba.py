"""CelebA, aligned and cropped: 202,599 faces of 178x218 pixels, unlabelled."""

from pathlib import Path

import numpy as np

from duodiff.data.archives import Members, open_members
from duodiff.data.images import only_images, transform_of
from duodiff.data.source import Source
from duodiff.download import require

PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_TRAIN, _TEST = 0, 2  # numbers of the official partition


def fetch(dataset: dict, data: Path) -> dict:
    """The zip, and for the `train` split the partition. Raises FileNotFoundError for the one missing."""
    names = ["img_align_celeba.zip"]
    if dataset["split"] == "train":
        names.append("list_eval_partition.txt")
    return {require(data / dataset["path"] / name, PAGE): None for name in names}


def read(dataset: dict, data: Path) -> Source:
    """Split `all`: every image (the paper's); `train`: the official training images, test ones held out.

    Raises ValueError if the partition and the zip do not name the same images.
    """
    if dataset["split"] not in ("all", "train"):
        raise ValueError(f"dataset.split: found {dataset['split']!r}; accepted: all, train")
    paths = list(fetch(dataset, data))
    images, ignored = only_images(open_members(paths[0]))
    test = None
    if dataset["split"] == "train":
        partition = _partition(paths[1], images)
        used = (partition == _TRAIN) | (partition == _TEST)
        images, test = images.select(used), partition[used] == _TEST
    labels = np.full(len(images), -1)
    details = {"split": dataset["split"], "ignored": ignored}
    return Source(images, labels, [], transform_of(dataset), test, details)


def _partition(path: Path, images: Members) -> np.ndarray:
    """Partition number int [N] of each image, by its file name."""
    try:
        number = {name: int(n) for name, n in map(str.split, path.read_text().splitlines())}
    except ValueError as error:
        raise ValueError(f"{path}: accepted: lines such as '000001.jpg 0' ({error})") from error
    files = [name.rpartition("/")[2] for name in images.names()]
    different = sorted(set(files) ^ set(number))
    if different:
        raise ValueError(
            f"{path}: {len(number)} images for {len(files)} in the zip; {different[0]} is in one only"
        )
    return np.array([number[file] for file in files])
