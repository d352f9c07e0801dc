"""Networks, named schedules and budgets of a configuration: what is refused, and what an experiment needs for them."""

import copy
from pathlib import Path

import pytest
import yaml

from duodiff.settings import Setting
from duodiff.study import config as configuration
from duodiff.study.grid import (
    backbone_architecture,
    backbones,
    grid_points,
    has_heads,
    network_keywords,
    roles,
    schedules,
    setting_roles,
)

TEST = yaml.safe_load((Path(__file__).parents[3] / "config/test.yaml").read_text(encoding="utf-8"))
TWO = [{"network": "middle", "t": [300, 999]}, {"network": "early", "t": [0, 299]}]
GUIDED = {"network": "full", "by": "middle", "weight": 0.5}
KEYS = {
    "networks": {"middle": {"depth": 3}, "early": {"exit": 4}, "guided": GUIDED},
    "schedules": {"two": {"intervals": TWO, "timesteps": [999, 300, 0]}},
    "budgets": {"thrifty": {"operations": 0.7, "choose": "networks"}},
}
NAMES = ["two", "thrifty"]


def described(changes: dict, theta=(), grid=NAMES) -> dict:
    config = copy.deepcopy(TEST)
    del config["experiments"]["digits_latent"]
    experiment = config["experiments"]["digits"]
    experiment |= copy.deepcopy(KEYS) | changes
    for lists in (experiment["grid"]["ddpm"], experiment["grid"]["ddpm"]["spread"]):
        lists["theta"] = list(theta)
    experiment["grid"]["ddpm"]["schedules"] = list(grid)
    return config


def complete(**changes) -> dict:
    return configuration.complete(described(changes))["experiments"]["digits"]


def test_an_experiment_has_the_checkpoints_of_its_networks():
    experiment = complete()
    assert backbones(experiment) == ("full", "shallow", "middle")
    assert roles(experiment) == ("full", "shallow", "heads", "middle")  # heads for the exit
    assert backbone_architecture(experiment, "middle")["depth"] == 3
    assert [*network_keywords(experiment)] == ["full", "shallow", "middle", "adadiff"]
    plain = configuration.complete(
        described({"networks": {}, "schedules": {}, "budgets": {}}, grid=[])
    )
    assert not has_heads(plain["experiments"]["digits"])
    assert roles(plain["experiments"]["digits"]) == ("full", "shallow")


def test_named_schedules_are_cells_of_the_grid():
    paths = [point.path for point in grid_points(complete())]
    assert "ddpm/schedule/schedule=two/seed0" in paths
    assert "ddpm/schedule/schedule=thrifty/seed0" in paths
    assert not [path for path in paths if "steps=5" in path and "schedule" in path]


def test_a_cell_needs_the_checkpoints_that_its_networks_are_made_of():
    experiment = complete()
    needed = {
        text: setting_roles(experiment, Setting.parse(text))
        for text in ("t_s=500", "theta=0.3", "schedule=two", "schedule=thrifty")
    }
    assert needed == {
        "t_s=500": ("full", "shallow"),
        "theta=0.3": ("full", "heads"),
        "schedule=two": ("full", "heads", "middle"),
        "schedule=thrifty": ("full", "shallow", "heads", "middle"),
    }


def test_scripts_are_told_of_a_schedule_what_it_uses_and_of_a_budget_what_it_may_choose():
    assert schedules(complete(), NAMES) == {
        "two": {
            "intervals": [["middle", 300, 999], ["early", 0, 299]],
            "timesteps": [999, 300, 0],
            "networks": {"early": {"exit": 4}},
        },
        "thrifty": {"networks": {"early": {"exit": 4}}},
    }


