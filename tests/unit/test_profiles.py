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


def works() -> dict[str, str]:
    """The text of every Work in rules/, by its name in small letters, which is that of its rule."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("rules/*.smk"))
    _, *parts = re.split(r"^(\w+) = Work\($", text, flags=re.M)
    names = [name.lower() for name in parts[::2]]
    return {name: part.split("\n)\n")[0] for name, part in zip(names, parts[1::2], strict=True)}


def of_a_gpu() -> set[str]:
    """The rules that ask for a GPU, where the configuration names one."""
    return {name for name, text in written().items() if "\n        gpu=gpus(" in text}


def test_a_job_has_a_gpu_exactly_if_it_is_told_of_a_device():
    told = {name for name, text in works().items() if '"device": config["device"]' in text}
    assert told == of_a_gpu()
    assert {"train_classifier", "train_autoencoder", "compute_reference"} <= told


def test_a_script_that_takes_a_device_is_told_of_it():
    folder = ROOT / "workflow_scripts"
    taking = {p.stem for p in folder.glob("*.py") if "device: str" in p.read_text("utf-8")}
    assert taking == of_a_gpu()


def test_jobs_of_a_gpu_get_one_on_slurm_and_their_time_is_on_the_page_of_the_run():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    without = {rule for rule, asked in profile["set-resources"].items() if "gres" in asked}
    assert not of_a_gpu() & without
    listed = (ROOT / "rules/paper.smk").read_text(encoding="utf-8")
    listed = listed.split("RULES_OF_A_STUDY = (")[1].split(").split()")[0]
    assert of_a_gpu() | without - {"export_npz", "export_pngs"} <= set(re.findall(r"\w+", listed))
