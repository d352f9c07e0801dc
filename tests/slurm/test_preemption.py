"""Trainings that SLURM takes away in the middle, each in another way: they continue to the undisturbed weights."""

import re
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Workflow

from slurm.cluster import Cluster
from slurm.conftest import PROFILE, Submitted

CONFIG = "trainings.yaml"
STEPS = 160
# One training, five times: experiments that differ by their names alone, and by what happens to them. The last two are
# alone on the node that they lose; the daemonless one goes on there while SLURM starts it anew elsewhere.
NAMES = ("limited", "cancelled", "requeued", "lost", "daemonless")
NOT_ON = dict.fromkeys(NAMES, "--exclude=n1,n2") | {"lost": "--exclude=n1", "daemonless": ""}
FILES = ("model.safetensors", "curve.csv")
# A step takes over half a second, so that all last longer than the latest warning; there is a state every second.
SLOW = """
import time
from duodiff.training import state
state.EVERY_S, state.SHARE = 1, float("inf")
after_step = state.Saves.after_step
def slow(self, *arguments):
    time.sleep(0.6)
    after_step(self, *arguments)
state.Saves.after_step = slow
"""


def folder(workflow: Workflow, name: str) -> Path:
    return workflow.folder / f"results/{name}/train0"


def target(name: str) -> str:
    return f"results/{name}/train0/full/manifest.json"


def copy(path: Path) -> Workflow:
    """A copy of the project with a configuration of the trainings."""
    workflow = Workflow(path)
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text(encoding="utf-8"))
    del config["datasets"]["digits_latent"]
    training = config["experiments"]["digits"]
    training["backbone_training"]["steps"] = STEPS
    config["experiments"] = {name: training | {"title": name} for name in NAMES}
    (workflow.folder / CONFIG).write_text(yaml.safe_dump(config), encoding="utf-8")
    return workflow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The folder of the training, run here to its end."""
    workflow = copy(tmp_path_factory.mktemp("undisturbed"))
    workflow.snakemake("--cores", "1", target("limited"), config=CONFIG)
    return folder(workflow, "limited") / "full"


def steps_saved(workflow: Workflow, name: str) -> int:
    """Steps of a training's last state; 0 without one."""
    states = folder(workflow, name).glob(".resume/full-*/step-*.safetensors")
    return max((int(path.stem[5:]) for path in states), default=0)


def job(cluster: Cluster, name: str) -> dict[str, str]:
    """The first job of a training."""
    comment = f"rule_train_backbone_wildcards_{name}_0_full"
    found = [job for job in cluster.jobs() if job["comment"] == comment]
    return min(found, key=lambda job: int(job["job"]))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory, cluster) -> Submitted:
    """The trainings after each was taken away and Snakemake has ended well."""
    workflow = copy(tmp_path_factory.mktemp("disturbed"))
    script = workflow.folder / "workflow_scripts/train_backbone.py"
    script.write_text(SLOW + script.read_text(encoding="utf-8"), encoding="utf-8")
    resources = {rule: dict(values) for rule, values in PROFILE["set-resources"].items()}
    # SLURM counts in minutes, and warns up to one too early: of these two it leaves half a minute to one and a half.
    limited = "wildcards.experiment == 'limited'"
    resources["train_backbone"] |= {
        "runtime": f"2 if {limited} else 30",
        "slurm_extra": f"('--signal=TERM@30 ' if {limited} else '--signal=TERM@120 ')"
        f" + {NOT_ON}[wildcards.experiment]",
    }
    run = Submitted(workflow, cluster, resources)
    with run.running(*map(target, NAMES), config=CONFIG) as process:
        while min(steps_saved(workflow, name) for name in NAMES) == 0:
            assert process.poll() is None, run.output
            time.sleep(0.5)
        cluster.call("scancel", job(cluster, "cancelled")["job"])
        cluster.call("scontrol", "requeue", job(cluster, "requeued")["job"])
        lost = [job(cluster, name)["node"] for name in ("lost", "daemonless")]
        cluster.lose_node(lost[0])
        cluster.kill_daemon(lost[1])
        for node in lost:
            while not cluster.states()[node].startswith("down"):
                time.sleep(0.5)
        cluster.start_node(lost[0])
        assert process.wait() == 0, run.output
        cluster.start_node(lost[1])
    return run


@pytest.mark.parametrize("name", NAMES)
def test_a_training_taken_away_ends_with_the_weights_of_an_undisturbed_one(
    undisturbed, disturbed, name
):
    if name != "daemonless":  # of whose two processes either may come to the end first
        log = disturbed.workflow.folder / f"logs/{name}/train0/train_backbone/full.log"
        (steps,) = re.findall(r"continued from .*step-(\d+)", log.read_text(encoding="utf-8"))
        assert 0 < int(steps) < STEPS
    for file in FILES:
        found = folder(disturbed.workflow, name) / "full" / file
        assert found.read_bytes() == (undisturbed / file).read_bytes()


def test_each_was_taken_away_in_its_own_way(disturbed):
    jobs = {name: job(disturbed.cluster, name) for name in NAMES}
    assert jobs["limited"]["state"] == "FAILED"
    number = jobs["limited"]["job"]
    kept = disturbed.workflow.folder / f"logs/slurm/rule_train_backbone/limited_0_full/{number}.log"
    stopped = r"stopped by SIGTERM, saved at step \d+; run again to continue"
    assert re.search(stopped, kept.read_text(encoding="utf-8"))
    assert jobs["cancelled"]["state"] == "CANCELLED"
    for name in ("requeued", "lost", "daemonless"):  # the same job, started again by SLURM
        shown = disturbed.cluster.call("scontrol", "show", "job", jobs[name]["job"])
        assert jobs[name]["state"] == "COMPLETED"
        assert int(re.search(r"Restarts=(\d+)", shown)[1]) >= 1
    assert jobs["daemonless"]["node"] != "n1"
