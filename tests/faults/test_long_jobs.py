"""Training, sampling, encoding and statistics that are broken off, asked to stop, or run out of disk."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from duodiff import autoencoder
from duodiff.data.latents import encode_shard
from duodiff.data.store import ImageStore
from duodiff.metrics import classifier, reference
from duodiff.metrics.features import Extractor
from duodiff.running import signals
from duodiff.running.files import read_json
from duodiff.running.parts import Parts
from duodiff.sampling import generation
from duodiff.sampling import models as sampling_models
from duodiff.sampling.samples import write_samples
from duodiff.settings import FULL, Setting
from duodiff.training import loop, state
from duodiff.training.autoencoder import train_autoencoder
from duodiff.training.backbone import train_backbone
from duodiff.training.state import Saves
from faults.killed_training import CONVENTIONS, NET, TRAINING, train

ARCHITECTURE = {
    "latent_channels": 2,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@dataclass
class Job:
    """One kind of job. `run(folder)` writes the files `outputs` below `folder`, in `units` calls of `owner.name`."""

    run: Callable[[Path], object]
    outputs: list[str]
    owner: object
    name: str
    units: int

    def contents(self, folder: Path) -> dict[str, bytes]:
        """The bytes of the outputs that exist, by name."""
        paths = {name: folder / name for name in self.outputs}
        return {name: path.read_bytes() for name, path in paths.items() if path.exists()}

    def hidden(self, folder: Path) -> list[Path]:
        """The files and folders that are kept for a continuation."""
        return [path for path in folder.rglob(".*") if path.name != ".resume"] + list(
            folder.glob(".resume/*")
        )


@pytest.fixture(scope="session")
def models(digits, tmp_path_factory) -> dict[str, Path]:
    """A backbone, a classifier and an autoencoder, trained for a few steps."""
    folder = tmp_path_factory.mktemp("models")
    train(digits, folder / "full/manifest.json")
    images, labels = ImageStore(digits).split("train")
    trained = classifier.train_classifier(images, labels, 10, steps=2, batch=8, seed=0)
    classifier.save(folder / "classifier.safetensors", trained)
    training = {"steps": 1, "batch": 8, "lr": 1e-3, "kl_weight": 0}
    train_autoencoder(digits, ARCHITECTURE, training, "cpu", folder / "ae/config.json")
    return {"full": folder / "full/manifest.json", "folder": folder}


@pytest.fixture(params=["training", "sampling", "encoding", "statistics"])
def job(request, digits, models, monkeypatch) -> Job:
    """Each kind of job, with units small enough for a test."""
    if request.param == "training":
        monkeypatch.setattr(state, "EVERY_S", 0)
        monkeypatch.setattr(state, "SHARE", float("inf"))
        training = TRAINING | {"steps": 5}

        def run(folder: Path):
            out = folder / "full/manifest.json"
            train_backbone(digits, NET, CONVENTIONS, False, training, seed=0, device="cpu", out=out)

        names = ["full/model.safetensors", "full/manifest.json", "full/curve.csv"]
        return Job(run, names, loop._Run, "update", 5)
    if request.param == "sampling":
        used = {"schedule": "linear", "time_input": "t"}

        def run(folder: Path):
            write_samples(
                folder / "cell/manifest.json",
                sampling_models.Models(used, "corrected", full=models["full"]),
                sampler={"name": "ddpm", "steps": 10},
                setting=FULL,
                images=75,  # the last batch is not full
                batch=16,
                seed=3,
                experiment="digits",
                train_seed=0,
            )

        names = [
            f"cell/{n}" for n in ("images.npy", "labels.npy", "blocks_run.npy", "manifest.json")
        ]
        return Job(run, names, generation, "sample_batch", 5)
    if request.param == "encoding":
        section = {"path": "ae", "train": {}, "batch": 360, "flips": False}

        def run(folder: Path):
            out = folder / "shards/0-of-1.json"
            encode_shard(digits, section, models["folder"], "cpu", out, shard=0, shards=1)

        names = ["shards/0-of-1.npy", "shards/0-of-1.json"]
        return Job(run, names, autoencoder.Autoencoder, "encode", 5)
    monkeypatch.setattr(reference, "_PART", 360)
    monkeypatch.setattr(reference, "_SAVED", 1)
    extract = Extractor("fd_digits", models["folder"] / "classifier.safetensors")

    def run(folder: Path):
        receipt = folder / "reference.json"
        reference.compute_reference(digits, extract, 500, folder / "statistics", receipt)

    run(request.getfixturevalue("tmp_path") / "names")
    files = read_json(request.getfixturevalue("tmp_path") / "names/reference.json")["files"]
    names = [f"statistics/{name}" for name in files.values()]
    return Job(run, names, Extractor, "__call__", 4 + 2 + 1)  # all, 500 of them, held out


@pytest.fixture
def undisturbed(job, tmp_path) -> dict[str, bytes]:
    """The outputs of a job that runs without a disturbance."""
    folder = tmp_path / "undisturbed"
    job.run(folder)
    outputs = job.contents(folder)
    assert sorted(outputs) == sorted(job.outputs)
    assert not job.hidden(folder)
    return outputs


@pytest.fixture
def before_unit(job, monkeypatch):
    """`before_unit(numbers, action)` calls `action` before the units `numbers` (0-based), and counts all units."""
    original = getattr(job.owner, job.name)

    def set_up(numbers, action=lambda: None) -> Iterator[int]:
        counter = []

        def wrapped(*arguments, **options):
            counter.append(0)
            if len(counter) - 1 in numbers:
                action()
            return original(*arguments, **options)

        monkeypatch.setattr(job.owner, job.name, wrapped)
        return counter

    return set_up


class Broken(Exception):
    """Ends a job in a test."""


def break_off() -> None:
    raise Broken


def test_a_job_broken_off_continues_with_what_is_missing(job, undisturbed, before_unit, tmp_path):
    folder = tmp_path / "broken"
    counter = before_unit({0, 1, 3, 6}, break_off)
    breaks = 0
    while True:
        try:
            job.run(folder)
            break
        except Broken:
            breaks += 1
            assert not job.contents(folder).keys() & {job.outputs[-1]}  # not finished
    assert breaks == 4
    assert job.contents(folder) == undisturbed
    assert len(counter) == job.units + breaks  # nothing is computed twice
    assert not job.hidden(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_job_asked_to_stop_stops_and_continues(job, undisturbed, before_unit, tmp_path, number):
    folder = tmp_path / "stopped"
    counter = before_unit({2}, lambda: signal.raise_signal(number))
    before = {asking: signal.getsignal(asking) for asking in signals._ASKING}
    signals.stop_at_once()  # as every script does
    try:
        with pytest.raises(signals.Stopped, match=f"stopped by {number.name}"):
            job.run(folder)
    finally:
        for asking, handler in before.items():
            signal.signal(asking, handler)
    assert len(counter) == 3
    job.run(folder)
    assert job.contents(folder) == undisturbed
    assert len(counter) <= job.units + 1  # at most the unit that was stopped is computed again


def fill(disk: Path) -> None:
    """Fills a disk to its last byte."""
    with open(disk / "filler", "ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


@pytest.mark.parametrize("unit", [1, 3, "last"])
def test_a_disk_that_fills_up_is_named_and_nothing_is_corrupt(
    job, undisturbed, before_unit, small_disk, unit
):
    disk = small_disk(8 << 20)
    before_unit({job.units - 1 if unit == "last" else unit}, lambda: fill(disk))
    with pytest.raises(
        OSError, match=rf"{disk}/.*: the disk is full; free some of it and run again"
    ):
        job.run(disk)
    whole = job.contents(disk)
    assert all(whole[name] == undisturbed[name] for name in whole)
    assert job.outputs[-1] not in whole or job.name == "__call__"
    (disk / "filler").unlink()
    job.run(disk)
    assert job.contents(disk) == undisturbed
    assert not job.hidden(disk)


@pytest.mark.parametrize(
    ("job", "owner", "name", "count"),
    [
        ("training", Saves, "after_step", 5),
        ("sampling", Parts, "save", 5),
        ("statistics", Parts, "save", 3),  # the parts before the last, which has no save of its own
    ],
    indirect=["job"],
)
def test_a_disk_that_fills_up_at_the_last_write_is_named_too(
    job, undisturbed, small_disk, monkeypatch, owner, name, count
):
    """The disk fills up when everything is computed and only the outputs are missing."""
    disk, original, calls = small_disk(8 << 20), getattr(owner, name), []

    def filling(*arguments):
        original(*arguments)
        calls.append(0)
        if len(calls) == count:
            fill(disk)

    monkeypatch.setattr(owner, name, filling)
    with pytest.raises(
        OSError, match=rf"{disk}/.*: the disk is full; free some of it and run again"
    ):
        job.run(disk)
    assert job.contents(disk) == {}
    (disk / "filler").unlink()
    job.run(disk)
    assert job.contents(disk) == undisturbed


def test_a_disk_that_is_too_small_is_refused_before_anything_is_computed(
    job, before_unit, small_disk
):
    disk = small_disk(4096)
    counter = before_unit(set())
    with pytest.raises(OSError, match=r"needs \d+\.\d\d MB, the disk has 0.00 MB left"):
        job.run(disk)
    assert counter == []
    assert job.contents(disk) == {}


# --- parts


@pytest.fixture
def broken_cell(job, before_unit, tmp_path) -> Path:
    """The folder of a sampling that was broken off after three of its five batches."""
    before_unit({3}, break_off)
    with pytest.raises(Broken):
        job.run(tmp_path / "cell_broken")
    return tmp_path / "cell_broken"


@pytest.mark.parametrize("job", ["sampling"], indirect=True)
def test_a_damaged_part_is_named_and_computed_again(
    job, undisturbed, broken_cell, before_unit, caplog
):
    first, second, third = sorted(broken_cell.glob("cell/.manifest.*.parts/*.npz"))
    first.write_bytes(first.read_bytes()[:-40])
    content = bytearray(second.read_bytes())
    content[300] ^= 1
    second.write_bytes(content)
    counter = before_unit(set())
    job.run(broken_cell)
    assert len(counter) == 2 + 2
    assert f"{first}: damaged" in caplog.text
    assert f"{second}: damaged" in caplog.text
    assert str(third) not in caplog.text
    assert job.contents(broken_cell) == undisturbed


@pytest.mark.parametrize("job", ["sampling"], indirect=True)
def test_parts_of_other_weights_are_not_used(
    job, undisturbed, broken_cell, before_unit, digits, models
):
    (parts,) = broken_cell.glob("cell/.manifest.*.parts")
    other = models["folder"] / "other/manifest.json"
    train_backbone(
        digits, NET, CONVENTIONS, False, TRAINING | {"steps": 1}, seed=0, device="cpu", out=other
    )
    weights, models["full"] = models["full"], other
    try:
        counter = before_unit(set())
        job.run(broken_cell)
    finally:
        models["full"] = weights
    assert len(counter) == 5
    assert not parts.exists()
    assert job.contents(broken_cell)["cell/images.npy"] != undisturbed["cell/images.npy"]


def test_the_nans_of_parts_are_counted(digits, models, tmp_path, monkeypatch):
    """An interrupted job counts as many as one without an interruption."""
    from duodiff.training.heads import train_heads

    training = {k: v for k, v in TRAINING.items() if k not in ("init", "label_dropout")}
    used, out = {"schedule": "linear", "time_input": "t"}, tmp_path / "heads/manifest.json"
    train_heads(
        digits,
        models["full"],
        used,
        training | {"steps": 1},
        "corrected",
        seed=0,
        device="cpu",
        out=out,
    )
    loaded = sampling_models.load_adadiff

    def spoilt(*arguments):
        model, manifest = loaded(*arguments)
        model.uncertainty_heads[1].linear.bias.data.fill_(torch.nan)
        return model, manifest

    monkeypatch.setattr(sampling_models, "load_adadiff", spoilt)
    sample, calls = generation.sample_batch, []

    def run(name: str, breaks_at: int | None = None) -> dict:
        def counted(*arguments, **options):
            calls.append(0)
            if len(calls) == breaks_at:
                raise Broken
            return sample(*arguments, **options)

        monkeypatch.setattr(generation, "sample_batch", counted)
        paths = {"full": models["full"], "heads": out}
        return write_samples(
            tmp_path / name / "manifest.json",
            sampling_models.Models(used, "corrected", **paths),
            sampler={"name": "ddpm", "steps": 5},
            setting=Setting.parse("theta=1.0e-6"),
            images=20,
            batch=8,
            seed=0,
            experiment="digits",
            train_seed=0,
        )

    whole = run("whole")
    assert whole["nan_uncertainties"] == 3 * 5 * 8  # batches, steps, images
    calls.clear()
    with pytest.raises(Broken):
        run("broken", breaks_at=3)
    assert run("broken") == whole
    assert np.array_equal(*(np.load(tmp_path / n / "images.npy") for n in ("whole", "broken")))
