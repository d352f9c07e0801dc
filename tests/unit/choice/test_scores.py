"""Scores of schedules: their weights are the samplers', and on Gaussians they are what they stand for."""

import itertools

import numpy as np
import pytest

from duodiff.choice.scores import LEAST_T, SCORES, Errors, contributions, pair_weights, step_weights
from duodiff.samplers import ddim, ddpm
from duodiff.schedules import noise_schedule, timesteps


@pytest.mark.parametrize("name", ["linear", "sd", "vpsde"])
@pytest.mark.parametrize("n", [2, 7, 50, 1000])
def test_weights_are_those_of_the_ancestral_steps(name, n):
    schedule = noise_schedule(name)
    *steps, last = ddpm(schedule, n)
    expected = [step.eps_coef**2 / (2 * step.noise_coef**2) for step in steps]
    np.testing.assert_allclose(step_weights(schedule, timesteps(n)), expected, rtol=1e-6)
    assert last.noise_coef == 0
    of_ddim = [step.eps_coef**2 / (2 * step.noise_coef**2) for step in ddim(schedule, n, 1.0)[:-1]]
    np.testing.assert_allclose(of_ddim, expected, rtol=1e-6)


def test_weights_of_pairs_are_those_of_the_chain_that_takes_these_steps():
    schedule, t = noise_schedule("linear"), timesteps(11)
    pairs = pair_weights(schedule, t)
    for nodes in ([0, 10], [0, 3, 4, 9, 10], [*range(11)]):
        taken = [pairs[i, j] for i, j in itertools.pairwise(nodes)]
        np.testing.assert_allclose(taken, step_weights(schedule, t[nodes]))
    assert not np.tril(pairs).any()


# --- the identity of research on Gaussians


VARIANCES = np.array([0.3, 1.7, 0.02])
"""Of the three independent values of an image, with mean 0."""


class Network:
    """eps_k(x, t) = factor_t x + shift for each value of an image: the best one, but for a scale and a shift."""

    def __init__(self, scale: float, shift: float):
        self.scale, self.shift = scale, shift

    def factor(self, ab: np.ndarray, variance: float) -> np.ndarray:
        return self.scale * (1 - ab) ** 0.5 / (ab * variance + 1 - ab)

    def loss(self, ab: np.ndarray) -> np.ndarray:
        """l_k at each alpha-bar, summed over the values of an image."""
        found = np.zeros_like(ab)
        for variance in VARIANCES:
            a = self.factor(ab, variance)
            of_x = ab * variance + 1 - ab
            found += 1 - 2 * a * (1 - ab) ** 0.5 + a**2 * of_x + self.shift**2
        return found


def divergence_of_paths(schedule, t: np.ndarray, networks: list[Network]) -> float:
    """KL(q || p) of the joint Gaussians of x at all timesteps `t`, from their covariances: no step by itself."""
    ab, total = schedule.alphas_cumprod[t], 0.0
    order = np.arange(len(t))
    later, sooner = np.maximum.outer(order, order), np.minimum.outer(order, order)  # by noise
    for variance in VARIANCES:
        of_x = ab * variance + 1 - ab
        q = (ab[sooner] / ab[later]) ** 0.5 * of_x[later]
        mean, p = np.zeros(len(t)), np.zeros((len(t), len(t)))
        p[0, 0] = 1
        for i in range(1, len(t)):
            alpha = ab[i - 1] / ab[i]
            tilde = (1 - ab[i]) / (1 - ab[i - 1]) * (1 - alpha)
            of_eps = -(1 - alpha) / ((1 - ab[i - 1]) * alpha) ** 0.5
            network = networks[i - 1]
            slope = alpha**-0.5 + of_eps * network.factor(ab[i - 1], variance)
            mean[i] = slope * mean[i - 1] + of_eps * network.shift
            p[i, :i] = p[:i, i] = slope * p[i - 1, :i]
            p[i, i] = slope**2 * p[i - 1, i - 1] + tilde
        inverse = np.linalg.inv(p)
        logs = np.linalg.slogdet(p)[1] - np.linalg.slogdet(q)[1]
        total += 0.5 * (np.trace(inverse @ q) - len(t) + logs + mean @ inverse @ mean)
    return float(total)


