import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from snakemake.utils import update_config

from duodiff.analysis.claims.statements import CLAIMS
from duodiff.operations import network
from duodiff.study import config as configuration
from duodiff.study.grid import (
    backbone_architecture,
    backbones,
    grid_points,
    owner,
    sampler_options,
    selected,
    step_grids,
)
from duodiff.study.scale import scale

ROOT = Path(__file__).parents[3]
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))


def changed(path: str, value) -> dict:
    config = copy.deepcopy(DEFAULT)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    return config


def load(name: str) -> dict:
    return yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "test.yaml",
        "paper.yaml",
        "studies.yaml",
        "cifar10_cpu.yaml",
        "own_images.yaml",
        "cifar10_gpu.yaml",
    ],
)
def test_shipped_configurations_are_valid(name):
    configuration.complete(load(name))


def test_the_shipped_study_is_ten_trainings_of_the_default():
    """The file of its trainings is read after the default's, as `make study` names them."""
    config = copy.deepcopy(DEFAULT)
    update_config(config, load("trainings.yaml"))
    assert config["experiments"]["digits"] == DEFAULT["experiments"]["digits"] | {
        "train_seeds": [*range(10)]
    }
    configuration.complete(config)


def test_the_schedules_study_is_the_default_with_one_more_depth_and_more_cells():
    """Full, shallow and heads are those of `make study`, and so are the default's cells at the first sampling seed."""
    config = copy.deepcopy(DEFAULT)
    update_config(config, load("schedules.yaml"))
    study, usual = (
        configuration.complete(one)["experiments"]["digits"] for one in (config, DEFAULT)
    )
    assert [backbone_architecture(study, role)["depth"] for role in backbones(study)] == [7, 3, 5]
    trained = ("backbone", "shallow_depth", "backbone_training", "heads_training", "sampling")
    assert [study[key] for key in trained] == [usual[key] for key in trained]
    cells = [{p.path for p in grid_points(one) if p.seed == 0} for one in (study, usual)]
    assert cells[0] > cells[1]
    assert {point.seed for point in grid_points(study)} == {0}
    assert {name for grid in study["grid"].values() for name in grid["schedules"]} == {
        *study["schedules"],
        *study["budgets"],
    }


def test_the_schedules_on_cifar10_are_those_on_the_digits():
    config = load("cifar10_cpu.yaml")
    update_config(config, load("schedules_cifar10.yaml"))
    cifar = configuration.complete(config)["experiments"]["cifar10_cpu"]
    digits = load("schedules.yaml")["experiments"]["digits"]
    assert [backbone_architecture(cifar, role)["depth"] for role in backbones(cifar)] == [7, 3, 5]
    keys = ("networks", "schedules", "budgets")
    written = load("schedules_cifar10.yaml")["experiments"]["cifar10_cpu"]
    assert [written[key] for key in keys] == [digits[key] for key in keys]
    mine, theirs = written["grid"]["ddpm"], digits["grid"]["ddpm"]
    assert ["thrifty", *mine["schedules"]] == theirs["schedules"]
    assert mine["fewer_steps"] == theirs["fewer_steps"]


def of_a_gpu(*more: str) -> dict:
    """config/cifar10_gpu.yaml with the files that are read after it, completed."""
    config = load("cifar10_gpu.yaml")
    for name in more:
        update_config(config, load(name))
    return configuration.complete(config)


def test_the_study_of_one_gpu_has_the_papers_networks_at_a_reduced_scale():
    study = of_a_gpu()["experiments"]["cifar10_gpu"]
    paper = configuration.complete(load("paper.yaml"))["experiments"]["cifar10"]
    for key in ("backbone", "shallow_depth", "schedule", "prediction"):
        assert study[key] == paper[key]
    assert scale(study) == "reduced"
    assert study["sampling"]["batch"] == study["latency"]["batch"]  # one shape to compile
    assert study["sampling"]["compiled"]
    assert study["latency"]["compiled"]


def test_fid_is_measured_on_the_networks_of_the_study_of_one_gpu():
    config = of_a_gpu()
    assert selected(config) == ["cifar10_gpu"]
    for role in ("full", "shallow", "heads"):
        assert owner(config, "cifar10_gpu_fid", role) == "cifar10_gpu"
    cells = {point.path for point in grid_points(config["experiments"]["cifar10_gpu_fid"])}
    assert cells < {point.path for point in grid_points(config["experiments"]["cifar10_gpu"])}


