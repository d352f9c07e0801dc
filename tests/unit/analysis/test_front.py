"""The front: families of settings from their records, lower fronts and savings, worked out by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from duodiff import records
from duodiff.analysis.claims.cases import over_trainings
from duodiff.analysis.front import (
    FAMILIES,
    LIMITS,
    _saved,
    _text,
    family,
    front_points,
    front_table,
    lower_front,
    over_settings,
    plotted,
    saving,
    shipped_points,
)
from duodiff.analysis.report import write_front
from duodiff.analysis.shipped import read_training
from duodiff.records import Record
from duodiff.settings import NamedSchedule

STUDIES = {"digits": {"title": "Digits", "paper_dataset": None}}
SPLIT = [["middle", 500, 999], ["full", 0, 499]]
MADE = {"guided": {"network": "full", "by": "shallow", "weight": 0.5}, "early": {"exit": 4}}
CHOSEN = {"prediction_sha256": "0" * 64}
SETTINGS = {  # family: parameters, relative distance, operations
    "switch": ({"t_s": 500}, 1.02, 0.7),
    "chosen": ({"schedule": "thrifty", "intervals": SPLIT} | CHOSEN, 1.06, 0.65),
    "chosen_steps": (
        {"schedule": "few", "intervals": SPLIT, "timesteps": [999, 400, 0]} | CHOSEN,
        0.9,
        0.3,
    ),
    "named": ({"schedule": "three", "intervals": SPLIT}, 1.0, 0.6),
    "guided": (
        {"schedule": "guided", "intervals": [["guided", 0, 999]], "networks": MADE},
        0.95,
        1.4,
    ),
    "adadiff": ({"theta": 0.2, "setting": "q0.4", "depth": 7}, 1.5, 0.55),
}
SHALLOW = 0.4  # operations of a shallow call over a full one's


def training(seed: int = 0, further: float = 0.0, resampled: list | None = None) -> list[Record]:
    """A training whose full backbone has the distance 10 + seed. `named` is `further` times that away."""
    full = 10.0 + seed

    def record(metric, value, method, parameters, steps=50, **more):
        return Record(
            metric, value, "1", 96, "digits", "corrected", method, parameters, sampler="ddpm",
            steps=steps, nfe=steps, seeds={"train_seed": seed, "sample_seed": 1000 * seed},
            made={"device": "cpu"}, **more,
        )  # fmt: skip

    found = []
    for name, value in (("full", 10.0), ("shallow", 4.0)):
        one = record("gflops_per_call", value, name, {})
        found.append(replace(one, sampler=None, steps=None, seeds={"train_seed": seed}))
    rows = [("full", {"t_s": 0}, 1.0, 1.0, 50)]
    rows += [(name, *about, 50) for name, about in SETTINGS.items()]
    rows += [("full", {"t_s": 0}, 1.1, None, 20), ("duodiff", {"t_s": 500}, 1.2, None, 20)]
    for method, parameters, relative, operations, steps in rows:
        relative += further * (method == "named")
        distance, about = relative * full, (method, parameters, steps)
        found.append(record("fd_digits", distance, *about, reference_n=360))
        if relative != 1 or method != "full":
            more = {"interval": [distance - full - 1, distance - full + 1], "resampled": resampled}
            found.append(record("fd_digits_difference", distance - full, *about, **more))
        if operations is not None:
            found.append(record("gflops_per_trajectory", 500 * operations, *about))
            interval = [0.9 / operations, 1.1 / operations]
            found.append(record("speedup", 0.8 / operations + 0.2, *about, interval=interval))
            found.append(record("seconds_per_image", 2.0 * operations, *about))
    return found


@pytest.fixture
def written(tmp_path):
    """A function that writes trainings and gives their files."""

    def write(*trainings: list[Record]) -> list[Path]:
        paths = [tmp_path / f"{i}.json" for i, _ in enumerate(trainings)]
        for path, found in zip(paths, trainings, strict=True):
            records.write(path, found)
        return paths

    return write


@pytest.mark.parametrize("name", SETTINGS)
def test_a_family_is_known_by_the_parameters_of_a_record(name):
    parameters = SETTINGS[name][0]
    assert family(parameters) == name
    if "schedule" in parameters:  # as records have them
        assert family(NamedSchedule.of(parameters["schedule"], parameters).parameters) == name


def test_a_schedule_is_guided_where_one_of_its_networks_is_and_not_where_one_exits():
    intervals = [["early", 300, 999], ["guided", 0, 299]]
    two = {"schedule": "two", "intervals": intervals, "networks": MADE}
    assert family(NamedSchedule.of("two", two).parameters) == "guided"
    alone = two | {"intervals": [["early", 0, 999]]}
    assert family(NamedSchedule.of("two", alone).parameters) == "named"


def test_the_lower_front_leaves_out_what_another_setting_beats():
    costs = np.array([1.0, 0.5, 0.7, 0.7, 0.9, 0.6])
    values = np.array([1.0, 2.0, 1.2, 1.1, 1.1, 2.0])
    assert lower_front(costs, values).tolist() == [1, 3, 0]


def test_a_saving_is_on_the_line_between_the_settings_next_to_the_limit():
    costs, values = np.array([1.0, 0.8, 0.6, 0.7]), np.array([1.0, 0.99, 1.09, 1.5])
    found = saving(costs, values, 1.0)
    # nine tenths of the way from 0.6 to 0.8
    assert (found.value, found.least, found.most) == pytest.approx((0.22, 0.2, 0.4))
    exact = saving(costs, values, 1.09)
    assert (exact.value, exact.least, exact.most) == pytest.approx((0.4, 0.4, 0.4))
    assert saving(costs, values, 0.98) is None


def test_nothing_is_saved_with_more_operations_than_the_full_backbones():
    found = saving(np.array([1.4, 0.9]), np.array([0.9, 1.1]), 1.0)
    assert (found.value, found.least, found.most) == pytest.approx((0.0, 0.0, 0.1))


def test_points_are_over_the_full_backbone_of_their_training(written):
    points = front_points(written(training(), training(seed=1)))
    assert len(points) == 2 * (len(SETTINGS) + 4)
    first = points[points["train_seed"] == 1].set_index(["family", "setting"])
    for name, (parameters, relative, operations) in SETTINGS.items():
        row = first.loc[name].iloc[-1]
        assert row["relative_distance"] == pytest.approx(relative)
        assert row["operations"] == pytest.approx(operations)
        assert row["time"] == pytest.approx(1 / (0.8 / operations + 0.2))
        assert row["relative_95"] == pytest.approx(1 / 11)
        if "schedule" in parameters:
            assert row.name == f"schedule={parameters['schedule']}"
    assert first.loc[("full_fewer_steps", "20 steps"), "operations"] == pytest.approx(0.4)
    assert set(first.loc["full_fewer_steps"].index) == {"20 steps", "t_s=0"}
    # of 20 timesteps the first 10 are at least 500; the calls at 50 steps were 25 and 25
    shallow = (50 * 0.7 - 25) / 25
    row = first.loc[("duodiff_fewer_steps", "t_s=500, 20 steps")]
    assert row["operations"] == pytest.approx((10 + 10 * shallow) / 50)


def test_a_budget_of_steps_that_takes_the_samplers_own_in_one_training_is_one_setting(written):
    other, elsewhere = training(seed=1), training(seed=1)
    for one in (*other, *elsewhere):
        if one.parameters.get("schedule") == "few":
            one.parameters = {k: v for k, v in one.parameters.items() if k != "timesteps"}
    elsewhere = [replace(one, experiment="b") for one in elsewhere]
    every = over_settings(front_points(written(training(), other, elsewhere)))
    assert "chosen_steps" not in set(every[every["experiment"] == "b"]["family"])
    means = every[every["experiment"] == "digits"]
    few = means[means["setting"] == "schedule=few"]
    assert few[["family", "trainings"]].values.tolist() == [["chosen_steps", 2]]
    assert set(means[means["setting"] == "schedule=thrifty"]["family"]) == {"chosen"}


def test_the_table_has_a_row_a_family_with_its_savings(written):
    paths = written(training(), training(seed=1, further=0.04), training(seed=2, further=0.1))
    points = front_points(paths)
    table = front_table(points, STUDIES).set_index("family")
    assert table.index.tolist() == list(FAMILIES)
    assert set(table["dataset"]) == {"Digits"}
    assert set(table["trainings"]) == {3}
    expected = {
        # on the line from t_s=500 (0.7, 1.02) to the full backbone
        "switch": (0.0, 0.3),
        "chosen": (None, None),
        "chosen_steps": (0.7, 0.7),
        "guided": (0.0, 0.0),
        # on the line from 20 steps (0.4, 1.1) to 50
        "full_fewer_steps": (0.0, 0.3),
        "duodiff_fewer_steps": (None, None),
        "adadiff": (None, None),
    }
    for name, saved in expected.items():
        for limit, value in zip(("100", "105"), saved, strict=True):
            found = table.loc[name, f"saved_{limit}"]
            assert (found == pytest.approx(value)) if value is not None else np.isnan(found)
            assert table.loc[name, f"reached_{limit}"] == (0 if value is None else 3)
    # reached in one training at 1.00 and in two at 1.05; Student's t of 2 degrees is 4.3027
    named = table.loc["named"]
    assert (named["reached_100"], named["reached_105"]) == (1, 2)
    assert named["saved_100"] == pytest.approx(0.4 / 3)
    assert named["saved_105"] == pytest.approx(0.8 / 3)
    half = 4.3027 * np.std([0.4, 0.4, 0], ddof=1) / np.sqrt(3)
    assert (named["saved_low_105"], named["saved_high_105"]) == pytest.approx(
        (0.0, 0.8 / 3 + half), rel=1e-4
    )
    # equal in all trainings, so the interval is what the line may add
    fewer = table.loc["full_fewer_steps"]
    assert (fewer["saved_low_105"], fewer["saved_high_105"]) == pytest.approx((0.0, 0.6))
    assert table.loc["switch", "setting_105"] == "t_s=500"
    assert table.loc["guided", "setting_100"] == "schedule=guided"
    assert table.loc["chosen_steps", "settings"] == 1
    assert set(table["train_seed"]) == {"0 to 2"}


def test_savings_are_compared_with_those_of_the_baselines_training_by_training(written):
    paths = written(training(), training(seed=1, further=0.04), training(seed=2, further=0.1))
    table = front_table(front_points(paths), STUDIES).set_index("family")
    steps = table.loc[
        "chosen_steps"
    ]  # 0.7 in each, against 0.3 of t_s = 500 and 0.3 on the line of fewer steps
    assert steps["minus_switch_105"] == pytest.approx(0.4)
    ends = [steps[f"minus_switch_{end}_105"] for end in ("low", "high")]
    assert ends == pytest.approx([0.4, 0.4])
    ends = [steps[f"minus_full_fewer_steps_{end}_105"] for end in ("low", "high")]
    assert ends == pytest.approx([0.1, 0.7])  # what the line of fewer steps may add or take
    named = table.loc["named"]  # 0.4, 0.4 and 0, minus 0.3
    half = 4.3027 * np.std([0.4, 0.4, 0], ddof=1) / np.sqrt(3)
    ends = [named[f"minus_switch_{end}_105"] for end in ("low", "high")]
    assert ends == pytest.approx([0.8 / 3 - 0.3 - half, 0.8 / 3 - 0.3 + half], rel=1e-4)
    nothing = table.loc[["switch", "adadiff"], "minus_switch_105"]  # itself, and never reached
    assert nothing.isna().all()
    alone = front_table(front_points(written(training())), STUDIES).set_index("family")
    assert alone.loc["chosen_steps", "minus_switch_105"] == pytest.approx(0.4)
    assert np.isnan(alone.loc["chosen_steps", "minus_switch_low_105"])


def test_the_interval_of_one_training_covers_resamples_of_its_images(written):
    # the distance over the full one's of 10 moves by up to 0.04: t_s=500 is from 0.98 to 1.06
    resampled = np.linspace(-0.4, 0.4, 1001).tolist()
    points = front_points(written(training(resampled=resampled)))
    table = front_table(points, STUDIES).set_index("family")
    # at 1.00 the line from 1.06 and from 1.02 ends at the full backbone; below 1.00 the cheap setting is enough
    switch = table.loc["switch"]
    assert (switch["saved_100"], switch["saved_105"]) == pytest.approx((0.0, 0.3))
    # at 1.05, of the highest 2.5% of resamples (distance 1.058) the line at 1.05 saves 0.3 * 0.05 / 0.058
    moved = 1.02 + 0.04 * 0.95
    assert switch["saved_low_105"] == pytest.approx(0.3 * 0.05 / (moved - 1), rel=1e-3)
    assert switch["saved_high_105"] == pytest.approx(0.3)
    assert switch["saved_high_100"] == pytest.approx(0.3 + 0.3)  # and what the line may add to 0
    without = front_table(front_points(written(training())), STUDIES).set_index("family")
    assert without.loc["switch", "saved_low_105"] == without.loc["switch", "saved_105"]


def test_means_say_which_settings_are_on_the_lower_front(written):
    means = plotted(written(training(), training(seed=1)), STUDIES)
    assert set(means["title"]) == {"Digits"}
    on = means.set_index(["family", "setting"])["front"]
    assert on["switch", "t_s=0"]
    assert on["switch", "t_s=500"]
    assert means[means["setting"] == "t_s=500"]["relative_95"].item() == pytest.approx(0)
    beaten = training()
    for one in beaten:
        if one.method == "switch" and one.metric == "gflops_per_trajectory":
            one.value = 600.0
    means = plotted(written(beaten), STUDIES).set_index(["family", "setting"])
    assert not means.loc[("switch", "t_s=500"), "front"]
    assert means.loc[("switch", "t_s=500"), "front_time"]


def test_a_run_without_timings_has_points_and_no_savings(written):
    timed = ("gflops_per_trajectory", "speedup", "seconds_per_image")
    found = [one for one in training() if one.steps != 20 and one.metric not in timed]
    found.append(replace(training()[2], metric="seconds_per_image", value=1.0))
    found.append(replace(found[-1], metric="speedup"))
    points = front_points(written(found))
    assert len(points) == len(SETTINGS) + 1
    assert front_table(points, STUDIES).empty


def test_the_full_backbone_alone_saves_nothing(written):
    alone = [one for one in training() if one.method in ("full", "shallow") and one.steps != 20]
    (row,) = front_table(front_points(written(alone)), STUDIES).to_dict("records")
    assert (row["family"], row["saved_100"], row["reached_100"]) == ("switch", 0.0, 1)


EXPERIMENT = {
    "networks": {"middle": {"depth": 5}} | MADE,
    "schedules": {
        "three": {"intervals": [{"network": "middle", "t": [0, 999]}]},
        "guided": {"intervals": [{"network": "guided", "t": [0, 999]}]},
    },
    "budgets": {
        "thrifty": {"operations": 0.7, "choose": "networks"},
        "few": {"operations": 0.3, "choose": "steps"},
    },
}


def test_the_numbers_of_a_shipped_study_give_the_same_points_and_savings(written, tmp_path):
    made = [training(), training(seed=1, further=0.04)]
    for seed, found in enumerate(made):
        records.write(tmp_path / f"digits/train{seed}/records/evaluate_samples.json", found)
    points = shipped_points(
        [read_training(tmp_path / f"digits/train{seed}") for seed in (0, 1)], EXPERIMENT
    )
    keys = ["train_seed", "family", "setting"]
    values = [*keys, "n", "metric", "relative_distance", "relative_95", "operations", "time"]
    ours = front_points(written(*made))
    both = [one[values].sort_values(keys, ignore_index=True) for one in (points, ours)]
    # the full backbone's own interval is 0 in numbers and missing in records
    both = [one.fillna({"relative_95": 0.0}) for one in both]
    pd.testing.assert_frame_equal(*both, check_dtype=False)
    tables = [front_table(one, STUDIES) for one in (points, ours)]
    pd.testing.assert_frame_equal(*tables, check_dtype=False)


def test_no_records_give_an_empty_table(written):
    assert front_table(front_points(written([])), STUDIES).empty
    assert plotted(written([]), STUDIES).empty


def test_the_written_table_has_intervals_and_says_none_where_no_training_is_good_enough(
    written, tmp_path
):
    out = [tmp_path / f"front{suffix}" for suffix in (".csv", ".md", ".tex", ".html")]
    paths = written(training(), training(seed=1, further=0.04), training(seed=2, further=0.1))
    assert write_front(paths, STUDIES, out) == "8 rows"
    heading, _, *lines = out[1].read_text("utf-8").splitlines()
    names = [name.strip() for name in heading.strip("|").split("|")]
    rows = {}
    for line in lines:
        row = dict(zip(names, line.strip("| ").split(" | "), strict=True))
        rows[row["Family"]] = row
    saved = "At 1.05 times full's distance, operations saved"
    assert rows[FAMILIES["adadiff"]][saved] == "none"
    assert rows[FAMILIES["full_fewer_steps"]][saved] == "0.30 [0.00, 0.60]"
    assert (
        rows[FAMILIES["named"]]["At 1.05 times full's distance, trainings that reach it"]
        == "2 of 3"
    )
    minus = "At 1.05 times full's distance, minus one switch's"
    assert rows[FAMILIES["chosen_steps"]][minus] == "0.40 [0.40, 0.40]"
    assert rows[FAMILIES["switch"]][minus] == "—"
    assert pd.read_csv(out[0])["saved_high_105"].notna().sum() == 5


# Means and standard deviations over the ten trainings of the shipped study, rounded; and how far noise moves the mean
# saving from that of the noiseless curve, at 1.00 and 1.05.
CURVES = {
    "switch": (
        [1.0, 0.83, 0.77, 0.71, 0.65, 0.6, 0.54],
        [1.0, 0.998, 0.999, 1.01, 1.046, 1.14, 1.36],
        [0.0, 0.002, 0.003, 0.008, 0.018, 0.047, 0.087],
        (-0.01, 0.0),
    ),
    "full_fewer_steps": (
        [1.0, 0.7, 0.4, 0.2],
        [1.0, 0.944, 0.998, 1.282],
        [0.0, 0.08, 0.043, 0.1],
        (-0.09, 0.0),
    ),
    "adadiff": (
        [0.81, 0.67, 0.57, 0.53, 0.44],
        [0.999, 1.011, 1.122, 1.239, 1.82],
        [0.014, 0.03, 0.051, 0.093, 0.55],
        (0.03, 0.02),
    ),
}


def test_a_number_that_rounds_to_nothing_has_no_sign():
    assert _text(-0.001, -0.004, 0.3) == "0.00 [0.00, 0.30]"


@pytest.mark.parametrize("name", CURVES)
def test_noise_of_the_distances_moves_a_saving_where_the_front_is_flat(name):
    """2,000 made trainings; docs/metrics.md has the numbers."""
    costs, curve, spread, expected = CURVES[name]
    noise = np.random.default_rng(0).standard_normal((2000, len(curve)))
    moved = []
    for limit in LIMITS:
        found = [saving(np.array(costs), curve + one * spread, limit) for one in noise]
        mean = np.mean([one.value if one else 0.0 for one in found])
        moved.append(mean - saving(np.array(costs), np.array(curve), limit).value)
    assert moved == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", CURVES)
def test_the_interval_over_trainings_covers_the_mean_saving(name, limit):
    """600 made studies of 5 trainings each. Student's interval alone covers too little where a front is flat."""
    costs, curve, spread, _ = CURVES[name]
    noise = np.random.default_rng(1).standard_normal((600, 5, len(curve)))
    studies = [
        [_saved(saving(np.array(costs), curve + one * spread, limit)) for one in study]
        for study in noise
    ]
    mean = np.mean([case.value for study in studies for case in study])
    ends = [over_trainings([[case] for case in study])[0].ends() for study in studies]
    assert np.mean([low <= mean <= high for low, high in ends]) > 0.92
