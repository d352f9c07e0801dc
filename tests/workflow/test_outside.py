"""What comes from outside: which files the jobs watch, and a run that starts after they have changed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Workflow
from PIL import Image

from duodiff.uvit import UViT

CONFIG = yaml.safe_load((Path(__file__).parent / "variants.yaml").read_text(encoding="utf-8"))
PACKED = "results/data/{}/manifest.json"
TARGETS = [
    PACKED.format("folder"),
    PACKED.format("zipped"),
    "results/published/pretrained/manifest.json",
]
ZIP, FOLDER, WEIGHTS = "data/shapes.zip", "data/shapes", "data/weights/full.pth"


def receipts_of(dataset: str) -> set[str]:
    folder = f"results/receipts/data/{dataset}"
    return {f"{folder}/fetched.json.json", f"{folder}/manifest.json.json"}


def select(workflow: Workflow, **changes) -> None:
    """Writes a configuration of a folder and a zip of images and published weights."""
    shapes = CONFIG["datasets"]["shapes"]
    datasets = {"folder": shapes | {"path": "shapes"}, "zipped": shapes | {"path": "shapes.zip"}}
    velocity = CONFIG["experiments"]["velocity"]
    backbone = {k: v for k, v in velocity["backbone"].items() if k != "num_classes"}
    experiments = {
        "images": velocity | {"dataset": "folder", "backbone": backbone},  # of as many classes
        "published": CONFIG["experiments"]["published"] | {"dataset": "zipped"},
    }
    config = CONFIG | {"datasets": datasets, "experiments": experiments} | changes
    (workflow.folder / "outside.yaml").write_text(
        yaml.safe_dump(config, sort_keys=False), encoding="utf-8"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workflow:
    """Packed images of a folder and of a zip, and converted weights."""
    workflow = Workflow(tmp_path_factory.mktemp("outside"))
    select(workflow)
    rng = np.random.default_rng(0)
    for name in ("bar", "cross", "square"):
        (workflow.folder / FOLDER / name).mkdir(parents=True)
        for i in range(90):
            pixels = rng.integers(0, 256, (12, 10, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(workflow.folder / FOLDER / name / f"{i}.png")
    shutil.make_archive(str(workflow.folder / FOLDER), "zip", workflow.folder / FOLDER)
    (workflow.folder / "data/weights").mkdir()
    torch.manual_seed(0)
    backbone = CONFIG["experiments"]["published"]["backbone"]
    torch.save(UViT(**backbone).state_dict(), workflow.folder / WEIGHTS)
    workflow.snakemake("--cores", "all", *TARGETS, config="outside.yaml")
    assert workflow.pending(*TARGETS, config="outside.yaml") == {}
    return workflow


@pytest.fixture
def copy(made, tmp_path) -> Workflow:
    """A copy of it that a test may change. It works on the package of `made`."""
    return made.copied(tmp_path / "copy")


def another_image(folder: Path) -> None:
    """The size of a file stays, its bytes and its time do not."""
    path = folder / FOLDER / "bar/0.png"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert path.stat().st_size == before.st_size


def new_image(folder: Path) -> None:
    shutil.copy(folder / FOLDER / "bar/0.png", folder / FOLDER / "bar/new.png")


def another_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / ZIP, "a") as archive:
        archive.write(folder / FOLDER / "bar/0.png", "bar/new.png")


def other_weights(folder: Path) -> None:
    torch.save(
        UViT(**CONFIG["experiments"]["published"]["backbone"]).state_dict(), folder / WEIGHTS
    )


IMPORTED = {"results/receipts/published/pretrained/manifest.json.json"}
CHANGES = {
    "an image replaced": (another_image, f"{FOLDER}/bar/0.png has changed", receipts_of("folder")),
    "an image added": (new_image, f"{FOLDER}/bar/new.png is new", receipts_of("folder")),
    "an image removed": (
        lambda folder: (folder / FOLDER / "square/3.png").unlink(),
        f"{FOLDER}/square/3.png is gone",
        receipts_of("folder"),
    ),
    "a class deleted": (
        lambda folder: shutil.rmtree(folder / FOLDER / "bar"),
        f"{FOLDER}/bar/0.png is gone",
        receipts_of("folder"),
    ),
    "a zip replaced": (another_zip, f"{ZIP} has changed", receipts_of("zipped")),
    "weights replaced": (other_weights, f"{WEIGHTS} has changed", IMPORTED),
}


def stopped(workflow: Workflow) -> tuple[str, list[str]]:
    """What a run says that stops before it plans, and the command that it names."""
    done = workflow.run("--dry-run", *TARGETS, config="outside.yaml")
    assert done.returncode != 0
    assert "what was read from outside has changed" in done.stdout
    command = re.search(r"take it in: (rm .*)", done.stdout)[1]
    return done.stdout, shlex.split(command)


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_stops_the_next_run_and_one_command_takes_it_in(copy, change):
    make, named, receipts = CHANGES[change]
    make(copy.folder)
    said, command = stopped(copy)
    assert named in said
    assert set(command[1:]) == receipts
    subprocess.run(command, cwd=copy.folder, check=True)
    jobs = copy.pending(*TARGETS, config="outside.yaml")
    rules = {"import_weights"} if receipts == IMPORTED else {"fetch_dataset", "pack_dataset"}
    assert jobs == dict.fromkeys(rules, 1)


def test_a_change_that_is_taken_in_is_packed_and_watched_from_then_on(copy):
    new_image(copy.folder)
    _, command = stopped(copy)
    subprocess.run(command, cwd=copy.folder, check=True)
    copy.snakemake("--cores", "1", *TARGETS, config="outside.yaml")
    assert copy.pending(*TARGETS, config="outside.yaml") == {}
    manifest = json.loads((copy.folder / PACKED.format("folder")).read_text(encoding="utf-8"))
    assert manifest["splits"] == {"train": [0, 191], "held_out": [191, 271]}
    (copy.folder / FOLDER / "bar/new.png").unlink()
    assert f"{FOLDER}/bar/new.png is gone" in stopped(copy)[0]


def test_two_changes_are_taken_in_by_one_command(copy):
    another_zip(copy.folder)
    another_image(copy.folder)
    _, command = stopped(copy)
    assert set(command[1:]) == receipts_of("folder") | receipts_of("zipped")


def test_new_times_and_missing_data_stop_nothing(copy):
    for path in (copy.folder / "data").rglob("*"):
        os.utime(path, (1, 1))
    assert copy.pending(*TARGETS, config="outside.yaml") == {}
    shutil.rmtree(copy.folder / "data")
    assert copy.pending(*TARGETS, config="outside.yaml") == {}


def test_what_the_run_does_not_use_stops_nothing(copy):
    another_zip(copy.folder)
    stopped(copy)
    target = PACKED.format("folder")
    assert copy.pending(target, "--config", "only=images", config="outside.yaml") == {}
    # another path of the configuration: the dataset is packed again, and its old file does not count
    text = (copy.folder / "outside.yaml").read_text(encoding="utf-8")
    shutil.copy(copy.folder / ZIP, copy.folder / "data/other.zip")
    (copy.folder / "outside.yaml").write_text(
        text.replace("shapes.zip", "other.zip"), encoding="utf-8"
    )
    jobs = copy.pending(*TARGETS, config="outside.yaml")
    assert jobs == {"fetch_dataset": 1, "pack_dataset": 1}


def test_unlock_and_the_report_do_not_compare(copy):
    another_zip(copy.folder)
    copy.snakemake("--unlock", config="outside.yaml")
    done = copy.run("--report", "report.html", *TARGETS, config="outside.yaml")
    assert "read from outside" not in done.stdout


def test_a_damaged_receipt_is_named_and_its_job_runs_again(copy):
    receipt = copy.folder / "results/receipts/data/folder/manifest.json.json"
    receipt.write_text("{", encoding="utf-8")
    done = copy.snakemake("--dry-run", *TARGETS, config="outside.yaml")
    assert "manifest.json.json: damaged, it is not JSON" in done
    assert copy.pending(*TARGETS, config="outside.yaml") == {"pack_dataset": 1}


# --- which files are watched


def watched(workflow: Workflow, *targets: str) -> dict[str, dict[str, str]]:
    """What the jobs of a dry run watch, by rule."""
    done = workflow.snakemake("--dry-run", "--printshellcmds", *targets, config="outside.yaml")
    commands = [shlex.split(line.strip()) for line in done.splitlines() if " --plan " in line]
    plans = {
        Path(c[c.index("exec") + 2]).stem: json.loads(c[c.index("--plan") + 1]) for c in commands
    }
    return {rule: plan["watched"] for rule, plan in plans.items() if plan["watched"]}


def test_published_weights_extractors_and_datasets_are_watched_file_by_file(fresh):
    inception = CONFIG["experiments"]["published"] | {"metric": {"name": "fd_inception64"}}
    select(
        fresh,
        experiments={"published": inception | {"dataset": "zipped"}},
        extractors={"inception": "i.pth"},
    )
    zipped = {"shapes.zip": "data/shapes.zip"}
    receipt = "results/data/extractors/inception.json"
    assert watched(fresh, *TARGETS[1:], receipt) == {
        "fetch_dataset": zipped,
        "pack_dataset": zipped,
        "import_weights": {"weights/full.pth": "data/weights/full.pth"},
        "fetch_extractor": {"inception": "data/i.pth"},
    }


COMMIT = "0123456789abcdef" * 2 + "01234567"
SAVED = ("config.json", "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("kind", ["file", "folder", "hub"])
def test_an_autoencoder_is_watched_file_by_file(fresh, monkeypatch, kind):
    named = {"hub": "some/vae", "revision": COMMIT} if kind == "hub" else {"path": "vae"}
    codec = {"batch": 8, "flips": True, "shards": 1, "sha256": None} | named
    codec["architecture"] = {
        "latent_channels": 3,
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    dataset = CONFIG["datasets"]["shapes"] | {"size": 16, "autoencoder": codec}
    experiments = {"velocity": CONFIG["experiments"]["velocity"]}
    select(fresh, datasets={"shapes": dataset}, experiments=experiments)
    (fresh.folder / "data/vae").mkdir(parents=True)
    if kind == "file":
        (fresh.folder / "data/vae").rmdir()
    monkeypatch.setenv("HF_HUB_CACHE", "cache")
    snapshot = f"cache/models--some--vae/snapshots/{COMMIT}"
    assert (
        watched(fresh, "results/data/shapes/autoencoder.json")["fetch_autoencoder"]
        == {
            "file": {"vae": "data/vae"},
            "folder": {f"vae/{name}": f"data/vae/{name}" for name in SAVED},
            "hub": {f"some/vae/{name}": f"{snapshot}/{name}" for name in SAVED},
        }[kind]
    )
