"""Trainings that SLURM takes away in the middle, each in another way: they continue to the undisturbed weights."""

import re
import signal
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Workflow

from slurm.cluster import Cluster
from slurm.conftest import PROFILE, Submitted

CONFIG = "trainings.yaml"
STEPS = 160
LIMIT, CANCELLED, REQUEUED, LOST = SEEDS = (1, 2, 3, 4)
FILES = ("model.safetensors", "curve.csv")
# A step that takes half a second, a state every second.
SLOW = """
import time
from duodiff.training import state
state.EVERY_S, state.SHARE = 1, float("inf")
after_step = state.Saves.after_step
def slow(self, *arguments):
    time.sleep(0.5)
    after_step(self, *arguments)
state.Saves.after_step = slow
"""


def folder(workflow: Workflow, seed: int) -> Path:
    return workflow.folder / f"results/digits/train{seed}"


def target(seed: int) -> str:
    return f"results/digits/train{seed}/full/manifest.json"


def copy(path: Path) -> Workflow:
    """A copy of the project with a configuration of the trainings."""
    workflow = Workflow(path)
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    del config["datasets"]["digits_latent"], config["experiments"]["digits_latent"]
    config["experiments"]["digits"]["train_seeds"] = list(SEEDS)
    config["experiments"]["digits"]["backbone_training"]["steps"] = STEPS
    (workflow.folder / CONFIG).write_text(yaml.safe_dump(config))
    return workflow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Workflow:
    """The trainings, run here to their ends."""
    workflow = copy(tmp_path_factory.mktemp("undisturbed"))
    workflow.snakemake("--cores", "2", *map(target, SEEDS), config=CONFIG)
    return workflow


def steps_saved(workflow: Workflow, seed: int) -> int:
    """Steps of a training's last state; 0 without one."""
    states = folder(workflow, seed).glob(".resume/full-*/step-*.safetensors")
    return max((int(path.stem[5:]) for path in states), default=0)


def job(cluster: Cluster, seed: int) -> dict[str, str]:
    """The first job of a training."""
    comment = f"rule_train_backbone_wildcards_digits_{seed}_full"
    return next(found for found in cluster.jobs() if found["comment"] == comment)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory, cluster) -> Submitted:
    """The trainings after they were stopped by their time limit, cancelled, requeued, or lost their node."""
    workflow = copy(tmp_path_factory.mktemp("disturbed"))
    script = workflow.folder / "workflow_scripts/train_backbone.py"
    script.write_text(SLOW + script.read_text())
    resources = {rule: dict(values) for rule, values in PROFILE["set-resources"].items()}
    # SLURM counts in minutes, and warns up to one early: a limit of two for the one it is to stop
    limited = f"wildcards.train_seed == '{LIMIT}'"
    resources["train_backbone"] |= {
        "runtime": f"2 if {limited} else 30",
        "slurm_extra": f"'--signal=TERM@30' if {limited} else '--signal=TERM@120'",
    }
    run = Submitted(workflow, cluster, resources)
    process = run.start(*map(target, SEEDS), config=CONFIG)
    try:
        while min(steps_saved(workflow, seed) for seed in SEEDS) == 0:
            assert process.poll() is None, run.output
            time.sleep(0.5)
        cluster.call("scancel", job(cluster, CANCELLED)["job"])
        cluster.call("scontrol", "requeue", job(cluster, REQUEUED)["job"])
        lost = job(cluster, LOST)["node"]
        cluster.lose_node(lost)
        while cluster.states()[lost] not in ("down", "down*"):
            time.sleep(0.5)
        cluster.start_node(lost)
        assert process.wait() == 0, run.output
    finally:
        process.send_signal(
            signal.SIGINT
        )  # on which Snakemake cancels its jobs; it has ended where all went well
        process.wait()
    return run


@pytest.mark.parametrize("seed", SEEDS)
def test_a_training_taken_away_ends_with_the_weights_of_an_undisturbed_one(
    undisturbed, disturbed, seed
):
    log = disturbed.workflow.folder / f"logs/digits/train{seed}/train_backbone/full.log"
    (steps,) = re.findall(r"continued from .*step-(\d+)", log.read_text())
    assert 0 < int(steps) < STEPS
    for name in FILES:
        found, expected = (
            (folder(workflow, seed) / "full" / name).read_bytes()
            for workflow in (disturbed.workflow, undisturbed)
        )
        assert found == expected


def test_each_was_taken_away_in_its_own_way(disturbed):
    jobs = {seed: job(disturbed.cluster, seed) for seed in SEEDS}
    assert jobs[LIMIT]["state"] == "FAILED"
    name = f"logs/slurm/rule_train_backbone/digits_{LIMIT}_full/{jobs[LIMIT]['job']}.log"
    said = (disturbed.workflow.folder / name).read_text()
    assert re.search(r"stopped by SIGTERM, saved at step \d+; run again to continue", said)
    assert jobs[CANCELLED]["state"] == "CANCELLED"
    # the same job, started again by SLURM
    for seed in (REQUEUED, LOST):
        shown = disturbed.cluster.call("scontrol", "show", "job", jobs[seed]["job"])
        assert jobs[seed]["state"] == "COMPLETED"
        assert int(re.search(r"Restarts=(\d+)", shown)[1]) >= 1
