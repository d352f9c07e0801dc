"""The workflow through sbatch, on a cluster started for it, against a run without one (make test-slurm)."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster import NODES, Cluster, missing
from conftest import ROOT, Workflow

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

CONFIG = "mine.yaml"
TABLE = "results/tables/table2.csv"
TRAINED = "results/digits/train5/full/manifest.json"
# What a user says of a site, in a profile of their own: which partition, and here that nothing is accounted.
SITE = {
    "default-resources": {"slurm_partition": "mine"},
    "slurm-no-account": True,
    "slurm-status-command": "squeue",
}
# Steps of a training that is still at it when it is stopped.
LONG = 1000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def project(folder: Path) -> Workflow:
    """A copy of the project with a study of two cells, the profile of a site, and states saved all the time."""
    workflow = Workflow(folder)
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    del config["datasets"]["digits_latent"], config["experiments"]["digits_latent"]
    spread = {"seeds": [], "t_s": [], "theta": []}
    config["experiments"]["digits"]["grid"] = {
        "ddpm": {"steps": 10, "t_s": [0, 500], "theta": [], "spread": spread}
    }
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    config["experiments"]["digits"]["backbone_training"]["steps"] = LONG
    (folder / f"long_{CONFIG}").write_text(yaml.safe_dump(config))
    (folder / "site").mkdir()
    (folder / "site/config.yaml").write_text(yaml.safe_dump(SITE))
    replace(folder / "duodiff/training/state.py", "EVERY_S = .*", "EVERY_S = 0.5")
    # GPUs are asked for though the CPU computes, as the cluster's are not there
    replace(folder / "rules/common.smk", r"^GPU = .*", "GPU = 1")
    return workflow


def replace(path: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, path.read_text(), count=1, flags=re.M)
    assert count == 1
    path.write_text(changed)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Workflow:
    """The same project, for runs without a cluster."""
    return project(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def submitted(tmp_path_factory) -> Workflow:
    return project(tmp_path_factory.mktemp("submitted"))


def submit(workflow: Workflow, cluster: Cluster, config: str, target: str) -> subprocess.Popen:
    """A run from the login node; its output goes to a file."""
    profiles = ["--profile", "site", "--workflow-profile", "profiles/slurm"]
    waits = [
        "--slurm-init-seconds-before-status-checks",
        "3",
    ]  # else a quick job is long waited for
    command = ["snakemake", *profiles, *waits, target, "--configfile", config]
    environment = {k: v for k, v in cluster.environment.items() if k != "OMP_NUM_THREADS"}
    with open(workflow.folder / "output.txt", "w") as output:
        return subprocess.Popen(
            command, cwd=workflow.folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )


def output_of(workflow: Workflow) -> str:
    return (workflow.folder / "output.txt").read_text()


def finish(process: subprocess.Popen, workflow: Workflow) -> str:
    """The output of a run that must succeed."""
    assert process.wait() == 0, output_of(workflow)
    return output_of(workflow)


def results(workflow: Workflow, pattern: str) -> dict[str, dict]:
    """The JSON files of a run, by their path."""
    folder = workflow.folder / "results"
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())
        for path in sorted(folder.glob(pattern))
    }


def test_a_study_through_sbatch_gives_what_it_gives_without(cluster, local, submitted):
    output = finish(submit(submitted, cluster, CONFIG, TABLE), submitted)

    jobs = [job for job in cluster.completed() if job["WorkDir"] == str(submitted.folder)]
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert {job["NodeList"] for job in jobs} == set(NODES)
    assert {job["Partition"] for job in jobs} == {"mine"}
    assert "gres:gpu:1" in cluster.command("scontrol", "show", "job", "--oneliner")
    # tables are made on the login node
    assert len(jobs) == output.count("has been submitted with SLURM jobid")
    assert "localrule make_table2" in output

    # manifests have the hashes of weights and images, the records the distances of these
    local.snakemake("--cores", "all", TABLE, config=CONFIG)
    for pattern, count in (("**/manifest.json", 5), ("**/evaluate_samples.json", 1)):
        assert len(results(local, pattern)) == count
        assert results(submitted, pattern) == results(local, pattern)

    again = finish(submit(submitted, cluster, CONFIG, TABLE), submitted)
    assert "Nothing to be done" in again


@pytest.mark.parametrize("stop", [["scancel"], ["scancel", "--signal=TERM"]])
def test_a_training_stopped_by_slurm_is_retried_and_ends_as_if_it_had_not_been(
    cluster, local, submitted, stop
):
    folder = (submitted.folder / TRAINED).parents[1]
    subprocess.run(["rm", "-rf", folder], check=True)
    process = submit(submitted, cluster, f"long_{CONFIG}", TRAINED)
    while not any(folder.glob(".resume/full-*/step-*")):
        assert process.poll() is None, output_of(submitted)
        time.sleep(0.05)
    (job,) = cluster.command("squeue", "-h", "-t", "R", "-o", "%i").split()
    subprocess.run([*stop, job], env=cluster.environment, check=True)
    output = finish(process, submitted)
    assert "stopped by SIGTERM, saved at step" in output
    assert "Trying to restart job" in output
    log = (submitted.folder / "logs/digits/train5/train_backbone/full.log").read_text()
    assert "continued from" in log
    local.snakemake("--cores", "all", TRAINED, config=f"long_{CONFIG}")  # the second time, nothing
    trained = "digits/train5/full/manifest.json"
    assert results(submitted, trained) == results(local, trained)
