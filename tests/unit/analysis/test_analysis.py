from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from duodiff import records
from duodiff.analysis import resources
from duodiff.analysis.cells import at_equal_time, cells, ideal_speedup, load_records
from duodiff.analysis.claims.sentences import headlines, paragraph
from duodiff.analysis.claims.sources import our_sources
from duodiff.analysis.claims.verdicts import claims_table, verdict_counts
from duodiff.analysis.figures import _our_relative, extrapolation_points, trade_off_points
from duodiff.analysis.metrics import all_metrics
from duodiff.analysis.report import markdown, readable
from duodiff.analysis.resources import resources_table
from duodiff.analysis.summary import summary
from duodiff.analysis.tables import COLUMNS, comparison
from duodiff.plotting import style
from duodiff.plotting.figures import extrapolations
from duodiff.records import Record
from duodiff.running.files import write_csv

PAPER = Path(__file__).parents[3] / "report/paper"
STUDIES = {"digits": {"title": "Digits", "paper_dataset": None, "scale": "toy"}}
CONFIG = Path(__file__).parents[3] / "config/config.yaml"
LIMITS = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["claims"]


def record(metric, value, method, parameters, seed=0, experiment="digits", **more):
    seeds = {"train_seed": 0, "sample_seed": seed}
    return Record(
        metric,
        value,
        "1",
        96,
        experiment,
        "corrected",
        method,
        parameters=parameters,
        sampler="ddpm",
        nfe=50,
        seeds=seeds,
        made={"device": "cpu"},
        **more,
    )


def study(experiment="digits", distance="fd_digits") -> list[Record]:
    """A study whose every derived number can be worked out by hand."""
    theta = {"theta": 0.2, "setting": "q0.4", "depth": 8}
    found = [
        record("gflops_per_call", 10.0, "full", {}, experiment=experiment),
        record("gflops_per_call", 4.0, "shallow", {}, experiment=experiment),
        record("seconds_per_image", 2.2, "adadiff_all_heads", {}, experiment=experiment),
        record("mean_exit_layer", 6.0, "adadiff", theta, experiment=experiment),
        record("speedup", 2.0 / 2.2, "adadiff_all_heads", {}, experiment=experiment),
        record(f"{distance}_matched", 9.0, "full", {"t_s": 0}, experiment=experiment),
        record(f"{distance}_matched", 18.0, "shallow", {"t_s": 1000}, experiment=experiment),
    ]
    values = [("full", {"t_s": 0}, 10.0, 2.0), ("duodiff", {"t_s": 500}, 12.0, 1.5)]
    values += [("shallow", {"t_s": 1000}, 20.0, 1.0), ("adadiff", theta, 30.0, 1.75)]
    for method, parameters, value, seconds in values:
        found.append(record(distance, value, method, parameters, experiment=experiment))
        found.append(
            record("seconds_per_image", seconds, method, parameters, experiment=experiment)
        )
        found.append(record("speedup", 2.0 / seconds, method, parameters, experiment=experiment))
    spread = record(f"{distance}_spread", 0.5, "full", {"t_s": 0}, experiment=experiment)
    spread.seeds = {"train_seed": 0, "sample_seed": [0, 1, 2]}
    found += [spread, record(distance, 11.0, "full", {"t_s": 0}, seed=1, experiment=experiment)]
    matched = f"{distance}_matched"
    return [
        *found,
        Record(matched, 3.0, "1", 90, experiment, "corrected", "real_halves"),
        Record(distance, 4.0, "1", 36, experiment, "corrected", "real_held_out"),
        Record(distance, 99.0, "1", 90, experiment, "corrected", "noise"),
    ]


def written(tmp_path, found) -> list[Path]:
    records.write(tmp_path / "records.json", found)
    return [tmp_path / "records.json"]


def summarised(tmp_path, found, curves=()) -> str:
    """The summary of records, with the claims on them."""
    paths = written(tmp_path, found)
    claims = claims_table(our_sources(load_records(paths), STUDIES), LIMITS)
    return summary(paths, list(curves), STUDIES, claims)


def row(table, method):
    return table[table["method"] == method].iloc[0]


