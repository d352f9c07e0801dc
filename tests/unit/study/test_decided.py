"""What datasets decide of a configuration, and config/own_images.yaml, which leaves to them what they can decide."""

import copy
from pathlib import Path

import pytest
import yaml
from unit.image_files import png, write_folder

from duodiff.data import families
from duodiff.study import config as configuration
from duodiff.study.families import Contents, Split

ROOT = Path(__file__).parents[3]
OWN = yaml.safe_load((ROOT / "config/own_images.yaml").read_text(encoding="utf-8"))
NET = "experiments.own_images.backbone"
ENOUGH = Contents(Split(400), 3)


def own(**changes) -> dict:
    """config/own_images.yaml with other values at some keys; their dots are written as two underscores."""
    config = copy.deepcopy(OWN)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = config
        for key in parents:
            place = place[key]
        place[last] = value
    return config


def completed(config: dict, contents: Contents) -> tuple[dict, dict]:
    """The dataset and the experiment of a configuration, for images that hold `contents`."""
    filled = configuration.complete(config, lambda name, entry, data: contents)
    return filled["datasets"]["own"], filled["experiments"]["own_images"]


def refused(config: dict, contents: Contents) -> list[str]:
    """The lines of the error for images that hold `contents`."""
    with pytest.raises(configuration.ConfigError) as error:
        completed(config, contents)
    return [line.strip() for line in str(error.value).splitlines()[1:]]


def on_disk(name: str, entry: dict, data: Path) -> Contents:
    return families.contents(entry, data)


# --- what is filled in


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_own_images_with_classes_need_no_further_key(classes):
    dataset, experiment = completed(OWN, Contents(Split(400), classes))
    assert dataset["held_out"] == 80
    assert experiment["backbone"]["num_classes"] == classes
    assert (experiment["backbone"]["img_size"], experiment["backbone"]["in_chans"]) == (16, 3)


def test_the_null_class_is_one_more():
    _, experiment = completed(own(experiments__own_images__null_class=True), ENOUGH)
    assert experiment["backbone"]["num_classes"] == 4


def test_images_without_classes_make_the_network_unconditional():
    config = own(experiments__own_images__metric={"name": "fd_inception64"})
    assert completed(config, Contents(Split(400), -1))[1]["backbone"]["num_classes"] == -1


def test_the_networks_shape_is_the_images_or_the_latents():
    config = own(datasets__own__size=64, datasets__own__channels=1)
    net = completed(config, ENOUGH)[1]["backbone"]
    assert (net["img_size"], net["in_chans"]) == (64, 1)
    config["datasets"]["own"]["autoencoder"] = {"path": "ae.pth"}  # reduces 8 times, to 4 channels
    config["experiments"]["own_images"]["backbone_training"]["flips"] = False
    net = completed(config, ENOUGH)[1]["backbone"]
    assert (net["img_size"], net["in_chans"]) == (8, 4)


@pytest.mark.parametrize("name", ["config.yaml", "test.yaml", "paper.yaml", "studies.yaml"])
def test_a_key_left_out_is_the_datasets_as_shipped_configurations_write_it(name):
    written = yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))
    short = copy.deepcopy(written)
    for experiment in short["experiments"].values():
        keys = ["img_size", "in_chans"]
        keys += ["num_classes"] if experiment["backbone"].get("num_classes", -1) > 0 else []
        for key in keys:
            experiment["backbone"].pop(key, None)  # an anchor's mapping is one object
    assert configuration.complete(short) == configuration.complete(written)


@pytest.mark.parametrize(
    ("share", "split", "held_out"),
    [
        (0.2, Split(400), 80),
        (0.29, Split(1000), 290),  # 0.29 x 1000 is 289.99...
        (0.2, Split(400, test=100), 100),  # of all 500
        (0.5, Split(400, test=100), 100),  # there are no more
    ],
)
def test_a_share_of_held_out_images_is_one_of_all(share, split, held_out):
    dataset, _ = completed(own(datasets__own__held_out=share), Contents(split, 3))
    assert dataset["held_out"] == held_out
    assert type(dataset["held_out"]) is int


