"""The real training script in two processes, as the workflow starts it: asked to stop, killed, and with an error."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from duodiff.running import signals
from faults.killed_training import CONVENTIONS, NET, TRAINING, hashes
from faults.scripts import ROOT, options

LONG = TRAINING | {"steps": 800}


def start(digits: Path, out: Path, training: dict = TRAINING) -> subprocess.Popen:
    arguments = {
        "data": digits,
        "architecture": NET,
        "conventions": CONVENTIONS,
        "null_class": False,
        "training": training,
        "seed": "0",
        "device": "cpu",
        "monitor": out.parents[1] / "monitor",
        "out": out,
        "log": out.parents[1] / "train.log",
    }
    script = "workflow_scripts/train_backbone.py"
    return subprocess.Popen(
        [sys.executable, "-m", "duodiff.running.launch", "2", script, *options(arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def starts_training(digits: Path, out: Path) -> subprocess.Popen:
    """Starts a training and waits until it computes steps, which a new file of events shows."""

    def events() -> int:
        return len(list(out.parents[1].glob("monitor/events*")))

    before, process = events(), start(digits, out, LONG)
    while events() == before:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    return process


def finished(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    return output


def test_asked_to_stop_all_processes_save_one_state_and_continue(digits, tmp_path):
    undisturbed, out = (tmp_path / name / "full/manifest.json" for name in ("a", "b"))
    finished(start(digits, undisturbed, LONG))
    for number in (signal.SIGTERM, signal.SIGUSR1):
        process = starts_training(digits, out)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == signals.EXIT_CODE, output
        # torchrun passes every stop on as SIGTERM
        assert output.count("stopped by SIGTERM, saved at step") == 1
        assert not out.exists()
    assert len(list(tmp_path.glob("b/.resume/*/*"))) == 2  # one state for each signal
    assert finished(start(digits, out, LONG)).count("continued from") == 1
    assert hashes(out) == hashes(undisturbed)


def test_processes_whose_torchrun_is_killed_save_and_end(digits, tmp_path):
    """Otherwise they would train on, beside the next run."""
    out = tmp_path / "full/manifest.json"
    process = starts_training(digits, out)
    process.kill()
    output, _ = process.communicate(timeout=60)  # until the last process has closed the pipe
    assert "stopped by SIGHUP, saved at step" in output
    assert not out.exists()


def test_a_killed_process_is_named_with_the_likely_cause(digits, tmp_path):
    process = starts_training(digits, tmp_path / "full/manifest.json")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    os.kill(int(children.read_text(encoding="utf-8").split()[-1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert " of 2 was killed (SIGKILL), most likely because memory ran out; give the job" in output
    assert output.rstrip().endswith(
        "continues from what was saved"
    )  # below what the other one says


def test_an_error_is_told_and_torchrun_says_nothing_of_its_own(digits, tmp_path):
    process = start(digits, tmp_path / "full/manifest.json", TRAINING | {"batch": 9})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "train_backbone: training.batch: found 9; accepted: a multiple of 2, processes" in output
    assert "Traceback" not in output
    assert "training.batch: found 9" in (tmp_path / "train.log").read_text(encoding="utf-8")