def test_cells_by_hand(tmp_path):
    table = cells(load_records(written(tmp_path, study())), "ddpm")
    assert sorted(table["method"]) == ["adadiff", "duodiff", "full", "shallow"]
    full, duodiff, adadiff = (row(table, m) for m in ("full", "duodiff", "adadiff"))
    assert (full["distance"], full["spread"], full["spread_seeds"]) == (10.0, 0.5, 3)
    assert duodiff["speedup"] == pytest.approx(2.0 / 1.5)
    assert duodiff["ideal_speedup"] == pytest.approx(1 / (1 - 0.5 * 0.6))
    assert adadiff["seconds_interpolated"] == pytest.approx(2.2 * 6 / 8)
    assert np.isnan(adadiff["ideal_speedup"])


def test_one_speed_up_is_read_by_all_and_a_disturbed_one_says_so(tmp_path):
    found = study()
    for i, one in enumerate(found):
        if one.metric == "speedup":
            about = {"rounds": 12, "resampled": [one.value] * 3, "interval_covers": "rounds"}
            interval, disturbed = [0.9 * one.value, 1.1 * one.value], one.method == "duodiff"
            found[i] = replace(one, interval=interval, disturbed=disturbed, **about)
    paths = written(tmp_path, found)
    table = cells(load_records(paths), "ddpm")
    duodiff = row(table, "duodiff")
    assert (duodiff["speedup_rounds"], duodiff["speedup_disturbed"]) == (12, True)
    assert duodiff["speedup_resampled"] == [4 / 3] * 3
    assert row(table, "full")["all_heads_cost"] == pytest.approx(1.1)
    published = pd.read_csv(PAPER / "table2.csv")
    ours = comparison(load_records(paths), published, "ddpm", STUDIES)
    ours = ours[(ours["dataset"] == "Digits") & ours["speedup"].notna()]
    assert row(ours, "duodiff")["speedup_95"] == pytest.approx(0.1 * 4 / 3)
    assert ours.set_index("method")["speedup_disturbed"].dropna().to_dict() == {"duodiff": "yes"}
    saved = row(_our_relative(table), "duodiff")["time_saved"]
    assert saved == pytest.approx(100 * (1 - 1 / duodiff["speedup"]))
    # AdaDiff's by its interpolated time: 6 of 8 blocks, of all heads
    saved = row(_our_relative(table), "adadiff")["time_saved"]
    assert saved == pytest.approx(100 * (1 - 1.1 * 6 / 8))


def test_what_the_methods_need_stands_beside_the_full_backbones(tmp_path):
    settings = [("full", {"t_s": 0}, 300.0), ("duodiff", {"t_s": 500}, 150.0)]
    settings += [("adadiff", {"theta": 0.2, "setting": "q0.4"}, 240.0)]
    found = []
    for method, parameters, gflops in settings:
        found += [
            record("gflops_per_trajectory", gflops, method, parameters),
            record("resident_parameters", 2e6, method, parameters),
            record("seconds_per_image", 0.5, method, parameters),
        ]
    # another training, and records of no setting
    found += [replace(r, value=2 * r.value, seeds={"train_seed": 1}) for r in found]
    found.append(Record("parameters", 1e6, "1", 1, "digits", "corrected", "full"))
    table = resources_table(load_records(written(tmp_path, found)), STUDIES)
    assert table["method"].tolist() == 2 * ["full", "duodiff", "adadiff"]
    assert table["gflops_relative"].tolist() == 2 * [1.0, 0.5, 0.8]
    assert table["parameters_m"].tolist() == 3 * [2.0] + 3 * [4.0]
    assert set(table["dataset"]) == {"Digits"}
    shown = markdown(readable(table, resources.COLUMNS)).splitlines()
    assert "GFLOPs of an image, a trajectory" in shown[0]
    assert "Joules" not in shown[0]  # no GPU


def test_duodiff_at_adadiffs_time_is_interpolated_between_neighbours(tmp_path):
    table = cells(load_records(written(tmp_path, study())), "ddpm")
    # measured 1.75 s lies half way between t_s = 500 (1.5 s, 12) and full (2.0 s, 10)
    at = at_equal_time(table, "seconds")
    assert at[table["method"] == "adadiff"].item() == pytest.approx(11.0)
    assert at[table["method"] != "adadiff"].isna().all()
    # slower than full: full's distance; faster than shallow: none
    for seconds, expected in ((9.0, 10.0), (0.5, np.nan)):
        table.loc[table["method"] == "adadiff", "seconds"] = seconds
        found = at_equal_time(table, "seconds")[table["method"] == "adadiff"].item()
        assert found == pytest.approx(expected, nan_ok=True)


