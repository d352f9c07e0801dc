"""The real packing script loses a process, is asked to stop, is killed, and meets a full disk."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from unit.image_files import IMAGES, encoded, noise, write_folder

from duodiff.data.pack import pack
from duodiff.running import signals
from faults.scripts import start

N, SIDE = 3000, 96
DATASET = IMAGES | {"size": 64, "held_out": 10, "filter": "lanczos"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with images, and `whole`, their store as it is packed without interruption."""
    folder = tmp_path_factory.mktemp("data")
    image = noise(SIDE)
    content = {f"{i % 3}/{i}.png": encoded(image.rotate(i)) for i in range(N)}
    write_folder(folder / "images", content)
    pack(DATASET, folder, 1, folder / "whole/manifest.json")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def packing(data: Path, out: Path) -> subprocess.Popen:
    """Starts the script with two processes, and waits until pixels arrive."""
    arguments = {"dataset": DATASET, "data": data, "workers": 2, "out": out}
    process = start("pack_dataset", arguments)
    while not any(path.stat().st_size > 1000 for path in out.parent.glob(".*/images.npy")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    return process


def finished(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=100)
    return output


def children(process: subprocess.Popen) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8")
    return [int(pid) for pid in found.split()]


def ended(pid: int) -> bool:
    for _ in range(500):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.02)
    return False


def test_a_killed_process_is_one_line_and_the_same_command_continues(data, tmp_path):
    out = tmp_path / "store/manifest.json"
    process = packing(data, out)
    *_, worker = children(process)
    os.kill(worker, signal.SIGKILL)
    output = finished(process)
    assert process.returncode == 1
    assert "was killed (SIGKILL), most likely because memory ran out" in output
    assert "Traceback" not in output
    assert not out.exists()
    process = packing(data, out)
    finished(process)
    assert process.returncode == 0
    assert contents(out.parent) == contents(data / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_packing_leaves_no_process_and_continues(data, tmp_path, number):
    out = tmp_path / "store/manifest.json"
    process = packing(data, out)
    workers = children(process)
    process.send_signal(number)
    output = finished(process)
    assert process.returncode == (signals.EXIT_CODE if number == signal.SIGTERM else -number)
    assert "Traceback" not in output
    assert all(map(ended, workers))
    process = packing(data, out)
    finished(process)
    assert contents(out.parent) == contents(data / "whole")


def test_a_disk_that_fills_up_is_named_and_the_packing_continues(data, small_disk, monkeypatch):
    monkeypatch.setattr("duodiff.data.pack.require_space", lambda *_: None)
    disk = small_disk(24 << 20)
    filler = disk / "filler"
    filler.write_bytes(bytes(4 << 20))
    monkeypatch.setattr("duodiff.data.pack._KEPT_EVERY", 100)
    out = disk / "store/manifest.json"
    with pytest.raises(OSError, match=r"store/images\.npy: the disk is full; free some of it"):
        pack(DATASET, data, 1, out)
    assert not out.exists()
    size = sum(path.stat().st_size for path in out.parent.glob(".*/images.npy"))
    assert size > 1 << 20
    filler.unlink()
    with pytest.raises(OSError, match="the disk is full"):  # 3,000 images have 37 MB
        pack(DATASET, data, 1, out)
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    pack(DATASET, data, 1, out)
    assert contents(out.parent) == contents(data / "whole")
