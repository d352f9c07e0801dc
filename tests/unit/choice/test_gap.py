"""What the best choice of steps gains over a single switch, of made losses whose gap is known."""

import numpy as np
import pytest
from unit.choice.test_choose import COSTS, own, profile
from unit.choice.test_gram import displaced, scored

from duodiff.choice.choose import Scored
from duodiff.choice.gap import switch_gaps
from duodiff.choice.gram import GramScored
from duodiff.metrics.bootstrap import RESAMPLES
from duodiff.metrics.grams import Gram
from duodiff.metrics.losses import Losses
from duodiff.schedules import timesteps


def halves(excess: np.ndarray, images=200, noise=0.0, seed=0) -> tuple[Scored, Scored]:
    """Two networks on two halves of the images; the shallow one's loss B is `excess` [S] larger at each step."""
    t, rng = timesteps(len(excess)), np.random.default_rng(seed)
    errors = 1 + noise * rng.normal(size=(2, len(t), images))
    errors[1] += excess[:, None]
    about = profile(t).about
    made = Losses(("full", "shallow"), t, errors.astype("f4"), abs(errors), about)
    one, other = (Scored(made.of(slice(first, None, 2)), t, COSTS, "B") for first in (0, 1))
    return one, other


def test_a_gap_by_hand():
    """The excess is not monotone: with two shallow calls the best choice is the first and the third step."""
    found = switch_gaps(*halves(np.array([1.0, 5, 2, 3, 9, 0])), [1, 2, 3, 4, 5, 6])
    assert found.shape == (1 + RESAMPLES, 6)
    expected = np.array([0, 5 - 2, 5 + 2 - 2 - 3, 0, 0, 0]) / (1 + 5 + 2 + 3 + 9)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_where_the_excess_rises_a_switch_is_right():
    found = switch_gaps(*halves(np.arange(1.0, 9)), [1, 3, 5, 7])
    np.testing.assert_allclose(found[0], 0, atol=1e-6)


def test_noise_is_no_gain():
    """All steps cost the same. A choice gains on the images that it is made on, and on others it does not."""
    crossed, same = [], []
    for seed in range(8):
        one, other = halves(np.full(20, 0.2), images=60, noise=1.0, seed=seed)
        front, tail = one.front("networks")
        row = front.within(10 * COSTS["shallow"] + 9 * COSTS["full"])
        switch, best = own([1] * 10 + [0] * 10), [*front.steps(row), *tail]
        same.append((one.totals(switch) - one.totals(best))[0])
        crossed.append((other.totals(switch) - other.totals(best))[0])
    assert min(same) > 0
    assert abs(np.mean(crossed)) < 0.3 * np.mean(same)


def test_nothing_where_the_full_backbone_is_no_better():
    assert switch_gaps(*halves(np.zeros(6)), [2]) is None


def test_a_gap_of_a_sampler_without_noise():
    """Displacements of two steps that cancel: the best two shallow calls move nothing, the first two do."""
    moved = np.ones((1, 5, 8, 3))
    moved[0, 2] = -1
    gram = scored(moved)
    found = switch_gaps(gram, gram, [1, 2])
    # one call moves by 1, two by 2, all four by 2. The best choice is two calls that cancel, cheaper even than one
    np.testing.assert_allclose(found[0], [1 / 4, 4 / 4], atol=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_the_two_halves_of_trajectories_are_crossed(seed):
    displacements = displaced(images=40, seed=seed)
    rows = displacements.reshape(7, 40, 4)
    products = np.einsum("and,bnd->nab", rows, rows)
    gram = Gram(("shallow",), {}, timesteps(7), products)
    one, other = (GramScored(gram.of(slice(h, None, 2)), COSTS) for h in (0, 1))
    expected = 0.0
    first = own([1, 1, 1, 0, 0, 0, 0])
    for chooses, scores in ((one, other), (other, one)):
        front, tail = chooses.front("networks")
        best = [*front.steps(front.within(3 * 40 + 3 * 100)), *tail]
        expected += scores.totals(first)[0] - scores.totals(best)[0]
    unit = sum(half.totals(own([1] * 6 + [0]))[0] for half in (one, other))
    assert switch_gaps(one, other, [3])[0, 0] == pytest.approx(expected / unit)
