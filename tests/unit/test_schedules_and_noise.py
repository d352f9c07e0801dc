import numpy as np
import pytest
import torch

from duodiff.noise import INITIAL, balanced_labels, image_noise, labels_from_1, normals
from duodiff.schedules import T, noise_schedule, time_input, timesteps


@pytest.mark.parametrize("name", ["linear", "sd", "vpsde"])
def test_schedules_fall_from_signal_to_noise(name):
    schedule = noise_schedule(name)
    ab = schedule.alphas_cumprod
    assert ab.dtype == np.float64
    assert ab.shape == (T,)
    assert (np.diff(ab) < 0).all()
    assert ab[0] > 0.99
    assert ab[-1] < 0.01
    np.testing.assert_allclose(np.cumprod(1 - schedule.betas), ab, rtol=1e-12)
    assert schedule.betas_tilde[0] == 0
    assert (schedule.betas_tilde[1:] < schedule.betas[1:]).all()


def test_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="'cosine' is unknown; accepted: linear, sd, vpsde"):
        noise_schedule("cosine")


def test_time_conventions():
    t = torch.tensor([0, 499, 999])
    assert time_input("t", t).tolist() == [0, 499, 999]
    assert time_input("t+1", t).tolist() == [1, 500, 1000]
    assert time_input("t/1000", t).tolist() == pytest.approx([0, 0.499, 0.999])
    assert time_input("999(t+1)/1000", t).tolist() == pytest.approx([0.999, 499.5, 999])
    with pytest.raises(ValueError, match="accepted: t, t/1000"):
        time_input("t*1000", t)


def test_timesteps_exactly():
    assert timesteps(T).tolist() == list(range(999, -1, -1))
    assert timesteps(2).tolist() == [999, 0]
    assert timesteps(5).tolist() == [999, 749, 499, 249, 0]
    for n in (1, T + 1):
        with pytest.raises(ValueError, match=f"found {n}; accepted: 2 to 1000"):
            timesteps(n)


@pytest.mark.parametrize("size", [3, 8, 105])
def test_noise_of_an_image_is_the_same_whatever_the_range(size):
    whole = normals(seed=7, stream=31, start=0, count=53, size=size)
    for start, count in ((0, 1), (5, 13), (52, 1), (11, 42)):
        assert torch.equal(normals(7, 31, start, count, size), whole[start : start + count])


def test_noise_is_standard_normal_and_streams_are_independent():
    a, b = normals(0, 5, 0, 2000, 301), normals(0, 6, 0, 2000, 301)
    other_seed = normals(1, 5, 0, 2000, 301)
    assert a.dtype == torch.float32
    assert abs(a.mean()) < 0.005
    assert abs(a.std() - 1) < 0.005
    assert abs((a**4).mean() - 3) < 0.05
    for other in (b, other_seed, a.roll(1, 0), a.roll(1, 1)):
        assert abs((a * other).mean()) < 0.005


def test_image_noise_has_the_images_shape_and_the_initial_stream_is_its_own():
    x_T = image_noise(0, INITIAL, 3, 2, (5, 7, 11))
    assert x_T.shape == (2, 5, 7, 11)
    assert not torch.equal(x_T, image_noise(0, T - 1, 3, 2, (5, 7, 11)))


def test_labels_are_balanced_and_a_function_of_the_index():
    labels = balanced_labels(0, 30, 10)
    assert labels.bincount().tolist() == [3] * 10
    assert torch.equal(balanced_labels(17, 5, 10), labels[17:22])


def test_the_released_labels_are_random_from_1_and_a_function_of_the_index():
    labels = labels_from_1(0, 0, 5000, 7)
    counts = labels.bincount(minlength=7)
    assert counts[0] == 0
    assert (counts[1:] > 700).all()
    assert torch.equal(labels_from_1(0, 1234, 50, 7), labels[1234:1284])
    assert not torch.equal(labels_from_1(1, 0, 5000, 7), labels)
