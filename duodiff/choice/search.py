"""The cheapest schedules of every quality: which network runs at each step, and which steps are taken (no torch).

Every search is exact, up to `MOST_LABELS`. It gives a front: the schedules that no other one is both cheaper and better
than.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

Edge = tuple[int, np.ndarray]
"""A step that may be taken: the node where it starts, and the score [K] that each network adds there."""

MOST_LABELS = 20_000
"""Partial schedules that are kept at a node. Beyond, some in between are left out, and the front is not exact."""


@dataclass(frozen=True)
class Front:
    """Schedules by rising cost and falling score: int64 `costs` [F], float64 `scores` [F].

    `steps(i)` are those of schedule i: (node, network) pairs in the order of sampling.
    """

    costs: np.ndarray
    scores: np.ndarray
    steps: Callable[[int], list[tuple[int, int]]]

    def within(self, cost: float) -> int | None:
        """The best schedule that costs at most `cost`: its index; None if there is none."""
        affordable = np.flatnonzero(self.costs <= cost)
        return int(affordable[-1]) if len(affordable) else None

    def below(self, score: float) -> int | None:
        """The cheapest schedule with at most `score`: its index; None if there is none."""
        good = np.flatnonzero(self.scores <= score)
        return int(good[0]) if len(good) else None


@dataclass(frozen=True)
class _Labels:
    """Partial schedules that end at a node, by rising cost, and where each came from."""

    costs: np.ndarray
    scores: np.ndarray
    node: np.ndarray
    label: np.ndarray
    network: np.ndarray


def shortest_paths(arriving: Sequence[Sequence[Edge]], costs: np.ndarray) -> Front:
    """The front of paths from the first node to the last.

    `arriving[j]` are the steps that end at node j, from earlier nodes; node 0 has none. `costs` are those of a call,
    int64 [K].
    """
    start, none = np.zeros(1), np.zeros(1, np.int64)
    labels = [_Labels(none, start, none, none, none)]
    for edges in arriving[1:]:
        labels.append(_arrived(edges, labels, costs))
    return Front(labels[-1].costs, labels[-1].scores, partial(_back, labels))


def assignments(scores: np.ndarray, costs: np.ndarray) -> Front:
    """The front of the assignments of K networks to S steps; `scores` is float64 [K, S], `costs` int64 [K]."""
    none: list[Edge] = []
    return shortest_paths([none, *([(i, column)] for i, column in enumerate(scores.T))], costs)


def switches(scores: np.ndarray, costs: np.ndarray) -> Front:
    """The front of single switches: the second network on the first steps, the first one on the others.

    `scores` is float64 [2, S], `costs` int64 [2]. The second network is the cheaper one.
    """
    late = np.cumsum(np.concatenate([[0], scores[1] - scores[0]])) + scores[0].sum()
    count = scores.shape[1]
    calls = np.arange(count, -1, -1)  # of the second network: the cheapest schedule first
    spent = calls * costs[1] + (count - calls) * costs[0]
    kept = undominated(spent, late[calls])
    calls = calls[kept]

    def steps(row: int) -> list[tuple[int, int]]:
        return [(i, int(i < calls[row])) for i in range(count)]

    return Front(spent[kept], late[calls], steps)


def _arrived(edges: Sequence[Edge], labels: list[_Labels], costs: np.ndarray) -> _Labels:
    spent = [(labels[i].costs[:, None] + costs).ravel() for i, _ in edges]
    scored = [(labels[i].scores[:, None] + scores).ravel() for i, scores in edges]
    node = np.concatenate([np.full(len(s), i) for s, (i, _) in zip(spent, edges, strict=True)])
    within = np.concatenate([np.arange(len(s)) for s in spent])
    cost, score = np.concatenate(spent), np.concatenate(scored)
    kept = undominated(cost, score)
    if len(kept) > MOST_LABELS:
        kept = kept[np.linspace(0, len(kept) - 1, MOST_LABELS).astype(int)]
    label, network = np.divmod(within[kept], len(costs))
    return _Labels(cost[kept], score[kept], node[kept], label, network)


def undominated(costs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The indices of those that no other one is as cheap as and better than, by rising cost."""
    order = np.lexsort((scores, costs))
    best = np.minimum.accumulate(scores[order])
    first = np.concatenate([[True], scores[order][1:] < best[:-1]])
    return order[first]


def _back(labels: list[_Labels], label: int) -> list[tuple[int, int]]:
    """The steps of a label of the last node, in order."""
    steps, node = [], len(labels) - 1
    while node > 0:
        here = labels[node]
        steps.append((int(here.node[label]), int(here.network[label])))
        node, label = int(here.node[label]), int(here.label[label])
    return steps[::-1]
