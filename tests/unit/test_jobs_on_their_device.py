"""Every job computes where it is told to, and its steps do not wait for the device.

Without a GPU the jobs run on torch's meta device, which has no values: whoever asks it for a number gets an error. Its
tensors are told from those of the CPU, so what a job makes on the CPU or copies there is seen.
"""

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from duodiff import autoencoder as codec
from duodiff.data import latents
from duodiff.metrics import classifier, denoising, features
from duodiff.metrics.distances import (
    FrechetTo,
    Gaussian,
    kernel_distance,
    moments,
    nearest_distances,
    thumbnails,
)
from duodiff.metrics.reference import Reference, _gaussian_of
from duodiff.sampling.models import Models
from duodiff.schedules import noise_schedule
from duodiff.training import autoencoder
from duodiff.training.batches import Noiser
from unit.tiny_study import USED
from unit.watched import Watched

RNG = np.random.default_rng(0)
TINY = {
    "latent_channels": 2,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


NO_VALUES = "meta tensor"
"""Of what torch says to whoever wants a value of the meta device."""


def images(n: int, size: int = 8, channels: int = 1) -> np.ndarray:
    return RNG.integers(0, 256, (n, channels, size, size)).astype(np.uint8)


@pytest.fixture(autouse=True)
def _fused_on_meta(monkeypatch):
    """Fused optimizers have an implementation for the meta device, but do not list it."""
    listed = ["cpu", "cuda", "meta"]
    for name in ("torch.optim.optimizer", "torch.utils._foreach_utils"):
        monkeypatch.setattr(
            sys.modules[name], "_get_fused_kernels_supported_devices", lambda: listed
        )


def watched(work) -> dict[str, int]:
    """What `work` asks of its devices."""
    with Watched() as found:
        work()
    return found.counts


def asked_before_a_value(work) -> dict[str, int]:
    """What `work`, on the meta device, asks of its devices until it wants a value."""
    with Watched() as found, pytest.raises((NotImplementedError, RuntimeError), match=NO_VALUES):
        work()
    return found.counts


# --- the watch itself


def test_the_watch_sees_what_it_is_for():
    with Watched() as found:
        one = torch.ones(2)
        there = one.to("meta")
        there.copy_(one)
        one.sum().item()
        one.nonzero()
        one[one > 0]
    assert found.waits == ["_local_scalar_dense", "nonzero", "index"]
    assert len(found.between) == 2
    assert "ones" in found.on_host


# --- trainings


def classifier_steps(steps: int, device: str):
    labels = np.arange(9) % 3
    options = {"steps": steps, "batch": 5, "seed": 0, "device": device}
    return partial(classifier.train_classifier, images(9), labels, 3, **options)


def test_a_step_of_the_classifier_makes_nothing_on_the_host_and_waits_for_nothing():
    few, many = (watched(classifier_steps(steps, "meta")) for steps in (2, 7))
    assert few == many
    model = classifier_steps(2, "meta")()
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_the_watch_would_see_a_classifier_that_stays_on_the_host():
    few, many = (watched(classifier_steps(steps, "cpu")) for steps in (2, 7))
    assert many["on_host"] > few["on_host"]
    assert few["waits"] == many["waits"] == 0


class Ended(Exception):
    """Raised after the wanted number of steps."""


class Steps:
    """In place of `Saves`: no state is kept, and the training ends after `count` steps."""

    def __init__(self, count: int):
        self.left = count

    def on_stop(self):
        return nullcontext()

    def require_space(self, *sizes):
        pass

    def restore(self):
        return None

    def after_step(self, state):
        self.left -= 1
        if not self.left:
            raise Ended


def autoencoder_steps(count: int, device: str):
    from diffusers import AutoencoderKL

    training = {"steps": 1000, "batch": 5, "lr": 1e-3, "kl_weight": 1e-3}
    net = AutoencoderKL.from_config(codec.network_config(TINY, 1)).to(device)
    held_out = torch.zeros(3, 1, 8, 8, device=device)

    def run():
        with pytest.raises(Ended):
            autoencoder._fit(
                net, images(9), training, device, Steps(count), held_out=held_out, watch=None
            )

    return run


def test_a_step_of_the_autoencoder_makes_nothing_on_the_host_and_waits_for_nothing():
    few, many = (watched(autoencoder_steps(count, "meta")) for count in (2, 7))
    assert few == many
    few, many = (watched(autoencoder_steps(count, "cpu")) for count in (2, 7))
    assert few["waits"] == many["waits"] == 0


# --- draws


@pytest.mark.parametrize("rows", [slice(0, 3), slice(3, 8)])
def test_what_a_classifier_draws_is_a_function_of_seed_step_and_row(rows):
    pictures, labels = images(20), np.arange(20)
    whole, part = (
        classifier.drawn(*(classifier.Rows(a, "cpu") for a in (pictures, labels)), 3, 7, batch)
        for batch in (8, rows.stop)
    )
    for one, other in zip(whole, part, strict=True):
        assert torch.equal(one[rows], other[rows])
    assert len(set(whole[1].tolist())) > 3


def test_images_are_shifted_each_by_its_own_pixels_and_the_edge_is_black():
    pictures = torch.from_numpy(images(9, channels=2))
    dy, dx = torch.arange(9) // 3, torch.arange(9) % 3
    found = classifier.shifted(pictures, dy, dx)
    padded = np.pad(pictures.numpy(), [(0, 0), (0, 0), (1, 1), (1, 1)])
    for i in range(9):
        expected = padded[i, :, i // 3 : i // 3 + 8, i % 3 : i % 3 + 8]
        assert np.array_equal(found[i], expected)
    assert torch.equal(found[4], pictures[4])


# --- measurements


@pytest.fixture
def weights(tmp_path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "c.safetensors"
    classifier.save(path, classifier.SmallClassifier(1, 8, 4).eval())
    return path


def test_features_are_computed_on_the_device_without_waiting(weights, monkeypatch):
    monkeypatch.setattr(features, "_BATCH", 4)
    extract = features.Extractor("fd_x", weights, "meta")
    few, many = (watched(partial(extract.layers_of, images(n))) for n in (4, 20))
    assert few["on_host"] == many["on_host"] == few["waits"] == many["waits"] == 0
    assert (few["between"], many["between"]) == (1, 5)  # each batch is sent there
    assert {layer.device.type for layer in extract.layers_of(images(5))} == {"meta"}


def test_accuracy_is_counted_on_the_device_before_the_host_asks(weights, monkeypatch):
    monkeypatch.setattr(classifier, "_EVALUATION_BATCH", 4)
    model = classifier.load(weights).to("meta")
    found = asked_before_a_value(
        lambda: classifier.accuracy(model, images(20), np.zeros(20, np.int64))
    )
    assert (found["on_host"], found["between"]) == (0, 2 * 5)  # all images and labels are there


@pytest.mark.parametrize("work", [autoencoder.reconstruction_rms, autoencoder._latents_std])
def test_an_autoencoder_is_measured_on_its_device_before_the_host_asks(work, monkeypatch):
    from diffusers import AutoencoderKL

    monkeypatch.setattr(autoencoder, "_EVALUATION_BATCH", 4)
    net = AutoencoderKL.from_config(codec.network_config(TINY, 1)).eval().to("meta")
    found = asked_before_a_value(partial(work, net, images(12), "meta"))
    assert (found["on_host"], found["between"]) == (0, 3)


@pytest.mark.parametrize("mirrored", [False, True])
def test_images_are_encoded_on_the_device(mirrored):
    from diffusers import AutoencoderKL

    net = AutoencoderKL.from_config(codec.network_config(TINY, 1)).eval()
    model = codec.Autoencoder(net, 1.0, 4, {}, "meta")
    found = asked_before_a_value(partial(latents._moments, images(4), model, mirrored))
    assert (found["on_host"], found["waits"], found["between"]) == (0, 0, 1)


def test_neighbours_and_thumbnails_are_computed_on_the_device():
    near = asked_before_a_value(partial(nearest_distances, images(5), images(9), "meta", part=4))
    assert (near["on_host"], near["waits"], near["between"]) == (0, 0, 1 + 3)
    small = asked_before_a_value(partial(thumbnails, images(5, 64), "meta"))
    assert (small["on_host"], small["waits"], small["between"]) == (0, 0, 1)


def test_the_kernel_distance_is_computed_on_the_device():
    samples = torch.zeros(20, 3, dtype=torch.float64, device="meta")
    found = asked_before_a_value(lambda: kernel_distance(samples, samples))
    assert found == {"waits": 0, "on_host": 0, "between": 1}  # the subsets, all at once


def test_distances_are_computed_on_the_device():
    identity = Gaussian(np.zeros(3), np.eye(3), 10)
    to = FrechetTo(identity, "meta")
    samples = torch.zeros(20, 3, dtype=torch.float64, device="meta")
    assert asked_before_a_value(lambda: to(samples))["on_host"] == 0
    assert watched(lambda: moments(samples)) == {"waits": 0, "on_host": 0, "between": 0}
    reference = Reference(identity, torch.zeros(5, 3), torch.zeros(4, 3), identity, "", {})
    there = reference.on("meta")
    assert {there.features.device.type, there.held_out.device.type} == {"meta"}


class OfTheDevice:
    """An extractor whose features lie on the meta device."""

    device = "meta"

    def __call__(self, pictures):
        return torch.zeros(len(pictures), 3, dtype=torch.float64, device="meta"), None


class NoParts:
    def load(self, name):
        return None


def test_the_gaussian_of_all_images_is_summed_on_the_device():
    found = asked_before_a_value(partial(_gaussian_of, images(30), OfTheDevice(), NoParts()))
    assert (found["on_host"], found["waits"]) == (0, 0)


def test_a_profile_is_measured_on_the_device_without_waiting(paths):
    models = Models(USED, "corrected", **paths, device="meta")
    pictures = images(12, models.shape[1], models.shape[0])
    noiser = Noiser(pictures, np.arange(12) % 10, noise_schedule("linear"), "meta")
    found = watched(lambda: denoising.measure(models, noiser.at_timestep(0, 500), 5, {}))
    assert found == {"waits": 0, "on_host": 0, "between": 0}
