"""A sampler's step as a CUDA graph: network, noise and update, replayed without the host between.

A graph repeats the kernels that it captured, on the memory that they had. What changes between steps and batches
therefore lies in tensors that stay where they are (`Memory`). These are x_t, the labels, the seed, a counter of steps,
and the timesteps and coefficients of all steps. The same step runs uncaptured on a CPU.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch
from torch import Tensor

from duodiff import noise, samplers
from duodiff.backbones import Autoguided, Backbone, Guided, SwitchSchedule
from duodiff.samplers import Step
from duodiff.schedules import T
from duodiff.transfer import moved
from duodiff.uvit import Denoiser

_WARM_UPS = 2
"""Calls before a capture: torch.compile compiles in the first one, and libraries take their memory."""


class Memory:
    """What the steps of batches of one shape read and write.

    `x` is x_t, float32 [B, C, H, W], `x_0` the image predicted a step before, `y` the labels, int64 [B], or None.
    `seed` and `start`, the index of the first image, decide the noise. `step` [1] is the number of the next step. `ts`
    [T] and `coefs` [T, 6] are the timesteps and coefficients of the steps.
    """

    def __init__(self, count: int, shape: Sequence[int], labels: bool, device: torch.device):
        whole = partial(torch.zeros, dtype=torch.int64, device=device)
        self.x, self.x_0 = (torch.zeros(count, *shape, device=device) for _ in range(2))
        self.y = whole(count) if labels else None
        self.seed, self.start = (whole(()) for _ in range(2))
        self.step, self.ts = whole(1), whole(T)
        self.coefs = torch.zeros(T, 6, device=device)
        self.run: dict[Hashable, Callable[[], object]] = {}  # the steps, by what they compute

    def begin(self, steps: Sequence[Step], x: Tensor, y: Tensor | None) -> None:
        """Prepares for a batch: x is the first x_t, and the first of `steps` is next. The host waits for nothing."""
        device = self.x.device
        self.x.copy_(x)
        self.x_0.zero_()
        self.step.zero_()
        self.ts[: len(steps)].copy_(moved(torch.tensor([step.t for step in steps]), device))
        self.coefs[: len(steps)].copy_(moved(torch.tensor(list(map(_coefs, steps))), device))
        if self.y is not None and y is not None:
            self.y.copy_(y)

    @property
    def written(self) -> tuple[Tensor, ...]:
        """The tensors that a step writes."""
        return self.x, self.x_0, self.step


def _coefs(step: Step) -> tuple[float, ...]:
    """The coefficients of a step, in the order in which `advance` takes them."""
    of_x_0 = step.x_0_coefs or (0.0, 0.0)
    return (step.x_coef, step.eps_coef, step.noise_coef, step.change_coef, *of_x_0)


def advance(backbone: Backbone, memory: Memory, noisy: bool, multistep: bool) -> None:
    """The update of `samplers.Step` in `memory`, which it takes one step further, without anything of the host.

    `noisy` are steps that add noise, `multistep` are those that predict x_0.
    """
    x = memory.x
    t = memory.ts.index_select(0, memory.step.expand(len(x)))
    coefs = memory.coefs.index_select(0, memory.step)[0]
    x_coef, eps_coef, noise_coef, change_coef, x_0_of_x, x_0_of_eps = coefs
    eps = backbone(x, t, memory.y)
    if multistep:
        x_0 = torch.addcmul(x_0_of_x * x, eps, x_0_of_eps)
        change = change_coef * (x_0 - memory.x_0)
        memory.x_0.copy_(x_0)
    x.mul_(x_coef).addcmul_(eps, eps_coef)
    if multistep:
        x.add_(change)
    if noisy:
        shape = tuple(x.shape[1:])
        z = noise.image_noise(memory.seed, t[0], memory.start, len(x), shape, device=x.device)
        x.addcmul_(z, noise_coef)
    memory.step.add_(1)


class Captures:
    """Captures functions as CUDA graphs, on one stream of their own, with one pool of memory for all of them."""

    def __init__(self):
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def __call__(
        self, run: Callable[[], object], written: Sequence[Tensor]
    ) -> Callable[[], object]:
        """What replays `run`. `written` are all tensors outside that `run` writes; they are left as they are."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(_WARM_UPS):
                before = [tensor.clone() for tensor in written]
                run()
                for tensor, value in zip(written, before, strict=True):
                    tensor.copy_(value)
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            run()
        return graph.replay


class StepGraphs:
    """Samples by captured steps: one graph for each network, shape of batch, and kind of step.

    The kinds are steps with noise and without, of samplers with a history and without. A network's graph continues at
    a switch where that of the network before stopped, on the same x_t. On a CPU the steps run uncaptured.
    """

    def __init__(self, device: str | torch.device):
        self.device = torch.device(device)
        self.capture = Captures() if self.device.type == "cuda" else None
        self._memories: dict[tuple, Memory] = {}

    @torch.inference_mode()
    def sample(
        self,
        schedule: SwitchSchedule,
        steps: Sequence[Step],
        shape: tuple[int, int, int],
        start: int,
        count: int,
        *,
        seed: int,
        y: Tensor | None = None,
        on_step: Callable[[int], object] | None = None,
    ) -> Tensor:
        """The images of `samplers.sample` on this device, up to rounding; the arguments are the same."""
        x = noise.image_noise(seed, noise.INITIAL, start, count, shape, device=self.device)
        y = None if y is None else moved(y, self.device)
        return self.integrate(schedule, steps, x, y, start=start, seed=seed, on_step=on_step)

    @torch.inference_mode()
    def integrate(
        self,
        schedule: SwitchSchedule,
        steps: Sequence[Step],
        x: Tensor,
        y: Tensor | None,
        *,
        start: int,
        seed: int,
        on_step: Callable[[int], object] | None = None,
    ) -> Tensor:
        """What `samplers.integrate` gives from x [B, C, H, W], up to rounding. `start` is the index of the first image.

        Schedules with backbones other than denoisers, guided or not, are integrated there.
        """
        networks = {step.t: _key(schedule.at(step.t)) for step in steps}
        shape, device = tuple(x.shape[1:]), self.device
        if None in networks.values():

            def drawn(t: int) -> Tensor:
                return noise.image_noise(seed, t, start, len(x), shape, device=device)

            return samplers.integrate(schedule, steps, x, y, drawn, on_step=on_step)
        of_batch = (len(x), shape, y is not None)
        if of_batch not in self._memories:
            self._memories[of_batch] = Memory(*of_batch, device)
        memory = self._memories[of_batch]
        memory.begin(steps, x, y)
        memory.seed.fill_(seed)
        memory.start.fill_(start)
        for step in steps:
            kind = (bool(step.noise_coef), step.x_0_coefs is not None)
            key = (networks[step.t], *kind)
            if key not in memory.run:
                run = partial(advance, schedule.at(step.t), memory, *kind)
                memory.run[key] = self.capture(run, memory.written) if self.capture else run
            memory.run[key]()
            if on_step is not None:
                on_step(step.t)
        return memory.x.clone()


def _key(backbone: Backbone) -> Hashable | None:
    """What a backbone computes: equal for the same networks guided alike. None for one that no graph can hold."""
    if isinstance(backbone, Denoiser):
        return backbone
    if isinstance(backbone, Guided):
        network = _key(backbone.backbone)
        return network and (network, backbone.scale, backbone.null_class)
    if isinstance(backbone, Autoguided):
        network, by = _key(backbone.network), _key(backbone.by)
        return network and by and (network, by, backbone.weight, "by")
    return None
