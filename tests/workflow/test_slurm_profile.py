"""profiles/slurm, as Snakemake reads it together with profiles/default and a site's profile."""

import re
import sys
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT, Workflow
from snakemake_executor_plugin_slurm import Executor
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string

ROW = re.compile(r"^\| [^|]+ \| `(\w+=\S+)` \| `([^`]+)`[^|]*\|$", re.M)
ROWS = dict(ROW.findall((ROOT / "docs/cluster.md").read_text(encoding="utf-8")))
"""The table of docs/cluster.md: items of a site's default-resources, and what sbatch is then told of a training."""
WITHOUT_GPU = {"pack_dataset", "gather_latents"}


class Resources(dict):
    """The resources of a planned job, as the executor reads them."""

    __getattr__ = dict.__getitem__


def submitted(workflow: Workflow, *items: str, config: str = "config/test.yaml") -> dict[str, str]:
    """What sbatch would be told of the first job of each rule that is not local, with these default-resources."""
    (workflow.folder / "site").mkdir(exist_ok=True)
    site = yaml.safe_dump({"default-resources": list(items)})
    (workflow.folder / "site/config.yaml").write_text(site, encoding="utf-8")
    profiles = ("--profile", "profiles/slurm", "--profile", "site")
    planned = workflow.snakemake("-n", *profiles, "--config", "device=cuda", config=config)
    rules = re.findall(r"^rule (\w+):\n(.*?resources: [^\n]*)", planned, re.S | re.M)
    return {
        rule: command(rule, text)
        for rule, text in reversed(rules)
        if rule
        in yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))[
            "set-resources"
        ]
    }


def command(rule: str, planned: str) -> str:
    """The call of sbatch for a planned job."""
    pairs = [item.split("=", 1) for item in planned.rpartition("resources: ")[2].split(", ")]
    resources = Resources({k: int(v) if v.isdigit() else v for k, v in pairs})
    job = SimpleNamespace(name=rule, threads=1, resources=resources)
    account = f"-A {resources['slurm_account']}" if "slurm_account" in resources else ""
    partition = Executor.get_partition_arg(SimpleNamespace(_partitions=None), job)
    names = {"run_uuid": "id", "slurm_logfile": "log", "comment_str": rule, "workdir": "."}
    return get_submit_command(
        job, {**names, "account": account, "partition": partition}
    ) + set_gres_string(job)


@pytest.mark.parametrize("option", ["--profile", "--workflow-profile"])
def test_the_papers_trainings_are_planned_with_the_limits_of_the_slurm_profile(fresh, option):
    arguments = ["--dry-run", option, "profiles/slurm", "--config", "only=cifar10"]
    planned = fresh.snakemake(*arguments, config="config/paper.yaml")
    training = re.search(r"^rule train_backbone:.*?\n\n", planned, re.S | re.M)[0]
    assert {"gpu=1", "mem_mb=16000", "runtime=720", "slurm_extra=--signal=TERM@120"} <= set(
        re.findall(r"[^ ,\n]+=[^ ,\n]+", training)
    )


def test_the_lines_of_a_site_reach_sbatch(fresh):
    """All rows of the table but the one of `gres`, which replaces the number of GPUs."""
    items = [item for item in ROWS if not item.startswith("gres=")]
    assert len(items) == len(ROWS) - 1 >= 6
    jobs = submitted(fresh, *items)
    for item in items:
        assert f" {ROWS[item]} " in f"{jobs['train_backbone']} ", item
    limits = {int(re.search(r" -t (\d+) ", text)[1]) for text in jobs.values()}
    assert max(limits) == 240  # a longer limit is cut
    assert 60 in limits  # a shorter one stays
    assert all(" --export=ALL " in text for text in jobs.values())  # modules loaded before
    assert all("--signal=TERM@120" in text for text in jobs.values())
    assert {rule for rule, text in jobs.items() if "--gpus" not in text} == WITHOUT_GPU


def test_a_gres_of_the_site_replaces_the_number_of_gpus(fresh):
    """sbatch refuses both together."""
    item = next(item for item in ROWS if item.startswith("gres="))
    jobs = submitted(fresh, "slurm_partition=gpu", item)
    assert jobs["train_backbone"].endswith(f" {ROWS[item]}")
    assert not [rule for rule, text in jobs.items() if "--gpus" in text]
    assert {rule for rule, text in jobs.items() if "--gres" not in text} == WITHOUT_GPU


def test_a_longest_time_that_is_no_time_is_refused(fresh):
    arguments = ("--default-resources", "slurm_partition=gpu", "runtime=attempt * 30")
    refused = fresh.run("-n", "--profile", "profiles/slurm", *arguments)
    assert refused.returncode != 0
    assert "runtime of default-resources: found 'attempt * 30'; accepted: minutes" in refused.stdout


APPTAINER = """#!/bin/sh
[ "$1" = --version ] && echo "apptainer version 1.3.0" && exit
echo "$@" >> apptainer.txt
while [ "$1" != bash ]; do shift; done
exec "$@"
"""


def test_jobs_run_in_the_image_of_the_configuration(fresh, monkeypatch):
    """A stand-in for Apptainer notes its arguments, and runs the job outside."""
    (fresh.folder / "bin").mkdir()
    (fresh.folder / "bin/apptainer").write_text(APPTAINER, encoding="utf-8")
    (fresh.folder / "bin/apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fresh.folder}/bin", prepend=":")
    (fresh.folder / "duodiff.sif").touch()
    site = {
        "software-deployment-method": "apptainer",
        "apptainer-args": "--nv --bind /my/datasets",
    }
    (fresh.folder / "site").mkdir()
    (fresh.folder / "site/config.yaml").write_text(yaml.safe_dump(site), encoding="utf-8")
    target = "results/data/digits/manifest.json"
    arguments = ("--profile", "site", "--cores", "1", target)

    refused = fresh.run(*arguments)
    assert refused.returncode != 0
    assert "container: found none; accepted: the image" in refused.stdout

    fresh.snakemake(*arguments, "--config", "container=duodiff.sif")
    (called,) = (fresh.folder / "apptainer.txt").read_text(encoding="utf-8").splitlines()
    assert re.search(r"^exec .*--nv --bind /my/datasets.* duodiff\.sif bash -c", called)
    assert "exec python workflow_scripts/pack_dataset.py" in called

    # the image decides no result, and neither does its absence
    assert fresh.pending(target) == {}

    # the report runs Snakemake, which the image does not hold
    planned = fresh.snakemake(
        "-n", "-p", *arguments[:-1], "make_report", "--config", "container=duodiff.sif"
    )
    programs = set(
        re.findall(r"exec (\S+) (?:-m \S+ \d )?workflow_scripts/(make_report)?", planned)
    )
    assert programs == {("python", ""), (sys.executable, "make_report")}


def test_environment_modules_change_no_interpreter(fresh):
    method = "--software-deployment-method=env-modules"
    planned = fresh.snakemake("-n", "-p", method, "results/data/digits/manifest.json")
    assert f"exec {sys.executable} workflow_scripts/pack_dataset.py" in planned