def test_a_sampler_nobody_ran_leaves_only_the_papers_rows(tmp_path):
    found = load_records(written(tmp_path, study()))
    table = comparison(found, pd.read_csv(PAPER / "table1.csv"), "ddim", STUDIES)
    assert set(table["dataset"]) == {"Digits", "ImageNet 256x256"}
    assert table[table["dataset"] == "Digits"]["method"].tolist() == [
        "noise",
        "real_halves",
        "real_held_out",
    ]


def test_two_thresholds_that_resolve_to_one_value_stay_two_rows(tmp_path):
    twin = {"theta": 0.2, "setting": "q0.41", "depth": 8}
    more = [
        record("fd_digits", 31.0, "adadiff", twin),
        record("mean_exit_layer", 6.1, "adadiff", twin),
    ]
    table = cells(load_records(written(tmp_path, study() + more)), "ddpm")
    assert sorted(table[table["method"] == "adadiff"]["distance"]) == [30.0, 31.0]


def test_ideal_speedup():
    assert ideal_speedup(0, 0.3) == 1
    assert ideal_speedup(1000, 0.25) == pytest.approx(4)


def test_comparison_keeps_paper_and_ours_apart(tmp_path):
    found = load_records(written(tmp_path, study()))
    table = comparison(found, pd.read_csv(PAPER / "table2.csv"), "ddpm", STUDIES)
    ours, theirs = table[table["dataset"] == "Digits"], table[table["dataset"] != "Digits"]
    assert ours["method"].tolist()[4:] == ["noise", "real_halves", "real_held_out"]
    assert ours["distance"].tolist()[4:] == pytest.approx([99, np.nan, 4], nan_ok=True)
    assert len(theirs) == 27
    assert ours[["fid_paper", "seconds_paper", "difference"]].isna().all(axis=None)
    # what compares across datasets has the median over the paper's beside it
    half = ours[ours["t_s"] == 500].iloc[0]
    speedups = [1.88 / 1.16, 1.88 / 1.16, 5.12 / 3.02, 10.94 / 6.27]
    assert half["speedup_paper"] == pytest.approx(np.median(speedups))
    assert half["speedup_difference"] == pytest.approx(2.0 / 1.5 - np.median(speedups))
    assert half["relative_difference"] == pytest.approx(1.2 - half["relative_paper"])
    assert half["compared_with"] == "median of 4 datasets"
    assert ours[ours["t_s"] == 1000]["compared_with"].isna().all()
    assert theirs[["distance", "seconds"]].isna().all(axis=None)
    cifar = theirs[(theirs["dataset"] == "CIFAR-10") & (theirs["t_s"] == 500)].iloc[0]
    assert cifar["speedup_paper"] == pytest.approx(1.88 / 1.16)
    assert cifar["relative_paper"] == pytest.approx(18.67 / 17.89)


@pytest.mark.parametrize("sizes", [(5120, 5120), (50000, 5120), (5120, 202599)])
def test_a_paper_dataset_gets_its_published_numbers_beside_it(tmp_path, sizes):
    found = study("celeba", "fid")
    for one in found:
        one.n, one.reference_n = sizes
    found = load_records(written(tmp_path, found))
    studies = {"celeba": {"title": "CelebA", "paper_dataset": "celeba64"}}
    table = comparison(found, pd.read_csv(PAPER / "table2.csv"), "ddpm", studies)
    at_500 = table[(table["dataset"] == "CelebA") & (table["t_s"] == 500)].iloc[0]
    assert (at_500["fid_paper"], at_500["distance"]) == (12.18, 12.0)
    # distances of other numbers of images are not subtracted from the published ones
    expected = -0.18 if sizes == (5120, 5120) else np.nan
    assert at_500["difference"] == pytest.approx(expected, nan_ok=True)
    assert at_500["relative_difference"] == pytest.approx(12 / 10 - 12.18 / 9.98)
    assert at_500["speedup_difference"] == pytest.approx(2.0 / 1.5 - 1.88 / 1.16)
    assert "CelebA 64x64" not in set(table["dataset"])
    # a published row we did not run stays, without a number of ours
    assert table[(table["dataset"] == "CelebA") & (table["t_s"] == 300)]["distance"].isna().item()


def test_distances_in_another_feature_space_are_never_subtracted_from_fid(tmp_path):
    found = load_records(written(tmp_path, study("celeba", "fd_digits")))
    studies = {"celeba": {"title": "CelebA", "paper_dataset": "celeba64"}}
    table = comparison(found, pd.read_csv(PAPER / "table2.csv"), "ddpm", studies)
    assert table["difference"].isna().all()


