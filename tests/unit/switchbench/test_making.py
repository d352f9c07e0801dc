"""SwitchBench's files: the masks' images are those of the switch schedules, and a stopped run continues."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from unit.tiny_study import loaded

from duodiff import samplers
from duodiff.backbones import SwitchSchedule, duodiff
from duodiff.data.store import ImageStore
from duodiff.metrics.distances import frechet_distance, gaussian
from duodiff.metrics.features import Extractor
from duodiff.running.parts import Parts
from duodiff.schedules import T, noise_schedule
from duodiff.spaces import SHIPPED
from duodiff.study.grid import sampling_seed
from duodiff.switchbench import making, measuring, plan
from duodiff.switchbench.data import load
from duodiff.switchbench.making import make_all, make_training
from duodiff.switchbench.masks import masks, shallow_steps, switched
from duodiff.switchbench.measuring import Rulers, displacements, distances, losses
from duodiff.switchbench.sampling import sample_masks
from duodiff.training.backbone import noisers

LINEAR = noise_schedule("linear")
STEPS = {"ddpm": samplers.ddpm(LINEAR, 4), "ddim": samplers.ddim(LINEAR, 4)}
EVERY = [*masks(4), "ssss"]


@pytest.fixture(scope="module")
def models(paths):
    return loaded({role: paths[role] for role in ("full", "shallow", "heads")})


@pytest.fixture(scope="module")
def rulers(data):
    return Rulers(data)


# --- masks


def test_masks_are_every_choice_with_the_last_step_full():
    found = masks(10)
    assert len(found) == len({*found}) == 512
    assert {mask[-1] for mask in found} == {"f"}
    assert found[0] == switched(10, 0) == "f" * 10
    assert found[-1] == switched(10, 9)
    assert shallow_steps(["sfsf", "fffs"]).tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]


def test_a_single_switch_is_duodiffs_first_calls():
    for t_s in (0, 300, 500, T):
        steps = samplers.ddpm(LINEAR, 10)
        calls = sum(step.t >= T - t_s for step in steps)
        assert switched(10, calls) == "".join("s" if s.t >= T - t_s else "f" for s in steps)


# --- images


def schedule(models, mask: str, steps) -> SwitchSchedule:
    """A mask as a switch schedule: a network runs from its step's t up to below that of the step before."""
    roles = {"f": models.full, "s": models.shallow}
    highest = [T - 1, *(step.t - 1 for step in steps[:-1])]
    return SwitchSchedule(
        [
            (roles[letter], step.t, high)
            for letter, step, high in zip(mask, steps, highest, strict=True)
        ]
    )


@pytest.mark.parametrize("name", STEPS)
def test_images_of_masks_are_those_of_their_switch_schedules_bit_for_bit(models, name):
    steps = STEPS[name]
    found = sample_masks(models, steps, EVERY, first=6, batch=3, seed=5)
    assert set(found) == {*EVERY}
    y = models.labels(5, 6, 3, models.protocol)
    for mask in EVERY:
        expected = samplers.sample(
            schedule(models, mask, steps), steps, models.shape, 6, 3, seed=5, y=y
        )
        assert torch.equal(found[mask], expected), mask
    for t_s in (0, 400, T):
        switch = duodiff(models.full, models.shallow, t_s)
        expected = samplers.sample(switch, steps, models.shape, 6, 3, seed=5, y=y)
        calls = sum(step.t >= T - t_s for step in steps)
        assert torch.equal(found[switched(4, calls)], expected)


def test_masks_that_begin_alike_share_their_steps(models, monkeypatch):
    calls = Counter()

    def counted(*arguments):
        calls["steps"] += len(arguments[1])
        return samplers.integrate(*arguments)

    monkeypatch.setattr("duodiff.switchbench.sampling.integrate", counted)
    sample_masks(models, STEPS["ddpm"], masks(4), first=0, batch=2, seed=0)
    assert calls["steps"] == 2 + 4 + 8 + 8
    calls.clear()
    sample_masks(models, STEPS["ddpm"], ["fsff", "fssf"], first=0, batch=2, seed=0)
    assert calls["steps"] == 2 + 2 + 2


def test_images_that_are_not_finite_are_refused(models, monkeypatch):
    bad = {mask: torch.full((2, *models.shape), torch.nan) for mask in EVERY}
    monkeypatch.setattr(measuring, "sample_masks", lambda *arguments, **options: bad)
    with pytest.raises(ValueError, match="images 4 to 5 are not finite"):
        measuring._images(models, STEPS["ddpm"], EVERY, first=4, batch=2, seed=0)


# --- measurements


def test_distances_are_those_of_the_study_and_of_the_pixels(rulers, data):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, 1, 8, 8)).astype(np.uint8)
    train, _ = ImageStore(data).split("train")
    extract = Extractor("fd_digits", SHIPPED / "fd_digits.safetensors")
    features = [extract(np.array(of))[0] for of in (images, train)]
    pixels = [
        torch.from_numpy(np.array(of)).flatten(1).double() / 127.5 - 1 for of in (images, train)
    ]
    found = rulers(images)
    assert found["fd_digits"] == pytest.approx(frechet_distance(*map(gaussian, features)), rel=1e-4)
    assert found["fd_pixels"] == pytest.approx(frechet_distance(*map(gaussian, pixels)), rel=1e-4)
    assert max(rulers(np.array(train)).values()) < 1e-3
    assert rulers.extractor == extract.name


def measured(models, rulers, parts):
    options = {"name": "ddpm_0", "images": 80, "batch": 40, "seed": 1}
    return distances(models, STEPS["ddpm"], EVERY, rulers, parts, **options)


