"""Schedules for a budget or a loss, of made profiles: what they cost, what is predicted of them, and how they read."""

import itertools

import numpy as np
import pytest

from duodiff.choice.choose import CHOICES, Chosen, Scored, Wanted, choose, intervals
from duodiff.choice.scores import LEAST_T
from duodiff.metrics.losses import Losses
from duodiff.schedules import timesteps

COSTS = {"full": 100, "shallow": 40, "middle": 70}
ABOUT = {"architecture": {"in_chans": 1, "img_size": 3}, "networks": {}, "schedule": "linear"}


def profile(t: np.ndarray, excess=(0.0, 0.3, 0.1), images=40, seed=0) -> Losses:
    """Losses of three networks that differ by a random excess, most of it at small t."""
    rng = np.random.default_rng(seed)
    base = rng.exponential(0.05 + 0.9 * (1 - t / 999)[:, None] ** 3, (len(t), images))
    uneven = rng.uniform(0.2, 1, (3, len(t), 1)) * (1 - t / 1100)[:, None]
    errors = base * (1 + np.array(excess)[:, None, None] * uneven)
    disagreements = np.abs(errors - errors[:1])
    return Losses(
        ("full", "shallow", "middle"), t, errors.astype("f4"), disagreements.astype("f4"), ABOUT
    )


def scored(n=8, networks=("full", "shallow"), score="A*", **made) -> Scored:
    return Scored(profile(timesteps(n), **made).only(*networks), timesteps(n), COSTS, score)


def own(networks: list[int]) -> list[tuple[int, int]]:
    return [*enumerate(networks)]


@pytest.mark.parametrize("score", ["A*", "B", "C"])
@pytest.mark.parametrize("operations", [0.5, 0.7, 0.71, 0.9, 1])
def test_the_choice_of_two_networks_is_the_best_of_all_masks(operations, score):
    found = scored(score=score)
    chosen = choose(found, Wanted("networks", operations=operations))
    masks = [
        [*mask, 0]
        for mask in itertools.product(range(2), repeat=7)
        if sum(COSTS[found.networks[k]] for k in [*mask, 0]) <= operations * 800 + 1e-9
    ]
    scores = [found.totals(own(mask))[0] for mask in masks]
    best = masks[int(np.argmin(scores))]
    expected = intervals([(int(t), found.networks[k]) for t, k in zip(found.t, best, strict=True)])
    assert chosen.intervals == expected
    assert chosen.operations == sum(COSTS[found.networks[k]] for k in best) / 800
    full, shallow = (found.totals(own([k] * 7 + [0]))[0] for k in (0, 1))
    assert chosen.predicted_share == pytest.approx((min(scores) - full) / (shallow - full))


def test_more_freedom_is_never_worse():
    found = scored(networks=("full", "shallow", "middle"))
    for operations in (0.5, 0.6, 0.7, 0.8, 0.9):
        shares = [choose(found, Wanted(c, operations=operations)).predicted_share for c in CHOICES]
        assert shares[0] >= shares[1] - 1e-12
        assert choose(found, Wanted("switch", operations=operations)).timesteps is None


@pytest.mark.parametrize("wanted", [{"operations": 0.7}, {"loss": 0.02}], ids=str)
def test_more_freedom_is_not_worse_where_not_all_steps_may_be_chosen(wanted):
    found = scored(150)
    networks, steps = (choose(found, Wanted(by, **wanted)) for by in ("networks", "steps"))
    if "loss" in wanted:
        assert steps.operations <= networks.operations
    else:
        assert steps.predicted_share <= networks.predicted_share
    few = choose(found, Wanted("steps", operations=0.2))  # too few for one call a step
    assert few.operations <= 0.2
    assert len(few.timesteps) < 150


def test_a_switch_is_one_interval_of_the_shallow_backbone():
    chosen = choose(scored(50), Wanted("switch", operations=0.7))
    t = int(timesteps(50)[24])  # 25 shallow calls of 50: (25 * 40 + 25 * 100) / 5000
    assert chosen.intervals == [("shallow", t, 999), ("full", 0, t - 1)]
    assert chosen.operations == 0.7


