"""Intervals of statistics of images, by resampling the images (no torch)."""

import numpy as np

RESAMPLES = 1000

COVERS = f"95%: {RESAMPLES} bootstrap resamples of the images"
"""The text of a record's `interval_covers` for an interval of `percentiles`."""


def resampled_means(values: np.ndarray) -> np.ndarray:
    """Means over the last axis of `values` [K, N], float64 [1 + RESAMPLES, K].

    The first row is of the N images, the others are of resamples of the images. All arrays with the same N get the
    same resamples.
    """
    n = values.shape[-1]
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    weights = np.concatenate([np.ones((1, n)), drawn]) / n
    return weights @ np.asarray(values, np.float64).T


def percentiles(resampled: np.ndarray) -> list[float]:
    """The central 95% of a statistic [1 + RESAMPLES] whose first entry is its value: [low, high]."""
    return [float(end) for end in np.percentile(resampled[1:], [2.5, 97.5])]
