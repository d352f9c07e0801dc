"""Early exit as a GPU computes it, without waiting: on the CPU, its exits and outputs beside those of the rule."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from duodiff import ahead, samplers
from duodiff.ahead import Ahead, CompiledParts, cheapest_sizes, room
from duodiff.backbones import EarlyExit, single
from duodiff.compiled import WHOLE
from duodiff.early_exit import AdaDiff
from duodiff.schedules import noise_schedule
from duodiff.uvit import Denoiser, UViT
from unit.watched import Watched

N, DIM = 7, 14
FINEST = 1e4 ** (-6 / 7)  # the lowest frequency of the time embedding


class ByTime(nn.Module):
    """An uncertainty head by which an image that is fed the time n exits at layer n, for theta in (0, 0.5)."""

    def __init__(self, layer: int):
        super().__init__()
        self.register_buffer("limit", torch.tensor((layer + 0.5) * FINEST))

    def forward(self, tokens: Tensor, time_emb: Tensor) -> Tensor:
        leaves = time_emb[:, -1] < self.limit
        return torch.where(leaves, 0.0, 0.5 + 0 * tokens.mean((1, 2)))


def made(by_time: bool, **options) -> AdaDiff:
    torch.manual_seed(1)
    net = UViT(6, 2, 3, embed_dim=DIM, depth=N, num_heads=7, **options)
    model = AdaDiff(net).requires_grad_(False)
    for p in model.parameters():
        p += 0.1 * torch.randn_like(p)
    if by_time:
        model.uncertainty_heads = nn.ModuleList(map(ByTime, range(N)))
    return model.eval()


def running(model: AdaDiff) -> Ahead:
    """It shrinks its batch wherever one block is saved."""
    run = Ahead(model)
    run.copying = 0.0
    return run


def given(exits: list[int], call: int = 0, classes: int = 0) -> tuple:
    """x, t and y of a batch whose images exit at these layers."""
    x = torch.randn(len(exits), 3, 6, 6, generator=torch.Generator().manual_seed(call))
    return x, torch.tensor(exits), torch.arange(len(exits)) % classes if classes else None


def assert_the_rules(
    run: Ahead, inputs: tuple, theta: float, within: float = 1e-5, *, compiles: bool = False
) -> None:
    """Whether a call has the exits and outputs of the rule; on a GPU, whether no operation waits in it.

    A call that compiles may wait: torch.compile reads numbers of the device.
    """
    device = run.model.uvit.pos_embed.device
    inputs = tuple(None if each is None else each.to(device) for each in inputs)
    eps, exits = run.model.simulate_exit(*inputs, theta)
    with nullcontext() if compiles else errors_for_waiting(device):
        run_eps, run_exits = run(*inputs, theta)
    assert torch.equal(run_exits, exits)
    torch.testing.assert_close(run_eps, eps, atol=within, rtol=within)


@contextmanager
def errors_for_waiting(device: torch.device) -> Iterator[None]:
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def pattern(kind: str, batch: int, call: int) -> list[int]:
    drawn = torch.randint(N + 1, (batch,), generator=torch.Generator().manual_seed(call)).tolist()
    return {
        "all at 0": [0] * batch,
        "none": [N] * batch,
        "one by one": [(i + call) % (N + 1) for i in range(batch)],
        "drawn": drawn,
        "a step": [2 if call < 4 else N] * batch,
        "back and forth": [[N, 1, 3][call % 3]] * batch,
        "few stay": [N if i == call % batch else 1 for i in range(batch)],
    }[kind]


KINDS = ("all at 0", "none", "one by one", "drawn", "a step", "back and forth", "few stay")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 11, 16])
def test_exits_and_outputs_are_the_rules_for_any_pattern(kind, batch, device):
    run = running(made(by_time=True).to(device))
    for call in range(8):
        assert_the_rules(run, given(pattern(kind, batch, call), call), 0.2)


@pytest.mark.parametrize(
    "options", [{"num_classes": 4}, {"conv": False}, {"qkv_bias": True, "mlp_time_embed": True}]
)
def test_exits_and_outputs_are_the_rules_for_any_theta(options, device):
    model = made(by_time=False, **options)
    classes = options.get("num_classes", 0)
    inputs = [given([700 - 90 * call] * 11, call, classes) for call in range(4)]
    u = torch.cat([model.all_layers(*each)[1].flatten() for each in inputs]).sort().values
    model.to(device)
    middles = ((u[1:] + u[:-1]) / 2)[:: len(u) // 4].tolist()  # thetas that no uncertainty is near
    run, seen = running(model), set()
    for theta in (0.0, *middles, 1.0):
        run.forget()
        for each in inputs:
            assert_the_rules(run, each, theta)
            seen.add(run.blocks_computed)
    assert len(seen) > 2  # batches shrank


@pytest.mark.parametrize("options", [{"num_classes": 4}, {"conv": False, "qkv_bias": True}])
def test_compiled_parts_give_the_exits_and_outputs_of_the_rule(options, device, monkeypatch):
    if device == "cpu":  # uncompiled: their arithmetic
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(ahead, "COMPILE", WHOLE)  # tuning takes minutes: `make bench-gpu` does it
    model = made(by_time=True, **options).to(device)
    run = Ahead(model, CompiledParts(model, torch.float32))
    run.copying = 0.0
    for compiles in (True, False):  # the second time with the same sizes of batches
        run.forget()
        for kind, call in product(("none", "drawn", "a step"), range(5)):
            inputs = given(pattern(kind, 16, call), call, options.get("num_classes", 0))
            assert_the_rules(run, inputs, 0.2, within=1e-4, compiles=compiles)


def test_compiled_parts_round_no_more_than_autocast(device, monkeypatch):
    if device == "cpu":
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(ahead, "COMPILE", WHOLE)
    model = made(by_time=True).to(device)
    exits = torch.tensor(pattern("one by one", 16, 0), device=device)
    x = given(exits.tolist())[0].to(device)
    exact, _ = model.simulate_exit(x, exits, None, 0.2)
    with torch.autocast(device, torch.bfloat16):
        rounded, _ = model.simulate_exit(x, exits, None, 0.2)
        fast, taken = Ahead(model, CompiledParts(model, torch.bfloat16))(x, exits, None, 0.2)
    assert torch.equal(taken, exits)
    assert fast.dtype == torch.float32
    errors = [(each - exact).square().mean().sqrt() for each in (fast, rounded)]
    assert errors[0] <= 1.5 * errors[1]


def test_compiled_parts_compare_uncertainties_with_theta_in_float32(monkeypatch):
    """In bfloat16 an uncertainty of 0.4009 would be at most a theta of 0.4."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = made(by_time=False)
    run = Ahead(model, CompiledParts(model, torch.bfloat16))
    call = run._begin(given([1] * 4), 0.4)
    group = call.group(torch.arange(4), offset=0, since=0)
    assert call.u.dtype == torch.float32
    for i in range(N - 1):
        skip = [call.tokens(N - i, group)] if i > N // 2 else []
        u = run.parts.block(i, (call.tokens(i, group), group.times, *skip), call.out(i, group))
        assert u.dtype == torch.float32


