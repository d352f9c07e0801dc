"""Noise schedules, time conventions and timestep spacings (no torch: float64 numpy throughout).

Notation: ``t`` is 0-based, t = T-1 is the noisiest; ``alphas_cumprod[t]`` is the paper's
alpha-bar_t (Eq. 1), ``betas[t]`` the variance of one forward step, ``betas_tilde[t]`` the
variance of the posterior q(x_{t-1} | x_t, x_0).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

T = 1000
"""Number of diffusion timesteps, in the paper and in every published U-ViT checkpoint."""


@dataclass(frozen=True)
class NoiseSchedule:
    """A discrete noise schedule; ``alphas_cumprod`` is float64 [T], strictly decreasing in (0, 1)."""

    name: str
    alphas_cumprod: np.ndarray

    @property
    def betas(self) -> np.ndarray:
        """Forward variances beta_t, float64 [T]."""
        return 1.0 - self.alphas_cumprod / self._alphas_cumprod_prev

    @property
    def betas_tilde(self) -> np.ndarray:
        """Posterior variances beta-tilde_t, float64 [T]; zero at t = 0."""
        return (1.0 - self._alphas_cumprod_prev) / (1.0 - self.alphas_cumprod) * self.betas

    @property
    def _alphas_cumprod_prev(self) -> np.ndarray:
        return np.concatenate([[1.0], self.alphas_cumprod[:-1]])


def _linear() -> np.ndarray:
    return np.cumprod(1.0 - np.linspace(1e-4, 0.02, T))


def _sd() -> np.ndarray:
    return np.cumprod(1.0 - np.linspace(0.00085**0.5, 0.0120**0.5, T) ** 2)


def _vpsde() -> np.ndarray:
    time = np.arange(1, T + 1) / T
    return np.exp(-(0.1 * time + 19.9 * time**2 / 2))


_SCHEDULES = {"linear": _linear, "sd": _sd, "vpsde": _vpsde}


def noise_schedule(name: str) -> NoiseSchedule:
    """The schedule called `name`.

    ``linear``: betas from 1e-4 to 0.02 (DDPM; the paper's Table 4). ``sd``: squared linspace of
    square roots (Stable Diffusion's, and the official U-ViT-H latent weights'). ``vpsde``: the continuous
    VP SDE (beta 0.1..20) at (t+1)/1000, which the official weights of the paper's four networks saw.
    Raises ValueError for any other name.
    """
    if name not in _SCHEDULES:
        raise ValueError(
            f"schedule: {name!r} is unknown; accepted: {', '.join(_SCHEDULES)}."
            " Another one in the library: own_schedule(name, alphas_cumprod)"
        )
    return NoiseSchedule(name, _SCHEDULES[name]())


def own_schedule(name: str, alphas_cumprod: ArrayLike) -> NoiseSchedule:
    """A noise schedule of one's own; `alphas_cumprod` is alpha-bar_t for t = 0 .. T-1 (of betas: cumprod(1 - betas)).

    Raises ValueError unless there are T values that fall strictly, within (0, 1).
    """
    ab = np.asarray(alphas_cumprod, dtype=np.float64)
    if ab.shape != (T,):
        raise ValueError(
            f"alphas_cumprod: found shape {ab.shape}; accepted: ({T},), a value for each timestep"
        )
    if not (ab[0] < 1 and ab[-1] > 0 and (np.diff(ab) < 0).all()):
        raise ValueError(
            f"alphas_cumprod: found values from {ab[0]:.4g} at t = 0 to {ab[-1]:.4g} at t = {T - 1};"
            " accepted: each smaller than the one before, below 1 and above 0"
        )
    return NoiseSchedule(name, ab)


_TIME_INPUTS = {
    "t": lambda t: t,
    "t/1000": lambda t: t / 1000,
    "t+1": lambda t: t + 1,
    "999(t+1)/1000": lambda t: 999 * (t + 1) / 1000,
}


def time_input(convention: str, t):
    """What a network trained under `convention` is fed for the 0-based `t` (tensor, array or number).

    Raises ValueError for an unknown convention.
    """
    if convention not in _TIME_INPUTS:
        raise ValueError(
            f"time_input: {convention!r} is unknown; accepted: {', '.join(_TIME_INPUTS)}"
        )
    return _TIME_INPUTS[convention](t)


def prediction_coefficients(
    prediction: str, schedule: NoiseSchedule
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(a, b, c, d), each float64 [T]: a network's target is a eps + b x_0, and eps = c target + d x_t.

    ``noise`` predicts eps (Eq. 2), ``x_0`` the image, ``v`` sqrt(ab_t) eps - sqrt(1 - ab_t) x_0 (Salimans &
    Ho 2022). Raises ValueError for any other prediction.
    """
    signal, noise = schedule.alphas_cumprod**0.5, (1 - schedule.alphas_cumprod) ** 0.5
    one, zero = np.ones(T), np.zeros(T)
    coefficients = {
        "noise": (one, zero, one, zero),
        "x_0": (zero, one, -signal / noise, 1 / noise),
        "v": (signal, -noise, signal, noise),
    }
    if prediction not in coefficients:
        raise ValueError(
            f"prediction: {prediction!r} is unknown; accepted: {', '.join(coefficients)}"
        )
    return coefficients[prediction]


def timesteps(n: int) -> np.ndarray:
    """`n` timesteps from T-1 down to 0, int64 [n]: linspace(0, T-1, n) truncated, reversed.

    n = T gives every timestep. Raises ValueError unless 2 <= n <= T.
    """
    if not 2 <= n <= T:
        raise ValueError(f"steps: found {n}; accepted: 2 to {T}")
    return np.linspace(0, T - 1, n).astype(np.int64)[::-1].copy()


def visited(steps: int | Sequence[int]) -> np.ndarray:
    """The timesteps that a sampler visits, int64 [n]: so many (`timesteps`), or these, which fall from T - 1 to 0.

    Raises ValueError for others.
    """
    if isinstance(steps, (int, np.integer)):
        return timesteps(int(steps))
    found = np.asarray(steps, dtype=np.int64)
    if len(found) < 2 or found[0] != T - 1 or found[-1] != 0 or (np.diff(found) >= 0).any():
        raise ValueError(
            f"timesteps: found {found.tolist()}; accepted: numbers that fall from {T - 1} to 0"
        )
    return found


def shallow_calls(t: np.ndarray, t_s: int, one_late: bool = False) -> int:
    """How many of the network calls at timesteps `t` (descending, [K]) DuoDiff's shallow backbone makes.

    With `one_late`, as under DDIM in the paper protocol, one more than t >= T - t_s, but none at t_s = 0.
    """
    switched = int((t >= T - t_s).sum())
    return min(switched + 1, len(t)) if one_late and switched else switched


def timestep_weights(t: np.ndarray) -> np.ndarray:
    """How many of the T timesteps each of `t` (descending, [K]) stands for, float64 [K], with sum T.

    Each stands for those nearer to it than to its neighbours; all T of them weigh 1 each. Truncation spaces
    the points of `timesteps` unevenly, and the first and the last stand for one side only.
    """
    edges = np.concatenate([[T - 0.5], (t[:-1] + t[1:]) / 2, [-0.5]])
    return edges[:-1] - edges[1:]


def one_step_eta_limit(schedule: NoiseSchedule, steps: int | Sequence[int]) -> float:
    """The largest eta at which the released DDIM variance (eta betas_tilde_t) leaves 1 - ab_s - sigma^2 >= 0.

    Beyond it, on these timesteps (`visited`), the released code takes the square root of a negative number.
    """
    t, s = visited(steps)[:-1], visited(steps)[1:]
    return float(((1 - schedule.alphas_cumprod[s]) / schedule.betas_tilde[t]).min())
