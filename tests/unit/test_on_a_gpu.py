"""What a GPU computes, beside what the CPU computes: noise, a training's batch, images."""

import numpy as np
import pytest
import torch

from duodiff import noise, samplers
from duodiff.backbones import EarlyExit, Guided, duodiff, single
from duodiff.early_exit import AdaDiff
from duodiff.schedules import noise_schedule
from duodiff.training.batches import Noiser
from duodiff.uvit import Denoiser, UViT

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

LINEAR = noise_schedule("linear")
SHAPE = (3, 6, 6)
STEPS = {
    "ddpm": samplers.ddpm(LINEAR, 20),
    "ddim": samplers.ddim(LINEAR, 20),
    "ddim, eta 0.5": samplers.ddim(LINEAR, 20, 0.5),
    "dpm_solver_pp": samplers.dpm_solver_pp(LINEAR, 20),
}
RNG = np.random.default_rng(0)
COUNTERS = [
    (0, 0, 0, 0),
    (2**64 - 1, 2**64 - 1, 2**62, 2**64 - 1),
    *(tuple(int(v) for v in RNG.integers(0, 2**62, 4)) for _ in range(20)),
]
"""Seed, stream, start and number."""


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Convolutions do not round to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("count", [1, 37])
def test_a_gpu_draws_the_integers_of_the_cpu(count):
    for seed, stream, start, number in COUNTERS:
        on_cpu, on_gpu = (
            noise.integers(seed, stream, start, count, number=number, device=device)
            for device in ("cpu", "cuda")
        )
        assert torch.equal(on_gpu.cpu(), on_cpu)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 64, 64), (4, 32, 32), (3, 5, 7)])
def test_a_gpu_draws_the_normals_of_the_cpu_within_1e_6(shape):
    for t in (0, 500, noise.INITIAL):
        on_cpu, on_gpu = (
            noise.image_noise(3, t, 100, 16, shape, device=device) for device in ("cpu", "cuda")
        )
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-6, rtol=0)


def test_a_training_draws_the_batch_of_the_cpu():
    images, labels = RNG.integers(0, 256, (50, *SHAPE)).astype(np.uint8), np.arange(50) % 4
    options = {"flips": True, "label_dropout": 0.3, "null_class": 4}
    for step in (0, 7):
        on_cpu, on_gpu = (
            Noiser(images, labels, LINEAR, device, **options).at_step(0, step, 16)
            for device in ("cpu", "cuda")
        )
        assert torch.equal(on_gpu.t.cpu(), on_cpu.t)
        assert torch.equal(on_gpu.y.cpu(), on_cpu.y)
        torch.testing.assert_close(on_gpu.x_t.cpu(), on_cpu.x_t, atol=1e-5, rtol=0)


def network(depth: int) -> UViT:
    torch.manual_seed(depth)
    net = UViT(
        img_size=6, patch_size=2, in_chans=3, embed_dim=14, depth=depth, num_heads=7, num_classes=5
    )
    return net.eval().requires_grad_(False)


def schedules(device: str) -> dict:
    full, shallow = (Denoiser(network(depth)).eval().to(device) for depth in (5, 3))
    torch.manual_seed(0)
    adadiff = AdaDiff(full.net).eval().to(device)
    return {
        "t_s=0": single(full),
        "t_s=300": duodiff(full, shallow, 300),
        "t_s=1000": single(shallow),
        "guided": single(Guided(full, 0.5, 4)),
        "theta=0": single(EarlyExit(adadiff, 0.0, full)),
        "theta=1": single(EarlyExit(adadiff, 1.0, full)),
    }


@pytest.mark.parametrize("quantile", [0.1, 0.3, 0.5])
def test_early_exit_is_the_simulated_one_in_calls_that_follow_each_other(quantile):
    full = Denoiser(network(5)).eval().to("cuda")
    torch.manual_seed(0)
    model = AdaDiff(full.net).eval().to("cuda")
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    x, t, y = (
        v.cuda() for v in (torch.randn(64, *SHAPE), torch.full((64,), 700), torch.arange(64) % 4)
    )
    with torch.inference_mode():
        theta = model.all_layers(x, t, y)[1].quantile(quantile).item()
        both = [EarlyExit(model, theta, full, simulate) for simulate in (False, True)]
        for factor in (1.0, 1.0, 1.0, 0.5, 2.0, 1.0):  # other exits than those of the calls before
            clear = ((model.all_layers(factor * x, t, y)[1] - theta).abs() > 1e-5).all(0)
            found, expected = (run(factor * x, t, y) for run in both)
            exits = [run.exits[-1] for run in both]
            assert torch.equal(exits[0][clear], exits[1][clear])
            torch.testing.assert_close(found[clear], expected[clear], atol=1e-5, rtol=1e-5)
    assert len(torch.cat(both[0].exits).unique()) > 1


@pytest.mark.parametrize("sampler", STEPS)
@pytest.mark.parametrize("setting", schedules("cpu"))
def test_a_gpu_samples_the_images_of_the_cpu(sampler, setting):
    y = torch.arange(7) % 4
    on_cpu, on_gpu = (
        samplers.sample(
            schedules(device)[setting], STEPS[sampler], SHAPE, 5, 7, seed=1, y=y, device=device
        )
        for device in ("cpu", "cuda")
    )
    assert on_gpu.device.type == "cuda"
    difference = (on_gpu.cpu() - on_cpu).abs().max()
    assert difference <= 1e-4 * on_cpu.abs().max()