def test_compiled_parts_copy_no_graphs_of_the_network(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = made(by_time=False)
    vars(model.uvit)["forward"] = graphs = object()
    assert "forward" not in vars(CompiledParts(model, torch.float32).fast.net)
    assert vars(model.uvit)["forward"] is graphs


@pytest.mark.slow
def test_a_few_graphs_serve_all_blocks_and_batches(monkeypatch):
    """With a backend that compiles nothing: what is traced, and how often."""
    graphs = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(ahead, "COMPILE", WHOLE | {"backend": graphs})
    model = made(by_time=True, num_classes=4)
    run = Ahead(model, CompiledParts(model, torch.float32))
    run.copying = 0.0
    with torch.inference_mode():
        for call in range(12):
            assert_the_rules(run, given(pattern("drawn", 16, call // 4), call, 4), 0.2, 1e-4)
    assert len({run.blocks_computed, N}) == 2  # batches shrank
    # embedding, three kinds of blocks, decoding; torch counts an empty graph, too
    assert len([graph for graph in graphs.graphs if len(graph.graph.nodes) > 1]) == 5


def test_nan_never_exits_and_is_counted_until_an_image_leaves():
    model = made(by_time=True)
    broken = model.uncertainty_heads[3]
    broken.forward = lambda tokens, time_emb: torch.full((len(tokens),), float("nan"))
    run = running(model)
    for call in range(4):
        inputs = given([0, 3, 3, 2, N, 5, 1, 3], call)
        counts = []
        for each in (model, run):
            model.nan_count.zero_()
            _, exits = each(*inputs, 0.2)
            counts.append(int(model.nan_count))
            assert exits.tolist() == [0, 4, 4, 2, N, 5, 1, 4]
        assert counts == [5, 5]


def test_a_steady_pattern_computes_what_it_needs_from_the_second_call_on():
    exits = [2] * 8 + [4] * 4 + [N] * 4
    run, computed = running(made(by_time=True)), []
    for call in range(4):
        run(*given(exits, call), 0.2)
        computed.append(run.blocks_computed)
    assert computed == [N, *[sum(exits) / 16] * 3]


def test_images_without_room_are_computed_late():
    run = running(made(by_time=True))
    for call in range(3):
        run(*given([2] * 8 + [4] * 8, call), 0.2)
    inputs = given([2] * 5 + [N] * 3 + [3] * 3 + [4] * 5)
    assert_the_rules(run, inputs, 0.2)
    # 3 without room before block 2, 3 before block 4: a batch of 4 each, to the end
    assert run.blocks_computed == ((8 * 2 + 8 * 4) + 4 * (N - 2) + 4 * (N - 4)) / 16


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """What the host reads of the device: of calls before, or of this one."""
    found: list[str] = []
    read = ahead._Told.read
    for name in ("_sizes", "_run_late"):
        method = getattr(Ahead, name)

        def noting(self, *arguments, name=name, method=method):
            monkeypatch.setattr(ahead._Told, "read", lambda told: found.append(name) or read(told))
            return method(self, *arguments)

        monkeypatch.setattr(Ahead, name, noting)
    return found


def waits(run: Ahead, exits: list[int], calls: int, reads: list[str]) -> list[list[str]]:
    """What each call read."""
    found = []
    for call in range(calls):
        inputs = given(exits, call)
        with Watched() as watched, torch.inference_mode():
            run(*inputs, 0.2)
        assert watched.waits == []
        found.append(reads[:])
        reads.clear()
    return found


def test_a_call_waits_once_and_where_nothing_exits_never(reads):
    """The first read is of the call before the last, which the device has done when the host comes to it."""
    model = made(by_time=True)
    exits = [2] * 8 + [4] * 4 + [N] * 4
    before, own = ["_sizes"], ["_run_late"]
    assert waits(running(model), exits, 4, reads) == [[], before + own, own, before + own]
    assert waits(running(model), [N] * 16, 4, reads) == [[], before, [], before]


def test_a_trajectory_depends_on_none_before_it(monkeypatch):
    monkeypatch.setattr(EarlyExit, "ahead_on", ("cpu",))
    model = made(by_time=False)
    theta = float(model.all_layers(*given([500] * 8))[1].median())
    steps, seen = samplers.ddpm(noise_schedule("linear"), 6), []

    def images(start: int, backbone: EarlyExit) -> Tensor:
        backbone.begin()
        x = samplers.sample(single(backbone), steps, (3, 6, 6), start, 8, seed=0)
        seen.extend(torch.stack(backbone.exits).unique().tolist())
        return x

    def backbone(simulate: bool = False) -> EarlyExit:
        return EarlyExit(model, theta, Denoiser(model.uvit), simulate)

    one, rule = backbone(), backbone(simulate=True)
    one.ahead.copying = 0.0
    images(0, one)
    after = images(8, one)
    assert torch.equal(after, images(8, one))
    torch.testing.assert_close(after, images(8, rule), atol=1e-4, rtol=1e-4)
    assert len(set(seen)) > 2


def test_the_host_forgets_where_the_size_of_the_batch_changes():
    run = running(made(by_time=True))
    for call in range(3):
        run(*given([1] * 16, call), 0.2)
    assert run.blocks_computed == 1
    assert_the_rules(run, given([1] * 3), 0.2)
    assert run.blocks_computed == N


def test_room_is_one_of_a_few_sizes():
    assert [room(n, 128) for n in (0, 1, 16, 17, 128)] == [0, 16, 16, 32, 128]
    assert [room(n, 11) for n in (0, 1, 9, 11)] == [0, 2, 10, 11]
    assert len({room(n, 128) for n in range(129)}) == 9


@pytest.mark.parametrize("copying", [0.0, 0.06, 0.5])
def test_sizes_are_the_cheapest_of_all(copying):
    needed, batch = (16, 12, 12, 4, 2), 16
    sizes = range(0, 17, 2)

    def cost(plan: tuple[int, ...]) -> float:
        shrinks = sum(copying * b + batch / 16 for a, b in pairwise((batch, *plan)) if b < a)
        return sum(plan) + shrinks + sum(copying * size for size in plan[3:] if size < batch)

    plans = [
        plan
        for plan in product(sizes, repeat=5)
        if all(a >= b for a, b in pairwise((batch, *plan)))
        and all(a >= b for a, b in zip(plan, needed, strict=True))
    ]
    assert cost(cheapest_sizes(needed, batch, copying)) == pytest.approx(min(map(cost, plans)))


def test_copying_takes_as_long_as_the_tokens_have_bytes():
    model = made(by_time=True)
    half = Ahead(model, CompiledParts(model, torch.bfloat16))
    assert half.copying == Ahead(model).copying / 2


def test_a_batch_shrinks_only_where_it_pays():
    needed = (128, 128, 112, 16, 16, 16, 0)
    assert cheapest_sizes(needed, 128, 0.1) == (128, 128, 128, 16, 16, 16, 0)
    assert cheapest_sizes(needed, 128, 30.0) == (128, 128, 128, 128, 128, 128, 0)
