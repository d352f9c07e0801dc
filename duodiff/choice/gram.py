"""Schedules of a sampler without noise (DDIM), scored by how far they move its images (no torch).

An error stays in a trajectory without noise, and errors of neighbouring steps add up. So the score is no sum over
steps. It is E ||sum of d_(k, i)||^2 over the changed steps: z' G z with the Gram matrix G of all single changes.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from duodiff.choice.search import Front, undominated
from duodiff.metrics.bootstrap import resampled_means
from duodiff.metrics.grams import Gram

GRAM = "Gram"
"""The name of the score."""

MOST_ENUMERATED = 1 << 13
"""With at most this many assignments all are scored. Else one is improved until no change of two steps is better."""


class GramScored:
    """The score of every schedule of a study's networks under a sampler without noise; as `choose.Scored`."""

    score = GRAM

    def __init__(self, gram: Gram, costs: Mapping[str, float]):
        self.networks = ("full", *gram.networks)
        self.t, self.images = gram.t, len(gram.products)
        self.costs = np.array([round(costs[name]) for name in self.networks], np.int64)
        steps = len(gram.t)
        # rows and columns of the full backbone, which moves nothing, come first
        self._products = np.pad(gram.products, ((0, 0), (steps, 0), (steps, 0)))
        self._mean = self._products.mean(0, dtype=np.float64)

    def totals(self, steps: Sequence[tuple[int, int]]) -> np.ndarray:
        """The score of a schedule: float64 [1 + RESAMPLES], of the trajectories and of resamples of them."""
        rows = np.array([k * len(self.t) + i for i, k in steps])
        each = self._products[:, rows[:, None], rows].sum((1, 2), dtype=np.float64)
        return resampled_means(each[None])[:, 0]

    def front(self, choose: str) -> tuple[Front, list[tuple[int, int]]]:
        """The front of the schedules of `choose`, and the last step. Raises ValueError for "steps"."""
        count = len(self.t) - 1
        if choose == "steps":
            raise ValueError(
                "choose: found steps for a sampler without noise; accepted: switch, networks"
            )
        if choose == "switch":
            found = np.tri(count + 1, count, -1, dtype=int)
        elif len(self.networks) ** count <= MOST_ENUMERATED:
            found = np.array(list(itertools.product(range(len(self.networks)), repeat=count)))
        else:
            found = np.array(self._searched())
        costs, scores = self.costs[found].sum(1), self._scores(found)
        kept = undominated(costs, scores)

        def steps(row: int) -> list[tuple[int, int]]:
            return [*enumerate(found[kept[row]].tolist())]

        return Front(costs[kept], scores[kept], steps), [(count, 0)]

    def _scores(self, found: np.ndarray) -> np.ndarray:
        """The mean scores of assignments int [A, S - 1]."""
        rows = self._rows(found)
        return np.array([self._mean[r[:, None], r].sum() for r in rows])

    def _rows(self, networks: np.ndarray) -> np.ndarray:
        return networks * len(self.t) + np.arange(networks.shape[-1])

    def _searched(self) -> list[np.ndarray]:
        """Assignments from the full backbone alone to the cheapest networks, one changed step after the other.

        Each time the change is made that moves the images least for what it saves, and the assignment is improved.
        """
        networks = np.zeros(len(self.t) - 1, int)
        found = [networks]
        while (change := self._change(networks)) is not None:
            networks = self._improved(change)
            found.append(networks)
        return found

    def _change(self, networks: np.ndarray) -> np.ndarray | None:
        """The assignment after the best single change to a cheaper network; None if there is none."""
        best, chosen = np.inf, None
        for network, cost in enumerate(self.costs):
            saved = self.costs[networks] - cost
            where = np.flatnonzero(saved > 0)
            if not len(where):
                continue
            worse = self._changes(networks, where[:, None], np.full((len(where), 1), network))
            rates = worse / saved[where]
            if rates.min() < best:
                best, chosen = rates.min(), (where[rates.argmin()], network)
        if chosen is None:
            return None
        changed = networks.copy()
        changed[chosen[0]] = chosen[1]
        return changed

    def _improved(self, networks: np.ndarray) -> np.ndarray:
        """The assignment after all changes of two steps that cost no more and move the images less, the best first."""
        networks = networks.copy()
        every = range(len(self.costs))
        pairs = [*itertools.combinations(range(len(networks)), 2)]
        both = np.array([*itertools.product(every, every)])
        where = np.repeat(pairs, len(both), axis=0).reshape(-1, 2)
        new = np.tile(both, (len(pairs), 1))
        while len(where):
            allowed = self.costs[new].sum(1) <= self.costs[networks[where]].sum(1)
            gains = self._changes(networks, where[allowed], new[allowed])
            if gains.min() > -_LEAST_GAIN * self._mean.trace():
                break
            networks[where[allowed][gains.argmin()]] = new[allowed][gains.argmin()]
        return networks

    def _changes(self, networks: np.ndarray, where: np.ndarray, new: np.ndarray) -> np.ndarray:
        """By how much the score changes where steps `where` [C, W] get the networks `new` [C, W]: float64 [C]."""
        now = self._mean[:, self._rows(networks)].sum(1)
        rows = np.concatenate([new, networks[where]], axis=1) * len(self.t) + np.tile(where, 2)
        signs = np.repeat([1.0, -1.0], where.shape[1])
        squares = self._mean[rows[:, :, None], rows[:, None]] * np.outer(signs, signs)
        return squares.sum((1, 2)) + 2 * (now[rows] * signs).sum(1)


_LEAST_GAIN = 1e-12  # of the sum of all single changes, below which a swap is rounding