def test_the_official_archive_changes_the_images_alone():
    usual, official = of_a_gpu(), of_a_gpu("cifar10_official.yaml")
    for name, experiment in official["experiments"].items():
        used = official["datasets"][experiment["dataset"]]
        assert used["source"] == "cifar10"
        changed = {key: experiment[key] for key in ("dataset", "metric")}
        assert experiment == usual["experiments"][name] | changed
        assert experiment["metric"]["name"] == usual["experiments"][name]["metric"]["name"]


def test_what_was_declared_of_the_study_of_one_gpu_is_tested_by_its_cells():
    text = (ROOT / "docs/claims.md").read_text(encoding="utf-8")
    section = text.split("## Declared before a run: CIFAR-10 on a GPU")[1]
    declared = re.findall(r"^\| [^|]+ \| `(\w+)` \|", section, flags=re.M)
    assert len(declared) == 4
    assert {*declared} <= {claim.id for claim in CLAIMS}
    study = of_a_gpu()["experiments"]["cifar10_gpu"]
    assert {0, 300, 500, 1000} <= set(study["grid"]["ddpm"]["t_s"])
    assert len(study["grid"]["ddpm"]["theta"]) == 3


def test_the_studies_compare_with_the_default_experiment():
    """The same values, so that the default's results are used."""
    for section in ("experiments", "datasets"):
        assert load("studies.yaml")[section]["digits"] == DEFAULT[section]["digits"]


@pytest.mark.parametrize("released", ["", "_released"])
@pytest.mark.parametrize("name", ["cifar10", "celeba64", "imagenet64", "imagenet256"])
def test_the_papers_grids_are_those_of_its_tables(name, released):
    grid = load("paper.yaml")["experiments"][name + released]["grid"]
    published = pd.read_csv(ROOT / "report/paper/table2.csv").query(f"dataset == '{name}'")
    t_s, theta = (
        published.query(f"parameter == '{key}'")["value"].dropna().tolist()
        for key in ("t_s", "theta")
    )
    shallow = 1000  # not in its tables; lost shares are measured against it
    assert grid["ddpm"]["t_s"] == [*t_s, shallow]
    # on CIFAR-10 two of three thetas are unknown, chosen in the range that is
    assert set(theta) <= set(grid["ddpm"]["theta"])
    assert len(grid["ddpm"]["theta"]) == (published["parameter"] == "theta").sum()
    ddim = pd.read_csv(ROOT / "report/paper/table1.csv")["t_s"].tolist()
    assert (grid["ddim"]["t_s"], grid["ddim"]["steps"], grid["ddim"]["eta"]) == (
        [*ddim, shallow],
        50,
        0,
    )


