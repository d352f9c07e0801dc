"""What the tests of faults share: packed digits and small disks."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from duodiff.data.pack import pack

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """Manifest of the packed digits."""
    folder = tmp_path_factory.mktemp("digits")
    pack({"source": "digits", "held_out": 360}, folder, 1, folder / "manifest.json")
    return folder / "manifest.json"


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of a given size in bytes and returns its folder. Skips the test without root."""
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
            encoding="utf-8",
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
