"""Whether a single switch is right: what the best assignment of networks gains over it, at the same cost (no torch)."""

from collections.abc import Sequence

import numpy as np

from duodiff.choice.choose import Scored
from duodiff.choice.gram import GramScored
from duodiff.metrics.bootstrap import percentiles


def switch_gaps(
    one: Scored | GramScored, other: Scored | GramScored, calls: Sequence[int]
) -> np.ndarray | None:
    """(S_switch - S_best) / (S_shallow - S_full) for each number of shallow calls: float64 [1 + RESAMPLES, calls].

    `one` and `other` are the scores of two networks on the two halves of the images. The best assignment costs no more
    than the switch. It is chosen on one half and scored on the other, then the other way round, and the mean of both is
    taken: noise that a choice follows is no gain. Resamples are of the scoring halves, and the assignments are held.
    None where the full backbone is not certainly better than the shallow one.
    """
    last, (full, shallow) = len(one.t) - 1, one.costs

    def switch(count: int) -> list[tuple[int, int]]:
        return [(i, int(i < count)) for i in range(last + 1)]

    unit = (one.totals(switch(last)) + other.totals(switch(last))) / 2
    unit -= (one.totals(switch(0)) + other.totals(switch(0))) / 2
    if not (unit[0] > 0 and percentiles(unit)[0] > 0):
        return None
    crossed = [(one.front("networks")[0], other), (other.front("networks")[0], one)]
    found = []
    for count in (min(count, last) for count in calls):
        gained = np.zeros(len(unit))
        for front, scoring in crossed:
            row = front.within(count * shallow + (last - count) * full)
            assert row is not None  # the shallow backbone alone costs least
            best = [*front.steps(row), (last, 0)]
            gained += (scoring.totals(switch(count)) - scoring.totals(best)) / 2
        found.append(gained / np.where(unit > 0, unit, np.nan))
    return np.stack(found, axis=1)
