"""Facts of each dataset family, known before its files are read (no torch). `duodiff.data.families` reads the files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Split:
    """The size of a split. `images` is the number of images to train on, `test` that of separate test images.

    If `test` is None, held-out images are taken from `images`.
    """

    images: int
    test: int | None = None


@dataclass(frozen=True)
class Contents:
    """What the files of a dataset hold: images, and the number of classes, -1 if there are none."""

    split: Split
    classes: int


@dataclass(frozen=True)
class Family:
    """A dataset family, the `source` of an entry of the configuration's `datasets`.

    - `keys` are the keys that an entry needs. It has all `optional` keys or none.
    - `crops` are the values that its key `crop` accepts.
    - `channels` and `size` (pixels, each way) are those of the images in the files. An entry may have its own.
    - `classes` is the number of classes, -1 if there are none.
    - `splits` are the official images by the entry's key `split`, None if the family has no such key. If `exact`, the
      files cannot hold others: they come with a library, or their hash is checked.
    - `counted`: the files are counted at the start of a run, since the images are the user's own.

    None stands for a fact that only the files tell.
    """

    keys: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    crops: tuple[str, ...] = ()
    channels: int = 3
    size: int | None = None
    classes: int | None = None
    splits: Mapping[str | None, Split] = field(default_factory=dict)
    exact: bool = False
    counted: bool = False


FAMILIES = {
    "digits": Family(
        optional=frozenset({"size", "filter"}),
        channels=1,
        size=8,
        classes=10,
        splits={None: Split(1797)},
        exact=True,
    ),
    "cifar10": Family(
        frozenset({"path"}),
        size=32,
        classes=10,
        splits={None: Split(50_000, test=10_000)},
        exact=True,
    ),
    "celeba": Family(
        frozenset({"path", "split", "crop", "size", "filter"}),
        crops=("center_178", "celeba_128"),
        classes=-1,
        splits={"all": Split(202_599), "train": Split(162_770, test=19_962)},
    ),
    "imagenet": Family(
        frozenset({"path", "crop", "size", "filter", "class_order"}),
        crops=("square",),
        classes=1000,
        splits={None: Split(1_281_167)},
    ),
    "images": Family(
        frozenset({"path", "crop", "size", "filter", "channels"}), crops=("square",), counted=True
    ),
}
"""The dataset families by name."""

_FILES = {
    "digits": (),
    "cifar10": ("cifar-10-python.tar.gz",),
    "celeba": ("img_align_celeba.zip", "list_eval_partition.txt"),
    "imagenet": ("train", "ILSVRC2012_img_train.tar", "LOC_synset_mapping.txt"),
    "images": ("",),
}
"""The files and folders that a family reads below the `path` of an entry; the empty name is the path itself."""


def is_share(number: float) -> bool:
    """Whether a number of the configuration is a share of the images, and not a number of images."""
    return isinstance(number, float)


def contents(dataset: dict) -> Contents | None:
    """What the files of a dataset hold, where its family fixes it; None if only the files tell."""
    family, split = FAMILIES[dataset["source"]], _split(dataset)
    if not family.exact or split is None or family.classes is None:
        return None
    return Contents(split, family.classes)


def most_held_out(dataset: dict, found: Contents | None = None) -> int | None:
    """The most images that can be held out; None if only the files tell. `found` is what the files hold, if counted."""
    known = found or contents(dataset)
    if known is None:
        return None
    return known.split.images - 1 if known.split.test is None else known.split.test


def training_images(dataset: dict, found: Contents | None = None) -> int | None:
    """The images that are not held out; None if only the files tell. `found` is what the files hold, if counted."""
    known = found or contents(dataset)
    if known is None:
        return None
    split = known.split
    if split.test is not None:
        return split.images
    return None if is_share(dataset["held_out"]) else split.images - dataset["held_out"]


def packed_images(dataset: dict) -> int | None:
    """The images of the packed dataset if its files are the official ones; None if only the files tell."""
    split = _split(dataset)
    if "subset" in dataset and not is_share(dataset["held_out"]):
        return dataset["subset"] + dataset["held_out"]
    if split is None:
        return None
    return split.images if split.test is None else split.images + dataset["held_out"]


def image_shape(dataset: dict) -> tuple[int, int | None]:
    """Channels, and width and height in pixels, of the packed images; None for a size that only the files tell."""
    family = FAMILIES[dataset["source"]]
    return dataset.get("channels", family.channels), dataset.get("size", family.size)


def files_read(dataset: dict, data: Path) -> dict[str, Path]:
    """The files and folders of a dataset that are read, below the folder `data`, by their names below it.

    They need not be there. ImageNet's tar is read only where there is no folder in its place, CelebA's partition only
    for the split `train`.
    """
    names = list(_FILES[dataset["source"]])
    if dataset["source"] == "celeba" and dataset["split"] == "all":
        names.remove("list_eval_partition.txt")
    if dataset["source"] == "imagenet" and (data / dataset["path"] / "train").is_dir():
        names.remove("ILSVRC2012_img_train.tar")
    paths = [str(Path(dataset["path"], name)) for name in names]
    return {path: data / path for path in paths}


def reduction(autoencoder: dict) -> int:
    """Pixels of an image per pixel of its latent, each way: each resolution after the first halves the size."""
    return 2 ** (len(autoencoder["architecture"]["block_out_channels"]) - 1)


def _split(dataset: dict) -> Split | None:
    family = FAMILIES[dataset["source"]]
    return family.splits.get(dataset.get("split") if "split" in family.keys else None)