DIGITS = "experiments.digits"
GRID = f"{DIGITS}.grid.ddpm"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "cores",
            2,
            r"unknown key 'cores'; accepted: threads, device, gpus, data, container, extractors, only, datasets",
        ),
        ("device", "gpu", "device: found 'gpu'; accepted: cpu or cuda"),
        ("gpus", 2, "gpus: found 2; accepted: 1 with device cpu"),
        ("gpus", 0, "gpus: found 0; accepted: an integer from 1"),
        (f"{DIGITS}.protocl", "paper", r"unknown key 'protocl' \(did you mean 'protocol'\?\)"),
        (f"{DIGITS}.protocol", "released", "found 'released'; accepted: corrected or paper"),
        (
            f"{GRID}.spread.thetas",
            [],
            r"grid.ddpm.spread: unknown key 'thetas' \(did you mean 'theta'",
        ),
        (f"{GRID}.t_s", [0, 1200], "t_s.1: found 1200; accepted: an integer from 0 to 1000"),
        (
            f"{GRID}.spread.seeds",
            [0, 1],
            r"found \[0, 1\]; accepted: seeds other than sampling.seed 0",
        ),
        (f"{DIGITS}.sampling.images", 64, "found 64; accepted: more than the 64 features"),
        (
            "datasets.digits.held_out",
            50,
            r"datasets.digits.held_out: found 50; accepted: more than the 64 .*\(experiments.digits\)",
        ),
        (f"{GRID}.t_s", [500], "grid.ddpm.t_s: 0 is missing"),
        (f"{GRID}.t_s", [0, 0], "found \\[0, 0\\]; accepted: a list of different values of t_s"),
        (
            f"{GRID}.theta",
            ["p0.3"],
            "theta.0: found 'p0.3'; accepted: a number from 0 to 1, or a quantile",
        ),
        (f"{GRID}.theta", [1.5], "theta.0: found 1.5; accepted: a number from 0 to 1"),
        (f"{GRID}.steps", 1001, "steps: found 1001; accepted: an integer from 2 to 1000"),
        (
            f"{GRID}.fewer_steps",
            [{"steps": 50, "t_s": [0]}],
            "grid.ddpm.fewer_steps.steps: found 50; accepted: fewer than the sampler's 50",
        ),
        (
            f"{GRID}.fewer_steps",
            [{"steps": 9, "t_s": [0, 123]}],
            "grid.ddpm.fewer_steps.t_s: found 123 for 9 steps; accepted: values of the sampler's t_s",
        ),
        (
            f"{GRID}.fewer_steps",
            [{"steps": 9, "t_s": [0]}, {"steps": 9, "t_s": [500]}],
            "grid.ddpm.fewer_steps: found steps 9 more than once; accepted: once",
        ),
        (f"{GRID}.fewer_steps", [{"steps": 9}], "fewer_steps.0: 't_s' is a required property"),
        (f"{GRID}.spread.t_s", [123], "spread.t_s: found 123; accepted: values of grid.ddpm.t_s"),
        (
            f"{DIGITS}.backbone.depth",
            6,
            "backbone.depth: found 6; accepted: an odd number of blocks",
        ),
        (f"{DIGITS}.shallow_depth", 7, "shallow_depth: found 7; accepted: fewer blocks than"),
        (
            f"{DIGITS}.backbone.num_heads",
            5,
            "backbone.num_heads: found 5; it must divide embed_dim",
        ),
        (
            f"{DIGITS}.backbone.patch_size",
            3,
            "backbone.patch_size: found 3; it must divide img_size",
        ),
        ("datasets.digits", {"source": "digits"}, "digits: 'held_out' is a required property"),
        (f"{DIGITS}.train_seeds", [], "train_seeds: found \\[\\]"),
        (f"{DIGITS}.dataset", "mnist", "digits.dataset: found 'mnist'; accepted: digits"),
        (
            f"{DIGITS}.sampling.precision",
            "float16",
            "sampling.precision: found 'float16'; accepted: float32 or bfloat16",
        ),
        (f"{DIGITS}.prediction", "score", "prediction: found 'score'; accepted: noise, x_0 or v"),
        (f"{DIGITS}.backbone.img_size", 16, "img_size: found 16; dataset digits has 8"),
        (f"{DIGITS}.backbone.in_chans", 3, "in_chans: found 3; dataset digits has 1"),
        (f"{DIGITS}.backbone.num_classes", 11, "num_classes: found 11; accepted: -1, or 10"),
        (f"{DIGITS}.null_class", True, r"num_classes: found 10; accepted: -1, or 10 \(and one"),
        (f"{DIGITS}.sampling.guidance", 0.4, "guidance: found 0.4; accepted: 0 without a null"),
        (f"{DIGITS}.backbone_training.label_dropout", 0.1, "accepted: 0 without a null class"),
        (f"{DIGITS}.backbone_training.lr_schedule", "step", "accepted: cosine or constant"),
        (f"{DIGITS}.heads_training.accumulate", 3, "a multiple of gpus 1 x accumulate 3"),
        (f"{DIGITS}.backbone_training.precision", "fp8", "accepted: float32 or bfloat16"),
        (f"{DIGITS}.metric", {"name": "fid"}, "images: found 1024; accepted: more than the 2048"),
        (
            f"{DIGITS}.metric",
            {"name": "fd_dinov2", "classifier": {"steps": 1, "batch": 1}},
            "metric.classifier: not a key of fd_dinov2, whose features are those of dinov2",
        ),
        (
            f"{DIGITS}.metric",
            {"name": "fd_x"},
            "metric.classifier: missing; fd_x is measured in .* there is for: fd_cifar10, fd_digits, fd_digits16",
        ),
        (
            f"{DIGITS}.metric.reference",
            64,
            "metric.reference: found 64; accepted: more than the 64",
        ),
        (f"{DIGITS}.metric.inception", "x.pth", "unknown key 'inception'; accepted: name"),
        (f"{DIGITS}.metric.name", "fd_my_spread", "found 'fd_my_spread'; accepted: names that do"),
        (
            "datasets.digits.held_out",
            15,
            "datasets.digits.held_out: found 15; accepted: 16 or more",
        ),
        (
            "datasets.digits.subset",
            60,
            "datasets.digits.subset: found 60; accepted: more than the 64",
        ),
        ("extractors", {"inceptionv3": "x"}, r"'inceptionv3' \(did you mean 'inception'"),
        ("only", "digit", "only: found 'digit'; accepted: digits"),
        ("only", "", "only: found ''; accepted: digits"),  # --config only=$UNSET
        ("only", None, "only: found None; accepted: names of experiments"),
        ("datasets.digits.path", "x", "path: not a key of source digits; accepted: autoencoder"),
        ("datasets.digits.source", "celeba", "crop: missing; source celeba needs crop, filter"),
        (f"{DIGITS}.reuse", {"full": "other"}, "reuse.full: found 'other'; accepted: another exp"),
        (f"{DIGITS}.reuse", {"full": "digits"}, "reuse.full: found 'digits'; accepted: another"),
        (
            f"{DIGITS}.pretrained",
            {"path": "x.pth", "sha256": "abc"},
            "pretrained.sha256: found 'abc'; accepted: 64 hexadecimal digits or null",
        ),
    ],
)
def test_bad_configurations_are_refused_with_key_value_and_what_is_accepted(path, value, message):
    with pytest.raises(configuration.ConfigError, match=message):
        configuration.complete(changed(path, value))


