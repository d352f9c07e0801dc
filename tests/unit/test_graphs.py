"""Sampling by captured steps: the images of `samplers.sample`, and how often each graph is captured and replayed."""

import pytest
import torch

from duodiff import noise, samplers
from duodiff.backbones import Autoguided, EarlyExit, Guided, duodiff, single
from duodiff.early_exit import AdaDiff
from duodiff.graphs import Captures, StepGraphs
from duodiff.schedules import noise_schedule
from duodiff.uvit import Denoiser, UViT
from unit import recorded
from unit.watched import Watched

NET = {"img_size": 6, "patch_size": 2, "in_chans": 3, "embed_dim": 14, "num_heads": 7}
SHAPE = (3, 6, 6)
LINEAR = noise_schedule("linear")
STEPS = {
    "ddpm": samplers.ddpm(LINEAR, 12),
    "ddim": samplers.ddim(LINEAR, 10),
    "ddim, eta 0.5": samplers.ddim(LINEAR, 10, 0.5),
    "dpm_solver_pp": samplers.dpm_solver_pp(LINEAR, 8),
}
BATCHES = ((0, 7), (14, 3))
"""The first image and the seed of batches that are sampled in turn."""


def network(depth: int, device: str = "cpu", **options) -> Denoiser:
    torch.manual_seed(depth)
    net = UViT(**NET, depth=depth, **options)
    for p in net.parameters():
        p.data += 0.05 * torch.randn_like(p)
    kinds = {5: {}, 3: {"time_input": "t/1000", "prediction": "v"}}
    return Denoiser(net, **kinds[depth]).to(device).requires_grad_(False)


def labels(start: int, net: Denoiser) -> torch.Tensor | None:
    return noise.balanced_labels(start, 7, 4) if net.net.num_classes > 0 else None


def both(graphs: StepGraphs, schedule, steps, start: int, seed: int, y=None):
    """The images of a batch by the plain loop, and by `graphs`."""
    device = graphs.device
    given = (schedule, steps, SHAPE, start, 7)
    plain = samplers.sample(*given, seed=seed, y=y, device=device)
    return plain, graphs.sample(*given, seed=seed, y=y)


def assert_close(pair) -> None:
    plain, found = pair
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5 * plain.abs().max().item())


@pytest.fixture(params=["uncaptured", "pretended", pytest.param("cuda", marks=pytest.mark.cuda)])
def graphs(request, monkeypatch) -> StepGraphs:
    """Steps that run as they are, that are captured by a pretended GPU, and by a GPU."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        return StepGraphs("cuda")
    found = StepGraphs("cpu")
    if request.param == "pretended":
        recorded.pretend(monkeypatch)
        monkeypatch.setattr(noise, "normals", of_device)
        found.capture = Captures()
    return found


def of_device(seed, stream, start, count, size, *, number=0, device) -> torch.Tensor:
    """The noise as a GPU computes it, in operations of tensors that a graph holds."""
    counters = tuple(noise._scalar(value, device) for value in (seed, stream, start, number))
    return noise._normals(counters, count, size, -(-size // noise._NORMALS_PER_COUNT))


@pytest.mark.parametrize("t_s", [0, 300, 1000])
@pytest.mark.parametrize("sampler", STEPS)
def test_the_images_are_those_of_the_loop(graphs, sampler, t_s):
    full, shallow = (network(depth, graphs.device, num_classes=4) for depth in (5, 3))
    schedule = duodiff(full, shallow, t_s)
    for start, seed in BATCHES:
        assert_close(both(graphs, schedule, STEPS[sampler], start, seed, labels(start, full)))


def test_samplers_and_schedules_take_turns_on_the_same_graphs(graphs):
    full, shallow = (network(depth, graphs.device) for depth in (5, 3))
    for sampler in STEPS:
        for t_s in (300, 700):
            assert_close(both(graphs, duodiff(full, shallow, t_s), STEPS[sampler], 7, 1))


def test_guided_networks_are_sampled_too(graphs):
    full, shallow = (network(depth, graphs.device, num_classes=4) for depth in (5, 3))
    y = labels(0, full)
    by_class, by_another = Guided(full, 0.7, 3), Autoguided(full, shallow, 0.4)
    for schedule in (single(by_another), duodiff(by_class, by_another, 500)):
        assert_close(both(graphs, schedule, STEPS["ddim, eta 0.5"], 0, 0, y))


def test_a_graph_is_captured_once_for_a_network_a_batch_and_a_kind_of_step(monkeypatch):
    made = recorded.pretend(monkeypatch).all_of_them
    graphs = StepGraphs("cpu")
    graphs.capture = Captures()
    full, shallow = (network(depth, num_classes=4) for depth in (5, 3))

    def sample(backbones, steps, count=7, start=0):
        y = noise.balanced_labels(start, count, 4)
        graphs.sample(duodiff(*backbones, 300), steps, SHAPE, start, count, seed=0, y=y)
        return [graph.replays for graph in made]

    ddpm, ddim = STEPS["ddpm"], STEPS["ddim"]
    # 12 steps, of which 4 are above t = 699; the last one has no noise
    assert sample((full, shallow), ddpm) == [4, 7, 1]
    assert sample((full, shallow), ddpm, start=7) == [8, 14, 2]
    # ten steps without noise, of which 3 are above t = 699
    assert sample((full, shallow), ddim) == [8, 14, 9, 3]
    assert sample((full, shallow), ddim, count=3) == [8, 14, 9, 3, 3, 7]
    # guided networks that are made anew are the same
    for times in (1, 2):
        guided = Guided(full, 0.7, 3), Autoguided(full, shallow, 0.4)
        assert sample(guided, ddim)[6:] == [3 * times, 7 * times]
    assert len({(id(graph.pool), id(graph.stream)) for graph in made}) == 1


def test_early_exit_is_sampled_by_the_loop(monkeypatch):
    made = recorded.pretend(monkeypatch).all_of_them
    graphs, full = StepGraphs("cpu"), network(5)
    graphs.capture = Captures()
    early = EarlyExit(AdaDiff(full.net), 0.5, full)
    plain, found = both(graphs, single(early), STEPS["ddpm"], 0, 0)
    assert torch.equal(plain, found)
    assert not made
    assert len(early.exits) == 2 * len(STEPS["ddpm"])


def test_the_host_hears_of_every_step_and_waits_for_none(monkeypatch):
    monkeypatch.setattr(noise, "normals", of_device)
    full, seen = network(5), []
    with Watched() as found:
        StepGraphs("cpu").sample(
            single(full), STEPS["ddpm"], SHAPE, 0, 7, seed=0, on_step=seen.append
        )
    assert found.waits == []
    assert seen == [step.t for step in STEPS["ddpm"]]
