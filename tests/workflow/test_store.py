"""Finished work is found again in the store: an edit that is undone, a repack to the same bytes, and what is left."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Workflow

STUDY = "results/digits/train0"
TRAINED = {
    f"{STUDY}/{role}/manifest.json": log
    for role, log in (
        ("full", "train_backbone/full"),
        ("shallow", "train_backbone/shallow"),
        ("heads", "train_heads"),
    )
}
OLD_LR, NEW_LR = "lr: 4.0e-3", "lr: 3.0e-3"


def edit(workflow: Workflow, path: str, old: str, new: str) -> None:
    file = workflow.folder / path
    before = file.read_text(encoding="utf-8")
    assert before.count(old) == 1
    file.write_text(before.replace(old, new), encoding="utf-8")


def weights(workflow: Workflow) -> list[bytes]:
    folders = [(workflow.folder / path).parent for path in TRAINED]
    return [(folder / "model.safetensors").read_bytes() for folder in folders]


def logs(workflow: Workflow) -> list[str]:
    folder = workflow.folder / "logs/digits/train0"
    return [(folder / f"{name}.log").read_text(encoding="utf-8") for name in TRAINED.values()]


def found(workflow: Workflow) -> list[bool]:
    """Whether each training was found finished, and no step of it was made."""
    return [
        "found finished in results/.store" in log and "loss" not in log for log in logs(workflow)
    ]


def clean(workflow: Workflow, *options: str) -> str:
    command = [sys.executable, "-m", "duodiff", "clean", *options]
    done = subprocess.run(
        command, cwd=workflow.folder, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def undone(finished, tmp_path_factory) -> Workflow:
    """A finished run, trained anew with another learning rate, and run again after that edit was undone."""
    workflow = finished.copied(tmp_path_factory.mktemp("store") / "copy")
    edit(workflow, "config/test.yaml", OLD_LR, NEW_LR)
    workflow.snakemake("--cores", "all", *TRAINED)
    workflow.of_the_edit, workflow.log_of_the_edit = weights(workflow), logs(workflow)
    edit(workflow, "config/test.yaml", NEW_LR, OLD_LR)
    workflow.snakemake("--cores", "all", *TRAINED)
    return workflow


def test_a_learning_rate_that_is_changed_back_costs_no_training_step(finished, undone):
    for changed, first in zip(undone.of_the_edit, weights(finished), strict=True):
        assert changed != first
    assert not any("found finished" in log for log in undone.log_of_the_edit)
    assert found(undone) == [True] * 3
    assert weights(undone) == weights(finished)


def test_after_an_edit_that_is_undone_nothing_is_left_to_do(undone):
    assert undone.pending() == {}


def test_a_repack_to_the_same_bytes_trains_nothing(undone):
    assert undone.pending(*TRAINED) == {}
    edit(undone, "duodiff/data/pack.py", "_KEPT_EVERY = 2048", "_KEPT_EVERY = 1024")
    assert undone.pending(*TRAINED)["pack_dataset"] == 1
    shutil.rmtree(undone.folder / "logs")
    undone.snakemake("--cores", "all", *TRAINED)
    assert found(undone) == [True] * 3
    assert undone.pending(*TRAINED) == {}
    edit(undone, "duodiff/data/pack.py", "_KEPT_EVERY = 1024", "_KEPT_EVERY = 2048")


def test_clean_lists_the_results_of_the_edit_and_removes_them(undone):
    store = undone.folder / "results/.store"
    before, kept = weights(undone), len(list(store.iterdir()))
    said = clean(undone)
    for path in TRAINED:
        assert f"a result of another identity: {path}" in said
    assert "3 folders" in said
    assert " 0.0 MB, found" not in said
    assert len(list(store.iterdir())) == kept
    assert "3 folders" in clean(undone, "--remove")
    assert len(list(store.iterdir())) == kept - 3
    assert weights(undone) == before
    assert "0 folders" in clean(undone)
    assert Path(undone.folder / "results/digits/train0").exists()


# --- all cells of a training in one process


CELLS = f"{STUDY}/samples/cells.json"


def images(workflow: Workflow) -> dict[str, bytes]:
    """The images of every cell of the first study, by their paths."""
    found = (workflow.folder / STUDY / "samples").rglob("images.npy")
    return {str(path.relative_to(workflow.folder)): path.read_bytes() for path in found}


def test_cells_sampled_in_one_process_are_those_of_their_own_jobs(finished, tmp_path):
    workflow = finished.copied(tmp_path / "copy")
    before = images(workflow)
    for folder in (f"{STUDY}/samples", "receipts/digits/train0/samples", ".store"):
        shutil.rmtree(workflow.folder / "results" / folder.removeprefix("results/"))
    assert workflow.pending(CELLS) == {"sample_cells": 1}
    assert f"{len(before)} cells sampled" in workflow.snakemake("--cores", "all", CELLS)
    assert images(workflow) == before
    assert "sample_images" not in workflow.pending()
    assert workflow.pending(CELLS) == {}
    gone, *_ = before
    (workflow.folder / gone).unlink()
    manifest = gone.replace("images.npy", "manifest.json")
    workflow.snakemake("--cores", "all", manifest, gone)
    logs = "".join(
        path.read_text("utf-8") for path in workflow.folder.rglob("sample_images/**/*.log")
    )
    assert "found finished in results/.store" in logs
    assert images(workflow) == before
