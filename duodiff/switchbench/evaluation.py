"""How well a score of masks agrees with their distances, and the verdicts of the plan (no torch)."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pandas as pd

from duodiff.analysis.students import above, half_width
from duodiff.switchbench.data import Training
from duodiff.switchbench.plan import Endpoint, Plan
from duodiff.switchbench.scores import Chooser, chooser

LEVEL = 0.95
"""Of the intervals over trainings: Student's t."""

_FALSE_ALARMS = 0.05  # of all secondary endpoints together


def kendall(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's tau-b of two arrays [n]; 0 where one of them has a single value, which orders nothing."""
    a, b = (np.sign(values[:, None] - values) for values in (one, other))
    untied = float(np.abs(a).sum() * np.abs(b).sum())
    return float((a * b).sum()) / math.sqrt(untied) if untied else 0.0


def equal_costs(cost: np.ndarray) -> list[np.ndarray]:
    """The masks of each cost that has more than one, by index."""
    groups = [np.flatnonzero(cost == value) for value in np.unique(cost)]
    return [group for group in groups if len(group) > 1]


def within(score: np.ndarray, distance: np.ndarray, cost: np.ndarray) -> float:
    """Kendall's tau among masks of equal cost, averaged over the costs, each of equal weight."""
    return float(np.mean([kendall(score[g], distance[g]) for g in equal_costs(cost)]))


def regret(
    score: np.ndarray,
    distances: tuple[np.ndarray, np.ndarray],
    ends: tuple[float, float],
    cost: np.ndarray,
) -> float:
    """What the masks that a score chooses lose to those that are best on another sampling seed; averaged over costs.

    `distances` are of two seeds: the best mask is picked on the first, and both masks are measured on the second. The
    unit is the distance of the shallow network minus that of the full one, `ends`, on the second. Of masks with the
    same score any may be chosen: their mean counts.
    """
    picked, measured = distances
    lost = [
        measured[g[score[g] == score[g].min()]].mean() - measured[g[picked[g].argmin()]]
        for g in equal_costs(cost)
    ]
    return float(np.mean(lost)) / (ends[1] - ends[0])


def statistics(score: Chooser, training: Training, sampler: str, space: str) -> dict[str, float]:
    """`within`, `overall` and `regret` of a score in one training: means over its two sampling seeds."""
    found, cost = score(training, sampler), training.cost
    if found.shape != cost.shape:
        raise ValueError(f"score: found shape {found.shape}; accepted: {cost.shape}, one a mask")
    seeds = training.sample_seeds
    at = {seed: training.distance(sampler, seed, space) for seed in seeds}
    ends = {seed: training.ends(sampler, seed, space) for seed in seeds}
    values = {
        "within": [within(found, at[seed], cost) for seed in seeds],
        "overall": [kendall(found, at[seed]) for seed in seeds],
        "regret": [regret(found, (at[a], at[b]), ends[b], cost) for a, b in permutations(seeds)],
    }
    return {name: float(np.mean(each)) for name, each in values.items()}


def judge(
    score: Chooser, trainings: Iterable[Training], sampler: str = "ddpm", space: str = "fd_digits"
) -> pd.DataFrame:
    """The `statistics` of a score of one's own, a row a training, and the `ceiling` of `within`.

    `score(training, sampler)` gives a number for each of `training.masks`; smaller is better.
    """
    return pd.DataFrame(
        [
            {"training": one.seed, "sampler": sampler, "space": space}
            | statistics(score, one, sampler, space)
            | {"ceiling": ceiling(one, sampler, space)}
            for one in trainings
        ]
    )


def ceiling(training: Training, sampler: str, space: str) -> float:
    """`within` between the distances of the two sampling seeds."""
    one, other = (training.distance(sampler, seed, space) for seed in training.sample_seeds)
    return within(one, other, training.cost)


# --- the plan's endpoints


@dataclass(frozen=True)
class Verdict:
    """An endpoint with its value in each training, and whether it is met; `p` is None for the primary one."""

    endpoint: Endpoint
    values: list[float]
    interval: tuple[float, float]
    p: float | None
    met: bool


def verdicts(plan: Plan, trainings: Sequence[Training]) -> list[Verdict]:
    """The primary endpoint, then the secondary ones, on these trainings (the plan's: the fresh ones)."""
    memory: dict[tuple, float] = {}

    def value(endpoint: Endpoint, score: str, training: Training) -> float:
        where = (training.seed, score, endpoint.sampler, endpoint.space)
        if (*where, "within") not in memory:
            found = statistics(chooser(score), training, endpoint.sampler, endpoint.space)
            memory.update({(*where, name): one for name, one in found.items()})
        return memory[*where, endpoint.statistic]

    def values(endpoint: Endpoint) -> list[float]:
        found = [value(endpoint, endpoint.score, one) for one in trainings]
        less = [value(endpoint, endpoint.minus, one) for one in trainings] if endpoint.minus else 0
        return list(np.subtract(found, less))

    return decided(plan, values)


def decided(plan: Plan, values: Callable[[Endpoint], list[float]]) -> list[Verdict]:
    """The verdicts of a plan, from the values of an endpoint, one a training."""
    of = values(plan.primary)
    ends = interval(of)
    found = [Verdict(plan.primary, of, ends, None, ends[0] > plan.primary.above)]
    each = [values(endpoint) for endpoint in plan.secondary]
    ps = holm([above(of, e.above) for of, e in zip(each, plan.secondary, strict=True)])
    for endpoint, of, p in zip(plan.secondary, each, ps, strict=True):
        found.append(Verdict(endpoint, of, interval(of), p, p < _FALSE_ALARMS))
    return found


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected by Holm's procedure, in their order."""
    corrected, most = [0.0] * len(ps), 0.0
    for rank, i in enumerate(np.argsort(ps)):
        most = max(most, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = most
    return corrected


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's interval of the mean of `values`, one a training, at `LEVEL`."""
    mean, half = float(np.mean(values)), half_width(values, LEVEL)
    return mean - half, mean + half
