"""Cells with fewer steps than their sampler's: what they are compared with, and their times, worked out by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from duodiff import records
from duodiff.analysis.cells import cells, load_fewer_steps, load_records
from duodiff.analysis.fewer import Calls, calls, fewer_step_cells, speedup_by_calls
from duodiff.analysis.figures import trade_off_points
from duodiff.analysis.metrics import all_metrics
from duodiff.analysis.report import readable, write_comparison
from duodiff.analysis.tables import ASIDE, COLUMNS, GLANCE, comparison
from duodiff.records import Record

PAPER = Path(__file__).parents[3] / "report/paper"
STUDIES = {"digits": {"title": "Digits", "paper_dataset": None}}
SHALLOW = 0.4  # a shallow call, in units of a full one
DISTANCES = {(0, 50): 10.0, (500, 50): 12.0, (1000, 50): 20.0, (0, 20): 15.0, (500, 20): 17.0}


def method(t_s: int) -> str:
    return {0: "full", 1000: "shallow"}.get(t_s, "duodiff")


def training(seed: int = 0, further: float = 0.0) -> list[Record]:
    """One training with cells of 50 steps, which are timed, and of 20, whose distances are `further` away."""

    def record(metric, value, t_s, steps, **more):
        about = {"train_seed": seed, "sample_seed": 1000 * seed}
        return Record(
            metric, value, "1", 96, "digits", "corrected", method(t_s), {"t_s": t_s}, sampler="ddpm",
            steps=steps, nfe=steps, seeds=about, made={"device": "cpu"}, **more,
        )  # fmt: skip

    found = [
        Record("gflops_per_call", value, "GFLOP", 1, "digits", "corrected", role,
               seeds={"train_seed": seed}, made={"device": "cpu"})
        for role, value in (("full", 10.0), ("shallow", 4.0))
    ]  # fmt: skip
    for (t_s, steps), distance in DISTANCES.items():
        distance += further * (steps == 20)
        found.append(record("fd_digits", distance, t_s, steps, reference_n=360))
        if (t_s, steps) != (0, 50):
            about = {"interval": [distance - 11, distance - 9], "reference_n": 360}
            found.append(record("fd_digits_difference", distance - 10, t_s, steps, **about))
        if steps == 50:
            relative = 1 - t_s / 1000 * (1 - SHALLOW)
            found.append(record("seconds_per_image", 2 * relative, t_s, steps))
            interval = [0.9 / relative, 1.1 / relative] if t_s else [1.0, 1.0]
            measured = {"interval": interval, "resampled": interval, "disturbed": t_s == 500}
            found.append(record("speedup", 1 / relative, t_s, steps, **measured))
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


def test_records_of_fewer_steps_are_met_only_where_they_are_asked_for(written):
    paths = written(training())
    own, fewer = load_records(paths), load_fewer_steps(paths)
    assert set(own["steps"].dropna()) == {50}
    assert "gflops_per_call" in set(own["metric"])  # which has no steps
    assert set(fewer["steps"]) == {20}
    assert set(fewer["t_s"]) == {0, 500}
    assert sorted(cells(own, "ddpm")["t_s"]) == [0, 500, 1000]
    # a sampler with fewer steps than another one is no cell of fewer steps
    ddim = [r for r in training() if r.sampler and r.steps == 20]
    for one in ddim:
        one.sampler = "ddim"
    assert set(load_records(written([*training(), *ddim]))["sampler"].dropna()) == {"ddpm", "ddim"}


def test_cells_of_fewer_steps_are_compared_with_the_backbones_at_the_own_steps(written):
    paths = written(training())
    table = fewer_step_cells(load_fewer_steps(paths), cells(load_records(paths), "ddpm"), "ddpm")
    full, switched = (table[table["t_s"] == t_s].iloc[0] for t_s in (0, 500))
    assert (full["method"], full["nfe"], full["n"]) == ("full", 20, 96)
    assert (full["minus_full"], full["lost_share"]) == (5.0, 0.5)
    assert full["minus_full_95"] == pytest.approx(1.0)
    assert switched["lost_share"] == pytest.approx(0.7)
    assert switched["relative_distance"] == pytest.approx(1.7)
    assert full["speedup"] == pytest.approx(2.5)
    assert full["seconds"] == pytest.approx(2 / 2.5)
    # of 20 timesteps the first 10 are at least 500: 10 full calls and 10 shallow ones
    assert switched["speedup"] == pytest.approx(50 / (10 + 10 * SHALLOW))
    ends = [switched["speedup_low"], switched["speedup_high"]]
    assert ends[0] < switched["speedup"] < ends[1]
    assert switched["speedup_resampled"] == pytest.approx(ends)
    assert switched["speedup_95"] == pytest.approx((ends[1] - ends[0]) / 2)
    assert (switched["speedup_disturbed"], full["speedup_disturbed"]) == (1, 0)


def test_a_sampler_without_fewer_steps_has_no_such_cells(written):
    paths = written([r for r in training() if r.steps != 20])
    own = cells(load_records(paths), "ddpm")
    assert fewer_step_cells(load_fewer_steps(paths), own, "ddpm").empty
    assert fewer_step_cells(load_fewer_steps(written(training())), own, "ddim").empty


@pytest.mark.parametrize(
    ("t_s", "own", "fewer"), [(500, (25, 25), (5, 5)), (300, (15, 35), (3, 7))]
)
def test_times_by_calls_are_those_of_made_calls(t_s, own, fewer):
    full, shallow = 3.0, 1.2  # seconds a call
    speedup = 50 * full / (own[0] * shallow + own[1] * full)
    expected = 50 * full / (fewer[0] * shallow + fewer[1] * full)
    found = speedup_by_calls([speedup, speedup], Calls(*own), Calls(*fewer))
    np.testing.assert_allclose(found, [expected, expected])


def test_calls_count_the_timesteps_of_each_backbone():
    about = {"sampler": "ddpm", "protocol": "corrected", "steps": 50, "nfe": 50, "t_s": 300}
    assert calls(pd.Series(about)) == (15, 35)
    assert calls(pd.Series(about | {"t_s": 0})) == (0, 50)
    assert calls(pd.Series(about | {"t_s": 1000})) == (50, 0)
    paper = about | {"sampler": "ddim", "protocol": "paper", "nfe": 49}
    assert calls(pd.Series(paper)) == (16, 33)  # one call late, and no last step
    assert calls(pd.Series(paper | {"t_s": 0})) == (0, 49)


def test_table_2_has_rows_of_fewer_calls_without_a_published_row_beside_them(written):
    paths = written(training(), training(seed=1, further=1.0))
    published = pd.read_csv(PAPER / "table2.csv")
    given = (published, "ddpm", STUDIES)
    table = comparison(load_records(paths), *given, load_fewer_steps(paths))
    ours = table[(table["dataset"] == "Digits") & table["nfe"].notna()]
    assert ours["nfe"].tolist() == [50, 50, 50, 20, 20]
    fewer = ours[ours["nfe"] == 20].set_index("t_s")
    assert fewer["distance"].tolist() == [15.5, 17.5]
    assert fewer["lost_share"].tolist() == pytest.approx([0.55, 0.75])
    assert set(fewer["trainings"]) == {2}
    assert fewer["speedup_disturbed"].tolist() == [np.nan, "yes"]
    assert fewer[["relative_paper", "speedup_paper", "compared_with"]].isna().all(axis=None)
    shown = readable(table.drop(columns=[*ASIDE]), COLUMNS)
    assert shown["", "Network calls"][3] == "20"
    assert shown["Distance", "lost share"][3] == "0.550"
    # without records of fewer steps the table is the rest, and so it is where they are another experiment's
    for others in ([], [load_fewer_steps(paths).assign(experiment="another")]):
        assert len(comparison(load_records(paths), *given, *others)) == len(table) - 2


def test_table_2_is_read_at_a_glance_and_its_other_columns_are_below(written, tmp_path):
    out = [tmp_path / f"t{suffix}" for suffix in (".csv", ".md", ".tex", ".html")]
    paths = written(training(), training(seed=1, further=1.0))
    write_comparison(paths, PAPER / "table2.csv", "ddpm", STUDIES, out)
    texts = [path.read_text(encoding="utf-8") for path in out]
    first, others = texts[1].split("\nThe other columns:\n\n")
    rows = [line.strip("| ").split(" | ") for line in first.splitlines()]
    assert {len(row) for row in rows} == {8} == {len(GLANCE)}
    ours = {row[1]: row for row in rows if row[0] == "Digits"}
    assert list(ours) == [
        "full backbone", "DuoDiff, t_s = 500", "shallow backbone",
        "full backbone, 20 calls", "DuoDiff, t_s = 500, 20 calls",
    ]  # fmt: skip
    # the distance of 20 calls is 15 and 16 in two trainings; Student's t of 1 degree is 12.706
    assert ours["full backbone, 20 calls"][4] == f"1.55 ± {12.706 * 0.05:.2f}"
    assert ours["full backbone"][4:7:2] == ["1.00", "1.00"]
    published = {tuple(row[:2]): row[3] for row in rows}
    assert published["CIFAR-10", "DuoDiff, t_s = 500"] == "18.67"
    assert published["CIFAR-10", "AdaDiff, theta not published"] == "24.60"
    # every column is in one of the two, or in the CSV file alone; the setting stands for three
    table = pd.read_csv(out[0])
    known = {name for name in COLUMNS if table[name].notna().any()}
    shown = readable(table[sorted(known - {*ASIDE, *GLANCE, "method", "t_s", "theta"})], COLUMNS)
    below = [", ".join(filter(None, heading)) for heading in shown]
    assert set(others.splitlines()[0].strip("| ").split(" | ")) == {"Dataset", "Setting", *below}
    assert "Time per image, ours, measured" in below
    assert " | 800 ms | " in others
    assert "other columns" not in texts[2]
    assert texts[3].count("<table") == 2
    assert "<details>" in texts[3]


def test_the_table_of_all_metrics_tells_cells_of_one_setting_by_their_steps(written):
    paths = written(training())
    every = pd.concat([load_records(paths), load_fewer_steps(paths)])
    table = all_metrics(every, STUDIES)
    found = table.set_index(["t_s", "steps"])[["distance", "lost_share"]].T.to_dict("list")
    shares = {(0, 50): 0, (500, 50): 0.2, (1000, 50): 1, (0, 20): 0.5, (500, 20): 0.7}
    assert found == {key: [DISTANCES[key], pytest.approx(share)] for key, share in shares.items()}


def test_figure_4_has_a_line_of_the_full_backbone_with_fewer_steps_and_points_of_duodiff(written):
    paths = written(training(), training(seed=1, further=1.0))
    points = trade_off_points(paths, PAPER / "table2.csv", STUDIES)
    ours = points[points["metric"] == "fd_digits"]
    full = ours[ours["method"] == "full_fewer_steps"]
    assert full["distance"].tolist() == [10, 15, 10, 16, 10, 15.5]  # two trainings, and their mean
    assert full["faint"].tolist() == [True] * 4 + [False] * 2
    assert full["label"].tolist()[-2:] == ["", "20"]
    assert full["seconds"].tolist()[-2:] == pytest.approx([2.0, 0.8])
    switched = ours[(ours["method"] == "duodiff_fewer_steps") & ~ours["faint"]].iloc[0]
    assert (switched["label"], switched["distance"]) == ("500 in 20", 17.5)
    assert switched["lost_share"] == pytest.approx(0.75)
    line = ours[(ours["method"] == "duodiff") & ~ours["faint"]]
    assert line["label"].tolist() == ["0", "500", "1000"]
