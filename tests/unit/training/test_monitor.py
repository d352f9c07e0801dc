"""Following a training: what it writes, and that it changes nothing."""

import io
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib import rcParams
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from duodiff.autoencoder import WEIGHTS
from duodiff.data.pack import pack
from duodiff.early_exit import AdaDiff
from duodiff.protocol import CORRECTED
from duodiff.running.files import sha256
from duodiff.schedules import noise_schedule
from duodiff.training import monitor
from duodiff.training.autoencoder import train_autoencoder
from duodiff.training.backbone import denoising_loss
from duodiff.training.batches import Noiser
from duodiff.training.heads import heads_loss
from duodiff.training.loop import TrainingConfig, fit
from duodiff.training.monitor import Monitor, samples_of
from duodiff.uvit import Denoiser, UViT

CONFIG = TrainingConfig(10, 8, 3e-3, "cosine", (0.9, 0.99), 0.01, 2, 1.0, 0.8, "float32")
IMAGES = np.random.default_rng(0).integers(0, 256, (13, 3, 6, 6)).astype(np.uint8)
NOISER = Noiser(IMAGES, np.arange(13) % 4, noise_schedule("linear"))
ENTRY = {"step": 1, "train_loss": 0.5, "held_out_loss": 0.25, "lr": 0.125}


def uvit() -> UViT:
    torch.manual_seed(0)
    return UViT(
        img_size=6, patch_size=2, in_chans=3, embed_dim=14, depth=3, num_heads=7, num_classes=4
    )


def curve(*steps: int) -> list[dict]:
    return [ENTRY | {"step": step} for step in steps]


def events(folder) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def steps_of(found: EventAccumulator) -> list[int]:
    return [event.step for event in found.Scalars("loss/held_out")]


def trained(what: str, watch) -> dict[str, torch.Tensor]:
    if what == "heads":
        model = AdaDiff(uvit())
        parameters = model.heads_parameters()
        model.uvit.requires_grad_(False)
        loss = partial(heads_loss, time_convention="t", protocol=CORRECTED)
    else:
        model = Denoiser(uvit())
        parameters, loss = list(model.parameters()), denoising_loss
    held_out = NOISER.stratified(1)
    average, _ = fit(
        model, parameters, loss, NOISER, held_out, config=CONFIG, seed=0, evaluations=5, watch=watch
    )
    return average.state_dict() | {"of torch": torch.get_rng_state()}


@pytest.mark.parametrize("what", ["backbone", "heads"])
def test_watching_changes_no_bit_of_the_weights_nor_torchs_generator(what, tmp_path):
    picture = samples_of((3, 6, 6), 4, "linear", "cpu") if what == "backbone" else None
    alone, watched = (trained(what, watch) for watch in (None, Monitor(tmp_path, 10, picture)))
    assert steps_of(events(tmp_path)) == [2, 4, 6, 8, 10]
    for key, value in alone.items():
        assert torch.equal(value, watched[key]), key


@pytest.mark.slow
def test_an_autoencoders_training_is_followed_and_not_changed(tmp_path):
    store = tmp_path / "digits/manifest.json"
    pack({"source": "digits", "held_out": 360}, tmp_path, 1, store)
    architecture = {
        "latent_channels": 2,
        "block_out_channels": [4, 8],
        "layers_per_block": 1,
        "norm_num_groups": 2,
    }
    training = {"steps": 4, "batch": 8, "lr": 5e-3, "kl_weight": 1e-4}
    for name, folder in (("alone", None), ("watched", tmp_path / "log")):
        out = tmp_path / name / "config.json"
        train_autoencoder(store, architecture, training, "cpu", out, monitor=folder)
    assert sha256(tmp_path / "alone" / WEIGHTS) == sha256(tmp_path / "watched" / WEIGHTS)
    assert steps_of(events(tmp_path / "log")) == [1, 2, 3, 4]
    (first, *_) = events(tmp_path / "log").Images("images")
    assert (first.width, first.height) == (8 * 66 - 2, 2 * 66 - 2)  # images above reconstructions


def test_events_hold_the_curve_and_the_picture(tmp_path):
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    Monitor(tmp_path, 1, lambda average: picture)(curve(1), nn.Identity())
    found = events(tmp_path)
    assert {tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]} == {
        "loss/train": 0.5,
        "loss/held_out": 0.25,
        "learning_rate": 0.125,
    }
    (image,) = found.Images("images")
    assert (np.array(Image.open(io.BytesIO(image.encoded_image_string))) == picture).all()


def test_a_continued_training_goes_on_and_a_new_one_starts_anew(tmp_path):
    first = Monitor(tmp_path, 9)
    for n in (1, 2, 3):
        first(curve(2, 4, 6)[:n], nn.Identity())
    continued = Monitor(tmp_path, 9)  # from a state saved after step 2
    continued(curve(2, 4), nn.Identity())
    assert steps_of(events(tmp_path)) == [2, 4]
    continued(curve(2, 4, 6), nn.Identity())
    continued(curve(2, 4, 6, 8), nn.Identity())
    assert steps_of(events(tmp_path)) == [2, 4, 6, 8]
    Monitor(tmp_path, 9)(curve(3), nn.Identity())
    assert steps_of(events(tmp_path)) == [3]


def test_one_picture_is_replaced_and_takes_its_share_of_the_time(tmp_path, monkeypatch):
    clock, drawn = 1000.0, []
    for key, value in {"savefig.bbox": None, "savefig.dpi": "figure"}.items():
        monkeypatch.setitem(rcParams, key, value)  # the figures' tests leave theirs
    monkeypatch.setattr(monitor.time, "monotonic", lambda: clock)

    def slow(average: nn.Module) -> np.ndarray:
        nonlocal clock
        clock += 5
        drawn.append(clock)
        return np.zeros((2, 2, 3), np.uint8)

    watch, seen = Monitor(tmp_path, 100, slow), []
    for n in range(1, 101):
        clock += 20
        watch(curve(*range(1, n + 1)), nn.Identity())
        seen.append((tmp_path / "progress.png").read_bytes())
    assert 3 <= len(drawn) <= 2 + 0.01 * 100 * 20 / 5  # the first, the last, and a hundredth
    assert len(set(seen)) == len(drawn)
    assert sorted(p.name.split(".")[0] for p in tmp_path.iterdir()) == ["events", "progress"]
    with Image.open(tmp_path / "progress.png") as image:
        assert image.size == (1000, 400)
