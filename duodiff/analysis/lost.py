"""The lost share: how much of the way from the full backbone's quality to the shallow one's a setting has gone.

A Frechet distance depends on its feature space: other features of the same images give other distances, several times
as large. The lost share of a setting moves far less, so it can be compared between runs with different features.
"""

import numpy as np
from numpy.typing import ArrayLike


def lost_share(distance: ArrayLike, full: ArrayLike, shallow: ArrayLike) -> np.ndarray:
    """(FD - FD_full) / (FD_shallow - FD_full), float64 of the arguments' common shape: 0 is full, 1 is shallow.

    The three distances are those of one study, sampler, sampling seed and training. A share is negative where a setting
    is better than the full backbone. It is NaN where the full backbone is not better than the shallow one: such a study
    has no quality to lose. Arguments may be arrays, such as the distances of several settings.
    """
    distance, full, shallow = (np.asarray(value, float) for value in (distance, full, shallow))
    whole = np.where(shallow > full, shallow - full, np.nan)
    return (distance - full) / whole
