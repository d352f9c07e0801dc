"""The real scripts meet files that are damaged, swapped or malicious."""

import hashlib
import io
import os
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from duodiff import checkpoints
from duodiff.data.pack import pack
from duodiff.running.download import fetch
from duodiff.uvit import UViT
from faults.killed_training import NET, train
from faults.scripts import start

# --- checkpoints


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "full"
    train(digits, folder / "manifest.json")
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    """Replaces a file of weights with a whole file of other weights."""
    weights = {k: v + 1 for k, v in load_file(path).items()}
    checkpoints.save_file(weights, path)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "bit flipped": flip,
    "swapped": swap,
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_weights_are_named_and_not_loaded(trained, tmp_path, damage):
    folder = shutil.copytree(trained, tmp_path / "full")
    checkpoints.load_backbone(folder / "manifest.json")
    damage(folder / "model.safetensors")
    message = (
        f"{folder}/model.safetensors: its sha256 is not the one in .*; train or fetch it again"
    )
    with pytest.raises(ValueError, match=message):
        checkpoints.load_backbone(folder / "manifest.json")


def test_a_damaged_manifest_is_named(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "full")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    with pytest.raises(ValueError, match=f"{manifest}: damaged, it is not JSON"):
        checkpoints.load_backbone(manifest)


# --- files from elsewhere


class Runs:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_malicious_pickle_is_refused_by_the_script_without_running(tmp_path):
    """It is refused even if its hash is pinned."""
    file, trace = tmp_path / "uvit.pth", tmp_path / "trace"
    torch.save(UViT(**NET).state_dict() | {"norm.weight": Runs(trace)}, file)
    weights = {"path": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    arguments = {
        "weights": weights,
        "data": tmp_path,
        "architecture": NET,
        "conventions": {"schedule": "linear", "time_input": "t", "class_order": None},
        "null_class": False,
        "out": tmp_path / "out/manifest.json",
    }
    process = start("import_weights", arguments)
    output, _ = process.communicate()
    assert process.returncode == 1
    assert "found a file that needs the code of posix.mkdir, accepted: tensors alone" in output
    assert not trace.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png"])
def test_an_archive_cannot_write_outside_its_target(tmp_path, kind, name):
    """The archive is refused, and nothing of it is written."""
    (tmp_path / "inner").mkdir()
    path = tmp_path / f"inner/images.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
    else:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    dataset = {"source": "images", "path": path.name, "crop": "square", "size": 8, "filter": "box"}
    dataset |= {"channels": 1, "held_out": 1}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"leads out of the archive; refused"):
        pack(dataset, path.parent, 1, tmp_path / "out/manifest.json")
    assert sorted(tmp_path.rglob("*")) == before


# --- downloads on a full disk; tests/unit/running/test_download.py has cut downloads, wrong hashes and HTML pages

CONTENT = bytes(range(256)) * 8192


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT, from any byte on."""

    def do_GET(self):
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.send_header("Content-Range", span)
        self.end_headers()
        try:
            self.wfile.write(CONTENT[start:])
        except OSError:
            self.close_connection = True  # the client is gone

    def log_message(self, *_):
        pass


def test_a_download_onto_a_full_disk_is_refused_first_and_continues_with_room(
    small_disk, monkeypatch
):
    monkeypatch.setenv("no_proxy", "*")
    disk, sha256 = small_disk(3 << 20), hashlib.sha256(CONTENT).hexdigest()
    (disk / "filler").write_bytes(bytes(2 << 20))
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url, path = f"http://127.0.0.1:{server.server_port}/file", disk / "file.bin"
        with pytest.raises(OSError, match=r"the download needs 2.10 MB, the disk has 1.05 MB left"):
            fetch(url, path, sha256)
        assert not path.exists()
        # other jobs fill the disk during the download
        monkeypatch.setattr("duodiff.running.download.require_space", lambda *_: None)
        with pytest.raises(OSError, match=r"file.bin.partial: the disk is full; free some of it"):
            fetch(url, path, sha256)
        assert not path.exists()
        assert (disk / "file.bin.partial").stat().st_size > 0
        (disk / "filler").unlink()
        fetch(url, path, sha256)
        assert path.read_bytes() == CONTENT
        server.shutdown()
        thread.join()