def identity(schedule, t: np.ndarray, networks: list[Network]) -> float:
    """The same divergence by the losses: KL(q(x_T) || N) + sum of w l - [I(x_0; x_tmin) - I(x_0; x_T)]."""
    ab = schedule.alphas_cumprod[t]
    of_x = ab[:, None] * VARIANCES + (1 - ab)[:, None]
    prior = 0.5 * (of_x[0] - 1 - np.log(of_x[0])).sum()
    known = 0.5 * np.log(of_x / (1 - ab)[:, None]).sum(1)  # I(x_0; x_t)
    losses = np.array([[network.loss(ab[:-1]) for network in networks]])
    errors = Errors(losses, losses, np.full(len(t) - 1, LEAST_T), step_weights(schedule, t), 3)
    each = contributions("A", errors)[0][range(len(t) - 1), range(len(t) - 1)]
    return float(prior + each.sum() - (known[-1] - known[0]))


RIGHT, LARGE, SHIFTED = Network(1, 0), Network(1.02, 0), Network(0.9, 0.05)


@pytest.mark.parametrize(
    "chosen",
    [[RIGHT], [LARGE], [SHIFTED], [SHIFTED, RIGHT], [LARGE, SHIFTED, RIGHT]],
    ids=["right", "large", "shifted", "two networks", "three networks"],
)
@pytest.mark.parametrize("n", [10, 50, 200])
def test_the_losses_give_the_divergence_of_the_paths(n, chosen):
    """For one network and for several: research.md's identity, to 1e-3."""
    schedule, t = noise_schedule("linear"), timesteps(n)
    networks = [chosen[i * len(chosen) // n] for i in range(n)][: n - 1]
    expected = divergence_of_paths(schedule, t, networks)
    assert identity(schedule, t, networks) == pytest.approx(expected, rel=1e-3)


def test_grids_compare_where_they_share_their_ends():
    schedule = noise_schedule("linear")
    for t in (timesteps(30), timesteps(30)[[0, 4, 5, 11, 20, 29]], np.array([999, 600, 100])):
        networks = [SHIFTED, *[RIGHT] * (len(t) - 2)]
        expected = divergence_of_paths(schedule, t, networks)
        assert identity(schedule, t, networks) == pytest.approx(expected, rel=1e-3)


# --- the other scores


def errors(t=(999, 500, 40, 39), weights=(0.5, 2.0, 30.0, 31.0), dimension=5) -> Errors:
    rng = np.random.default_rng(0)
    losses, disagreements = rng.uniform(0.1, 1, (2, 7, 3, len(t)))
    return Errors(losses, disagreements, np.array(t), np.array(weights), dimension)


def test_the_best_variance_of_a_step_makes_a_into_a_star():
    found = errors()
    ratios = np.geomspace(0.1, 1000, 200_001)  # of a step's variance over the sampler's
    for where in np.ndindex(found.losses.shape):
        a = found.weights[where[-1]] * found.losses[where]
        each = found.dimension / 2 * (np.log(ratios) + 1 / ratios - 1) + a / ratios
        assert contributions("A*", found)[where] == pytest.approx(each.min(), rel=1e-6)


def test_the_scores_by_hand():
    found = errors()
    a = contributions("A", found)
    np.testing.assert_allclose(a[..., :3], (found.losses * found.weights)[..., :3])
    assert not a[..., 3].any()  # below LEAST_T
    np.testing.assert_array_equal(contributions("B", found), found.losses)
    np.testing.assert_array_equal(contributions("C", found), found.disagreements)
    assert contributions("N", found)[4].tolist() == [[0] * 4, [1] * 4, [1] * 4]
    with pytest.raises(ValueError, match=r"score: found 'Z'; accepted: A\*, A, B, C, N"):
        contributions("Z", found)
    assert SCORES[0] == "A*"
