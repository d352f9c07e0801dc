"""GPUs that are handed out to the jobs of a machine, with a driver that only pretends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CLAIM = """
import os, sys
from pathlib import Path
from duodiff.running import gpus
gpus.claim(int(sys.argv[1]), Path(sys.argv[2]))
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def claimed(tmp_path):
    """A function that starts a process that claims a GPU, of a driver that knows three."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho GPU-a; echo GPU-b; echo GPU-c\n", encoding="utf-8")
    driver.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    started = []

    def start(count: int = 1, **told: str) -> subprocess.Popen:
        command = [sys.executable, "-c", CLAIM, str(count), str(tmp_path)]
        pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        started.append(
            subprocess.Popen(command, env=environment | told, text=True, **pipes, encoding="utf-8")
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def device(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def test_jobs_side_by_side_have_gpus_of_their_own_and_a_killed_one_gives_them_back(claimed):
    first, second = claimed(), claimed()
    taken = [device(first), device(second)]
    assert sorted(taken) == ["GPU-a", "GPU-b"]
    two = claimed(2)
    with pytest.raises(subprocess.TimeoutExpired):
        two.wait(1)  # there is one
    first.kill()
    assert device(two) == f"{taken[0]},GPU-c"


def test_a_gpu_that_a_scheduler_has_chosen_is_left_as_it_is(claimed):
    assert [device(claimed(CUDA_VISIBLE_DEVICES="0")) for _ in range(2)] == ["0", "0"]
    chosen = [device(claimed(CUDA_VISIBLE_DEVICES="2,5")) for _ in range(2)]
    assert chosen == ["2", "5"]
