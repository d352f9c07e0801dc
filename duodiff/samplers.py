"""Samplers as lists of precomputed steps, and the one loop that runs them.

Every update is linear in x_t, eps, the noise and, for a multistep sampler, predictions of x_0. So a
sampler is a list of `Step` with its coefficients computed once in float64, and is independent of any network.
Notation: ab = alphas_cumprod (alpha-bar), s = the next timestep, ab_s = 1 where s is x_0 itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duodiff import noise
from duodiff.backbones import SwitchSchedule
from duodiff.protocol import Protocol
from duodiff.schedules import NoiseSchedule, one_step_eta_limit, own_schedule, visited
from duodiff.transfer import moved


@dataclass(frozen=True)
class Step:
    """One update x_s = x_coef x_t + eps_coef eps(x_t, t) + noise_coef z_t + change_coef (x_0(t) - x_0(r)).

    x_0(t) = x_0_coefs[0] x_t + x_0_coefs[1] eps(x_t, t) is the image predicted here, x_0(r) the one of the step
    before. Samplers that look at one step only have no `x_0_coefs`, and a sampler's first step no change_coef.
    """

    t: int
    x_coef: float
    eps_coef: float
    noise_coef: float
    change_coef: float = 0.0
    x_0_coefs: tuple[float, float] | None = None


def _require_schedule(schedule: NoiseSchedule) -> None:
    """Raises TypeError or ValueError, with what to call, for what is no valid noise schedule."""
    if not isinstance(schedule, NoiseSchedule):
        raise TypeError(
            f"schedule: found {type(schedule).__name__}; accepted: a NoiseSchedule of duodiff.schedules, from"
            ' noise_schedule("linear") or own_schedule(name, alphas_cumprod)'
        )
    own_schedule(schedule.name, schedule.alphas_cumprod)


def _transitions(
    schedule: NoiseSchedule, ts: np.ndarray, final_step: bool
) -> Iterator[tuple[int, float, float]]:
    """(t, ab_t, ab_s) along the descending timesteps `ts`, then down to x_0 if `final_step`."""
    ab = schedule.alphas_cumprod
    for t, s in pairwise(ts):
        yield int(t), ab[t], ab[s]
    if final_step:
        yield int(ts[-1]), ab[ts[-1]], 1.0


def ddpm(schedule: NoiseSchedule, n: int | Sequence[int]) -> list[Step]:
    """Ancestral sampling on n timesteps, or on those given (`schedules.visited`).

    The variance is that of the posterior, beta-tilde; x_0 is not clipped, and the last step adds no noise.

    For fewer than T the chain is respaced: alpha = ab_t / ab_s; it equals `ddim` at eta = 1.
    """
    _require_schedule(schedule)
    steps = []
    for t, ab_t, ab_s in _transitions(schedule, visited(n), final_step=True):
        alpha = ab_t / ab_s
        # x_s = (x_t - (1 - alpha) / sqrt(1 - ab_t) eps) / sqrt(alpha) + sqrt(beta_tilde) z
        beta_tilde = (1 - ab_s) / (1 - ab_t) * (1 - alpha)
        eps_coef = -(1 - alpha) / ((1 - ab_t) * alpha) ** 0.5
        steps.append(Step(t, alpha**-0.5, eps_coef, beta_tilde**0.5))
    return steps


def ddim(
    schedule: NoiseSchedule,
    n: int | Sequence[int],
    eta: float = 0.0,
    *,
    final_step: bool = True,
    one_step_variance: bool = False,
    noise_into_0: bool = True,
) -> list[Step]:
    """DDIM (Song et al. 2021, Eq. 12) on n timesteps, or on those given, with stochasticity eta.

    `final_step` denoises from t = 0 to x_0 (n network calls); the released code stops at t = 0
    (n - 1 calls). `one_step_variance` is the released code's noise for eta > 0: sigma^2 = eta beta_tilde_t of
    the unrespaced chain, and sigma^2 z added for sigma z; an eta it is not real for raises ValueError. Without
    `noise_into_0`, as in the released code, the step that lands on t = 0 adds no noise.
    """
    _require_schedule(schedule)
    if one_step_variance and eta > (limit := one_step_eta_limit(schedule, n)):
        raise ValueError(f"eta: found {eta}; accepted with the one-step variance: 0 to {limit:.3g}")
    steps = []
    for t, ab_t, ab_s in _transitions(schedule, visited(n), final_step):
        lands_on_0 = ab_s == schedule.alphas_cumprod[0]
        sigma = eta * ((1 - ab_s) / (1 - ab_t) * (1 - ab_t / ab_s)) ** 0.5
        if one_step_variance:
            sigma = (eta * schedule.betas_tilde[t]) ** 0.5
        # x_s = sqrt(ab_s) x_0 + sqrt(1 - ab_s - sigma^2) eps + sigma z,
        # with x_0 = (x_t - sqrt(1 - ab_t) eps) / sqrt(ab_t)
        x_coef = (ab_s / ab_t) ** 0.5
        eps_coef = (1 - ab_s - sigma**2) ** 0.5 - x_coef * (1 - ab_t) ** 0.5
        noise_coef = sigma**2 if one_step_variance else sigma
        steps.append(Step(t, x_coef, eps_coef, noise_coef * (noise_into_0 or not lands_on_0)))
    return steps


def dpm_solver_pp(schedule: NoiseSchedule, n: int | Sequence[int]) -> list[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2) on n timesteps, or on those given: n calls, without noise.

    In l = log(sqrt(ab) / sqrt(1 - ab)) it is DDIM's step with x_0 extrapolated from the last two predictions
    to the middle of the step. The first step and the last two, to t = 0 and on to x_0, are DDIM's alone (first
    order): these are so long in l that the extrapolation would overshoot (docs/protocols.md).
    """
    _require_schedule(schedule)
    ab, ts = schedule.alphas_cumprod, visited(n)
    log_snr = np.log(ab / (1 - ab))  # 2 l
    steps = [
        replace(step, x_0_coefs=(ab[step.t] ** -0.5, -((1 / ab[step.t] - 1) ** 0.5)))
        for step in ddim(schedule, n)
    ]
    for i, (r, t, s) in enumerate(zip(ts, ts[1:], ts[2:-1], strict=False), start=1):
        # x_s = sqrt((1 - ab_s) / (1 - ab_t)) x_t + x_0_coef (x_0(t) + half (x_0(t) - x_0(r)))
        x_0_coef = ab[s] ** 0.5 - (ab[t] * (1 - ab[s]) / (1 - ab[t])) ** 0.5
        half = (log_snr[s] - log_snr[t]) / (log_snr[t] - log_snr[r]) / 2
        steps[i] = replace(steps[i], change_coef=x_0_coef * half)
    return steps


