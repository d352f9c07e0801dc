"""Intervals from few values, such as one a training: Student's t (no torch, no scipy)."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np


@cache
def quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t with `degrees` of freedom, at a probability strictly between 0 and 1.

    Raises ValueError for another probability, or for fewer than 1 degree.
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(
            f"Student's t: found {probability} and {degrees} degrees; accepted: between 0 and 1, and 1 or more"
        )
    if probability < 0.5:
        return -quantile(1 - probability, degrees)
    low, high = 0.0, 1.0
    while _cumulative(high, degrees) < probability:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _cumulative(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def _cumulative(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0: the finite sum for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    square, odd = math.cos(angle) ** 2, degrees % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, degrees, 2):
        term *= square * (k - 1) / k
        total += term
    if degrees == 1:
        total = 0.0
    within = math.sin(angle) * total
    return 0.5 + (angle + within) / math.pi if odd else 0.5 + within / 2


def half_width(values: Sequence[float], level: float = 0.95) -> float:
    """Half the interval that covers the mean of the distribution of `values` at this level; NaN for fewer than two."""
    n = len(values)
    if n < 2:
        return math.nan
    deviation = float(np.std(values, ddof=1))
    return quantile((1 + level) / 2, n - 1) * deviation / math.sqrt(n)


def prediction_half_width(values: Sequence[float], level: float) -> float:
    """Half the interval around the mean of `values` that covers a further value at this level; NaN for fewer than two.

    It is t sqrt(1 + 1/n) sd, for values of a normal distribution.
    """
    return half_width(values, level) * math.sqrt(len(values) + 1)


def above(values: Sequence[float], bound: float) -> float:
    """The p-value of Student's one-sided test that the mean of the distribution of `values` lies above `bound`.

    It is NaN for fewer than two values. Equal values are certain: 0 above the bound, else 1.
    """
    n = len(values)
    if n < 2:
        return math.nan
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(n)
    if not error:
        return float(mean <= bound)
    t = (mean - bound) / error
    return 1 - _cumulative(t, n - 1) if t >= 0 else _cumulative(-t, n - 1)