@pytest.mark.parametrize("wanted", CHOICES)
def test_intervals_cover_every_timestep_once(wanted):
    chosen = choose(scored(50, ("full", "shallow", "middle")), Wanted(wanted, operations=0.6))
    covered = [t for _, low, high in chosen.intervals for t in range(low, high + 1)]
    assert sorted(covered) == [*range(1000)]
    assert [low for _, low, _ in chosen.intervals] == sorted(
        (low for _, low, _ in chosen.intervals), reverse=True
    )


def test_steps_are_left_out_down_to_a_fixed_one_and_none_after_it():
    found = scored(50)
    for operations in (0.3, 0.5, 0.9):
        chosen = choose(found, Wanted("steps", operations=operations))
        assert chosen.operations <= operations + 1e-9
        taken, own_steps = chosen.timesteps, timesteps(50).tolist()
        end = min(t for t in own_steps if t >= LEAST_T)
        assert taken[0] == 999
        assert taken == [t for t in own_steps if t in taken]
        assert [t for t in taken if t <= end] == [t for t in own_steps if t <= end]
        network, _, high = chosen.intervals[-1]
        assert network == "full"
        assert high >= end
        calls = sum(
            COSTS[name] for t in taken for name, low, top in chosen.intervals if low <= t <= top
        )
        assert chosen.operations == pytest.approx(calls / 5000)


def test_the_budget_of_a_whole_trajectory_is_the_full_backbone_alone():
    found = scored()
    assert choose(found, Wanted("steps", operations=1)).timesteps is None
    for wanted in CHOICES:
        chosen = choose(found, Wanted(wanted, operations=1))
        assert chosen.intervals == [("full", 0, 999)]
        assert chosen.predicted_share == 0


@pytest.mark.parametrize("wanted", CHOICES)
def test_a_budget_that_nothing_fits_is_named_with_the_least_one(wanted):
    found = scored(50)
    with pytest.raises(ValueError, match=r"operations: found 0.01; accepted .*: (0\.\d+) to") as e:
        choose(found, Wanted(wanted, operations=0.01))
    least = float(str(e.value).split(f"{wanted}: ")[1].split(" ")[0])
    assert choose(found, Wanted(wanted, operations=least)).operations <= least
    with pytest.raises(ValueError, match="accepted"):
        choose(found, Wanted(wanted, operations=least - 0.002))


@pytest.mark.parametrize("wanted", CHOICES)
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.5, 1.0])
def test_the_cheapest_schedule_of_a_loss_is_no_dearer_than_any_budget_of_it(wanted, loss):
    found = scored(20)
    chosen = choose(found, Wanted(wanted, loss=loss))
    assert chosen.predicted_share <= loss + 1e-9
    cheaper = chosen.operations - 0.001
    try:
        other = choose(found, Wanted(wanted, operations=cheaper))
    except ValueError:
        return  # nothing is cheaper
    assert other.predicted_share > loss


def test_the_interval_is_of_the_images():
    found = scored(20, images=400)
    chosen = choose(found, Wanted("networks", operations=0.7))
    low, high = chosen.interval
    assert low < chosen.predicted_share < high
    few = choose(scored(20, images=20), Wanted("networks", operations=0.7))
    assert few.interval[1] - few.interval[0] > 2 * (high - low)
    assert (chosen.images, few.images) == (400, 20)


def test_nothing_is_predicted_where_the_full_backbone_is_no_better():
    found = scored(excess=(0.0, 0.0, 0.0))
    chosen = choose(found, Wanted("networks", operations=0.7))
    assert chosen.predicted_share is None
    assert chosen.interval is None
    assert chosen.operations <= 0.7
    with pytest.raises(ValueError, match=r"loss: found 0.1; accepted: operations"):
        choose(found, Wanted("networks", loss=0.1))


def test_a_chosen_schedule_as_json():
    chosen = Chosen([("shallow", 500, 999)], None, 0.7, "A*", 0.02, [0.01, 0.03], 360)
    assert chosen.as_json() == {
        "intervals": [["shallow", 500, 999]],
        "timesteps": None,
        "operations": 0.7,
        "score": "A*",
        "predicted_share": 0.02,
        "interval": [0.01, 0.03],
        "held_out": 360,
    }
