import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from duodiff import config as study

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def changed(path: str, value) -> dict:
    config = copy.deepcopy(DEFAULT)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    return config


@pytest.mark.parametrize("name", ["config.yaml", "test.yaml"])
def test_shipped_configurations_are_valid(name):
    study.validate(yaml.safe_load((ROOT / "config" / name).read_text()))


DIGITS = "experiments.digits"
GRID = f"{DIGITS}.grid.ddpm"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("cores", 2, r"\(top level\): unknown key 'cores'; accepted: threads, device, experiments"),
        ("device", "gpu", "device: found 'gpu'; accepted: cpu or cuda"),
        (f"{DIGITS}.protocl", "paper", r"unknown key 'protocl' \(did you mean 'protocol'\?\)"),
        (f"{DIGITS}.protocol", "released", "found 'released'; accepted: corrected or paper"),
        (
            f"{GRID}.spread.thetas",
            [],
            r"grid.ddpm.spread: unknown key 'thetas' \(did you mean 'theta'",
        ),
        (f"{GRID}.t_s", [0, 1200], "t_s.1: found 1200; accepted: an integer from 0 to 1000"),
        (
            f"{GRID}.theta",
            [],
            "grid.ddpm.theta: found \\[\\]; accepted: a list of at least one theta",
        ),
        (
            f"{GRID}.spread.seeds",
            [0, 1],
            r"found \[0, 1\]; accepted: seeds other than sampling.seed 0",
        ),
        (f"{DIGITS}.sampling.images", 64, "found 64; accepted: more than the 64 features"),
        (
            f"{DIGITS}.dataset.held_out",
            50,
            "dataset.held_out: found 50; accepted: more than the 64",
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
        (f"{DIGITS}.dataset", {"source": "digits"}, "dataset: 'held_out' is a required property"),
        (f"{DIGITS}.train_seeds", [], "train_seeds: found \\[\\]"),
    ],
)
def test_bad_configurations_are_refused_with_key_value_and_what_is_accepted(path, value, message):
    with pytest.raises(study.ConfigError, match=message):
        study.validate(changed(path, value))


def test_the_papers_protocol_refuses_a_variance_rule_it_does_not_have():
    config = changed(f"{DIGITS}.protocol", "paper")
    study.validate(config)
    config["experiments"]["digits"]["grid"]["ddim"]["eta"] = 1
    with pytest.raises(study.ConfigError, match="eta: found 1; accepted: 0 under protocol paper"):
        study.validate(config)


@pytest.mark.parametrize("script", ["make_table2", "plot_figure4", "plot_figure5", "summarise"])
def test_the_papers_items_are_made_without_torch(script):
    path = ROOT / f"workflow_scripts/{script}.py"
    check = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='imported');"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check, str(path)], check=True, cwd=ROOT)


def test_every_problem_is_listed_at_once():
    config = changed("device", "gpu")
    config["threads"] = 0
    with pytest.raises(study.ConfigError, match=r"(?s)device: found 'gpu'.*threads: found 0"):
        study.validate(config)


def test_validation_does_not_import_torch():
    check = (
        "import sys, json; from duodiff import config; "
        "config.validate(json.loads(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check, json.dumps(DEFAULT)], check=True, cwd=ROOT)


def test_grid_points_are_all_settings_once_and_the_spread_at_more_seeds():
    experiment = copy.deepcopy(DEFAULT["experiments"]["digits"])
    experiment["grid"] = {
        "ddpm": {
            "steps": 9,
            "t_s": [0, 500],
            "theta": ["q0.5"],
            "spread": {"seeds": [4], "t_s": [500], "theta": []},
        }
    }
    assert [point.path for point in study.grid_points(experiment)] == [
        "ddpm/duodiff/t_s=0/seed0",
        "ddpm/duodiff/t_s=500/seed0",
        "ddpm/adadiff/theta=q0.5/seed0",
        "ddpm/duodiff/t_s=500/seed4",
    ]


def test_the_default_run_starts_at_most_30_torch_processes_and_the_test_run_15():
    for name, limit in (("config.yaml", 30), ("test.yaml", 15)):
        config = yaml.safe_load((ROOT / "config" / name).read_text())
        (experiment,) = config["experiments"].values()
        others = 7  # full, shallow, heads, classifier, profile, evaluation, latency
        assert len(study.grid_points(experiment)) + others <= limit


def test_conda_environment_holds_the_locked_versions():
    lock = {}
    for line in (ROOT / "envs/requirements.txt").read_text().splitlines():
        name, separator, rest = line.partition("==")
        if separator and not line.startswith((" ", "#")) and ">= '3.12'" not in rest:
            lock[name] = rest.split()[0]
    environment = yaml.safe_load((ROOT / "envs/environment.yaml").read_text())
    pinned = dict(pin.split("==") for pin in environment["dependencies"][-1]["pip"])
    assert pinned == {name: lock[name] for name in pinned}
    wanted = (ROOT / "envs/requirements.in").read_text().split("# development")[0].splitlines()
    assert set(pinned) == {
        line.split(">=")[0] for line in wanted if line and not line.startswith("#")
    }