IMAGES = {"source": "images", "path": "my.zip", "crop": "square", "size": 8, "filter": "box"}
CELEBA = {"source": "celeba", "path": "c", "split": "all", "size": 8, "filter": "box"}


AE_TRAINING = {"steps": 1, "batch": 1, "lr": 1e-3, "kl_weight": 0}
DIGITS_16 = {"source": "digits", "size": 16, "filter": "bicubic"}


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (IMAGES, "datasets.digits.channels: missing; source images needs"),
        (IMAGES | {"channels": 2}, "channels: found 2; accepted: 1 or 3"),
        (IMAGES | {"channels": 1, "filter": "nearest"}, "filter: found 'nearest'; accepted: box"),
        (IMAGES | {"channels": 1, "crop": "center_178"}, "crop: found 'center_178'; accepted for"),
        (
            CELEBA | {"crop": "square"},
            "found 'square'; accepted for celeba: center_178, celeba_128",
        ),
        (CELEBA | {"crop": "celeba_128", "class_order": "synset"}, "class_order: not a key of"),
        (
            IMAGES | {"channels": 1, "autoencoder": {"hub": "a/b"}},
            "autoencoder.revision: missing; a hub id needs the commit",
        ),
        *(
            (
                IMAGES | {"channels": 1, "autoencoder": section},
                f"autoencoder.path, hub, train: {found}",
            )
            for section, found in (
                ({}, "found none of them; accepted: exactly one"),
                ({"hub": "a/b", "path": "c"}, "found path and hub; accepted: exactly one"),
                (
                    {"path": "c", "train": AE_TRAINING},
                    "found path and train; accepted: exactly one",
                ),
            )
        ),
        (DIGITS_16 | {"filter": "nearest"}, "filter: found 'nearest'; accepted: box, bilinear"),
        ({"source": "digits", "size": 16}, "filter: missing; filter, size belong together"),
        ({"source": "digits", "filter": "box"}, "size: missing; filter, size belong together"),
    ],
)
def test_bad_datasets_are_refused(dataset, message):
    with pytest.raises(configuration.ConfigError, match=message):
        configuration.complete(changed("datasets.digits", dataset | {"held_out": 100}))


