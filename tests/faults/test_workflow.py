"""The workflow itself, killed in mid-grid like by a power cut, locked, and started twice at once."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

TREE = ["Snakefile", "rules", "workflow_scripts", "config", "envs", "profiles", "report", "duodiff"]
SETTINGS = [0, 300, 600, 1000]
CELLS = [
    f"results/digits/train0/samples/ddpm/duodiff/t_s={t_s}/seed0/manifest.json" for t_s in SETTINGS
]
CONFIG = "mine.yaml"
COMMAND = ["snakemake", "--configfile", CONFIG, "--cores", "1"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of the project with a configuration of four cells."""
    folder = tmp_path_factory.mktemp("workflow")
    for name in TREE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    del config["datasets"]["digits_latent"], config["experiments"]["digits_latent"]
    spread = {"seeds": [], "t_s": [], "theta": []}
    config["experiments"]["digits"]["grid"] = {
        "ddpm": {"steps": 10, "t_s": SETTINGS, "theta": [], "spread": spread}
    }
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    return folder


def begin(clone: Path, *arguments: str) -> subprocess.Popen:
    """A run in a process group of its own, as a terminal starts one; with a file for its output."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "PYTHONPATH")
    }
    with open(clone / "output.txt", "w") as output:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=clone,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(process: subprocess.Popen, clone: Path) -> str:
    """The output of a run that must succeed."""
    code = process.wait()
    output = (clone / "output.txt").read_text()
    assert code == 0, output
    return output


def run(clone: Path, *arguments: str, command=COMMAND) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*command, *arguments],
        cwd=clone,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def jobs(output: str) -> dict[str, int]:
    """The jobs of a run, by rule."""
    table = re.search(r"Job stats:\n.*?\n-+ .*?\n(.*?)\ntotal", output, re.S)
    rows = [] if table is None else [line.split() for line in table[1].splitlines()]
    return {name: int(count) for name, count in rows}


def wait_for(condition, process: subprocess.Popen, clone: Path) -> None:
    while not condition():
        assert process.poll() is None, (clone / "output.txt").read_text()
        time.sleep(0.05)


def done(clone: Path) -> dict[str, int]:
    """The finished cells, and when they were written."""
    return {cell: (clone / cell).stat().st_mtime_ns for cell in CELLS if (clone / cell).exists()}


def lines_on_locks(output: str) -> str:
    return "\n".join(line for line in output.splitlines() if "lock" in line.lower())


def test_a_grid_killed_in_the_middle_is_completed_and_then_left_alone(clone):
    # killed, with everything it had started, after the images are packed, two backbones trained, one cell made
    process = begin(clone, *CELLS)
    wait_for(lambda: "4 of 7 steps" in (clone / "output.txt").read_text(), process, clone)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = done(clone)
    assert len(finished) == 1

    # the lock it leaves: refused, with the exact command that clears it
    refused = run(clone, *CELLS)
    assert refused.returncode != 0
    assert "Directory cannot be locked" in refused.stdout
    (command,) = re.findall(r"If none is at work: (snakemake .*)", refused.stdout)
    assert "Traceback" not in refused.stdout
    cleared = run(clone, command=command.split())
    assert cleared.returncode == 0, cleared.stdout
    assert "Unlocked" in cleared.stdout

    # completed: the missing cells alone, while a second run at once is refused
    process = begin(clone, *CELLS)
    wait_for(lambda: len(done(clone)) > len(finished), process, clone)
    second = run(clone, *CELLS)
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout
    assert "Traceback" not in second.stdout
    output = finish(process, clone)
    assert jobs(output) == {"sample_images": len(CELLS) - len(finished)}
    assert done(clone).keys() == set(CELLS)
    assert {cell: done(clone)[cell] for cell in finished} == finished

    # nothing is left to do, and nothing half written to see
    again = run(clone, *CELLS)
    assert again.returncode == 0, again.stdout
    assert "Nothing to be done" in again.stdout
    assert not lines_on_locks(again.stdout)
    assert not [p for p in (clone / "results").rglob(".*") if p.name != ".resume"]


def test_a_run_stopped_by_the_keyboard_leaves_no_lock_and_continues_its_training(clone):
    """Ctrl-C: SIGINT to the whole group."""
    (clone / "duodiff/training/state.py").write_text(
        re.sub("EVERY_S = .*", "EVERY_S = 0.05", (ROOT / "duodiff/training/state.py").read_text())
    )
    target = "results/digits/train5/full/manifest.json"
    config = yaml.safe_load((clone / CONFIG).read_text())
    config["experiments"]["digits"]["backbone_training"]["steps"] = 600
    (clone / CONFIG).write_text(yaml.safe_dump(config))
    process = begin(clone, target)
    states = clone / "results/digits/train5/.resume"
    wait_for(lambda: any(states.glob("full-*/step-*")), process, clone)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() != 0
    log = (clone / "logs/digits/train5/train_backbone/full.log").read_text()
    assert re.search(r"stopped by SIG(INT|TERM), saved at step \d+; run again to continue", log)
    output = finish(begin(clone, target), clone)
    assert jobs(output) == {"train_backbone": 1}
    assert "continued from" in output
    assert "cannot be locked" not in output