def test_missing_numbers_are_shown_as_missing():
    table = pd.DataFrame({"dataset": ["a", "b"], "t_s": [500, None], "spread": [None, None]})
    shown = readable(table, COLUMNS)
    assert shown.to_numpy().tolist() == [["a", "500"], ["b", "—"]]
    assert markdown(shown).splitlines()[-1] == "| b | — |"


def test_figure_4_shows_each_point_once_and_the_published_panels(tmp_path):
    points = trade_off_points(written(tmp_path, study()), PAPER / "table2.csv", STUDIES)
    ours = points[points["panel"].str.contains("ours")]
    assert ours["method"].value_counts().to_dict() == {
        "duodiff": 3,
        "full": 1,
        "adadiff": 1,
        "adadiff_interpolated": 1,
    }
    published = points[points["panel"].str.contains("(paper, 5,120 images)", regex=False)]
    assert set(published["metric"]) == {"FID"}
    assert (published[published["method"] == "duodiff"].groupby("panel").size() == 4).all()
    assert published["panel"].nunique() == 4
    open_markers = published[published["inferred"]]
    assert set(open_markers["panel"]) == {"CIFAR-10 (paper, 5,120 images)"}
    assert len(open_markers) == 3


def test_heads_of_one_step_have_no_last_fifth(tmp_path):
    curve = tmp_path / "digits/train0/heads/curve.csv"
    write_csv(curve, [{"step": 1, "held_out_loss": 1.0}])
    text = summarised(tmp_path, study(), [curve])
    assert "trained: heads for 1 steps" in text
    assert "last fifth" not in text


def test_summary_states_the_comparison(tmp_path):
    curve = tmp_path / "digits/train0/heads/curve.csv"
    losses = [1.0, 0.8, 0.7, 0.62, 0.6]
    write_csv(curve, [{"step": 10 * i, "held_out_loss": v} for i, v in enumerate(losses, 1)])
    text = summarised(tmp_path, study(), [curve])
    assert "trained: heads for 50 steps; sampled: 5 cells" in text
    assert "fd_digits of 96 images, DDPM, 50 network calls" in text
    (duodiff,) = (line for line in text.splitlines() if line.startswith("    duodiff"))
    assert duodiff.endswith("  1500.00 ms  1.33x  (by FLOPs 1.43x)")
    assert duodiff.split()[:5] == ["duodiff", "t_s", "=", "500", "12.00"]
    assert "1750.00 ms  1.14x  exits 6.00/8, DuoDiff there 11.00" in text
    assert "sd over 3 sampling seeds: 0.50 at t_s = 0\n" in text
    assert "full lies 6.00 above the real floor, shallow 15.00: 60% nearer" in text
    assert "last fifth of the steps changed the held-out loss by -3.23%" in text


def test_what_the_summary_says_of_the_claims_is_the_claims(tmp_path):
    paths = written(tmp_path, study())
    claims = claims_table(our_sources(load_records(paths), STUDIES), LIMITS)
    text = summary(paths, [], STUDIES, claims)
    unwrapped = " ".join(text.split())
    for line in (*headlines(claims).values(), paragraph(claims)):
        assert " ".join(line.split()) in unwrapped
    counts = verdict_counts(claims).loc["Digits"]
    assert f"  Digits: {counts['holds']} hold, {counts['contradicted']} contradicted, " in text
    contradicted = claims[claims["verdict"] == "contradicted"]["claim"]
    assert f"    contradicted: {', '.join(contradicted)}\n" in text
    assert text.startswith("Digits (corrected protocol, toy scale, one training (seed 0); cpu)\n")
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("method", "t_s", "value", "said"),
    [
        ("noise", None, 5.0, "This study says nothing: the full backbone is no better than noise. Train longer."),
        ("shallow", 1000, 9.0, "This study says nothing about t_s: the full backbone is no better"),
    ],
)  # fmt: skip
def test_the_first_line_says_where_a_study_can_say_nothing(tmp_path, method, t_s, value, said):
    found = study()
    for one in found:
        if one.method == method and one.metric == "fd_digits" and one.parameters.get("t_s") == t_s:
            one.value = value
    assert summarised(tmp_path, found).splitlines()[0].startswith(f"Digits: {said}")