LATENT = "datasets.digits_latent"
AE = f"{LATENT}.autoencoder"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{AE}.scale", 0.2, "autoencoder.scale: found 0.2; accepted: not with train, which"),
        (f"{AE}.sha256", "0" * 64, "autoencoder.sha256: found '0+'; accepted: not with train"),
        (f"{AE}.revision", "0" * 40, "autoencoder.revision: found '0+'; accepted: only with hub"),
        (f"{AE}.train.kl_weight", -1, "train.kl_weight: found -1; accepted: a number from 0"),
        (f"{AE}.train", {"steps": 9}, "autoencoder.train: 'batch' is a required property"),
        (f"{AE}.shards", 0, "autoencoder.shards: found 0; accepted: an integer from 1"),
        (
            f"{DIGITS}.grid.ddpm.shards",
            9,
            "grid.ddpm.shards: found 9; accepted: up to the 4 batches of 1024 images",
        ),
        (
            f"{AE}.architecture.norm_num_groups",
            12,
            "norm_num_groups: found 12; it must divide block_out_channels 16",
        ),
        (
            f"{AE}.architecture.block_out_channels",
            [8] * 6,
            "block_out_channels: found 6 resolutions, which reduce 32 times; accepted: .* size 16",
        ),
        (
            f"{AE}.architecture.block_out_channels",
            [8, 8, 8],
            "digits_latent.backbone.img_size: found 8; dataset digits_latent has 4",
        ),
        (
            f"{AE}.architecture.latent_channels",
            3,
            "digits_latent.backbone.in_chans: found 4; dataset digits_latent has 3",
        ),
        (f"{LATENT}.size", 32, "digits_latent.backbone.img_size: found 8; .* has 16"),
    ],
)
def test_bad_autoencoders_are_refused(path, value, message):
    with pytest.raises(configuration.ConfigError, match=message):
        configuration.complete(changed(path, value))


def test_the_latents_of_an_autoencoder_with_no_architecture_are_stable_diffusions():
    config = changed(AE, {"path": "ae.pth"})
    config["datasets"]["digits_latent"]["size"] = 64
    filled = configuration.complete(config)["datasets"]["digits_latent"]["autoencoder"]
    assert filled["architecture"]["block_out_channels"] == [128, 256, 512, 512]
    assert "scale" not in filled  # the file's own
    config["datasets"]["digits_latent"]["size"] = 56
    with pytest.raises(
        configuration.ConfigError, match="img_size: found 8; dataset digits_latent has 7"
    ):
        configuration.complete(config)


def test_the_default_run_is_that_of_the_digits_and_adding_a_name_adds_the_latent_one():
    assert selected(configuration.complete(DEFAULT)) == ["digits"]
    both = changed("only", ["digits", "digits_latent"])
    assert selected(configuration.complete(both)) == ["digits", "digits_latent"]


def two(**changes) -> dict:
    """The default configuration with a second experiment, like the first but for `changes`."""
    config = copy.deepcopy(DEFAULT)
    del config["only"], config["experiments"]["digits_latent"]
    config["experiments"]["other"] = copy.deepcopy(
        config["experiments"]["digits"] | {"title": "Other"} | changes
    )
    return config


def test_models_of_another_experiment_can_be_reused_where_they_fit():
    config = configuration.complete(two(reuse={"full": "digits", "heads": "digits"}))
    assert owner(config, "other", "full") == "digits"
    assert owner(config, "other", "shallow") == "other"
    for key, value in (("time_input", "t+1"), ("prediction", "v"), ("train_seeds", [0, 1])):
        with pytest.raises(
            configuration.ConfigError, match=r"reuse.full: digits has (another|no training)"
        ):
            configuration.complete(two(reuse={"full": "digits"}, **{key: value}))
    configuration.complete(two(reuse={"full": "digits"}, protocol="paper", time_input="t+1"))
    with pytest.raises(
        configuration.ConfigError, match=r"reuse.heads: digits has another protocol"
    ):
        configuration.complete(two(reuse={"heads": "digits"}, protocol="paper"))
    with pytest.raises(
        configuration.ConfigError, match=r"reuse.shallow: digits has another shallow_depth"
    ):
        configuration.complete(two(reuse={"shallow": "digits"}, shallow_depth=5))