def _steps(options: Mapping[str, Any]) -> int | Sequence[int]:
    """The timesteps of a configured sampler: its own `timesteps` if it has some, or the number of its `steps`."""
    return options.get("timesteps") or options["steps"]


SAMPLERS: dict[str, Callable[[NoiseSchedule, Mapping[str, Any], Protocol], list[Step]]] = {
    "ddpm": lambda schedule, options, protocol: ddpm(schedule, _steps(options)),
    "ddim": lambda schedule, options, protocol: ddim(
        schedule,
        _steps(options),
        options["eta"],
        final_step=protocol.ddim_final_step,
        one_step_variance=protocol.ddim_one_step_variance,
        noise_into_0=protocol.ddim_noise_into_0,
    ),
    "dpm_solver_pp": lambda schedule, options, protocol: dpm_solver_pp(schedule, _steps(options)),
}
"""The samplers by name: each makes its steps from a noise schedule, its configured options and the protocol."""


def steps_of(schedule: NoiseSchedule, sampler: Mapping[str, Any], protocol: Protocol) -> list[Step]:
    """The steps of a configured sampler: its `name` (a key of `SAMPLERS`) and its options, such as steps and eta.

    The option `timesteps` lists timesteps to visit in place of `steps`.

    Raises ValueError for an unknown name.
    """
    if (name := sampler["name"]) not in SAMPLERS:
        raise ValueError(f"sampler: found {name!r}; accepted: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](schedule, sampler, protocol)


def integrate(
    schedule: SwitchSchedule,
    steps: Sequence[Step],
    x: Tensor,
    y: Tensor | None,
    step_noise: Callable[[int], Tensor],
    *,
    on_step: Callable[[int], object] | None = None,
) -> Tensor:
    """x_0 (unclipped), like x [B, C, H, W]: the one sampling loop, for every method and sampler.

    x is x_T; `step_noise(t)` gives z_t, like x; `on_step(t)` is called after each step. The switch
    is decided before the step. A multistep sampler keeps its history across a switch: the x_0 of the step before
    may be the other backbone's (docs/protocols.md has the measurement). Raises TypeError or ValueError for a backbone
    that does not return eps.
    """
    x_0: Tensor | None = None  # the last prediction
    for step in steps:
        t = torch.full((len(x),), step.t, device=x.device)
        eps = schedule.at(step.t)(x, t, y)
        if not isinstance(eps, Tensor) or eps.shape != x.shape:
            raise _no_eps(eps, x, step.t)
        x_t, x = x, torch.add(step.x_coef * x, eps, alpha=step.eps_coef)
        if step.x_0_coefs is not None:
            before, x_0 = x_0, torch.add(step.x_0_coefs[0] * x_t, eps, alpha=step.x_0_coefs[1])
            if step.change_coef:
                assert before is not None  # a first step has no change_coef
                x = torch.add(x, x_0 - before, alpha=step.change_coef)
        if step.noise_coef:
            x = torch.add(x, step_noise(step.t), alpha=step.noise_coef)
        if on_step is not None:
            on_step(step.t)
    return x


def _no_eps(found: object, x: Tensor, t: int) -> Exception:
    """The error for what a backbone returned that is no eps. Unlike shapes would be broadcast."""
    expected = f"expected: eps, a tensor of x_t's shape {[*x.shape]}"
    if not isinstance(found, Tensor):
        return TypeError(
            f"the backbone at t = {t} returned {type(found).__name__}; {expected}."
            " For a diffusers network: lambda x, t, y: unet(x, t).sample"
        )
    text = f"the backbone at t = {t} returned a tensor of shape {[*found.shape]}; {expected}"
    if found.ndim > 1 and found.shape[1] == 2 * x.shape[1]:
        text += ". If its other channels are a variance: lambda x, t, y: net(x, t, y).chunk(2, dim=1)[0]"
    return ValueError(text)


def _require(
    schedule: SwitchSchedule, steps: Sequence[Step], shape: Sequence[int], count: int, y: object
) -> None:
    """Raises TypeError or ValueError, with what to call, for wrong arguments of `sample`."""
    if not isinstance(schedule, SwitchSchedule):
        raise TypeError(
            f"schedule: found {type(schedule).__name__}; accepted: a SwitchSchedule of duodiff.backbones. Of one"
            " network: single(network). Of two: duodiff(full, shallow, t_s)"
        )
    if not (isinstance(steps, Sequence) and steps and all(isinstance(s, Step) for s in steps)):
        raise TypeError(
            f"steps: found {steps!r:.60}; accepted: the steps of a sampler, such as"
            ' samplers.ddpm(noise_schedule("linear"), 1000)'
        )
    if not (len(shape) == 3 and all(isinstance(n, (int, np.integer)) and n > 0 for n in shape)):
        raise ValueError(
            f"shape: found {shape}; accepted: (C, H, W) of an image, without the batch"
        )
    if y is not None and not (
        isinstance(y, Tensor) and y.shape == (count,) and y.dtype == torch.int64
    ):
        found = f"{y.dtype} {[*y.shape]}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"y: found {found}; accepted: None, or torch.int64 [{count}], a label each"
        )


