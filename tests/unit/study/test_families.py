"""What is known of dataset families and of samplers, in the schema, in study/ and where it is computed."""

from pathlib import Path

import pytest
import yaml

from duodiff.data import cifar10, decode, families
from duodiff.protocol import PROTOCOLS
from duodiff.samplers import SAMPLERS, steps_of
from duodiff.schedules import noise_schedule
from duodiff.study.families import (
    FAMILIES,
    Contents,
    Split,
    contents,
    image_shape,
    most_held_out,
    packed_images,
    training_images,
)
from duodiff.study.grid import SCHEMA, samplers

DATASET = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["$defs"]["dataset"]["properties"]


def test_the_schema_the_rules_and_the_readers_know_the_same_families():
    assert DATASET["source"]["enum"] == list(FAMILIES) == list(families._FAMILIES)
    for family in FAMILIES.values():
        assert family.keys | family.optional <= set(DATASET)
        assert set(family.crops) <= set(DATASET["crop"]["enum"])
    assert set(DATASET["filter"]["enum"]) == set(decode.FILTERS)


def test_the_facts_of_the_digits_and_of_cifar10_are_those_of_their_images():
    digits = families.family({"source": "digits"}).read({"source": "digits"}, Path())
    known = FAMILIES["digits"]
    assert digits.images.shape == (
        known.splits[None].images,
        known.channels,
        known.size,
        known.size,
    )
    assert len(digits.class_names) == known.classes
    assert len(cifar10.CLASSES) == FAMILIES["cifar10"].classes


@pytest.mark.parametrize(
    ("dataset", "most", "training", "packed"),
    [
        ({"source": "digits", "held_out": 360}, 1796, 1437, 1797),
        ({"source": "digits", "held_out": 360, "subset": 100}, 1796, 1437, 460),
        ({"source": "cifar10", "held_out": 1000}, 10_000, 50_000, 51_000),
        ({"source": "celeba", "held_out": 1000, "split": "all"}, None, None, 202_599),
        ({"source": "celeba", "held_out": 1000, "split": "train"}, None, None, 163_770),
        ({"source": "imagenet", "held_out": 5000}, None, None, 1_281_167),
        ({"source": "images", "held_out": 10}, None, None, None),
        ({"source": "images", "held_out": 10, "subset": 90}, None, None, 100),
        ({"source": "images", "held_out": 0.1}, None, None, None),
        ({"source": "images", "held_out": 0.1, "subset": 90}, None, None, None),
    ],
)
def test_how_many_images_a_dataset_has(dataset, most, training, packed):
    assert (most_held_out(dataset), training_images(dataset)) == (most, training)
    assert packed_images(dataset) == packed


@pytest.mark.parametrize(
    ("split", "most", "training"), [(Split(400), 399, 390), (Split(400, test=90), 90, 400)]
)
def test_counted_files_tell_what_the_family_does_not(split, most, training):
    dataset, found = {"source": "images", "held_out": 10}, Contents(split, 3)
    assert contents(dataset) is None
    assert (most_held_out(dataset, found), training_images(dataset, found)) == (most, training)


def test_the_shape_of_images_is_the_entrys_or_else_the_familys():
    assert image_shape({"source": "digits"}) == (1, 8)
    assert image_shape({"source": "digits", "size": 16}) == (1, 16)
    assert image_shape({"source": "images", "size": 64, "channels": 1}) == (1, 64)
    assert image_shape({"source": "images"}) == (3, None)


def test_every_sampler_of_the_schema_makes_steps_with_its_example():
    assert list(samplers()) == list(SAMPLERS)
    for name, schema in samplers().items():
        assert schema["title"]
        options = schema["examples"][0]
        assert set(options) == {"steps", "eta"} & set(schema["required"])
        steps = steps_of(noise_schedule("linear"), {"name": name} | options, PROTOCOLS["corrected"])
        assert len(steps) == options["steps"]