def test_every_gpu_trains_on_as_many_images():
    config = DEFAULT | {"device": "cuda", "gpus": 4}
    assert configuration.complete(config)["gpus"] == 4
    message = (
        r"digits.backbone_training.batch: found 64; accepted: a multiple of gpus 3 x accumulate 1"
    )
    with pytest.raises(configuration.ConfigError, match=message):
        configuration.complete(config | {"gpus": 3})


def test_experiments_are_selected_by_name():
    assert selected(configuration.complete(two())) == ["digits", "other"]
    for only in ("other", ["other"]):
        assert selected(configuration.complete(two() | {"only": only})) == ["other"]
    assert selected(configuration.complete(two() | {"only": "other,digits"})) == ["other", "digits"]


def test_a_reserved_experiment_name_is_refused():
    config = copy.deepcopy(DEFAULT)
    config["experiments"]["data"] = config["experiments"].pop("digits")
    with pytest.raises(
        configuration.ConfigError, match=r"experiments.data: .* results/data holds something"
    ):
        configuration.complete(config)


def test_guidance_needs_a_null_class_and_no_early_exit():
    config = two()
    other = config["experiments"]["other"]
    other["sampling"]["guidance"], other["null_class"] = 0.4, True
    other["backbone"]["num_classes"] = 11
    with pytest.raises(
        configuration.ConfigError, match=r"guidance: found 0.4; accepted: 0 with early exit"
    ):
        configuration.complete(config)
    other["grid"]["ddpm"]["theta"] = other["grid"]["ddpm"]["spread"]["theta"] = []
    other["grid"]["ddpm"]["schedules"] = []  # nor is a guided schedule chosen
    configuration.complete(config)


def test_keys_left_out_get_the_schemas_default():
    digits = configuration.complete(DEFAULT)["experiments"]["digits"]
    assert digits["prediction"] == "noise"
    assert digits["reuse"] == {}
    assert digits["sampling"]["guidance"] == 0
    assert digits["backbone_training"]["lr_schedule"] == "cosine"
    assert "prediction" not in DEFAULT["experiments"]["digits"]


def test_the_manual_explains_every_key_of_the_schema():
    manual = (ROOT / "config/README.md").read_text(encoding="utf-8") + (
        ROOT / "config/config.yaml"
    ).read_text(encoding="utf-8")

    def keys(schema):
        if isinstance(schema, dict):
            yield from schema.get("properties", {})
            for value in schema.values():
                yield from keys(value)

    schema = yaml.safe_load((ROOT / "config/schema.yaml").read_text(encoding="utf-8"))
    assert {key for key in keys(schema) if key not in manual} == set()


def test_the_released_variance_is_refused_where_it_is_not_real():
    config = changed(f"{DIGITS}.protocol", "paper")
    for eta in (0, 0.1):
        config["experiments"]["digits"]["grid"]["ddim"]["eta"] = eta
        configuration.complete(config)
    config["experiments"]["digits"]["grid"]["ddim"]["eta"] = 1
    with pytest.raises(configuration.ConfigError, match=r"eta: found 1; .* 50 steps: 0 to 0.2"):
        configuration.complete(config)


def test_the_papers_protocol_samples_in_float32_alone():
    config = changed(f"{DIGITS}.protocol", "paper")
    configuration.complete(config)
    config["experiments"]["digits"]["sampling"]["precision"] = "bfloat16"
    accepted = r"sampling.precision: found bfloat16; accepted under protocol paper: float32"
    with pytest.raises(configuration.ConfigError, match=accepted):
        configuration.complete(config)
    config["experiments"]["digits"]["protocol"] = "corrected"
    configuration.complete(config)
    experiments = configuration.complete(load("paper.yaml"))["experiments"]
    precisions = {e["protocol"]: e["sampling"]["precision"] for e in experiments.values()}
    assert precisions == {"corrected": "bfloat16", "paper": "float32"}


def test_the_papers_items_are_made_without_torch():
    check = """
import runpy, sys
for script in ("make_table2", "plot_figure4", "plot_figure5", "summarise"):
    runpy.run_path(f"workflow_scripts/{script}.py", run_name="imported")
    assert "torch" not in sys.modules, script
"""
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_every_problem_is_listed_at_once():
    config = changed("device", "gpu")
    config["threads"] = 0
    with pytest.raises(
        configuration.ConfigError, match=r"(?s)device: found 'gpu'.*threads: found 0"
    ):
        configuration.complete(config)