@torch.inference_mode()
def sample(
    schedule: SwitchSchedule,
    steps: Sequence[Step],
    shape: tuple[int, int, int],
    start: int,
    count: int,
    *,
    seed: int,
    y: Tensor | None = None,
    device: str | torch.device = "cpu",
    on_step: Callable[[int], object] | None = None,
) -> Tensor:
    """Images [count, C, H, W] (float32, unclipped) of the global indices from `start`, with labels y [count].

    The noise is a function of (seed, global image index, t) alone, made on the device (see `duodiff.noise`). No step
    waits for the device. Raises TypeError or ValueError for wrong arguments, and for a backbone that does not return
    eps.
    """
    _require(schedule, steps, shape, count, y)
    streams = [noise.INITIAL, *(step.t for step in steps if step.noise_coef)]
    drawn = noise.Drawn(seed, streams, start, count, shape, device=device)
    y = None if y is None else moved(y, device)
    return integrate(schedule, steps, drawn(noise.INITIAL), y, drawn, on_step=on_step)


def to_uint8(x: Tensor, truncate: bool = False) -> Tensor:
    """Images in [-1, 1] quantised once: clamp, round, uint8 (the same numbers a PNG holds).

    `truncate` rounds down instead, as the released code did.
    """
    levels = (x.clamp(-1, 1) + 1) * 127.5
    return (levels if truncate else levels.round()).to(torch.uint8)
