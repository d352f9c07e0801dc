"""Files that were removed to save disk: made again where a job needs them, and only there."""

import shutil

import pytest
from conftest import Workflow

STUDY = "results/digits/train0"
CELL = f"{STUDY}/samples/ddpm/duodiff/t_s=0/seed0"
WEIGHTS, IMAGES = f"{STUDY}/full/model.safetensors", f"{CELL}/images.npy"
MADE, OTHER = f"{CELL}/manifest.json", f"{CELL}/manifest.json".replace("seed0", "seed1")
EXPORT = f"{STUDY}/export/ddpm/duodiff/t_s=0/seed0.npz"


@pytest.fixture(scope="module")
def sampled(tmp_path_factory) -> Workflow:
    """One backbone and one cell of it."""
    workflow = Workflow(tmp_path_factory.mktemp("removed"))
    workflow.snakemake("--cores", "1", MADE)
    return workflow


@pytest.fixture
def copy(sampled, tmp_path) -> Workflow:
    """A copy of it that a test may change."""
    return sampled.copied(tmp_path / "copy")


def remove(workflow: Workflow, *paths: str) -> None:
    for path in paths:
        (workflow.folder / path).unlink()


def test_removed_files_that_no_job_needs_are_not_missed(copy):
    packed = "results/data/digits/images.npy"
    remove(copy, WEIGHTS, IMAGES, packed, f"{STUDY}/full/curve.csv", f"{CELL}/blocks_run.npy")
    assert copy.pending(MADE) == {}


def test_removed_weights_are_planned_for_a_cell_that_needs_them(copy):
    remove(copy, WEIGHTS)
    assert copy.pending(MADE, OTHER) == {"train_backbone": 1, "sample_images": 2}
    remove(copy, f"{STUDY}/full/manifest.json")
    assert copy.pending(MADE, OTHER) == {"train_backbone": 1, "sample_images": 2}


def test_removed_arrays_are_planned_for_what_reads_them(copy):
    remove(copy, IMAGES)
    assert copy.pending(EXPORT) == {"sample_images": 1, "export_npz": 1}
    assert copy.pending(EXPORT.removesuffix(".npz")) == {"sample_images": 1, "export_pngs": 1}
    remove(copy, "results/data/digits/labels.npy")
    assert copy.pending("results/digits/train0/shallow/manifest.json") == {
        "pack_dataset": 1,
        "train_backbone": 1,
    }


def test_what_the_store_has_is_taken_from_there(copy):
    before = {path: (copy.folder / path).read_bytes() for path in (WEIGHTS, IMAGES)}
    remove(copy, WEIGHTS, IMAGES)
    said = copy.snakemake("--cores", "1", WEIGHTS, EXPORT)
    assert "train_backbone: found finished in results/.store" in said
    assert "sample_images: found finished in results/.store" in said
    assert {path: (copy.folder / path).read_bytes() for path in before} == before


def test_a_study_without_its_weights_is_still_compared_with_the_configuration(copy):
    remove(copy, WEIGHTS)
    shutil.rmtree(copy.folder / ".snakemake")  # as in a copy of the results
    config = copy.folder / "config/test.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("lr: 4.0e-3", "lr: 3.0e-3", 1), encoding="utf-8")
    said = copy.snakemake("--dry-run", MADE)
    assert "manifest.json is made again: training.lr: 0.004 is now 0.003" in said
