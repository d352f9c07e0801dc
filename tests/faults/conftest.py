"""What the tests of faults share: packed digits, scripts run as processes of their own, and small disks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from duodiff.data.pack import pack

ROOT = Path(__file__).parents[2]
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """Manifest of the packed digits."""
    folder = tmp_path_factory.mktemp("digits")
    pack({"source": "digits", "held_out": 360}, folder, 1, folder / "manifest.json")
    return folder / "manifest.json"


def start(script: str, arguments: dict, setup: str = "") -> subprocess.Popen:
    """A script of the workflow as a process; `setup` is Python run before it."""
    code = f"import runpy, sys\n{setup}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", f"import sys; sys.argv.pop(0)\n{code}"]
    command.append(str(ROOT / f"workflow_scripts/{script}.py"))
    for name, value in arguments.items():
        text = value if isinstance(value, (str, Path)) else json.dumps(value)
        command += [f"--{name.replace('_', '-')}", str(text)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of so many bytes and gives its folder; to mount one needs root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
