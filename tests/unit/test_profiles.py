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


def written() -> dict[str, str]:
    """The text of every rule by its name, but of the paper's items, which one loop makes."""
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")]
    )
    start = r"^(?:use )?rule (?:\w+ as )?(\w+)(?: with)?:$"
    _, *parts = re.split(start, text, flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def rules() -> set[str]:
    """The names of these rules."""
    return set(written())


def options() -> set[str]:
    """Every long option of the command line, those of executors included."""
    ExecutorPluginRegistry().collect_plugins()
    actions = get_argument_parser()._actions
    return {option[2:] for action in actions for option in action.option_strings}


def test_rules_are_found():
    assert {"all", "train_backbone", "sample_shard", "describe_run"} <= rules()


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_a_profile_names_rules_and_options_that_exist(path):
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert profile.keys() <= options()
    for key in OF_RULES:
        assert set(profile.get(key, {})) <= rules()


def test_trainings_on_slurm_are_warned_before_their_time_limit():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    for name in ("train_autoencoder", "train_backbone", "train_heads"):
        assert "--signal=TERM@" in profile["set-resources"][name]["slurm_extra"]


def local() -> set[str]:
    """The names of the rules that are made where Snakemake runs."""
    return {name for name, text in written().items() if "\n    localrule: True\n" in text}


def test_what_is_local_is_said_in_each_rule():
    """A list of local rules would reach into a workflow that imports this one."""
    for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")]:
        assert "localrules:" not in path.read_text(encoding="utf-8")
    assert "        localrule: True\n" in (ROOT / "rules/paper.smk").read_text(
        encoding="utf-8"
    )  # the items


def test_every_rule_has_limits_on_slurm_or_is_local():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    assert local() >= {"all", "fetch_dataset", "gather_samples", "describe_run"}
    assert rules() - local() == set(profile["set-resources"])


def test_the_limit_of_this_machines_gpus_is_none_of_a_clusters():
    """With --profile profiles/slurm the default profile is read too, after it."""
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text(encoding="utf-8"))
    assert profile["resources"] == ["gpu=1"]
    assert profile["set-resource-scopes"] == ["gpu=local"]
