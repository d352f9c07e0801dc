"""Which network runs at timestep t: one backbone, a switch schedule, an exit, or a network guided by another.

A backbone is any callable ``(x_t, t, y) -> eps``: x_t [B, C, H, W], t int64 [B] (0-based, the same
value throughout the batch), y int64 [B] or None; eps has x_t's shape.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from duodiff.ahead import Ahead, CompiledParts
from duodiff.early_exit import AdaDiff
from duodiff.schedules import T, time_input
from duodiff.uvit import Denoiser

Backbone = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class EarlyExit:
    """AdaDiff at one threshold theta in [0, 1], as a backbone.

    `full` is the backbone AdaDiff sits on, whose conventions and precision its heads share. `exits` collects the exit
    layer of each call, one int64 [B] tensor a call. `simulate` computes every layer and selects (Appendix
    A.5) instead of shrinking the batch. On a GPU the batch shrinks without waiting (`duodiff.ahead`), by compiled
    `parts` if they are given.
    """

    ahead_on = ("cuda",)
    """The types of devices on which the host does not wait for the exits."""

    def __init__(
        self,
        model: AdaDiff,
        theta: float,
        full: Denoiser,
        simulate: bool = False,
        parts: CompiledParts | None = None,
    ):
        if not (isinstance(theta, (int, float, np.floating)) and 0 <= theta <= 1):
            raise ValueError(f"theta: found {theta!r}; accepted: a number from 0 to 1")
        self.model, self.theta, self.full = model, theta, full
        self.run, self.simulate = model.simulate_exit if simulate else model, simulate
        self.ahead, self.compiled = Ahead(model, parts), parts is not None and not simulate
        self.exits: list[Tensor] = []

    def begin(self) -> None:
        """Begins a trajectory, so that its last bits depend on no call before. `exits` is empty then."""
        self.exits.clear()
        self.ahead.forget()

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        ahead = x.device.type in self.ahead_on and not self.simulate
        run = self.ahead if ahead else self.run
        with self.full.computing(x.device):
            output, exits = run(x, time_input(self.full.time_input, t), y, self.theta)
        self.exits.append(exits)
        return self.full.to_eps(output.to(x.dtype), x, t)


class FixedExit:
    """AdaDiff's output at one layer, for all images, as a backbone: the blocks before `layer`, and its output head.

    `full` is the backbone AdaDiff sits on, whose conventions and precision its heads share. Raises ValueError for a
    layer that has no head.
    """

    def __init__(self, model: AdaDiff, layer: int, full: Denoiser):
        if not 0 <= layer < model.uvit.depth:
            raise ValueError(f"exit: found {layer}; accepted: 0 to {model.uvit.depth - 1}")
        self.model, self.layer, self.full = model, layer, full

    def compute(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """The head's output for the time t [B] as the network is fed it, like x [B, C, H, W]."""
        net = self.model.uvit
        tokens = net.embed(x, net.embed_time(t), y)
        skips: list[Tensor] = []
        for i in range(self.layer):
            tokens = net.run_block(i, tokens, skips)
        return self.model.output_heads[self.layer](tokens, net)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        with self.full.computing(x.device):
            output = self.compute(x, time_input(self.full.time_input, t), y)
        return self.full.to_eps(output.to(x.dtype), x, t)


class Autoguided:
    """A backbone guided by a worse one: network + weight (network - by) (Karras et al. 2024)."""

    def __init__(self, network: Backbone, by: Backbone, weight: float):
        self.network, self.by, self.weight = network, by, weight

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        eps = self.network(x, t, y)
        return eps + self.weight * (eps - self.by(x, t, y))


class Guided:
    """Classifier-free guidance of a conditional backbone: cond + scale (cond - uncond), in one batch.

    `null_class` is the label that means "no class". Raises ValueError if it is called without labels.
    """

    def __init__(self, backbone: Backbone, scale: float, null_class: int):
        self.backbone, self.scale, self.null_class = backbone, scale, null_class

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            raise ValueError("guidance: y is missing; it needs a class-conditional network")
        labels = torch.cat([y, torch.full_like(y, self.null_class)])
        cond, uncond = self.backbone(torch.cat([x, x]), torch.cat([t, t]), labels).chunk(2)
        return cond + self.scale * (cond - uncond)


class SwitchSchedule:
    """Backbones on intervals of t that cover 0..T-1.

    `entries` are (backbone, t_low, t_high), both ends included. Raises ValueError unless every t
    has exactly one backbone, and TypeError for what cannot be called.
    """

    def __init__(self, entries: Sequence[tuple[Backbone, int, int]]):
        self._at: dict[int, Backbone] = {}
        for backbone, low, high in entries:
            if not callable(backbone):
                raise TypeError(
                    f"backbone: found {type(backbone).__name__}; accepted: a callable (x_t, t, y) -> eps"
                )
            for t in range(low, high + 1):
                if not 0 <= t < T or t in self._at:
                    raise ValueError(
                        f"switch schedule: t = {t} is outside 0..{T - 1} or covered twice"
                    )
                self._at[t] = backbone
        for t in range(T):
            if t not in self._at:
                raise ValueError(f"switch schedule: t = {t} has no backbone")

    def at(self, t: int) -> Backbone:
        """The backbone that runs at timestep t (0-based)."""
        return self._at[t]


def single(backbone: Backbone) -> SwitchSchedule:
    """One backbone on every timestep."""
    return SwitchSchedule([(backbone, 0, T - 1)])


def duodiff(full: Backbone, shallow: Backbone, t_s: int) -> SwitchSchedule:
    """DuoDiff (Section 3): `shallow` runs exactly while t >= T - t_s, `full` afterwards.

    t_s = 0 is the full backbone, t_s = T the shallow one. Raises ValueError unless it is whole and in 0..T.
    """
    if not (isinstance(t_s, (int, np.integer)) and 0 <= t_s <= T):
        raise ValueError(
            f"t_s: found {t_s!r}; accepted: 0 to {T}, the whole number of timesteps that `shallow` runs"
            f" (three tenths of them: {3 * T // 10})"
        )
    return SwitchSchedule([(full, 0, T - t_s - 1), (shallow, T - t_s, T - 1)])


def one_call_late(t_s: int, timesteps: Sequence[int]) -> int:
    """The t_s that runs one shallow call more on descending `timesteps`, as the released DDIM code does.

    t_s = 0 stays 0. The released DDIM made one shallow call there, too, which is not reproduced: t_s = 0 is the full
    backbone in both protocols.
    """
    later = [t for t in timesteps if t < T - t_s]
    return t_s if t_s == 0 or not later else T - later[0]
