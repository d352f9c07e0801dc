"""Scores of masks without their distances: those of `duodiff.choice`, and a single switch (no torch)."""

from collections.abc import Callable

import numpy as np

from duodiff.choice.scores import SCORES, Errors, contributions, step_weights
from duodiff.schedules import T, noise_schedule
from duodiff.switchbench.data import Training
from duodiff.switchbench.masks import switched

Chooser = Callable[[Training, str], np.ndarray]
"""A score of each mask of a training under a sampler, float64 [masks]. Smaller is better."""

NAMES = (*SCORES, "Gram", "switch")
"""The scores by name: sums over steps, the displacements of all changed steps together, and a single switch."""


def chooser(name: str) -> Chooser:
    """The score called `name`. Raises ValueError for an unknown name.

    `switch` prefers the masks whose shallow calls come first: among masks of equal cost it chooses the single switch.
    """
    if name not in NAMES:
        raise ValueError(f"score: found {name!r}; accepted: {', '.join(NAMES)}")
    if name == "Gram":
        return _displaced
    if name == "switch":
        return lambda training, sampler: training.runs @ np.arange(len(training.t))
    return lambda training, sampler: _summed(name, training)


def _displaced(training: Training, sampler: str) -> np.ndarray:
    """E ||sum of d_i over the shallow steps||^2: how far the images move, to first order."""
    return np.einsum("mi,ij,mj->m", training.runs, training.displacements[sampler], training.runs)


def _summed(name: str, training: Training) -> np.ndarray:
    """A score that is a sum over steps. The last step, which is the full network's in every mask, is left out."""
    schedule = noise_schedule(training.manifest["schedule"])
    losses = np.stack([training.full.mean(1), training.shallow.mean(1)])
    between = np.stack([np.zeros(len(training.t)), training.between.mean(1)])
    errors = Errors(
        losses[:, :-1],
        between[:, :-1],
        training.t[:-1],
        step_weights(schedule, training.t),
        training.manifest["dimension"],
    )
    of_full, of_shallow = contributions(name, errors)
    return np.where(training.runs[:, :-1], of_shallow, of_full).sum(1)


# --- rules that choose t_s


def rules(training: Training) -> dict[str, int]:
    """How many calls come before the switch, by the rule that chooses t_s without a loss.

    - `t_s = 300` always
    - `SNR = 1`: the shallow network runs while there is more noise than signal
    - `AdaDiff's change`: it runs above the t at which AdaDiff's exits change
    """
    ab = noise_schedule(training.manifest["schedule"]).alphas_cumprod
    lowest = {
        "t_s = 300": T - 300,
        "SNR = 1": int(np.flatnonzero(ab < 0.5)[0]),
        "AdaDiff's change": training.manifest["exits"]["change"],
    }
    most = len(training.t) - 1  # the last step is the full network's
    return {name: min(most, int((training.t >= t).sum())) for name, t in lowest.items()}


def predicted(training: Training, sampler: str, score: str, tolerance: float) -> int:
    """How many calls come before the switch whose predicted lost share is at most `tolerance`, as many as possible.

    The predicted lost share is (S - S_full) / (S_shallow - S_full), S_shallow with the full network's last step.
    """
    found = dict(zip(training.masks, chooser(score)(training, sampler), strict=True))
    n = len(training.t)
    line = np.array([found[switched(n, calls)] for calls in range(n)])
    return int(np.flatnonzero((line - line[0]) / (line[-1] - line[0]) <= tolerance)[-1])
