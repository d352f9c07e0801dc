"""Searches against every schedule there is, on cases small enough for that."""

import itertools

import numpy as np
import pytest

from duodiff.choice import search


def enumerated(scores: np.ndarray, costs: np.ndarray) -> list[tuple[int, float]]:
    """Cost and score of every assignment of networks [K] to steps [S]."""
    networks, steps = scores.shape
    return [
        (int(costs[list(mask)].sum()), float(scores[list(mask), range(steps)].sum()))
        for mask in itertools.product(range(networks), repeat=steps)
    ]


def best(schedules: list[tuple[int, float]], budget: float) -> float | None:
    return min((score for cost, score in schedules if cost <= budget), default=None)


def check(front: search.Front, schedules: list[tuple[int, float]]) -> None:
    """The front has the best score of every budget, and the least cost of every score."""
    assert (np.diff(front.costs) > 0).all()
    assert (np.diff(front.scores) < 0).all()
    for cost, score in schedules:
        for budget in (cost - 1, cost):
            row, expected = front.within(budget), best(schedules, budget)
            assert (row is None) == (expected is None)
            if row is not None:
                assert front.scores[row] == pytest.approx(expected)
        row = front.below(score + 1e-9)
        assert row is not None
        assert front.costs[row] == min(c for c, s in schedules if s <= score + 1e-9)


def score_of(front: search.Front, row: int, scores: np.ndarray) -> float:
    return sum(scores[network, node] for node, network in front.steps(row))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("networks", "steps"), [(2, 9), (3, 5), (4, 4)])
def test_assignments_are_the_best_of_all_masks(networks, steps, seed):
    rng = np.random.default_rng(seed)
    scores = (
        rng.exponential(size=(networks, steps)) - 0.2
    )  # some differences below 0, as estimates have
    costs = rng.integers(1, 50, networks)
    front = search.assignments(scores, costs)
    check(front, enumerated(scores, costs))
    for row in range(len(front.costs)):
        nodes, chosen = zip(*front.steps(row), strict=True)
        assert nodes == tuple(range(steps))
        assert costs[list(chosen)].sum() == front.costs[row]
        assert score_of(front, row, scores) == pytest.approx(front.scores[row])


@pytest.mark.parametrize("seed", range(3))
def test_switches_are_the_best_of_all_switch_times(seed):
    rng = np.random.default_rng(seed)
    scores, costs = rng.normal(size=(2, 12)), np.array([7, 3])
    schedules = [
        (3 * n + 7 * (12 - n), float(scores[1, :n].sum() + scores[0, n:].sum())) for n in range(13)
    ]
    front = search.switches(scores, costs)
    check(front, schedules)
    for row in range(len(front.costs)):
        assert score_of(front, row, scores) == pytest.approx(front.scores[row])
        chosen = [network for _, network in front.steps(row)]
        assert chosen == sorted(chosen, reverse=True)


@pytest.mark.parametrize("seed", range(3))
def test_paths_are_the_best_of_all_steps_and_networks(seed):
    rng = np.random.default_rng(seed)
    nodes, costs = 6, np.array([5, 2])
    scores = rng.exponential(size=(2, nodes, nodes))
    arriving = [[(i, scores[:, i, j]) for i in range(j)] for j in range(nodes)]
    schedules = []
    for count in range(nodes - 1):
        for between in itertools.combinations(range(1, nodes - 1), count):
            edges = [*itertools.pairwise([0, *between, nodes - 1])]
            for mask in itertools.product(range(2), repeat=len(edges)):
                total = sum(scores[k, i, j] for k, (i, j) in zip(mask, edges, strict=True))
                schedules.append((int(costs[list(mask)].sum()), float(total)))
    front = search.shortest_paths(arriving, costs)
    check(front, schedules)
    for row in range(len(front.costs)):
        steps = front.steps(row)
        ends = [*(node for node, _ in steps[1:]), nodes - 1]
        total = sum(scores[k, i, j] for (i, k), j in zip(steps, ends, strict=True))
        assert total == pytest.approx(front.scores[row])
        assert steps[0][0] == 0


def test_a_front_that_would_be_too_long_is_thinned(monkeypatch):
    monkeypatch.setattr(search, "MOST_LABELS", 5)
    rng = np.random.default_rng(0)
    scores, costs = rng.exponential(size=(3, 8)), np.array([101, 37, 11])
    front = search.assignments(scores, costs)
    assert 1 <= len(front.costs) <= 5
    cheapest, dearest = (min(enumerated(scores, costs)), max(enumerated(scores, costs)))
    assert front.costs[0] == cheapest[0]
    assert front.costs[-1] <= dearest[0]
