"""CelebA, aligned and cropped: 202,599 faces of 178x218 pixels without classes."""

import os
from pathlib import Path

import numpy as np

from duodiff.data.archives import Members, open_members
from duodiff.data.disk import database
from duodiff.data.images import only_images, transform_of, unlabelled
from duodiff.data.source import Source
from duodiff.running.download import require

PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_TRAIN, _TEST = 0, 2  # numbers of the official partition

# The first file that only the partition or only the zip has.
_DIFFERENT = """
    SELECT min(file) FROM (
        SELECT * FROM (SELECT file FROM official EXCEPT SELECT file FROM zipped)
        UNION ALL SELECT * FROM (SELECT file FROM zipped EXCEPT SELECT file FROM official)
    )"""
# The partition's numbers in the order of the images.
_IN_ORDER = "SELECT number FROM zipped JOIN official USING (file) ORDER BY zipped.rowid"


def fetch(dataset: dict, data: Path) -> dict:
    """The zip, and for the `train` split the official partition. Raises FileNotFoundError if one is missing."""
    names = ["img_align_celeba.zip"]
    if dataset["split"] == "train":
        names.append("list_eval_partition.txt")
    return {require(data / dataset["path"] / name, PAGE): None for name in names}


def read(dataset: dict, data: Path) -> Source:
    """The images of a split: `all` of them, as in the paper, or `train`, the official training images.

    With `train` the official test images are the held-out ones. Raises ValueError if the partition and the zip do not
    name the same images.
    """
    if dataset["split"] not in ("all", "train"):
        raise ValueError(f"dataset.split: found {dataset['split']!r}; accepted: all, train")
    paths = list(fetch(dataset, data))
    found = only_images(open_members(paths[0]))
    images = found.images
    test = None
    if dataset["split"] == "train":
        partition = _partition(paths[1], images)
        used = np.isin(partition, (_TRAIN, _TEST))
        images, test = images.select(used), partition[used] == _TEST
    details = {"split": dataset["split"]} | found.details()
    labels, transform = unlabelled(images), transform_of(dataset)
    return Source(images, labels, [], transform, test=test, details=details, skipped=found.skipped)


def _partition(path: Path, images: Members) -> np.ndarray:
    """Partition number of each image by its file name, int64 [N]."""
    index = database()
    index.execute("CREATE TABLE official (file PRIMARY KEY, number)")
    index.execute("CREATE TABLE zipped (file)")
    try:
        with open(path, encoding="utf-8") as lines:
            rows = ((os.fsencode(file), int(number)) for file, number in map(str.split, lines))
            index.executemany("INSERT OR REPLACE INTO official VALUES (?, ?)", rows)
    except ValueError as error:
        raise ValueError(f"{path}: accepted: lines such as '000001.jpg 0' ({error})") from error
    files = ((os.fsencode(name.rpartition("/")[2]),) for name in images.names())
    index.executemany("INSERT INTO zipped VALUES (?)", files)
    ((different,),) = index.execute(_DIFFERENT)
    if different is not None:
        ((count,),) = index.execute("SELECT count(*) FROM official")
        raise ValueError(
            f"{path}: {count} images for {len(images)} in the zip; {os.fsdecode(different)} is in one only"
        )
    return np.fromiter((number for (number,) in index.execute(_IN_ORDER)), np.int64)
