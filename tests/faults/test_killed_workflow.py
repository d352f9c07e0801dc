"""The workflow killed in the middle of a grid, as by a power cut, then locked, then started twice at once."""

import os
import re
import signal
import subprocess
import time

import pytest
import yaml
from conftest import ROOT, Workflow

from duodiff.running.files import read_json
from duodiff.running.receipts import receipt_of

SETTINGS = [0, 300, 600, 1000]
CELLS = [
    f"results/digits/train0/samples/ddpm/duodiff/t_s={t_s}/seed0/manifest.json" for t_s in SETTINGS
]
CONFIG = "mine.yaml"


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Workflow:
    """A copy of the project with a configuration of four cells."""
    workflow = Workflow(tmp_path_factory.mktemp("killed"))
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text(encoding="utf-8"))
    del config["datasets"]["digits_latent"], config["experiments"]["digits_latent"]
    spread = {"seeds": [], "t_s": [], "theta": []}
    config["experiments"]["digits"]["grid"] = {
        "ddpm": {"steps": 10, "t_s": SETTINGS, "theta": [], "spread": spread}
    }
    (workflow.folder / CONFIG).write_text(yaml.safe_dump(config), encoding="utf-8")
    return workflow


def begin(clone: Workflow, *targets: str) -> subprocess.Popen:
    """Starts a run in its own process group, as a terminal does. The output goes to a file."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    with open(clone.folder / "output.txt", "w", encoding="utf-8") as output:
        return subprocess.Popen(
            ["snakemake", "--configfile", CONFIG, "--cores", "1", *targets],
            cwd=clone.folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def output_of(clone: Workflow) -> str:
    """The output, so far, of the run that was begun last."""
    return (clone.folder / "output.txt").read_text(encoding="utf-8")


def finish(process: subprocess.Popen, clone: Workflow) -> str:
    """The output of a run that must succeed."""
    assert process.wait() == 0, output_of(clone)
    return output_of(clone)


def run(clone: Workflow, *targets: str) -> subprocess.CompletedProcess:
    return clone.run("--cores", "1", *targets, config=CONFIG)


def jobs(output: str) -> dict[str, int]:
    """The jobs of a run, by rule."""
    table = re.search(r"Job stats:\n.*?\n-+ .*?\n(.*?)\ntotal", output, re.S)
    rows = [] if table is None else [line.split() for line in table[1].splitlines()]
    return {name: int(count) for name, count in rows}


def wait_for(condition, process: subprocess.Popen, clone: Workflow) -> None:
    while not condition():
        assert process.poll() is None, output_of(clone)
        time.sleep(0.05)


def done(clone: Workflow) -> dict[str, float]:
    """The finished cells, and when they were finished, by the receipts of their jobs."""
    paths = {cell: clone.folder / receipt_of(cell) for cell in CELLS}
    return {cell: read_json(path)["finished"] for cell, path in paths.items() if path.exists()}


def test_a_grid_killed_in_the_middle_is_completed_and_then_left_alone(clone):
    # Killed with all its processes, after 4 jobs: packed images, two trained backbones, one cell.
    process = begin(clone, *CELLS)
    wait_for(lambda: "4 of 7 steps" in output_of(clone), process, clone)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = done(clone)
    assert len(finished) == 1

    # The lock that it left refuses the next run, with the exact command that clears the lock.
    refused = run(clone, *CELLS)
    assert refused.returncode != 0
    assert "Directory cannot be locked" in refused.stdout
    (command,) = re.findall(r"If none is at work: (snakemake .*)", refused.stdout)
    assert "Traceback" not in refused.stdout
    cleared = subprocess.run(
        command.split(),
        cwd=clone.folder,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert cleared.returncode == 0, cleared.stderr
    assert "Unlocked" in cleared.stderr

    # The next run makes only the missing cells. A second run at the same time is refused. The first is paused
    # meanwhile, so that it cannot end before the second has looked for the lock.
    process = begin(clone, *CELLS)
    wait_for(lambda: len(done(clone)) > len(finished), process, clone)
    os.killpg(process.pid, signal.SIGSTOP)
    second = run(clone, *CELLS)
    os.killpg(process.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout
    assert "Traceback" not in second.stdout
    output = finish(process, clone)
    assert jobs(output) == {"sample_images": len(CELLS) - len(finished)}
    assert done(clone).keys() == set(CELLS)
    assert {cell: done(clone)[cell] for cell in finished} == finished

    # Nothing is left to do, and no half-written file is left.
    again = run(clone, *CELLS)
    assert again.returncode == 0, again.stdout
    assert "Nothing to be done" in again.stdout
    assert "locked" not in again.stdout
    hidden = {path.name for path in (clone.folder / "results").rglob(".*")}
    assert hidden <= {".resume", ".store"}


def test_a_run_stopped_by_the_keyboard_leaves_no_lock_and_continues_its_training(clone):
    """Ctrl-C: SIGINT to the whole group."""
    (clone.folder / "duodiff/training/state.py").write_text(
        re.sub(
            "EVERY_S = .*",
            "EVERY_S = 0.05",
            (ROOT / "duodiff/training/state.py").read_text(encoding="utf-8"),
        ),
        encoding="utf-8",
    )
    target = "results/digits/train5/full/manifest.json"
    config = yaml.safe_load((clone.folder / CONFIG).read_text(encoding="utf-8"))
    config["experiments"]["digits"]["backbone_training"]["steps"] = 600
    (clone.folder / CONFIG).write_text(yaml.safe_dump(config), encoding="utf-8")
    process = begin(clone, target)
    states = clone.folder / "results/digits/train5/.resume"
    wait_for(lambda: any(states.glob("full-*/step-*")), process, clone)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() != 0
    log = (clone.folder / "logs/digits/train5/train_backbone/full.log").read_text(encoding="utf-8")
    assert re.search(r"stopped by SIG(INT|TERM), saved at step \d+; run again to continue", log)
    output = finish(begin(clone, target), clone)
    assert jobs(output) == {"train_backbone": 1}
    assert "continued from" in output
    assert "cannot be locked" not in output
