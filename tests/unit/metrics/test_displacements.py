"""Displacements of a barely trained study's images against trajectories that are sampled one by one."""

import numpy as np
import pytest
import torch
from unit.tiny_study import loaded

from duodiff import noise
from duodiff.backbones import SwitchSchedule
from duodiff.metrics.displacements import write_displacements
from duodiff.metrics.grams import read_gram
from duodiff.samplers import integrate, steps_of
from duodiff.schedules import T

DDIM = {"name": "ddim", "steps": 4, "eta": 0}


def test_products_are_those_of_sampled_displacements(paths, tmp_path):
    models = loaded(paths)
    networks = {"early": {"exit": 2}}
    how = {"images": 5, "batch": 3, "seed": 7, "out": tmp_path / "gram.npz"}
    said = write_displacements(models, DDIM, networks, **how)
    assert said == "5 trajectories of 4 steps, 2 networks"
    gram = read_gram(tmp_path / "gram.npz")
    assert gram.networks == ("shallow", "early")
    assert gram.sampler == DDIM
    steps = steps_of(models.schedule, DDIM, models.protocol)
    assert gram.t.tolist() == [step.t for step in steps]
    x = noise.image_noise(7, noise.PROFILE_NOISE, 0, 5, models.shape, number=T)
    y = models.labels(7, 0, 5, models.protocol)

    def images(network, at):
        entries = [(network if s.t == at else models.full, s.t, s.t) for s in steps]
        schedule = object.__new__(SwitchSchedule)
        schedule._at = {t: backbone for backbone, t, _ in entries}
        return integrate(schedule, steps, x, y, lambda t: None)

    with torch.inference_mode():
        base = images(models.full, 999)
        moved = [
            (images(network, step.t) - base).flatten(1).double().numpy()
            for network in (models.shallow, models.fixed_exit(2))
            for step in steps
        ]
    expected = np.einsum("and,bnd->nab", np.array(moved), np.array(moved))
    np.testing.assert_allclose(gram.products, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_a_sampler_with_noise_is_refused(paths, tmp_path):
    for sampler in (DDIM | {"eta": 0.5}, {"name": "ddpm", "steps": 4}):
        with pytest.raises(ValueError, match="accepted: ddim with eta 0"):
            write_displacements(loaded(paths), sampler, {}, batch=3, seed=0, out=tmp_path / "x.npz")
