"""The errors of a profile's networks in their file, and their means at any timestep."""

import numpy as np
import pytest

from duodiff.metrics.bootstrap import RESAMPLES
from duodiff.metrics.losses import Losses, read_losses
from duodiff.schedules import timesteps

ABOUT = {"architecture": {"in_chans": 3, "img_size": 5}, "networks": {}, "schedule": "linear"}


def made(n=6) -> Losses:
    errors = np.random.default_rng(0).exponential(size=(2, n, 7)).astype(np.float32)
    return Losses(("full", "shallow"), timesteps(n), errors, (errors - errors[:1]) ** 2, ABOUT)


def test_a_file_holds_everything_and_is_the_same_each_time(tmp_path):
    losses = made()
    for name in ("one.npz", "other.npz"):
        losses.write(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    found = read_losses(tmp_path / "one.npz")
    assert (found.networks, found.about) == (losses.networks, ABOUT)
    for name in ("t", "errors", "disagreements"):
        np.testing.assert_array_equal(getattr(found, name), getattr(losses, name))
    assert (found.images, found.dimension) == (7, 75)
    with pytest.raises(FileNotFoundError, match="found no such file"):
        read_losses(tmp_path / "none.npz")


def test_means_at_profiled_timesteps_are_the_means():
    losses = made()
    errors, disagreements = losses.means(losses.t)
    assert errors.shape == (1 + RESAMPLES, 2, 6)
    np.testing.assert_allclose(errors[0], losses.errors.mean(-1), rtol=1e-6)
    np.testing.assert_allclose(disagreements[0], losses.disagreements.mean(-1), rtol=1e-6)
    some = losses.means(losses.t[[0, 3, 5]])[0]
    np.testing.assert_allclose(some, errors[..., [0, 3, 5]])


def test_between_them_a_power_of_the_signal_to_noise_ratio_is_met():
    schedule, t = made().schedule, timesteps(6)
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    errors = np.repeat(snr[t][None, :, None] ** -0.7, 7, axis=2)
    found = Losses(("full",), t, errors, 0 * errors, ABOUT)
    asked = np.array([999, 900, 500, 13, 1, 0])
    errors, disagreements = found.means(asked)
    np.testing.assert_allclose(errors[0, 0], snr[asked] ** -0.7, rtol=1e-5)
    assert not disagreements.any()


def test_some_of_the_images_and_some_of_the_networks():
    losses = made()
    assert losses.of(slice(1, None, 2)).images == 3
    swapped = losses.only("shallow", "full")
    np.testing.assert_array_equal(swapped.errors, losses.errors[::-1])
    assert swapped.networks == ("shallow", "full")
