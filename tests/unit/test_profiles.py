"""Profiles: Snakemake ignores a misspelt rule in them, and says of a misspelt key only that it is unknown."""

import re
from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

ROOT = Path(__file__).parents[2]
PROFILES = sorted(ROOT.glob("profiles/*/config.yaml"))
# Keys whose mapping or list names rules; "set-resources" and "set-threads" by key, "groups" too.
OF_RULES = ("set-resources", "set-threads", "groups")


def rules() -> set[str]:
    """The names of all rules that have one."""
    text = "\n".join(path.read_text() for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")])
    return set(re.findall(r"^(?:use )?rule (?:\w+ as )?(\w+)(?: with)?:$", text, re.M))


def options() -> set[str]:
    """Every long option of the command line, those of executors included."""
    ExecutorPluginRegistry().collect_plugins()
    actions = get_argument_parser()._actions
    return {option[2:] for action in actions for option in action.option_strings}


def test_rules_are_found():
    assert {"all", "train_backbone", "make_table2", "describe_run"} <= rules()


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_a_profile_names_rules_and_options_that_exist(path):
    profile = yaml.safe_load(path.read_text())
    assert profile.keys() <= options()
    for key in OF_RULES:
        assert set(profile.get(key, {})) <= rules()


def test_trainings_on_slurm_are_warned_before_their_time_limit():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    for name in ("train_autoencoder", "train_backbone", "train_heads"):
        assert "--signal=TERM@" in profile["set-resources"][name]["slurm_extra"]


def local() -> set[str]:
    """The names of the rules that are made where Snakemake runs."""
    text = "\n".join(path.read_text() for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")])
    listed = re.findall(r"^localrules:\n((?:    \w+,\n)+)", text, re.M)
    marked = [rule for rule in re.split(r"^rule ", text, flags=re.M) if " localrule: True" in rule]
    return set(re.findall(r"\w+", "".join(listed))) | {rule.partition(":")[0] for rule in marked}


def test_every_rule_has_limits_on_slurm_or_is_local():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert local() & rules() >= {"fetch_dataset", "gather_samples", "make_table2", "summarise"}
    assert rules() - local() == set(profile["set-resources"])


def test_the_limit_of_this_machines_gpus_is_none_of_a_clusters():
    """With --profile profiles/slurm the default profile is read too, after it."""
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    assert profile["resources"] == ["gpu=1"]
    assert profile["set-resource-scopes"] == ["gpu=local"]
