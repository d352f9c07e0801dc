"""A schedule for a budget of operations, or for a loss, chosen from held-out losses without sampling (no torch)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from duodiff.choice import search
from duodiff.choice.gram import GramScored
from duodiff.choice.scores import LEAST_T, SCORES, Errors, contributions, pair_weights
from duodiff.choice.search import Front
from duodiff.metrics.bootstrap import percentiles
from duodiff.metrics.losses import Losses
from duodiff.schedules import T

CHOICES = ("switch", "networks", "steps")
"""What may be chosen: one switch time, the network of each step, or the steps and their networks."""

MOST_NODES = 100
"""Of more own steps than this, so many, evenly spread, are those that may be taken before the end."""

Steps = list[tuple[int, int]]
"""The steps of a schedule in the order of sampling: the number of a sampler's own step, and that of its network."""


@dataclass(frozen=True)
class Chosen:
    """A schedule, and what is predicted of it.

    `intervals` are (network, lowest t, highest t), from the noisiest on. `timesteps` are those visited, None for the
    sampler's own. `operations` are those of a trajectory over the full backbone's at the sampler's own steps.
    `predicted_share` is the share of the shallow backbone's loss by the `score`: (S - S_full) / (S_shallow - S_full),
    with its 95% `interval` over resampled images. Both are None where the full backbone is not certainly better.
    `images` is their number: held-out images, or trajectories for a Gram score.
    """

    intervals: list[tuple[str, int, int]]
    timesteps: list[int] | None
    operations: float
    score: str
    predicted_share: float | None
    interval: list[float] | None
    images: int

    def as_json(self) -> dict[str, Any]:
        """What `chosen.json` says of it."""
        return {
            "intervals": [list(interval) for interval in self.intervals],
            "timesteps": self.timesteps,
            "operations": round(self.operations, 6),
            "score": self.score,
            "predicted_share": self.predicted_share and round(self.predicted_share, 6),
            "interval": self.interval and [round(end, 6) for end in self.interval],
            "held_out": self.images,
        }


@dataclass(frozen=True)
class Wanted:
    """What is asked for: `choose` is one of `CHOICES`; the most `operations` or the most `loss`, a predicted share."""

    choose: str
    operations: float | None = None
    loss: float | None = None