def test_a_key_that_a_file_has_twice_is_named_with_its_lines(tmp_path):
    path, text = tmp_path / "config.yaml", (ROOT / "config/config.yaml").read_text(encoding="utf-8")
    path.write_text(text + "\nthreads: 2\n", encoding="utf-8")
    first = text.splitlines().index("threads: 1") + 1
    with pytest.raises(
        configuration.ConfigError, match=rf"threads is given on lines {first} and \d+"
    ):
        configuration.read(path)
    path.write_text("grid: {t_s: [0], list: [{a: 1, a: 2}], t_s: [5]}", encoding="utf-8")
    with pytest.raises(
        configuration.ConfigError, match=r"(?s)t_s is given on lines 1 and 1.*a is given on"
    ):
        configuration.refuse_wrong_keys(path)


WORDS = {
    "64": "64 (a number)",
    "1_000": "1000 (a number)",
    "012": "10 (a number)",
    "1.0e+3": "1000.0 (a number)",
    "1:30": "90 (a number)",
    ".inf": "inf (a number)",
    "no": "false (true or false",
    "On": "true (true or false",
    "null": "null (nothing)",
    "~": "null (nothing)",
    "2024-01-31": "2024-01-31 (a date)",
}
"""Words that YAML does not read as a text, and what is said of them."""


@pytest.mark.parametrize(
    "section", ["experiments", "datasets", "experiments.digits.grid", DIGITS, ""]
)
@pytest.mark.parametrize("word", WORDS)
def test_a_key_that_yaml_does_not_read_as_a_text_is_refused(word, section, tmp_path):
    config = copy.deepcopy(DEFAULT)
    place = config
    for key in filter(None, section.split(".")):
        place = place[key]
    (key,) = yaml.safe_load(f"{word}: 1")
    place[key] = {"a": 1}
    message = f"{section or '(top level)'}: found {WORDS[word]}"
    with pytest.raises(
        configuration.ConfigError, match=re.escape(message) + ".*; write it in quotes"
    ):
        configuration.complete(config)
    path = tmp_path / "config.yaml"
    path.write_text(f"experiments:\n  digits:\n    {word}: 1\n", encoding="utf-8")
    found = WORDS[word].partition("(")[2].partition(")")[0][:4]
    line = rf"config.yaml, line 3: found {re.escape(word)} \({found}.*\); write it in quotes"
    with pytest.raises(configuration.ConfigError, match=line):
        configuration.read(path)
    path.write_text(f"experiments: {{'{word}': {{<<: {{a: 1}}}}}}\n", encoding="utf-8")
    configuration.refuse_wrong_keys(path)


@pytest.mark.parametrize("key", ["title", "dataset", "metric.name", "reuse.full"])
@pytest.mark.parametrize("word", [w for w in WORDS if w not in ("null", "~")])
def test_a_text_without_its_quotes_is_named(word, key):
    config = changed(f"{DIGITS}.reuse", {"full": "digits"})
    *parents, last = f"{DIGITS}.{key}".split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = yaml.safe_load(word)
    message = re.escape(f"{key}: found {WORDS[word]}") + ".*; accepted: .*; write it in quotes"
    with pytest.raises(configuration.ConfigError, match=message):
        configuration.complete(config)


def test_only_and_a_hubs_commit_may_be_digits_in_quotes_alone():
    for path in ("only", "only.0"):
        config = changed("only", 64 if path == "only" else [64])
        with pytest.raises(configuration.ConfigError, match=rf"{path}: found 64 \(a number\); acc"):
            configuration.complete(config)
    config = changed("datasets.digits_latent.autoencoder", {"hub": "a/b", "revision": 1234567})
    with pytest.raises(
        configuration.ConfigError, match=r"revision: found 1234567 \(a number\); acc"
    ):
        configuration.complete(config)


