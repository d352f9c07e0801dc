"""One speed measurement of `make bench`, in a process of its own, printed as JSON.

    python bench/speed.py CASE [plain]

`plain` is the baseline: eager PyTorch, with memory handled by the C library's defaults. The networks have random
weights; speed does not depend on them. The cases run on the CPU, except `gpu`, and `noise`, `rates` and `ahead` if
there is a GPU.
"""

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import plain_sampling
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from duodiff import samplers
from duodiff.ahead import Ahead
from duodiff.backbones import duodiff, single
from duodiff.compiled import compile_forward
from duodiff.early_exit import AdaDiff, UncertaintyHead
from duodiff.noise import Drawn
from duodiff.operations import network
from duodiff.protocol import PROTOCOLS
from duodiff.running import memory
from duodiff.schedules import noise_schedule
from duodiff.training.backbone import denoising_loss
from duodiff.training.batches import Noiser
from duodiff.training.heads import heads_loss
from duodiff.training.loop import TrainingConfig, fit
from duodiff.uvit import FUSED_ATTENTION_FROM, Denoiser, UViT, timestep_embedding

_S = {"in_chans": 3, "embed_dim": 512, "depth": 13, "num_heads": 8}
_M = {"in_chans": 3, "embed_dim": 768, "depth": 17, "num_heads": 12, "num_classes": 1000}
_L = {"in_chans": 4, "embed_dim": 1024, "depth": 21, "num_heads": 16, "num_classes": 1000}
PAPER = {
    "S/2": {"img_size": 32, "patch_size": 2} | _S,
    "S/4": {"img_size": 64, "patch_size": 4} | _S,
    "M/4": {"img_size": 64, "patch_size": 4} | _M,
    "L/2": {"img_size": 32, "patch_size": 2} | _L,
}
_DEFAULT = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 64, "depth": 7}
ARCHITECTURES = PAPER | {"default": _DEFAULT | {"num_heads": 4, "num_classes": 10}}
"""The paper's networks and the embedded default's, by their constructor's keywords."""

MEAN_EXITS = (12.87, 10.87, 8.80)  # CIFAR-10's in Table 2
SCHEDULE = noise_schedule("linear")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_STEPS = 7
_ATTENTION = ("scaled_dot_product", "aten._softmax")
_PRODUCTS = ("aten.addmm", "aten.mm", "aten.bmm", "aten.baddbmm", "convolution")


def uvit(name: str, depth: int | None = None) -> UViT:
    """One of the paper's networks or the embedded default's, if given with another number of blocks (`depth`)."""
    options = {"qkv_bias": False} | ARCHITECTURES[name] | ({"depth": depth} if depth else {})
    with torch.inference_mode(False):  # inference tensors cannot be compiled
        return UViT(**options).eval()


