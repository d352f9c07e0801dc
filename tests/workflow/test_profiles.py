"""The profiles. A rule or resource that is misspelt there Snakemake ignores."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROFILES = {
    path.parent.name: yaml.safe_load(path.read_text())
    for path in ROOT.glob("profiles/*/config.yaml")
}
RESOURCES = {"gpu", "mem_mb", "runtime", "slurm_extra"}


@pytest.mark.parametrize("name", ["default", "gpu", "slurm"])
def test_every_rule_and_resource_named_in_a_profile_exists(fresh, name):
    profile = PROFILES[name]
    rules = set(fresh.snakemake("--list-rules").split())
    assert {"sample_images", "make_table1"} <= rules
    for key in ("set-resources", "set-threads"):
        assert set(profile.get(key, {})) <= rules
    for resources in profile.get("set-resources", {}).values():
        assert set(resources) <= RESOURCES


def test_every_job_that_may_ask_for_a_gpu_has_its_limits_in_the_slurm_profile():
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    asking = [rule for rule in re.split(r"^rule ", rules, flags=re.M) if " gpu=" in rule]
    names = [*(rule.partition(":")[0] for rule in asking), "sample_shard"]  # as sample_images
    assert len(names) > 8
    assert set(names) <= set(PROFILES["slurm"]["set-resources"])


@pytest.mark.parametrize("option", ["--profile", "--workflow-profile"])
def test_the_slurm_profile_plans_the_papers_study_with_a_job_growing_in_memory(fresh, option):
    arguments = ["--dry-run", option, "profiles/slurm", "--config", "only=cifar10"]
    planned = fresh.snakemake(*arguments, config="config/paper.yaml")
    training = re.search(r"^rule train_backbone:.*?\n\n", planned, re.S | re.M)[0]
    assert "gpu=1" in training
    assert "mem_mb=16000" in training
    assert "runtime=720" in training
    assert "slurm_extra=--signal=TERM@120" in training


def test_the_limit_of_this_machines_gpus_is_none_of_a_clusters():
    """With --profile profiles/slurm the default profile is read too, after it."""
    assert PROFILES["default"]["resources"] == ["gpu=1"]
    assert PROFILES["default"]["set-resource-scopes"] == ["gpu=local"]