def test_the_certificate_stands_beside_small_t_s(tmp_path):
    bound = record("fd_digits_same_noise", 0.5, "duodiff", {"t_s": 500})
    difference = record("fd_digits_difference", 2.0, "duodiff", {"t_s": 500})
    difference.interval = [1.0, 3.0]
    (line,) = (
        line
        for line in summarised(tmp_path, [*study(), difference, bound]).splitlines()
        if "t_s = 500 " in line and "duodiff" in line
    )
    low, high = ((10**0.5 + sign * 0.5) ** 2 - 10 for sign in (-1, 1))
    assert line.endswith(f"certainly {low:+.2f} to {high:+.2f}")


def test_a_study_without_a_floor_is_told_all_the_same(tmp_path):
    found = [one for one in study() if one.method not in ("real_halves", "real_held_out", "noise")]
    text = summarised(tmp_path, found)
    assert "t_s = 500" in text
    assert "floor" not in text
    table = comparison(
        load_records([tmp_path / "records.json"]),
        pd.read_csv(PAPER / "table2.csv"),
        "ddpm",
        STUDIES,
    )
    assert table[table["dataset"] == "Digits"]["method"].tolist()[-1] in ("adadiff", "shallow")


def test_the_extrapolation_is_drawn_at_the_first_sampling_seed(tmp_path):
    line = {"limit": 9.0, "slope": 50.0, "r2": 0.9, "metric": "fd_digits", "sampler": "ddpm"}
    rows = [
        line | {"t_s": t_s, "sample_seed": seed, "n": n, "distance": 9 + 50 / n}
        for seed, cells in ((5, (0, 500)), (1, (0,)))
        for t_s in cells
        for n in (100, 200)
    ]
    path = tmp_path / "digits/train0/records/distance_against_n.csv"
    write_csv(path, rows)
    points = extrapolation_points([path], STUDIES)
    assert set(points["sample_seed"]) == {5}
    assert set(points["t_s"]) == {0, 500}
    style.save(extrapolations(points), points, [tmp_path / "e.svg", tmp_path / "e.csv"])
    assert (tmp_path / "e.svg").stat().st_size > 5000
    assert len(pd.read_csv(tmp_path / "e.csv")) == len(points)


def test_all_metrics_have_their_intervals_and_spread_over_trainings(tmp_path):
    found = []
    for seed, (full, switched) in enumerate([(10.0, 12.0), (14.0, 13.0)]):
        for method, t_s, value in (("full", 0, full), ("duodiff", 500, switched)):
            cell = record("fd_digits", value, method, {"t_s": t_s}, reference_n=1437)
            kernel = record("kd_digits", 0.5, method, {"t_s": t_s}, reference_n=1437)
            kernel.interval = [0.4, 0.6]
            found += [cell, kernel]
            for one in (cell, kernel):
                one.seeds = {"train_seed": seed, "sample_seed": 0}
                # the full backbone is a published one
                one.checkpoint_sha256 = {method: "a" if method == "full" else str(seed)}
    difference = record("fd_digits_difference", 2.0, "duodiff", {"t_s": 500}, reference_n=1437)
    difference.interval = [1.0, 3.0]
    limit = record("fd_digits_infinity", 8.0, "full", {"t_s": 0}, reference_n=1437)
    limit.interval = [7.5, 8.5]
    bound = record("fd_digits_same_noise", 0.1, "duodiff", {"t_s": 500}, reference_n=1437)
    found += [difference, bound, limit, record("seconds_per_image", 1.0, "full", {"t_s": 0})]
    real = Record("fd_digits", 3.0, "1", 90, "digits", "corrected", "real_held_out")
    table = all_metrics(load_records(written(tmp_path, [*found, real])), STUDIES)
    assert table["method"].tolist() == ["full", "full", "duodiff", "duodiff", "real_held_out"]
    assert table["train_seed"].tolist()[:4] == [0, 1, 0, 1]
    assert table["training_spread"].tolist()[:4] == pytest.approx(
        [np.nan, np.nan, 0.5**0.5, 0.5**0.5], nan_ok=True
    )
    duodiff = table.iloc[2]
    assert (duodiff["difference_low"], duodiff["difference_high"]) == (1.0, 3.0)
    certain = ((10**0.5 - 0.1) ** 2 - 10, (10**0.5 + 0.1) ** 2 - 10)
    assert tuple(duodiff[["certain_low", "certain_high"]]) == pytest.approx(certain)
    assert (duodiff["kernel"], duodiff["kernel_deviation"]) == pytest.approx((0.5, 0.1))
    assert table.iloc[0]["infinity_error"] == 0.5
    assert table.iloc[3][["difference", "infinity", "certain_low"]].isna().all()
