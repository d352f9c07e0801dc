"""config/own_images.yaml on a folder of images: what is said before a run, and what the images decide."""

import json
import shutil

import numpy as np
import pytest
import yaml
from conftest import Workflow
from PIL import Image

PACKED = "results/data/own/manifest.json"


@pytest.fixture
def own(fresh) -> Workflow:
    """The project with a folder of 330 images of 3 classes."""
    rng = np.random.default_rng(0)
    for i in range(330):
        path = fresh.folder / f"data/photos/{'abc'[i % 3]}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (18, 20, 3)).astype(np.uint8)).save(path)
    return fresh


def mine(workflow: Workflow, **metric) -> str:
    """A copy of the file whose metric has these keys, too."""
    path = workflow.folder / "config/own_images.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["experiments"]["own_images"]["metric"] |= metric
    (workflow.folder / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return "mine.yaml"


def test_the_file_is_planned_as_it_is_and_the_images_decide(own):
    jobs = own.pending(config="config/own_images.yaml")
    assert jobs["fetch_dataset"] == jobs["pack_dataset"] == 1
    own.snakemake("--cores", "1", PACKED, config="config/own_images.yaml")
    manifest = json.loads((own.folder / PACKED).read_text(encoding="utf-8"))
    assert manifest["splits"] == {"train": [0, 264], "held_out": [264, 330]}
    # What was counted is kept: the images may go.
    shutil.move(own.folder / "data", own.folder / "elsewhere")
    assert own.pending(PACKED, config="config/own_images.yaml") == {}
    commands = own.snakemake("--dry-run", "--printshellcmds", config="config/own_images.yaml")
    assert '"num_classes": 3' in commands


def test_what_does_not_fit_the_images_stops_the_run_before_any_job(own):
    done = own.run("--cores", "1", config=mine(own, reference=5000))
    assert done.returncode != 0
    assert "datasets.own: 330 images; class folders: 3" in done.stdout
    assert "metric.reference: found 5000; accepted: up to the 264 training images" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (own.folder / "results").exists()


def test_images_that_were_added_are_counted_again_once_they_are_taken_in(own):
    config = mine(own, reference=0.5)
    own.snakemake("--cores", "1", PACKED, config=config)
    for i in range(30):
        path = own.folder / f"data/photos/d/{i}.png"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(own.folder / "data/photos/a/0.png", path)
    assert "photos/d/0.png is new" in own.run("--dry-run", PACKED, config=config).stdout
    for name in ("fetched", "manifest"):
        (own.folder / f"results/receipts/data/own/{name}.json.json").unlink()
    own.snakemake("--cores", "1", PACKED, config=config)
    manifest = json.loads((own.folder / PACKED).read_text(encoding="utf-8"))
    assert manifest["splits"] == {"train": [0, 288], "held_out": [288, 360]}
    commands = own.snakemake("--dry-run", "--printshellcmds", config=config)
    assert '"num_classes": 4' in commands
    assert "reference_144.json" in commands
