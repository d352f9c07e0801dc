"""Intervals of statistics of images, by resampling the images (no torch)."""

import numpy as np

RESAMPLES = 200

COVERS = f"95%: {RESAMPLES} bootstrap resamples of the images"
"""What an interval of `percentiles` covers, as a record says it."""


def resampled_means(values: np.ndarray) -> np.ndarray:
    """Means over the last axis of `values` [K, N], float64 [1 + RESAMPLES, K]: first of the N images
    themselves, then of resamples of them, the same for every array of N.
    """
    n = values.shape[-1]
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    weights = np.concatenate([np.ones((1, n)), drawn]) / n
    return weights @ np.asarray(values, np.float64).T


def percentiles(resampled: np.ndarray) -> list[float]:
    """The central 95% of a statistic [1 + RESAMPLES] whose first entry is its value: [low, high]."""
    return [float(end) for end in np.percentile(resampled[1:], [2.5, 97.5])]