class Scored:
    """The score of every schedule of a study's networks, on one sampler's own steps.

    `t` are these timesteps, descending, down to the last noisy one. `costs` are the operations of a call of each
    network. The first of the networks of `losses` is the full backbone, the second the shallow one.
    """

    def __init__(
        self, losses: Losses, t: np.ndarray, costs: Mapping[str, float], score: str = SCORES[0]
    ):
        self.losses, self.t, self.score = losses, t, score
        self.networks, self.images = losses.networks, losses.images
        self.costs = np.array([round(costs[name]) for name in losses.networks], np.int64)
        self._means = losses.means(t)
        self._weights = pair_weights(losses.schedule, t)

    def totals(self, steps: Steps) -> np.ndarray:
        """The score of a schedule: float64 [1 + RESAMPLES], of the images and of resamples of them."""
        nodes, networks = (np.array(column) for column in zip(*steps, strict=True))
        each = self._contributions(nodes[:-1], nodes[1:])
        return each[:, networks[:-1], np.arange(len(nodes) - 1)].sum(1)

    def front(self, choose: str) -> tuple[Front, Steps]:
        """The front of the schedules of `choose`, as far as they differ, and the steps that all of them end with."""
        if choose == "steps":
            return self._paths()
        last = len(self.t) - 1
        each, tail = self._contributions(np.arange(last), np.arange(last) + 1)[0], [(last, 0)]
        if choose == "networks":
            return search.assignments(each, self.costs), tail
        return search.switches(each[:2], self.costs[:2]), tail

    def _paths(self) -> tuple[Front, Steps]:
        """Steps are left out before the last own one from `LEAST_T` on. It is taken, and so are all after it.

        The loss of a path says nothing of grids that end at different noise.
        """
        end = int(np.flatnonzero(self.t >= LEAST_T)[-1])
        nodes = np.unique(np.linspace(0, end, MOST_NODES).astype(int))
        start, stop = np.triu_indices(len(nodes), 1)
        each = np.zeros((len(self.networks), len(nodes), len(nodes)))
        each[:, start, stop] = self._contributions(nodes[start], nodes[stop])[0]
        arriving = [[(i, each[:, i, j]) for i in range(j)] for j in range(len(nodes))]
        front = search.shortest_paths(arriving, self.costs)

        def steps(row: int) -> Steps:
            return [(int(nodes[i]), network) for i, network in front.steps(row)]

        return replace(front, steps=steps), [(i, 0) for i in range(end, len(self.t))]

    def _contributions(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """What each network adds on steps from `start` [S] to `stop` [S]: float64 [1 + RESAMPLES, K, S]."""
        losses, disagreements = (values[..., start] for values in self._means)
        weights = self._weights[start, stop]
        errors = Errors(losses, disagreements, self.t[start], weights, self.losses.dimension)
        return contributions(self.score, errors)


def choose(scored: "Scored | GramScored", wanted: Wanted) -> Chosen:
    """The schedule that is wanted. Raises ValueError where no schedule is cheap or good enough."""
    last = len(scored.t) - 1
    full, shallow = (scored.totals([*((i, k) for i in range(last)), (last, 0)]) for k in (0, 1))
    unit = shallow - full
    certain = unit[0] > 0 and percentiles(unit)[0] > 0
    if wanted.loss is not None and not certain:
        raise ValueError(
            f"loss: found {wanted.loss}; accepted: operations, since the full backbone's losses are not certainly lower"
            " than the shallow one's"
        )
    most = None if wanted.loss is None else full[0] + wanted.loss * unit[0]
    steps = _best(scored, wanted, most)
    shares = (scored.totals(steps) - full)[unit > 0] / unit[unit > 0] if certain else None
    own = [i for i, _ in steps] == [*range(len(scored.t))]
    return Chosen(
        intervals=intervals([(int(scored.t[i]), scored.networks[k]) for i, k in steps]),
        timesteps=None if own else [int(scored.t[i]) for i, _ in steps],
        operations=float(_spent(scored, steps) / _whole(scored)),
        score=scored.score,
        predicted_share=None if shares is None else float(shares[0]),
        interval=None if shares is None else percentiles(shares),
        images=scored.images,
    )


def _best(scored: "Scored | GramScored", wanted: Wanted, most: float | None) -> Steps:
    """The best steps within the budget, or, with `most`, the cheapest with a score of at most that.

    Of more own steps than `MOST_NODES` not all may be chosen. There the steps all taken, by the best networks, may be
    better.
    """
    if wanted.choose != "steps" or len(scored.t) <= MOST_NODES:
        return _best_of(scored, wanted, most)
    found, refused = [], []
    for way in ("steps", "networks"):
        try:
            found.append(_best_of(scored, replace(wanted, choose=way), most))
        except ValueError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    if most is None:
        return min(found, key=lambda steps: scored.totals(steps)[0])
    return min(found, key=lambda steps: _spent(scored, steps))


def _best_of(scored: "Scored | GramScored", wanted: Wanted, most: float | None) -> Steps:
    """`_best` of the front of `wanted.choose` alone."""
    front, tail = scored.front(wanted.choose)
    if most is None:
        row = _affordable(front, wanted, _whole(scored), _spent(scored, tail))
    else:
        ends = scored.totals([*front.steps(0), *tail])[0] - front.scores[0]  # of the shared end
        row = _good(front, wanted, most - ends)
    return [*front.steps(row), *tail]


def _whole(scored: "Scored | GramScored") -> int:
    """The operations of the full backbone on all own steps."""
    return len(scored.t) * scored.costs[0]


def _spent(scored: "Scored | GramScored", steps: Steps) -> int:
    """The operations of steps."""
    return scored.costs[[k for _, k in steps]].sum()


def intervals(steps: Sequence[tuple[int, str]]) -> list[tuple[str, int, int]]:
    """(network, lowest t, highest t) of the steps (t, network) in descending t: together they cover 0 to T - 1."""
    found: list[tuple[str, int, int]] = []
    for t, network in steps:
        if found and found[-1][0] == network:
            found[-1] = (network, t, found[-1][2])
        else:
            found.append((network, t, found[-1][1] - 1 if found else T - 1))
    network, _, high = found[-1]
    return [*found[:-1], (network, 0, high)]


def _affordable(front: Front, wanted: Wanted, whole: int, spent: int) -> int:
    """The best schedule within the budget, by its number in the front."""
    assert wanted.operations is not None
    row = front.within(wanted.operations * whole * (1 + _ROUNDING) - spent)
    if row is None:
        least = math.ceil(1000 * (front.costs[0] + spent) / whole) / 1000
        raise ValueError(
            f"operations: found {wanted.operations}; accepted by {wanted.choose}: {least:g} to 1 of the full backbone's"
        )
    return row


def _good(front: Front, wanted: Wanted, score: float) -> int:
    """The cheapest schedule with at most this score, by its number in the front."""
    row = front.below(score)
    if row is None:
        raise ValueError(f"loss: found {wanted.loss}; accepted: 0 to 1, a predicted share")
    return row


_ROUNDING = 1e-9  # of a budget that is written as a share