def test_scripts_are_told_what_a_guided_network_is_made_of():
    by_exit = GUIDED | {"by": "early"}
    networks = KEYS["networks"] | {"guided": by_exit}
    guided = {"intervals": [{"network": "guided", "t": [0, 999]}]}
    experiment = complete(networks=networks, schedules={"two": guided})
    told = schedules(experiment, ["two"])["two"]["networks"]
    assert told == {"guided": by_exit, "early": {"exit": 4}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"networks": {"middle": {"depth": 4}}},
            r"networks.middle.depth: found 4; accepted: an odd",
        ),
        ({"networks": {"early": {"exit": 5}}}, r"networks.early.exit: found 5; accepted: 0 to 4"),
        ({"networks": {"records": {"depth": 3}}}, r"networks.records: accepted: another name than"),
        ({"networks": {"x": {}}}, r"networks.x: found none; accepted: depth, or exit, or network"),
        (
            {"networks": {"x": {"depth": 3, "exit": 1}}},
            r"networks.x: found depth, exit; accepted: depth, or exit",
        ),
        (
            {"networks": KEYS["networks"] | {"more": GUIDED | {"by": "guided"}}},
            r"networks.more.by: found 'guided'; accepted: early, full, middle, shallow",
        ),
        (
            {"networks": KEYS["networks"] | {"more": GUIDED | {"network": "full", "by": "full"}}},
            r"networks.more.by: found 'full'; accepted: another one than network",
        ),
        (
            {"networks": {"Middle": {"depth": 3}}},
            "found 'Middle'; accepted: a name of small letters",
        ),
        ({"networks": {"x": {"deep": 3}}}, r"unknown key 'deep' \(did you mean 'depth'"),
        (
            {"schedules": {"two": {"intervals": TWO[:1]}}},
            r"schedules.two.intervals: t = 299 has no network; accepted: every t from",
        ),
        (
            {"schedules": {"two": {"intervals": [*TWO, {"network": "full", "t": [5, 6]}]}}},
            r"schedules.two.intervals: t = 6 is covered twice",
        ),
        (
            {"schedules": {"two": {"intervals": [{"network": "deep", "t": [0, 999]}]}}},
            r"schedules.two.intervals: found 'deep'; accepted: early, full, guided, middle, shallow",
        ),
        (
            {"schedules": {"two": {"intervals": TWO, "timesteps": [999, 5, 5, 0]}}},
            r"schedules.two.timesteps: found \[999, 5, 5, 0\]; accepted: timesteps that fall",
        ),
        (
            {"budgets": KEYS["budgets"] | {"two": KEYS["budgets"]["thrifty"]}},
            r"budgets.two: accepted: another name; a schedule is called so",
        ),
        (
            {"budgets": {"thrifty": {"operations": 1.5, "choose": "networks"}}},
            r"operations: found 1.5; accepted: a number above 0, up to 1",
        ),
        (
            {"budgets": {"thrifty": {"operations": 0.5, "choose": "best"}}},
            r"choose: found 'best'; accepted: switch, networks or steps",
        ),
        ({"budgets": {}}, r"grid.ddpm.schedules: found 'thrifty'; accepted: two"),
        ({"reuse": {"midle": "digits"}}, r"reuse.midle: accepted: full, heads, middle, shallow"),
    ],
)
def test_networks_and_schedules_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(configuration.ConfigError, match=message):
        complete(**changes)


def test_a_network_guided_by_another_is_not_guided_by_the_class_too():
    guidance = {
        "sampling": {"images": 96, "batch": 64, "seed": 0, "guidance": 0.4},
        "null_class": True,
    }
    with pytest.raises(configuration.ConfigError) as refused:
        complete(**guidance)
    assert "accepted: 0 with networks that are guided (guided)" in str(refused.value)
    assert "accepted: 0 with early exit (a theta, or an exit of networks)" in str(refused.value)


def test_the_released_variance_is_real_on_the_timesteps_of_a_schedule_too():
    config = described({"protocol": "paper"})
    grid = config["experiments"]["digits"]["grid"]
    grid["ddim"] |= {"eta": 1e-4, "schedules": ["two"]}
    configuration.complete(config)
    grid["ddim"]["eta"] = 0.03  # its ten steps allow more
    with pytest.raises(
        configuration.ConfigError, match=r"under protocol paper and the timesteps of two: 0 to"
    ):
        configuration.complete(config)


def test_a_further_network_can_be_reused_where_it_is_the_same():
    config = described({})
    config["experiments"]["other"] = copy.deepcopy(config["experiments"]["digits"]) | {
        "title": "Other",
        "reuse": {"middle": "digits"},
    }
    configuration.complete(config)
    config["experiments"]["other"]["networks"]["middle"] = {"depth": 5}
    with pytest.raises(
        configuration.ConfigError, match=r"reuse.middle: digits has another networks"
    ):
        configuration.complete(config)
