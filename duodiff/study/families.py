"""What is known of each family of datasets before its files are read (no torch)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A family of datasets, the `source` of an entry of the configuration's `datasets`.

    `keys` are the entry's keys that the family needs, `optional` ones belong together. `channels` and `size` (pixels,
    each way) are those of the images as they are, `classes` the number of classes (-1: none), `images` the number of
    images (with `test` images of their own: to train on). None stands for what only the files or the entry tell.
    """

    keys: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    crops: tuple[str, ...] = ()
    channels: int = 3
    size: int | None = None
    classes: int | None = None
    images: int | None = None
    test: int | None = None


FAMILIES = {
    "digits": Family(
        optional=frozenset({"size", "filter"}), channels=1, size=8, classes=10, images=1797
    ),
    "cifar10": Family(frozenset({"path"}), size=32, classes=10, images=50_000, test=10_000),
    "celeba": Family(
        frozenset({"path", "split", "crop", "size", "filter"}),
        crops=("center_178", "celeba_128"),
        classes=-1,
    ),
    "imagenet": Family(
        frozenset({"path", "crop", "size", "filter", "class_order"}),
        crops=("square",),
        classes=1000,
    ),
    "images": Family(frozenset({"path", "crop", "size", "filter", "channels"}), crops=("square",)),
}

_IMAGENET = 1_281_167
_CELEBA = {"all": 202_599, "train": 162_770}


def training_images(dataset: dict) -> int | None:
    """The most images that a dataset can train on; None where only the files tell."""
    family = FAMILIES[dataset["source"]]
    if family.images is None:
        return None
    return family.images if family.test else family.images - dataset["held_out"]


def packed_images(dataset: dict) -> int | None:
    """The images of the packed dataset, those held out included; None where only the files tell."""
    if "subset" in dataset:
        return dataset["subset"] + dataset["held_out"]
    if dataset["source"] == "imagenet":
        return _IMAGENET
    if dataset["source"] == "celeba":
        held_out = dataset["held_out"] if dataset["split"] == "train" else 0
        return _CELEBA[dataset["split"]] + held_out
    images = training_images(dataset)
    return None if images is None else images + dataset["held_out"]


def image_shape(dataset: dict) -> tuple[int, int | None]:
    """Channels, and width and height in pixels, of the packed images; None for a size that only the files tell."""
    family = FAMILIES[dataset["source"]]
    return dataset.get("channels", family.channels), dataset.get("size", family.size)


def reduction(autoencoder: dict) -> int:
    """Pixels of an image per pixel of its latent, each way: a half from each resolution to the next."""
    return 2 ** (len(autoencoder["architecture"]["block_out_channels"]) - 1)