def test_a_share_of_the_reference_is_one_of_the_training_images():
    config = own(experiments__own_images__metric__reference=0.5)
    assert completed(config, ENOUGH)[1]["metric"]["reference"] == 160
    config["datasets"]["own"]["subset"] = 200
    assert completed(config, ENOUGH)[1]["metric"]["reference"] == 100
    assert completed(config, Contents(Split(400, test=90), 3))[1]["metric"]["reference"] == 100


@pytest.mark.parametrize(
    ("source", "held_out", "reference"),
    [("digits", 180, 808), ("cifar10", 6000, 25_000)],  # round() takes 808.5 to the even number
)
def test_where_the_family_has_the_numbers_no_file_is_read(source, held_out, reference):
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text(encoding="utf-8"))
    entry = {"source": source, "held_out": 0.1} | ({"path": "x"} if source == "cifar10" else {})
    experiment = config["experiments"]["digits"]
    experiment["metric"]["reference"] = 0.5
    for key in ("img_size", "in_chans"):
        del experiment["backbone"][key]
    config["datasets"], config["experiments"] = {"digits": entry}, {"digits": experiment}
    config.pop("only", None)
    filled = configuration.complete(config)
    assert filled["datasets"]["digits"]["held_out"] == held_out
    assert filled["experiments"]["digits"]["metric"]["reference"] == reference


def test_numbers_of_ones_own_are_kept():
    config = own(datasets__own__held_out=70, experiments__own_images__backbone__num_classes=-1)
    dataset, experiment = completed(config, ENOUGH)
    assert (dataset["held_out"], experiment["backbone"]["num_classes"]) == (70, -1)


def test_experiments_that_share_an_anchor_get_their_own_datasets_values():
    config = own()
    first = config["experiments"]["own_images"]
    second = first | {"title": "Digits", "dataset": "digits"}  # the same object of a backbone
    config["datasets"]["digits"] = {"source": "digits", "held_out": 360}
    config["experiments"]["digits"] = second
    counted = configuration.complete(config, lambda name, entry, data: ENOUGH)["experiments"]
    nets = [counted[name]["backbone"] for name in ("own_images", "digits")]
    assert [(n["num_classes"], n["img_size"], n["in_chans"]) for n in nets] == [
        (3, 16, 3),
        (10, 8, 1),
    ]


def test_without_a_count_the_images_keys_wait():
    filled = configuration.complete(OWN)
    assert filled["datasets"]["own"]["held_out"] == 0.2
    assert "num_classes" not in filled["experiments"]["own_images"]["backbone"]


# --- what is refused


def test_everything_that_does_not_fit_the_images_is_said_at_once():
    config = own(datasets__own__held_out=0.1)
    experiment = config["experiments"]["own_images"]
    experiment["metric"]["reference"] = 5000
    experiment["backbone"]["num_classes"] = 10
    said = refused(config, ENOUGH)
    assert said[:2] == [
        "datasets.own: 400 images; class folders: 3",
        "datasets.own.held_out: 0.1 is 40",
    ]
    assert [line.split(":")[0] for line in said[2:]] == [
        f"{NET}.num_classes",
        "experiments.own_images.metric.reference",
        "datasets.own.held_out",
    ]
    assert "found 10; accepted: -1, or 3" in said[2]
    assert "found 5000; accepted: up to the 360 training images" in said[3]
    assert "held_out: found 40; accepted: more than the 64 features of fd_own" in said[4]


@pytest.mark.parametrize(
    ("changes", "contents", "message"),
    [
        ({"datasets__own__held_out": 400}, ENOUGH, "held_out: found 400; accepted: up to 399"),
        ({"datasets__own__subset": 321}, ENOUGH, "subset: found 321; accepted: up to the 320"),
        (
            {"datasets__own__held_out": 91},
            Contents(Split(400, test=90), 3),
            "held_out: found 91; accepted: up to 90",
        ),
        ({"datasets__own__held_out": 0.9}, ENOUGH, "found 360; it leaves 40 images to train on"),
        ({}, Contents(Split(400), 1), "accepted: fid, .*, without classifier .own has one class"),
        ({}, Contents(Split(400), -1), "accepted: fid, .*, without classifier .own has no classes"),
        ({}, Contents(Split(3), 3), "held_out: found 1; accepted: 16 or more"),
        (
            {"experiments__own_images__protocol": "paper"},
            Contents(Split(400), 1),
            "num_classes: found 1; protocol paper never draws class 0",
        ),
        (
            {"experiments__own_images__backbone__num_classes": 5},
            Contents(Split(400), -1),
            "num_classes: found 5; accepted: -1",
        ),
    ],
)
def test_what_the_images_do_not_allow_is_named(changes, contents, message):
    refused_with = configuration.ConfigError
    with pytest.raises(refused_with, match=message):
        completed(own(**changes), contents)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan"), True, "0.1"])
