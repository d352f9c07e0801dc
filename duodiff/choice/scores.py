"""What a network's error at a step of sampling costs: scores of schedules that are sums over steps (no torch).

A chain visits the timesteps t_0 > t_1 > ... > t_last and then takes x_0. The step from t to s weighs
w = (SNR_s / SNR_t - 1) / 2, with SNR = alpha-bar / (1 - alpha-bar): that is eps_coef^2 / (2 noise_coef^2) of an
ancestral `Step`. The last step adds no noise. It has no weight, no score counts it, and every chosen schedule runs the
full backbone there.

With l_k(t) = E ||eps - eps_k(x_t, t)||^2, summed over the D values of an image, of network k on held-out images:

- ``A``: the sum of w l_k(t), the part of the paths' Kullback-Leibler divergence that the networks decide. At small t
  the weights explode and a difference of two losses may be noise alone, so steps below `LEAST_T` do not count.
- ``A*``: the sum of (D/2) ln(1 + 2 w l_k(t) / D): A at the best isotropic variance of each step. It needs no bound.
- ``B``: the sum of l_k(t), the loss of Eq. 2.
- ``C``: the sum of the disagreements E ||eps_k(x_t, t) - eps_full(x_t, t)||^2.
- ``N``: the number of calls that the full backbone does not make.
"""

from dataclasses import dataclass

import numpy as np

from duodiff.schedules import NoiseSchedule

SCORES = ("A*", "A", "B", "C", "N")
"""The scores that are sums over steps. The first is the one that schedules are chosen by."""

LEAST_T = 40
"""Score A counts no step from a smaller t."""


@dataclass(frozen=True)
class Errors:
    """Errors of K networks at S places: the steps of a chain, or the pairs of timesteps that a step may join.

    `losses` and `disagreements` are float64 [..., K, S] in the units of l_k(t) above. The first of the K networks is
    the full backbone, whose disagreement is 0. `t` [S] is where each step starts, `weights` [S] are the w of the steps,
    and `dimension` is D.
    """

    losses: np.ndarray
    disagreements: np.ndarray
    t: np.ndarray
    weights: np.ndarray
    dimension: int


def pair_weights(schedule: NoiseSchedule, t: np.ndarray) -> np.ndarray:
    """w of a step between any two of the descending timesteps `t` [S]: float64 [S, S], from the row's to the column's.

    It is 0 where the column's timestep is not the smaller one.
    """
    ab = schedule.alphas_cumprod[t]
    snr = ab / (1 - ab)
    return np.triu(snr[None] / snr[:, None] - 1, 1) / 2


def step_weights(schedule: NoiseSchedule, t: np.ndarray) -> np.ndarray:
    """w of the steps between neighbours of the descending timesteps `t` [S]: float64 [S - 1]."""
    return np.diagonal(pair_weights(schedule, t), 1).copy()


def contributions(score: str, errors: Errors) -> np.ndarray:
    """What each network adds to a score of `SCORES` at each step: float64 [..., K, S]. Raises ValueError otherwise."""
    d = errors.dimension
    if score == "A*":
        return d / 2 * np.log1p(2 * errors.weights * errors.losses / d)
    if score == "A":
        return errors.weights * errors.losses * (errors.t >= LEAST_T)
    if score == "B":
        return errors.losses
    if score == "C":
        return errors.disagreements
    if score == "N":
        others = np.arange(errors.losses.shape[-2]) > 0
        return np.broadcast_to(others[:, None] * 1.0, errors.losses.shape)
    raise ValueError(f"score: found {score!r}; accepted: {', '.join(SCORES)}")
