"""GPUs that are handed out to the jobs of a machine, with a driver that only pretends."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from duodiff.running import gpus

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


@pytest.mark.parametrize("umask", [0o077, 0o777])
def test_all_users_may_read_a_lock_whatever_the_umask(umask, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-GPU-a/7/0,b")
    before = os.umask(umask)
    try:
        gpus.claim(1, tmp_path)
    finally:
        os.umask(before)
    (lock,) = tmp_path.iterdir()
    assert lock.name == "duodiff-gpu-MIG-GPU-a-7-0.lock"
    assert lock.stat().st_mode & 0o777 == 0o644
    gpus._held.pop().close()


def test_users_with_folders_of_their_own_share_the_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert gpus._shared_folder() == Path("/tmp")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert gpus._shared_folder() == tmp_path


def test_a_second_user_takes_the_gpu_that_is_left(tmp_path, claimed, another_user):
    tmp_path.chmod(0o1777)
    environment = {"CUDA_VISIBLE_DEVICES": "a,b"}
    before = os.umask(0o077)
    try:
        assert device(claimed(**environment)) == "a"
    finally:
        os.umask(before)

    def second():
        os.environ |= environment
        gpus.claim(1, tmp_path)
        return os.environ["CUDA_VISIBLE_DEVICES"]

    assert another_user(second) == "b"


def test_a_lock_that_another_user_keeps_is_named_with_its_cure(tmp_path, another_user):
    lock = tmp_path / "duodiff-gpu-a.lock"
    lock.touch(mode=0o000)
    lock.chmod(0)
    said = another_user(lambda: gpus._lock(tmp_path, "a"))
    assert said.startswith(f"OSError: {lock}: the lock of a GPU may not be read; user ")
    assert said.endswith(f" can allow it: chmod a+r {lock}")


@pytest.mark.parametrize("kind", ["folder", "missing"])
def test_a_lock_that_cannot_be_made_is_named(kind, tmp_path):
    folder = tmp_path / "folder"
    if kind == "folder":
        (folder / "duodiff-gpu-a.lock").mkdir(parents=True)
    with pytest.raises(
        OSError, match=r"folder/duodiff-gpu-a.lock: the lock of a GPU cannot be made: "
    ):
        gpus._lock(folder, "a")


def test_a_folder_without_permission_is_named(tmp_path, another_user):
    tmp_path.chmod(0o555)
    said = another_user(lambda: gpus._lock(tmp_path, "a"))
    assert said.endswith(
        "duodiff-gpu-a.lock: the lock of a GPU cannot be made: no permission to write to this folder"
    )