def inputs(net: UViT, batch: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """x [B, C, H, W], t [B] and y [B] or None, on the network's device."""
    device = net.pos_embed.device
    y = torch.zeros(batch, dtype=torch.long, device=device) if net.num_classes > 0 else None
    return (
        torch.randn(batch, net.in_chans, net.img_size, net.img_size, device=device),
        torch.full((batch,), 500, device=device),
        y,
    )


def operations(net: UViT) -> float:
    """Floating-point operations of one image."""
    keys = ("img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_classes", "conv")
    options = {key: getattr(net, key) for key in keys}
    return network(options | {"mlp_ratio": 4, "mlp_time_embed": False, "qkv_bias": False}).forward


def medians(calls: dict[str, Callable], rounds: int = 5) -> dict[str, float]:
    """Median seconds of each call. Every round makes each call once, after one call of each to warm up."""
    taken = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            _wait()
            begun = time.perf_counter()
            call()
            _wait()
            taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def product(size: int = 2048, **kind) -> Callable[[], Tensor]:
    """A product of two matrices of size x size: 2 size^3 operations."""
    a, b = torch.randn(size, size, **kind), torch.randn(size, size, **kind)
    return lambda: a @ b


@torch.inference_mode()
def utilisation(plain: bool) -> dict[str, float]:
    """U-ViT-S/2, batch 8, eager and compiled: its rate over that of a matrix product in the same process."""
    net = uvit("S/2")
    given = inputs(net, 8)
    calls = {"product": product(), "of the product's rate": partial(net, *given)}
    if not plain:
        calls["of the product's rate, compiled"] = partial(_compiled(net), *given)
    taken = medians(calls, rounds=7)
    rate = 2 * 2048**3 / taken.pop("product")
    return {name: 8 * operations(net) / seconds / rate for name, seconds in taken.items()}


def _compiled(net: UViT) -> UViT:
    net = copy.copy(net)
    compile_forward(net, net.pos_embed.device.type, "float32")
    return net


def breakdown() -> dict[str, float]:
    """Where the time of a step goes.

    - The shares of the step's matrix products, of its fused attention and of the rest. Without the fused kernel the
      products of attention are among the matrix products.
    - The rate of its matrix products over the rate of a large product.
    - The rate it would reach if every kernel were as fast as when it is repeated, with its memory in the cache.

    Three networks: U-ViT-S/2 at batch 8; the same in training, forwards and backwards, at batch 16; the embedded
    default's full network at batch 128 on one thread.
    """
    parts = _parts("S/2", uvit("S/2"), 8) | _parts("training S/2", uvit("S/2").train(), 16)
    torch.set_num_threads(1)
    return parts | _parts("default", uvit("default"), 128)


class Timed(TorchDispatchMode):
    """Collects the seconds of each kind of kernel that runs in its block, and one call of each to repeat."""

    def __init__(self):
        super().__init__()
        self.seconds: dict[tuple, list[float]] = {}
        self.calls: dict[tuple, Callable] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        call = partial(function, *args, **(kwargs or {}))
        tensors = [v for a in args for v in (a if isinstance(a, list) else [a])]
        kind = (str(function), *((v.shape, v.stride()) for v in tensors if isinstance(v, Tensor)))
        begun = time.perf_counter()
        output = call()
        self.seconds.setdefault(kind, []).append(time.perf_counter() - begun)
        self.calls.setdefault(kind, call)
        return output


def _parts(name: str, net: UViT, batch: int) -> dict[str, float]:
    given = inputs(net, batch)

    def step() -> None:
        with torch.set_grad_enabled(net.training):
            eps = net(*given)
        if net.training:
            eps.square().mean().backward()
            net.zero_grad()

    large = medians({"product": product(), "": step})["product"] / (2 * 2048**3)
    with Timed() as timed:
        step()
    taken, alone = {"products": 0.0, "attention": 0.0, "the rest": 0.0}, 0.0
    for kind, seconds in timed.seconds.items():
        attention, products = (
            any(p in kind[0] for p in parts) for parts in (_ATTENTION, _PRODUCTS)
        )
        taken["attention" if attention else "products" if products else "the rest"] += sum(seconds)
        with torch.no_grad():
            alone += len(seconds) * medians({"": timed.calls[kind]})[""]
    tokens = net.pos_embed.shape[1]
    fused = tokens >= FUSED_ATTENTION_FROM
    attention = fused * 4 * net.depth * tokens**2 * net.embed_dim  # q k^T and (..) v
    passes = 3 if net.training else 1  # backwards there are two products for each one
    done = passes * batch * operations(net)
    in_products = done - passes * batch * attention
    shares = {f"{name}, {part}": seconds / sum(taken.values()) for part, seconds in taken.items()}
    return shares | {
        f"{name}, products over a large one": in_products / taken["products"] * large,
        f"{name}, kernels alone, of the product's rate": done / alone * large,
    }


@torch.inference_mode()
def batches() -> dict[str, float]:
    """Images per second for one step of S/2 and of the default's full network, by batch, on all threads."""
    rates = {}
    for name in ("S/2", "default"):
        net = uvit(name)
        calls = {n: partial(net, *inputs(net, n)) for n in (1, 8, 32, 128)}
        for batch, seconds in medians(calls, rounds=3).items():
            rates[f"{name}, batch {batch}"] = batch / seconds
    return rates


@torch.inference_mode()
def switch() -> dict[str, float]:
    """DuoDiff's speed-up on S/2 over 10 DDPM steps, batch 8, over that of the formula."""
    full, shallow = Denoiser(uvit("S/2")), Denoiser(uvit("S/2", depth=3))
    steps, share = samplers.ddpm(SCHEDULE, 10), operations(shallow.net) / operations(full.net)
    calls = {
        t_s: partial(samplers.sample, duodiff(full, shallow, t_s), steps, (3, 32, 32), 0, 8, seed=0)
        for t_s in (0, 300, 400, 500)
    }
    taken = medians(calls, rounds=3)
    ideal = {t_s: 1 / (1 - t_s / 1000 * (1 - share)) for t_s in calls}
    return {f"t_s={t}": taken[0] / taken[t] / ideal[t] for t in calls if t}


class ByTime(nn.Module):
    """An uncertainty head that computes as always, but lets an image that is fed the time n exit at layer n."""

    def __init__(self, head: UncertaintyHead, layer: int, net: UViT):
        super().__init__()
        self.head = head
        limit = timestep_embedding(torch.tensor([layer + 0.5]), net.embed_dim)
        self.limit = limit[0, -1].item()  # the slowest sine grows with n

    def forward(self, tokens: Tensor, time_emb: Tensor) -> Tensor:
        computed = 0 * self.head(tokens, time_emb)
        return torch.where(time_emb[:, -1] < self.limit, computed, computed + 0.5)


def early_exit() -> dict[str, float]:
    """Early exit on S/2, batch 8, over its ideal time, and over the network's own time if no image exits."""
    return _early_exit(lambda model: model, "cpu")


def ahead() -> dict[str, float]:
    """The same without waiting, as a GPU computes it: on a GPU eager, in bfloat16, at batch 128."""
    return _early_exit(Ahead, DEVICE)


@torch.inference_mode()
def _early_exit(made: Callable[[AdaDiff], Callable], device: str) -> dict[str, float]:
    """Of what is `made` of AdaDiff. The images of each kind of call exit at the same layers in every call.

    The ideal time of an image is that of the blocks and uncertainty heads it used and of one output head, each as fast
    as in the whole batch.
    """
    net, fast = uvit("S/2").to(device), device == "cuda"
    model, depth, batch = AdaDiff(net).eval().to(device), net.depth, 128 if fast else 8
    for i, head in enumerate(model.uncertainty_heads):
        model.uncertainty_heads[i] = ByTime(head, i, net)
    x, never, _ = inputs(net, batch)
    exits = {"none exits": torch.full_like(never, depth)}
    exits |= {
        f"mean exit {mean}": _exits_around(mean, depth, batch).to(device) for mean in MEAN_EXITS
    }
    layers, time_emb = model.layer_inputs(x, never)
    calls: dict[str, Callable] = {
        "network": lambda: net(x, never),
        "heads": lambda: [h(layers[0], time_emb) for h in model.uncertainty_heads],
        "ends": lambda: net.decode(net.embed(x, net.embed_time(never))),
    }
    with torch.autocast(device, torch.bfloat16, fast):
        for name, layer in exits.items():
            calls[name] = partial(made(model), x, layer, None, 0.25)
            for _ in range(3):  # what runs ahead learns the exits
                _, taken = calls[name]()
                assert torch.equal(taken, layer), f"{taken} for {layer}"
        taken = medians(calls)
    block = (taken["network"] - taken["ends"]) / depth
    ratios = {"none exits": taken["none exits"] / taken["network"]}
    for name, layer in list(exits.items())[1:]:
        used = layer.double().mean().item()
        heads = torch.clamp(layer + 1, max=depth).double().mean().item()
        ideal = taken["ends"] + used * block + heads * taken["heads"] / depth
        ratios[name] = taken[name] / ideal
    return ratios


def _exits_around(mean: float, depth: int, batch: int) -> Tensor:
    """Exit layers of a batch around `mean`: up to one layer below and above, within the network."""
    spread = torch.tensor([-1, -1, -1, 0, 0, 1, 1, 1]).repeat(batch // 8)
    return torch.clamp((mean + spread).round().long(), 0, depth)


@torch.inference_mode()
def loop() -> dict[str, float]:
    """The time of the sampling loop without the network, noise included, over that of a step of S/2 at batch 8."""
    net = uvit("S/2")
    call, steps = partial(net, *inputs(net, 8)), samplers.ddpm(SCHEDULE, 50)
    nothing = single(lambda x, t, y: x)
    sample = partial(samplers.sample, nothing, steps, (3, 32, 32), 0, 8, seed=0)
    taken = medians({"network": call, "loop": sample})
    return {"share of a step": taken["loop"] / len(steps) / taken["network"]}


@torch.inference_mode()
def noise() -> dict[str, float]:
    """The time of a step's noise over that of the step of a shallow network; on a GPU compiled, in bfloat16.

    Noise and network take turns, as in sampling. The default's network has a batch of 128. So has S/4 on a GPU. On a
    CPU it has 8.
    """
    torch.set_num_threads(1)  # as a job of the default has
    shares, fast = {}, DEVICE == "cuda"
    for name, batch, steps in (("default", 128, 250), ("S/4", 128 if fast else 8, 10)):
        net = uvit(name, depth=3).to(DEVICE)
        given = inputs(net, batch)
        call = partial(_compiled(net) if fast else net, *given)
        drawn = Drawn(0, range(steps), 0, batch, tuple(given[0].shape[1:]), device=DEVICE)
        with torch.autocast(DEVICE, torch.bfloat16, fast):
            taken = [
                medians({"network": call}, rounds=1) | _seconds(drawn, t) for t in range(steps)
            ]
        noise, network = (sum(one[k] for one in taken) for k in ("noise", "network"))
        shares[f"{name}, shallow: of a step"] = noise / network
    return shares


def _seconds(drawn: Drawn, t: int) -> dict[str, float]:
    _wait()
    begun = time.perf_counter()
    drawn(t)
    _wait()
    return {"noise": time.perf_counter() - begun}


@torch.inference_mode()
def small(plain: bool) -> dict[str, float]:
    """Images per second of the embedded default's two backbones, 50 steps of DDPM, batch 128, one thread."""
    torch.set_num_threads(1)
    rates = {}
    for depth in (7, 3):
        net = Denoiser(uvit("default", depth))
        steps, y = samplers.ddpm(SCHEDULE, 50), torch.arange(128) % 10
        calls = {"": partial(plain_sampling.sample, [(net, s) for s in steps], (1, 8, 8), y)}
        if not plain:
            graph = Denoiser(_compiled(net.net))
            calls = {
                engine: partial(
                    samplers.sample, single(used), steps, (1, 8, 8), 0, 128, seed=0, y=y
                )
                for engine, used in (("", net), (", compiled", graph))
            }
        for engine, seconds in medians(calls, rounds=3).items():
            rates[f"{depth} blocks{engine}"] = 128 / seconds
    return rates


def training(plain: bool) -> dict[str, float]:
    """Training S/2 at batch 16: steps per second, the rate over a matrix product's, the time over a heads' step."""
    net, batch = uvit("S/2").train(), 16
    noiser = noiser_of(net)
    if plain:
        return _steps_a_second(net, batch, _plain_training(net, noiser, batch))
    backbone = seconds_a_step(Denoiser(net), list(net.parameters()), denoising_loss, noiser, batch)
    net.requires_grad_(False)
    model = AdaDiff(net)
    loss = partial(heads_loss, time_convention="t", protocol=PROTOCOLS["corrected"])
    heads = seconds_a_step(model, model.heads_parameters(), loss, noiser, batch)
    return _steps_a_second(net, batch, backbone) | {"heads cheaper by": backbone / heads}


def _steps_a_second(net: UViT, batch: int, seconds: float) -> dict[str, float]:
    rate = 2 * 2048**3 / medians({"product": product()})["product"]
    done = 3 * batch * operations(net)  # backwards there are two products for each one
    return {"steps_per_s": 1 / seconds, "of the product's rate": done / seconds / rate}


def noiser_of(net: UViT) -> Noiser:
    """What makes a training's batches, of random images, on the network's device."""
    images = torch.randint(256, (64, net.in_chans, net.img_size, net.img_size), dtype=torch.uint8)
    labels = torch.zeros(64, dtype=torch.long).numpy() if net.num_classes > 0 else None
    return Noiser(images.numpy(), labels, SCHEDULE, net.pos_embed.device)


def seconds_a_step(model, parameters, loss, noiser: Noiser, batch: int) -> float:
    """Median seconds of a training step, its batch included; a GPU is waited for at the start of each."""
    options = {"lr": 2e-4, "lr_schedule": "constant", "betas": (0.9, 0.99), "weight_decay": 0.01}
    precision = "bfloat16" if parameters[0].is_cuda else "float32"
    options |= {"warmup_steps": 0, "grad_clip": 1.0, "ema": 0.999, "precision": precision}
    held_out, begun = next(noiser.stratified(0).chunks(1)), []

    def timed(*arguments) -> Tensor:
        _wait()
        begun.append(time.perf_counter())
        return loss(*arguments)

    config = TrainingConfig(steps=_STEPS, batch=batch, **options)
    fit(model, parameters, timed, noiser, held_out, config=config, seed=0, evaluations=1)
    taken = [later - earlier for earlier, later in pairwise(begun[:_STEPS])]
    return statistics.median(taken[1:])  # the first step also touches its memory for the first time


def _plain_training(net: UViT, noiser: Noiser, batch: int) -> float:
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-4)
    average, taken = copy.deepcopy(net).requires_grad_(False), []
    for step in range(_STEPS - 1):
        begun = time.perf_counter()
        made = noiser.at_step(0, step, batch)
        F.mse_loss(net(made.x_t, made.t, made.y), made.target).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), net.parameters(), strict=True):
                mean.mul_(0.999).add_(parameter, alpha=0.001)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def rates() -> dict[str, float]:
    """Operations per second of the paper's networks in sampling and in training; on a GPU in bfloat16.

    On a GPU the batch is 128. On a CPU it is 8 (2 for L/2), and half of this in training.
    """
    measured = {}
    for name in PAPER:
        net, batch = uvit(name).to(DEVICE), 128 if DEVICE == "cuda" else 2 if name == "L/2" else 8
        with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, DEVICE == "cuda"):
            taken = medians({"": partial(net, *inputs(net, batch))}, rounds=3)[""]
        measured[f"sampling {name}"] = batch * operations(net) / taken
        batch = batch if DEVICE == "cuda" else batch // 2
        model = Denoiser(net.train()).to(DEVICE)
        step = seconds_a_step(model, list(net.parameters()), denoising_loss, noiser_of(net), batch)
        measured[f"training {name}"] = 3 * batch * operations(net) / step
    return measured