@pytest.mark.parametrize(
    "key", ["datasets__own__held_out", "experiments__own_images__metric__reference"]
)
def test_what_is_neither_a_number_of_images_nor_a_share_is_refused(key, share):
    accepted = "accepted: a number of images from 1, or a share of them above 0 and below 1"
    with pytest.raises(configuration.ConfigError, match=accepted):
        configuration.complete(own(**{key: share}))


@pytest.mark.parametrize("source", ["celeba", "imagenet"])
def test_a_share_is_refused_where_the_images_are_not_counted(source):
    config = yaml.safe_load((ROOT / "config/paper.yaml").read_text(encoding="utf-8"))
    name = next(n for n, entry in config["datasets"].items() if entry["source"] == source)
    config["datasets"][name]["held_out"] = 0.1
    message = f"datasets.{name}.held_out: found 0.1; accepted with source {source}: a number of"
    with pytest.raises(configuration.ConfigError, match=message):
        configuration.complete(config)


def test_rules_without_images_come_first_and_alone():
    config = own(experiments__own_images__shallow_depth=9)
    said = refused(config, Contents(Split(3), -1))
    assert len(said) == 1
    assert "shallow_depth: found 9" in said[0]


# --- files


def folder(data: Path, classes: int, images: int) -> None:
    write_folder(data / "photos", {f"{i % classes}/{i}.png": png(2) for i in range(images)})


def test_images_on_disk_are_counted(tmp_path):
    folder(tmp_path, 5, 331)
    filled = configuration.complete(OWN | {"data": str(tmp_path)}, on_disk)
    assert filled["datasets"]["own"]["held_out"] == 66
    assert filled["experiments"]["own_images"]["backbone"]["num_classes"] == 5


def test_missing_images_are_named_where_they_decide_a_key(tmp_path):
    config = OWN | {"data": str(tmp_path)}
    with pytest.raises(configuration.ConfigError, match=r"datasets.own.path: .*photos is missing"):
        configuration.complete(config, on_disk)
    explicit = own(datasets__own__held_out=80, experiments__own_images__backbone__num_classes=3)
    configuration.complete(explicit | {"data": str(tmp_path)}, on_disk)


def test_a_damaged_archive_is_named_before_anything_runs(tmp_path):
    (tmp_path / "photos").write_bytes(b"PK, and no directory")
    with pytest.raises(configuration.ConfigError, match=r"datasets.own.path: .*damaged or cut"):
        configuration.complete(OWN | {"data": str(tmp_path)}, on_disk)


def test_the_images_of_an_experiment_that_is_not_selected_are_not_counted(tmp_path):
    folder(tmp_path, 3, 400)
    config = OWN | {"data": str(tmp_path), "only": "own_images"}
    other = copy.deepcopy(OWN["experiments"]["own_images"])
    config["datasets"] = OWN["datasets"] | {"away": OWN["datasets"]["own"] | {"path": "away"}}
    config["experiments"] = OWN["experiments"] | {
        "other": other | {"dataset": "away", "title": "O"}
    }
    filled = configuration.complete(config, on_disk)
    assert filled["datasets"]["own"]["held_out"] == 80
    assert filled["datasets"]["away"]["held_out"] == 0.2
    with pytest.raises(configuration.ConfigError, match=r"datasets.away.path: .*away is missing"):
        configuration.complete(config | {"only": "other"}, on_disk)
    reusing = other | {"dataset": "own", "title": "R", "reuse": {"full": "other"}}
    config["experiments"] |= {"reusing": reusing}
    with pytest.raises(configuration.ConfigError, match=r"datasets.away.path: .*away is missing"):
        configuration.complete(config | {"only": "reusing"}, on_disk)


def test_only_the_lines_marked_as_yours_name_anything_of_ones_own():
    lines = (ROOT / "config/own_images.yaml").read_text(encoding="utf-8").splitlines()
    yours = [line.split(":")[0].strip() for line in lines if "# yours" in line]
    assert yours == ["data", "path", "title"]