def test_a_stopped_run_continues_after_its_last_compute_batch(
    models, rulers, tmp_path, monkeypatch
):
    whole = measured(models, rulers, Parts(tmp_path / "whole.json", {}))
    assert list(whole["mask"]) == EVERY
    firsts = []

    def stops_once(*arguments, first, **options):
        firsts.append(first)
        if firsts == [0, 40]:
            raise KeyboardInterrupt
        return sample_masks(*arguments, first=first, **options)

    monkeypatch.setattr(measuring, "sample_masks", stops_once)
    with pytest.raises(KeyboardInterrupt):
        measured(models, rulers, Parts(tmp_path / "stopped.json", {}))
    continued = measured(models, rulers, Parts(tmp_path / "stopped.json", {}))
    again = measured(models, rulers, Parts(tmp_path / "stopped.json", {}))
    assert firsts == [0, 40, 40]
    assert continued.equals(whole)
    assert again.equals(whole)


@torch.no_grad()
def test_losses_are_squared_errors_summed_over_the_values_of_an_image(models, data):
    _, _, held_out = noisers(data, models.full, "linear", "cpu")
    found = losses(models, held_out, [999, 333], batch=100, seed=3).set_index("t")
    for t in (999, 333):
        noised = held_out.at_timestep(3, t)
        full, shallow = (
            network(noised.x_t, noised.t, noised.y) for network in (models.full, models.shallow)
        )
        pairs = {"full": (full, noised.eps), "shallow": (shallow, noised.eps)}
        for name, (one, other) in (pairs | {"between": (shallow, full)}).items():
            expected = (one - other).square().flatten(1).sum(1).numpy()
            assert found.loc[t, name].to_numpy() == pytest.approx(expected, rel=1e-4)
    assert list(found.loc[333, "image"]) == [*range(360)]


def test_displacements_are_those_of_images_of_one_replaced_step(models):
    steps = STEPS["ddim"]
    gram = displacements(models, steps, 5, seed=2).pivot(index="i", columns="j", values="product")
    alone = sample_masks(models, steps, ["ffff", "fsff", "ffsf"], first=0, batch=5, seed=2)
    one, other = (alone[mask] - alone["ffff"] for mask in ("fsff", "ffsf"))
    i, j = steps[1].t, steps[2].t
    assert gram.loc[i, j] == pytest.approx(float((one * other).sum()) / 5, rel=1e-4)
    assert gram.loc[i, i] == pytest.approx(float(one.square().sum()) / 5, rel=1e-4)
    assert (gram.to_numpy() == gram.to_numpy().T).all()


# --- a training's files

SMALL = replace(
    plan.read(), steps=3, images=80, batch=40, trainings={"fresh": [7], "explored": [8]}
)


@pytest.fixture
def trained(paths, tmp_path, monkeypatch):
    """The folder of a training's networks, below results as the workflow has them; exits at few timesteps."""
    monkeypatch.setattr(measuring, "_PROFILED", 5)
    results = tmp_path / "results"
    (results / "digits").mkdir(parents=True)
    (results / "digits/train7").symlink_to(paths["full"].parents[1])
    (results / "data").mkdir()
    (results / "data/digits").symlink_to(paths["full"].parents[1] / "data")
    return results


def test_a_training_is_made_once_and_read_back(trained, tmp_path, monkeypatch):
    bench = tmp_path / "bench"
    folder = trained / "digits/train7"
    make_all([folder], SMALL, bench, processes=1)
    bench.joinpath("plan.yaml").write_text(
        (plan.SHIPPED / "plan.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (one,) = load(bench, [7])
    assert one.masks == ["fff", "fsf", "sff", "ssf"]
    assert list(one.t) == [999, 499, 0]
    assert one.full.shape == one.shallow.shape == one.between.shape == (3, 360)
    assert one.displacements["ddim"].shape == (3, 3)
    assert one.manifest["operations"]["full"] > one.manifest["operations"]["shallow"] > 0
    assert one.manifest["dimension"] == 64
    assert 0 <= one.manifest["exits"]["change"] < T
    for sampler in ("ddpm", "ddim"):
        first, second = (one.distance(sampler, k, "fd_digits") for k in one.sample_seeds)
        assert (first != second).all()
        full, _ = one.ends(sampler, 0, "fd_pixels")
        assert full == one.distance(sampler, 0, "fd_pixels")[0]
    assert not [*(bench / "train7").glob(".*")]
    monkeypatch.setattr(making, "_distances", None)  # nothing is made again
    make_all([folder], SMALL, bench, processes=1)


def test_a_training_that_is_not_the_plans_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"trained: found .*train9; accepted: train7, train8"):
        make_all([tmp_path / "train9"], SMALL, tmp_path, processes=1)


def test_each_training_has_noise_of_its_own(models, rulers, tmp_path, monkeypatch):
    seeds = []

    def noted(*arguments, seed, **options):
        seeds.append(seed)

    monkeypatch.setattr(making, "distances", noted)
    making._distances(models, rulers, SMALL, 100, Parts(tmp_path / "x.json", {}))
    assert seeds == [sampling_seed(k, 100) for _ in SMALL.samplers for k in (0, 1)]
    assert seeds[:2] == [100000, 100001]


def test_other_networks_are_another_training(trained, paths, tmp_path):
    bench = tmp_path / "bench"
    found = make_training(
        trained / "digits/train7", paths["full"].parents[1] / "data/manifest.json", SMALL, bench
    )
    other = make_training(
        trained / "digits/train7",
        paths["full"].parents[1] / "data/manifest.json",
        replace(SMALL, sample_seeds=[4]),
        bench,
    )
    assert found["identity"] != other["identity"]
    assert {*other["sha256"]} == {
        "losses.csv",
        "displacements_ddpm.csv",
        "displacements_ddim.csv",
        "ddpm_4.csv",
        "ddim_4.csv",
    }
