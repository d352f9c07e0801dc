"""SwitchBench's evaluation on made numbers: known answers, coverage, and the verdicts of the plan."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau, ttest_1samp
from unit.switchbench.made_bench import by_score, training

from duodiff.analysis.students import above
from duodiff.switchbench import plan
from duodiff.switchbench.evaluation import (
    ceiling,
    decided,
    equal_costs,
    holm,
    interval,
    judge,
    kendall,
    regret,
    statistics,
    verdicts,
    within,
)
from duodiff.switchbench.masks import masks, shallow_steps
from duodiff.switchbench.plan import Endpoint
from duodiff.switchbench.scores import NAMES, chooser, predicted, rules
from duodiff.switchbench.tables import endpoints_table, scores_table, switches_table

PLAN = plan.read()


# --- statistics


@pytest.mark.parametrize("values", [1000, 3])
def test_kendall_is_scipys_with_and_without_ties(values):
    rng = np.random.default_rng(values)
    for n in (2, 9, 40):
        one, other = rng.integers(values, size=(2, n)).astype(float)
        if len(set(one)) > 1 and len(set(other)) > 1:
            assert kendall(one, other) == pytest.approx(kendalltau(one, other).statistic)


def test_a_score_that_orders_nothing_has_a_tau_of_0():
    assert kendall(np.ones(5), np.arange(5.0)) == 0


def test_costs_weigh_equally_whatever_the_number_of_their_masks():
    cost = np.array([0, 1, 1, 2, 2, 2, 3])
    score = np.array([9.0, 1, 2, 1, 2, 3, 0])
    distance = np.array([0.0, 1, 2, 3, 2, 1, 5])  # in order at cost 1, reversed at cost 2
    assert [len(group) for group in equal_costs(cost)] == [2, 3]
    assert within(score, distance, cost) == 0
    assert within(score, -distance, cost) == 0
    assert within(score, score, cost) == 1


def test_regret_is_that_of_masks_picked_on_one_seed_and_measured_on_the_other():
    cost = np.array([0, 1, 1, 2, 2, 3])
    score = np.array([0.0, 1, 2, 2, 1, 0])  # chooses masks 1 and 4
    picked = np.array([0.0, 5, 4, 5, 4, 0])  # the best of this seed: masks 2 and 4
    on_the_other = np.array([0.0, 7, 6, 9, 8, 0])
    ends = (5.0, 10.0)
    assert regret(score, (picked, on_the_other), ends, cost) == pytest.approx((1 + 0) / 2 / 5)
    # a score that orders nothing chooses any mask of a cost
    undecided = regret(np.zeros(6), (picked, on_the_other), ends, cost)
    assert undecided == pytest.approx((0.5 + 0.5) / 2 / 5)
    # the mask that was best by luck may lose to the chosen one
    assert regret(score, (picked, -on_the_other), ends, cost) == pytest.approx(-0.1)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "N"])
def test_a_score_that_is_the_distance_agrees_with_it_and_has_no_regret(name):
    found = statistics(chooser(name), by_score(training(), name), "ddpm", "fd_digits")
    assert found["within"] == pytest.approx(1)
    assert found["regret"] == 0


def test_counting_calls_says_nothing_within_equal_cost_and_much_over_all_masks():
    one = by_score(training())
    found = statistics(chooser("N"), one, "ddpm", "fd_digits")
    assert found["within"] == 0
    assert found["overall"] > 0.5
    reversed_ = statistics(lambda t, s: -chooser("A*")(t, s), one, "ddpm", "fd_digits")
    assert reversed_["within"] == pytest.approx(-1)
    assert reversed_["regret"] > 0.05


def test_the_ceiling_is_the_agreement_of_the_two_seeds():
    assert ceiling(by_score(training()), "ddpm", "fd_digits") == pytest.approx(1)
    assert abs(ceiling(by_score(training(), noise=1e6), "ddpm", "fd_digits")) < 0.2


def test_a_score_of_ones_own_is_judged_by_training():
    trainings = [by_score(training(seed)) for seed in (3, 5)]
    found = judge(chooser("A*"), trainings, "ddim", "fd_pixels")
    assert list(found["training"]) == [3, 5]
    assert found[["within", "ceiling"]].to_numpy() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"score: found shape \(3,\); accepted: \(512,\)"):
        judge(lambda training, sampler: np.zeros(3), trainings)


# --- scores and rules


def test_scores_that_are_sums_add_what_each_step_adds():
    one = training()
    b = chooser("B")(one, "ddpm")
    alone = {mask: b[i] - b[0] for i, mask in enumerate(one.masks)}
    excess = (one.shallow - one.full).mean(1)
    assert alone["sffffffff" + "f"] == pytest.approx(excess[0])
    assert alone["fsffffffs"[:8] + "sf"] == pytest.approx(excess[1] + excess[8])


def test_the_gram_score_is_the_length_of_the_summed_displacements():
    rng = np.random.default_rng(0)
    one, moved = training(steps=4), rng.normal(size=(4, 3))
    one = replace(one, displacements={"ddim": moved @ moved.T})
    found = dict(zip(one.masks, chooser("Gram")(one, "ddim"), strict=True))
    assert found["ffff"] == 0
    assert found["sfsf"] == pytest.approx(np.square(moved[0] + moved[2]).sum())


def test_among_masks_of_equal_cost_switch_chooses_the_single_switch():
    one = training()
    score = chooser("switch")(one, "ddpm")
    for group in equal_costs(one.cost):
        assert "fs" not in one.masks[group[score[group].argmin()]]


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match=r"score: found 'D'; accepted: A\*, A, B, C, N, Gram"):
        chooser("D")


def test_rules_for_t_s_on_ten_steps():
    # t = 999, 888, 777 | 666, 555, 444 (AdaDiff's change at 397) | 333 (SNR below 1 down to t = 259)
    assert rules(training()) == {"t_s = 300": 3, "SNR = 1": 7, "AdaDiff's change": 6}


def test_the_rule_by_a_score_takes_the_most_calls_that_it_predicts_to_lose_little():
    one = training(steps=4)
    excess = np.array([0.1, 0.2, 0.7, 9.0])  # the last step is the full network's in every mask
    one = replace(one, full=np.ones((4, 5)), shallow=1 + np.repeat(excess[:, None], 5, axis=1))
    found = [predicted(one, "ddpm", "B", share) for share in (0, 0.11, 0.29, 0.31, 1)]
    assert found == [0, 1, 1, 2, 3]


# --- coverage


def value(rng: np.random.Generator, rho: float) -> float:
    """`within` of a training, the mean over two sampling seeds: score and distance are normal, correlated at rho."""
    cost = shallow_steps(masks(6)).sum(1)
    score = rng.standard_normal(len(cost))
    noise = math.sqrt(1 - rho**2) * rng.standard_normal((2, len(cost)))
    return float(np.mean([within(score, rho * score + of_seed, cost) for of_seed in noise]))


@pytest.mark.slow
def test_the_interval_over_five_trainings_covers_the_expected_tau():
    """Trainings differ in their own tau. That of normal pairs with correlation rho is 2/pi asin(rho)."""
    rng, low, high, studies = np.random.default_rng(0), 0.86, 0.96, 1000
    expected = float(np.mean(2 / math.pi * np.arcsin(np.linspace(low, high, 1001))))
    ends = np.array(
        [interval([value(rng, rho) for rho in rng.uniform(low, high, 5)]) for _ in range(studies)]
    )
    assert 0.935 < np.mean((ends[:, 0] < expected) & (expected < ends[:, 1])) < 0.965
    # a bound that the expected tau does not exceed is called exceeded by the primary endpoint's rule
    assert np.mean(ends[:, 0] > expected) < 0.04


@pytest.mark.slow
def test_no_secondary_endpoint_is_met_in_95_percent_of_studies_without_effects():
    """Values of all endpoints are around their bounds, and correlated between endpoints."""
    rng, studies, alarms = np.random.default_rng(0), 2000, 0
    for _ in range(studies):
        shared = rng.standard_normal(5)
        found = decided(
            PLAN, lambda e, shared=shared: list(e.above + shared + rng.standard_normal(5))
        )
        alarms += any(verdict.met for verdict in found[1:])
    assert alarms / studies < 0.06


# --- verdicts


def test_holm_corrects_step_by_step():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]


@pytest.mark.parametrize("bound", [-0.3, 0.1, 0.9])
def test_one_sided_p_values_are_scipys(bound):
    values = [0.1, 0.4, 0.2, -0.1, 0.3]
    expected = ttest_1samp(values, bound, alternative="greater").pvalue
    assert above(values, bound) == pytest.approx(expected)


def test_a_p_value_without_spread_is_certain_and_of_one_value_none():
    assert (above([1, 1], 0), above([1, 1], 1)) == (0, 1)
    assert math.isnan(above([1], 0))


def test_the_primary_endpoint_is_met_where_its_interval_lies_above_the_bound():
    def primary(values):
        return decided(PLAN, lambda endpoint: values)[0]

    assert primary([0.85, 0.86, 0.84, 0.87, 0.83]).met
    found = primary([0.95, 0.95, 0.6, 0.95, 0.95])  # a mean above 0.7 is not enough
    assert np.mean(found.values) > 0.8
    assert found.interval[0] < 0.7
    assert not found.met


def test_the_plan_is_judged_on_made_trainings_with_a_known_answer():
    """A* is the distance: whatever is compared with A* loses, and a Gram score that is another one wins nothing."""
    trainings = [by_score(training(seed), noise=0.02) for seed in range(5)]
    found = {verdict.endpoint.name: verdict for verdict in verdicts(PLAN, trainings)}
    assert found["A* within equal cost"].met
    assert found["A* in pixels"].met
    assert found["A* over B"].met
    assert found["A* over C"].met
    assert found["A* over counting calls"].met
    assert not found["Gram over A* under DDIM"].met
    assert found["A* chooses better than a switch"].met
    means = [np.mean(verdict.values) for verdict in found.values()]
    table = endpoints_table(PLAN, trainings)
    assert list(table["mean"]) == pytest.approx(means)
    assert list(table["kind"]) == ["primary"] + ["secondary"] * len(PLAN.secondary)
    assert table["p_holm"].isna().tolist() == [True] + [False] * len(PLAN.secondary)


def test_where_one_switch_is_right_no_choice_beats_it():
    trainings = [by_score(training(seed), "switch", noise=0.02) for seed in range(5)]
    found = {verdict.endpoint.name: verdict for verdict in verdicts(PLAN, trainings)}
    assert not found["A* within equal cost"].met
    assert not found["A* chooses better than a switch"].met
    assert not found["Gram chooses better than a switch under DDIM"].met


def test_the_tables_list_all_scores_ceilings_and_rules():
    trainings = [by_score(training(seed)) for seed in range(2)]
    scores = scores_table(PLAN, trainings)
    cells = len(PLAN.samplers) * len(PLAN.spaces)
    assert len(scores) == cells * (3 * len(NAMES) + 1)
    known = scores.query("score == 'A*' and statistic == 'within'")
    assert known["mean"].to_numpy() == pytest.approx(1)
    switches = switches_table(PLAN, trainings).query("sampler == 'ddpm' and space == 'fd_digits'")
    assert list(switches["rule"]) == ["t_s = 300", "SNR = 1", "AdaDiff's change", "A* predicts"]
    # the distances are A* itself: the lost share is the predicted one
    assert switches["mean"].iloc[-1] <= PLAN.tolerance
    assert list(switches["shallow_calls"])[:3] == [3, 7, 6]


# --- the plan


def test_the_shipped_plan_has_the_primary_endpoint_of_its_issue():
    assert PLAN.primary == Endpoint(
        name="A* within equal cost",
        statistic="within",
        sampler="ddpm",
        space="fd_digits",
        score="A*",
        above=0.7,
    )
    assert {e.score for e in PLAN.secondary} | {e.minus for e in PLAN.secondary} - {None} <= {
        *NAMES
    }
    assert PLAN.options["ddim"] == {"name": "ddim", "steps": 10, "eta": 0}
    assert PLAN.images % PLAN.batch == 0
    assert not {*PLAN.trainings["fresh"]} & {*PLAN.trainings["explored"]}
    assert len(PLAN.trainings[plan.DECIDING]) == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\nimages: 512", "", "missing or unknown: images"),
        ("above: 0.7}", "over: 0.7}", "missing or unknown: above, over"),
        ("statistic: within", "statistic: without", "statistic: found 'without'; accepted: within"),
        ("space: fd_digits", "space: fid", "space: found 'fid'; accepted: fd_digits, fd_pixels"),
    ],
)
def test_a_plan_with_a_wrong_key_or_value_is_refused(tmp_path, old, new, message):
    text = (plan.SHIPPED / "plan.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "plan.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        plan.read(tmp_path)
