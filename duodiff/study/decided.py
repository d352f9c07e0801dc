"""What datasets decide of a configuration: keys left out get the datasets' values, shares become numbers (no torch)."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from duodiff.study.families import (
    FAMILIES,
    Contents,
    contents,
    image_shape,
    is_share,
    most_held_out,
    reduction,
    training_images,
)
from duodiff.study.grid import owner, roles, selected


class Undecided(NamedTuple):
    """A key that only the images of `dataset` decide, and what it holds: a share, or nothing."""

    dataset: str
    key: str
    value: float | None


def settle(config: dict, found: Mapping[str, Contents]) -> None:
    """Fills in what the datasets decide, in place. `found` are the contents of the datasets that were counted.

    A share of `held_out` is one of all images, but at most the separate test images. A share of `metric.reference` is
    one of the training images. What cannot be known without the images stays as it is.
    """
    for name, dataset in config["datasets"].items():
        most, known = most_held_out(dataset, found.get(name)), found.get(name) or contents(dataset)
        if known and most and is_share(dataset["held_out"]):
            images = known.split.images + (known.split.test or 0)
            dataset["held_out"] = min(max(1, round(dataset["held_out"] * images)), most)
    for experiment in config["experiments"].values():
        dataset = config["datasets"].get(experiment["dataset"])
        if dataset is not None:
            _settle_experiment(experiment, dataset, found.get(experiment["dataset"]))


def _settle_experiment(experiment: dict, dataset: dict, found: Contents | None) -> None:
    net, metric = experiment["backbone"], experiment["metric"]
    channels, size = network_shape(dataset)
    classes = dataset_classes(dataset, found)
    if classes is not None:
        net.setdefault("num_classes", classes + experiment["null_class"] if classes > 0 else -1)
    if size is not None:
        net.setdefault("img_size", size)
    net.setdefault("in_chans", channels)
    left = training_images(dataset, found)
    if left is not None and is_share(metric.get("reference", 0)):
        metric["reference"] = max(
            1, round(metric["reference"] * min(left, dataset.get("subset", left)))
        )


def dataset_classes(dataset: dict, found: Contents | None) -> int | None:
    """The number of classes, -1 if there are none; None if only the files tell and were not counted."""
    return found.classes if found else FAMILIES[dataset["source"]].classes


def network_shape(dataset: dict) -> tuple[int, int | None]:
    """Channels, and width and height, of what a network of the dataset makes: its images, or their latents."""
    channels, size = image_shape(dataset)
    if codec := dataset.get("autoencoder"):
        return codec["architecture"]["latent_channels"], size and size // reduction(codec)
    return channels, size


def undecided(config: dict) -> Iterator[Undecided]:
    """The keys that wait for the images of a dataset, of a configuration that `settle` has filled in."""
    for name, dataset in config["datasets"].items():
        if is_share(dataset["held_out"]):
            yield Undecided(name, f"datasets.{name}.held_out", dataset["held_out"])
    for name, experiment in config["experiments"].items():
        of, reference = experiment["dataset"], experiment["metric"].get("reference", 0)
        if "num_classes" not in experiment["backbone"]:
            yield Undecided(of, f"experiments.{name}.backbone.num_classes", None)
        if is_share(reference):
            yield Undecided(of, f"experiments.{name}.metric.reference", reference)


def used_experiments(config: dict) -> list[str]:
    """The selected experiments and those whose networks they use, by name."""
    names = selected(config)
    return sorted(
        {*names}
        | {
            owner(config, name, role)
            for name in names
            for role in roles(config["experiments"][name])
        }
    )
