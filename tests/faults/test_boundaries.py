"""The edges of the switch and of the exit (docs/protocols.md), on whole cells of trained networks."""

import copy

import numpy as np
import pytest
import torch

from duodiff import samplers
from duodiff.backbones import single
from duodiff.early_exit import exit_layers
from duodiff.protocol import PROTOCOLS
from duodiff.sampling.cells import build_cell
from duodiff.sampling.generation import compute_batches, generate
from duodiff.sampling.models import Models
from duodiff.schedules import T
from duodiff.settings import Setting
from duodiff.training.backbone import train_backbone
from duodiff.training.heads import train_heads
from faults.killed_training import CONVENTIONS, NET, TRAINING

USED = {"schedule": "linear", "time_input": "t"}
DDPM, DDIM = {"name": "ddpm", "steps": 10}, {"name": "ddim", "steps": 10, "eta": 0}
DPM = {"name": "dpm_solver_pp", "steps": 10}
FULL, BATCH, SEED = 5, 8, 4
FEW = TRAINING | {"steps": 30}


@pytest.fixture(scope="module")
def models(digits, tmp_path_factory) -> Models:
    """Full (5 blocks), shallow (3 blocks) and heads, trained a little."""
    folder = tmp_path_factory.mktemp("study")
    paths = {role: folder / role / "manifest.json" for role in ("full", "shallow", "heads")}
    for role, depth in (("full", FULL), ("shallow", 3)):
        net = NET | {"depth": depth}
        train_backbone(digits, net, CONVENTIONS, False, FEW, seed=0, device="cpu", out=paths[role])
    training = {k: v for k, v in FEW.items() if k not in ("init", "label_dropout")}
    train_heads(
        digits, paths["full"], USED, training, "corrected", seed=0, device="cpu", out=paths["heads"]
    )
    return Models(USED, "corrected", **paths)


def images(models: Models, sampler: dict, setting: str, count: int = 11):
    """uint8 images and blocks run of a cell. Of 11 images, the second batch has 3 (of 8)."""
    cell = build_cell(models, sampler, Setting.parse(setting))
    samples, _, blocks = generate(models, cell, 0, count, batch=BATCH, seed=SEED)
    return samples, blocks


def alone(models: Models, backbone, sampler: dict, count: int = 11) -> np.ndarray:
    """Images of one backbone on all timesteps, without a switch."""
    steps = build_cell(models, sampler, Setting.parse("t_s=0")).steps
    batches = []
    for first, wanted in compute_batches(0, count, BATCH):
        y = torch.arange(first, first + BATCH) % 10
        x = samplers.sample(single(backbone), steps, models.shape, first, BATCH, seed=SEED, y=y)
        batches.append(samplers.to_uint8(x)[wanted])
    return torch.cat(batches).numpy()


@pytest.mark.parametrize("sampler", [DDPM, DDIM, DPM], ids=lambda sampler: sampler["name"])
def test_t_s_0_is_the_full_backbone_and_t_s_T_the_shallow_one(models, sampler):
    for t_s, backbone, depth in ((0, models.full, FULL), (T, models.shallow, 3)):
        samples, blocks = images(models, sampler, f"t_s={t_s}")
        assert np.array_equal(samples, alone(models, backbone, sampler))
        assert (blocks == depth).all()
    one_step, blocks = images(models, sampler, "t_s=1")
    assert blocks[:, 0].tolist() == [3] + [FULL] * 9  # shallow at t = 999 alone
    assert not np.array_equal(one_step, images(models, sampler, "t_s=0")[0])


def test_theta_0_runs_the_full_network_and_theta_1_no_block(models):
    samples, blocks = images(models, DDPM, "theta=0")
    assert np.array_equal(samples, images(models, DDPM, "t_s=0")[0])
    assert (blocks == FULL).all()
    samples, blocks = images(models, DDPM, "theta=1")
    assert (blocks == 0).all()
    net, heads = models.full.net, models.adadiff.output_heads

    def head_0(x, t, y):
        return heads[0](net.embed(x, net.embed_time(t), y), net)

    assert np.array_equal(samples, alone(models, head_0, DDPM))


@pytest.fixture
def uncertainty(models):
    """A function that makes the uncertainty of a layer constant until the test ends."""
    before = {k: v.clone() for k, v in models.adadiff.state_dict().items()}

    def constant(layer: int, bias: float) -> None:
        linear = models.adadiff.uncertainty_heads[layer].linear
        linear.weight.data.zero_()
        linear.bias.data.fill_(bias)

    yield constant
    models.adadiff.load_state_dict(before)
    models.adadiff.nan_count.zero_()


def test_u_equal_to_theta_exits_and_above_it_does_not(models, uncertainty):
    for layer, bias in enumerate([9, 9, 0, 9, 9]):
        uncertainty(layer, bias)  # u = sigmoid(0) = 0.5 in layer 2, exactly
    assert (images(models, DDPM, "theta=0.5")[1] == 2).all()
    below = np.nextafter(np.float32(0.5), np.float32(0))
    assert (images(models, DDPM, f"theta={below!s}")[1] == FULL).all()


def test_u_that_underflows_to_0_does_not_exit_at_theta_0(models, uncertainty):
    uncertainty(0, -1e4)
    assert (images(models, DDPM, "theta=0")[1] == FULL).all()
    assert (images(models, DDPM, "theta=1.0e-30")[1] == 0).all()


def test_a_nan_does_not_exit_and_is_counted(models, uncertainty):
    uncertainty(0, torch.nan)
    samples, blocks = images(models, DDPM, "theta=1")
    assert (blocks == 1).all()  # the next layer does
    assert models.adadiff.nan_count == 10 * 2 * BATCH  # steps, batches
    assert samples.shape == (11, 1, 8, 8)
    nan = torch.full((3, 2), torch.nan)
    assert exit_layers(nan, 1.0).tolist() == [3, 3]


@pytest.mark.parametrize(("protocol", "calls"), [("corrected", 50), ("paper", 49)])
def test_ddim_makes_as_many_calls_as_its_protocol_says(models, protocol, calls):
    counted, net = [], models.full.net
    handle = net.register_forward_hook(lambda *_: counted.append(0))
    chosen = copy.copy(models)
    chosen.protocol = PROTOCOLS[protocol]
    images(chosen, {"name": "ddim", "steps": 50, "eta": 0}, "t_s=0", 1)
    handle.remove()
    assert len(counted) == calls


def test_the_last_partial_batch_is_as_if_it_were_whole(models):
    for setting in ("t_s=500", "theta=0.3"):
        whole, blocks = images(models, DDPM, setting, 16)
        for count in (1, 8, 9, 15):
            part, part_blocks = images(models, DDPM, setting, count)
            assert np.array_equal(part, whole[:count])
            assert np.array_equal(part_blocks, blocks[:, :count])
