"""profiles/slurm, as Snakemake reads it together with profiles/default."""

import re

import pytest


@pytest.mark.parametrize("option", ["--profile", "--workflow-profile"])
def test_the_papers_trainings_are_planned_with_the_limits_of_the_slurm_profile(fresh, option):
    arguments = ["--dry-run", option, "profiles/slurm", "--config", "only=cifar10"]
    planned = fresh.snakemake(*arguments, config="config/paper.yaml")
    training = re.search(r"^rule train_backbone:.*?\n\n", planned, re.S | re.M)[0]
    assert {"gpu=1", "mem_mb=16000", "runtime=720", "slurm_extra=--signal=TERM@120"} <= set(
        re.findall(r"[^ ,\n]+=[^ ,\n]+", training)
    )
