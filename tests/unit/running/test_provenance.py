"""What is said of a result's making, and that nothing is made again because of it."""

import json
import subprocess
from pathlib import Path

import pytest

from duodiff.running import provenance, receipts
from duodiff.running.files import write_json
from duodiff.training.state import Saves

ONE = {"code": "c" * 64, "commit": "1" * 40, "device": "left", "libraries": {"torch": "2.1"}}
OTHER = ONE | {"commit": "2" * 40, "modified": True, "device": "right"}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder in place of the one that the package stands in, of which nothing has been asked yet."""
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.commit.cache_clear()
    yield tmp_path
    provenance.commit.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout.strip()


def clone(folder: Path) -> str:
    """Makes `folder` a clone with one commit, whose name is returned."""
    (folder / "module.py").write_text("x = 1\n", encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "First")
    return git(folder, "rev-parse", "HEAD")


def test_a_clone_tells_its_commit_and_whether_its_tree_differs(root):
    head = clone(root)
    assert provenance.commit() == {"commit": head}
    (root / "module.py").write_text("x = 2\n", encoding="utf-8")
    provenance.commit.cache_clear()
    assert provenance.commit() == {"commit": head, "modified": True}


def test_git_is_asked_once_a_process(root, monkeypatch):
    clone(root)
    asked, run = [], subprocess.run

    def counted(command, **options):
        asked.append(command[-2:])
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    for code in ("a", "b"):
        provenance.made(code)
    assert asked == [["rev-parse", "HEAD"], ["status", "--porcelain"]]


def test_without_a_clone_git_is_not_asked(root, monkeypatch):
    """Also where the package is installed in a folder inside another project's clone."""
    clone(root)
    installed = root / "lib"
    installed.mkdir()
    monkeypatch.setattr(provenance, "ROOT", installed)
    monkeypatch.setattr(subprocess, "run", lambda *a, **o: pytest.fail("git was asked"))
    assert provenance.commit() == {}
    assert "commit" not in provenance.made("c")


def test_without_git_there_is_no_commit(root, monkeypatch):
    clone(root)

    def missing(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert provenance.commit() == {}


def test_made_has_no_time_and_names_the_libraries_that_took_part():
    made = provenance.made("c" * 64, "cpu")
    assert set(made) - {"commit", "modified"} == {"code", "device", "kernels", "libraries"}
    assert made["device"].endswith(("thread", "threads"))
    assert set(made["libraries"]) - {"duodiff"} == {"python", "torch", "numpy"}
    measured = provenance.made("c" * 64, libraries=["torch-fidelity", "a-missing-one"])
    assert set(measured["libraries"]) - set(made["libraries"]) == {"torch-fidelity"}
    assert provenance.made("c" * 64, "cpu") == made
    assert json.loads(json.dumps(made)) == made


def test_parts_that_do_not_say_who_made_them_are_left_out():
    assert "of" not in provenance.made("c", of={"full": {}})
    assert provenance.made("c", of={"full": {}, "shallow": ONE})["of"] == {"shallow": ONE}


def test_what_is_joined_lists_each_making_once():
    assert provenance.joined([ONE, ONE]) == ONE
    assert provenance.joined([ONE, OTHER, ONE]) == {"parts": [ONE, OTHER]}
    samples = provenance.joined([ONE | {"of": {"full": OTHER}}, OTHER])
    made = ONE | {"of": {"samples": samples}}
    found = [(role, one["device"]) for role, one in provenance.makers(made)]
    assert found == [("", "left"), ("samples", "left"), ("full", "right"), ("samples", "right")]
    assert list(provenance.makers({})) == []


def test_a_result_made_under_another_commit_or_device_is_the_same_input(tmp_path):
    manifest, records = tmp_path / "manifest.json", tmp_path / "records.json"

    def write(made, value=1):
        write_json(manifest, {"images_sha256": "a" * 64, "made": made})
        write_json(records, [{"value": value, "made": made | {"of": {"samples": made}}}])

    write(ONE)
    paths = [str(manifest), str(records)]
    receipt = {"inputs": receipts.read_inputs(paths)}
    write(OTHER)
    assert receipts.changed_inputs(receipt) == []
    write(OTHER, value=23)
    assert receipts.changed_inputs(receipt) == [str(records)]


def test_an_unfinished_training_goes_on_with_data_made_under_another_commit(tmp_path):
    def folder(**dataset):
        return Saves(tmp_path / "full/manifest.json", {"dataset": dataset}).folder

    assert folder(sha256="a", made=ONE) == folder(sha256="a", made=OTHER) == folder(sha256="a")
    assert folder(sha256="b", made=ONE) != folder(sha256="a", made=ONE)


def test_what_limits_the_kernels_is_said(monkeypatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR"):
        monkeypatch.delenv(name, raising=False)
    usual = provenance.made("c", "cpu")["kernels"]
    assert usual
    assert "," not in usual
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert provenance.made("c", "cpu")["kernels"] == f"{usual}, ONEDNN_MAX_CPU_ISA=AVX2"
    assert "kernels" not in provenance.made("c")  # without tensors
