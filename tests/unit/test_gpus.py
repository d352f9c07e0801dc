"""GPUs that are handed out to the jobs of a machine, with a driver that only pretends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLAIM = """
import os, sys
from pathlib import Path
from duodiff import gpus
gpus.claim(Path(sys.argv[1]))
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def claimed(tmp_path):
    """A function that starts a process that claims a GPU, of a driver that knows two."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    driver.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    started = []

    def start(**told: str) -> subprocess.Popen:
        command = [sys.executable, "-c", CLAIM, str(tmp_path)]
        pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        started.append(subprocess.Popen(command, env=environment | told, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def device(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def test_jobs_side_by_side_get_a_gpu_each_and_a_killed_one_gives_it_back(claimed):
    first, second = claimed(), claimed()
    taken = device(first)
    assert {taken, device(second)} == {"GPU-a", "GPU-b"}
    third = claimed()
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(1)  # there is none
    first.kill()
    assert device(third) == taken


def test_a_gpu_that_a_scheduler_has_chosen_is_left_as_it_is(claimed):
    assert [device(claimed(CUDA_VISIBLE_DEVICES="0")) for _ in range(2)] == ["0", "0"]
    chosen = [device(claimed(CUDA_VISIBLE_DEVICES="2,5")) for _ in range(2)]
    assert chosen == ["2", "5"]