@pytest.mark.parametrize("name", ["no", "64", "1e3", "null", "y"])
def test_names_in_quotes_are_names(name):
    config = copy.deepcopy(DEFAULT)
    config["experiments"] = {name: config["experiments"]["digits"] | {"dataset": name}}
    config["datasets"] = {name: config["datasets"]["digits"]}
    config["only"] = name
    assert selected(configuration.complete(yaml.safe_load(yaml.safe_dump(config)))) == [name]


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes("title: Bäume".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"config.yaml: found the byte 0xe4; accepted: text in UTF-8"
    ):
        configuration.read(path)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.name)
def test_no_configuration_has_a_key_twice(path):
    configuration.refuse_wrong_keys(path)


def test_validation_does_not_import_torch():
    check = (
        "import sys, json; from duodiff.study import config; "
        "config.complete(json.loads(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check, json.dumps(DEFAULT)], check=True, cwd=ROOT)


def test_grid_points_are_all_settings_once_and_the_spread_at_more_seeds():
    experiment = configuration.complete(load("config.yaml"))["experiments"]["digits"]
    experiment["grid"] = {
        "ddpm": {
            "steps": 9,
            "t_s": [0, 500],
            "theta": ["q0.5"],
            "schedules": ["three"],
            "spread": {"seeds": [4], "t_s": [500], "theta": [], "schedules": ["three"]},
            "fewer_steps": [{"steps": 5, "t_s": [0]}],
        }
    }
    assert [point.path for point in grid_points(experiment)] == [
        "ddpm/duodiff/t_s=0/seed0",
        "ddpm/duodiff/t_s=500/seed0",
        "ddpm/adadiff/theta=q0.5/seed0",
        "ddpm/schedule/schedule=three/seed0",
        "ddpm/duodiff/t_s=500/seed4",
        "ddpm/schedule/schedule=three/seed4",
        "ddpm/steps=5/duodiff/t_s=0/seed0",
    ]
    assert sampler_options(experiment, "ddpm/steps=5") == {"name": "ddpm", "steps": 5}
    assert sampler_options(experiment, "ddpm") == {"name": "ddpm", "steps": 9}


def test_two_trainings_share_no_sampling_seed():
    config = changed(f"{GRID}.spread.seeds", [1, 1000])
    configuration.complete(config)
    config["experiments"]["digits"]["train_seeds"] = [0, 1]
    accepted = r"seeds \[0, 1, 1000\]; accepted: one training seed, or sampling seeds below 1000"
    with pytest.raises(configuration.ConfigError, match=accepted):
        configuration.complete(config)


def test_each_training_has_sampling_seeds_of_its_own():
    experiment = configuration.complete(load("config.yaml"))["experiments"]["digits"]
    seeds = [{point.seed for point in grid_points(experiment, k)} for k in (0, 1, 10)]
    assert seeds == [{0, 1, 2}, {1000, 1001, 1002}, {10_000, 10_001, 10_002}]


def test_the_default_run_starts_at_most_35_torch_processes_and_the_test_run_30():
    others = 6  # full, shallow, heads, profile, evaluation, latency
    latent = 4  # autoencoder, two shards, their joining
    for name, limit in (("config.yaml", 35), ("test.yaml", 17 + 13)):
        config = configuration.complete(load(name))
        jobs = 0
        for experiment in map(config["experiments"].get, selected(config)):
            jobs += len(grid_points(experiment)) + others
            jobs += "classifier" in experiment["metric"]
            jobs += latent * ("autoencoder" in config["datasets"][experiment["dataset"]])
        assert jobs <= limit


def test_the_default_grid_compares_duodiff_with_as_many_full_calls():
    """35 full calls cost as much as 50 at t_s = 500: 25 full and 25 shallow ones, each some 0.42 of a full one."""
    experiment = configuration.complete(load("config.yaml"))["experiments"]["digits"]
    steps = {folder: grid["steps"] for folder, grid in step_grids(experiment).items()}
    assert steps == {
        "ddpm": 50,
        "ddpm/steps=35": 35,
        "ddpm/steps=20": 20,
        "ddpm/steps=10": 10,
        "ddim": 50,
    }
    shallow, full = (
        network(backbone_architecture(experiment, r)).forward for r in ("shallow", "full")
    )
    assert 35 * full == pytest.approx(25 * full + 25 * shallow, rel=0.02)
