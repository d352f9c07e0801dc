"""Where the host waits for the device, counted on a pretended GPU: tensors that have a device and no values."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from duodiff import noise, samplers
from duodiff.backbones import duodiff
from duodiff.data import rows
from duodiff.graphs import StepGraphs
from duodiff.sampling import generation
from duodiff.sampling.cells import build_cell
from duodiff.schedules import noise_schedule
from duodiff.settings import Setting
from duodiff.training import batches, loop
from duodiff.training.backbone import denoising_loss
from duodiff.training.batches import Noiser
from duodiff.training.guard import LOOK_EVERY, Guard
from duodiff.training.loop import TrainingConfig, fit
from duodiff.transfer import moved
from duodiff.uvit import Denoiser, UViT
from unit.tiny_study import DDPM, TRAINING, loaded
from unit.watched import Watched

NET = {"img_size": 6, "patch_size": 2, "in_chans": 3, "embed_dim": 14, "depth": 3, "num_heads": 7}
CONFIG = TrainingConfig(**{k: v for k, v in TRAINING.items() if k != "flips"})


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU. Pinning memory needs a real one."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, **_: tensor)  # reads values
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield "cuda"


def network(device: str, **options) -> Denoiser:
    with torch.device(device):
        return Denoiser(UViT(**NET, **options))


@pytest.mark.parametrize("steps", [3, 20])
def test_sampling_by_a_schedule_waits_once_a_batch_when_its_images_are_copied(gpu, steps):
    full, shallow = (network(gpu, num_classes=4).requires_grad_(False) for _ in range(2))
    schedule, linear = duodiff(full, shallow, 500), noise_schedule("linear")
    y = noise.balanced_labels(0, 8, 4)
    for sampler in (samplers.ddpm, samplers.ddim, samplers.dpm_solver_pp):
        with Watched() as found:
            x = samplers.sample(
                schedule, sampler(linear, steps), (3, 6, 6), 0, 8, seed=0, y=y, device=gpu
            )
        assert x.device.type == "cuda"
        # the labels are copied, over pinned memory: nobody waits
        assert (found.waits, len(found.between)) == ([], 1)
        with Watched() as found:
            assert generation.to_host(x, truncate=False).device.type == "cpu"
        assert (found.waits, len(found.between)) == ([], 1)


@pytest.mark.parametrize("steps", [3, 20])
def test_captured_steps_wait_for_nothing_and_copy_what_they_read_once(steps):
    """On torch's meta device, which has no values: what a step needs of the host would be missing in a graph."""
    full, shallow = (network("meta", num_classes=4).requires_grad_(False) for _ in range(2))
    graphs, linear = StepGraphs("meta"), noise_schedule("linear")
    schedule, y = duodiff(full, shallow, 500), noise.balanced_labels(0, 8, 4)
    for sampler in (samplers.ddpm, samplers.ddim, samplers.dpm_solver_pp):
        with Watched() as found:
            x = graphs.sample(schedule, sampler(linear, steps), (3, 6, 6), 0, 8, seed=0, y=y)
        assert x.device.type == "meta"
        # timesteps, coefficients and labels
        assert (found.waits, len(found.between)) == ([], 3)


def test_a_batch_of_a_cell_asks_once_for_its_images(paths):
    """On a CPU, for the whole of `generate`: the one question is whether all images are finite."""
    models = loaded(paths)
    cell = build_cell(models, DDPM, Setting.parse("t_s=400"))
    with Watched() as found:
        generation.generate(models, cell, 0, 16, batch=8, seed=0)
    assert len(found.waits) == 2


KINDS = {
    "images": (np.zeros((13, 3, 6, 6), np.uint8), {}),
    "moments": (np.zeros((13, 2, 6, 6, 6), np.float16), {"scale": 0.5}),
}


def made(kind: str, device: str) -> Noiser:
    images, options = KINDS[kind]
    options = options | {"flips": True, "label_dropout": 0.1, "null_class": 4}
    return Noiser(images, np.arange(13) % 4, noise_schedule("linear"), device, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_made_on_the_device_and_copies_nothing(kind):
    """On torch's meta device, which has no values, so that a copy from the host cannot pass."""
    batches._order.cache_clear()
    noiser = made(kind, "meta")
    with Watched() as found:
        of_steps = [noiser.at_step(0, step, 8) for step in range(5)]
    assert {batch.x_t.device.type for batch in of_steps} == {"meta"}
    # 5 steps of 8 are three epochs of 13 images and a part of a fourth: an order of the images each
    assert (found.waits, len(found.between)) == ([], 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_step_waits_for_nothing(kind, accumulate):
    noiser, model = made(kind, "cpu"), network("cpu", num_classes=5)
    run = loop._Run(model, list(model.parameters()), CONFIG, None)
    parts = [slice(i, i + 8 // accumulate) for i in range(0, 8, 8 // accumulate)]
    with Watched() as found:
        for step in range(5):
            of_step = [noiser.at_step(0, step, 8, rows) for rows in parts]
            values = [loop._add_gradients(model, denoising_loss, part, CONFIG) for part in of_step]
            run.update(torch.stack(values).sum())
    assert found.waits == []


def test_larger_datasets_come_from_the_host_row_by_row(monkeypatch):
    """On torch's meta device, which has no values either: the rows are gathered in real host memory."""
    monkeypatch.setattr(rows, "_fits", lambda size, device: False)
    noiser = made("moments", "meta")
    with Watched() as found:
        batch = noiser.at_step(0, 0, 8)
    assert batch.x_t.device.type == "meta"
    assert (found.waits, len(found.between)) == ([], 2)  # moments and labels


def test_what_goes_to_a_gpu_goes_over_pinned_memory(gpu, monkeypatch):
    pinned = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    assert moved(torch.zeros(3), gpu).device.type == "cuda"
    assert len(pinned) == 1
    assert moved(torch.zeros(3), "cpu").device.type == "cpu"
    assert len(pinned) == 1


def test_the_host_looks_at_entries_of_the_curve_and_now_and_then(monkeypatch):
    model, looks, look = network("cpu"), [], Guard.look
    monkeypatch.setattr(Guard, "look", lambda self: looks.append(0) or look(self))
    images = np.zeros((13, 3, 6, 6), np.uint8)
    noiser = Noiser(images, None, noise_schedule("linear"))
    config = replace(CONFIG, steps=2 * LOOK_EVERY + 50, batch=2)
    with Watched() as found:
        fit(
            model,
            list(model.parameters()),
            denoising_loss,
            noiser,
            noiser.stratified(0),
            config=config,
            seed=0,
            evaluations=1,
        )
    assert len(looks) == 3  # steps 100 and 200, and the entry at the end
    assert found.waits == ["item"]  # the held-out loss of the entry