@torch.inference_mode()
def gpu() -> dict[str, float]:
    """L/2 at batch 128, compiled in bfloat16: its rate over a large product's, and over eager float32 without TF32."""
    net = uvit("L/2").cuda()
    x, t, y = inputs(net, 128)
    compiled = _compiled(net)

    def bfloat16(network: Callable) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return network(x, t, y)

    fast, eager = partial(bfloat16, compiled), partial(bfloat16, net)
    large = product(8192, device="cuda", dtype=torch.bfloat16)
    plain = partial(net, x, t, y)
    taken = medians({"product": large, "fast": fast, "eager": eager, "plain": plain})
    rate, exact = 128 * operations(net) / taken["fast"], net(x, t, y)
    return {
        "of the bfloat16 product's rate": rate * taken["product"] / (2 * 8192**3),
        "over plain eager float32": taken["plain"] / taken["fast"],
        "over eager bfloat16": taken["eager"] / taken["fast"],
        "largest difference, of the largest value": float(
            (fast() - exact).abs().max() / exact.abs().max()
        ),
    }


_ALL = (
    utilisation,
    breakdown,
    batches,
    switch,
    early_exit,
    ahead,
    loop,
    noise,
    small,
    training,
    rates,
    gpu,
)
CASES = {case.__name__: case for case in _ALL}

if __name__ == "__main__":
    case, *options = sys.argv[1:]
    torch.manual_seed(0)
    if "plain" in options:
        plain_sampling.compute_plainly()
    else:
        memory.keep_freed_memory()
    function = CASES[case]
    arguments = ["plain" in options] if case in ("utilisation", "small", "training") else []
    print(json.dumps(function(*arguments)))
