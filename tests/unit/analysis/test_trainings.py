"""Several trainings as one study: means and spreads, worked out by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from duodiff import records
from duodiff.analysis.cells import cells, load_records
from duodiff.analysis.figures import exit_layer_lines, relative_points, trade_off_points
from duodiff.analysis.report import readable
from duodiff.analysis.tables import ASIDE, COLUMNS, comparison
from duodiff.analysis.trainings import over_trainings, seeds_text, with_means
from duodiff.paper import DATASETS
from duodiff.records import Record
from duodiff.running.files import write_csv, write_json

PAPER = Path(__file__).parents[3] / "report/paper"
STUDIES = {"digits": {"title": "Digits", "paper_dataset": None}}
DISTANCES = {"t_s=0": 10.0, "t_s=500": 12.0, "t_s=1000": 20.0, "theta": 30.0}
SECONDS = {"t_s=0": 2.0, "t_s=500": 1.5, "t_s=1000": 1.0, "theta": 1.75}


def training(seed: int, further: float, theta: float) -> list[Record]:
    """One training: DISTANCES at its own sampling seed, DuoDiff's at t_s = 500 `further` away."""
    settings = {
        "t_s=0": ("full", {"t_s": 0}),
        "t_s=500": ("duodiff", {"t_s": 500}),
        "t_s=1000": ("shallow", {"t_s": 1000}),
        "theta": ("adadiff", {"theta": theta, "setting": "q0.4", "depth": 8}),
    }

    def record(metric, value, method, parameters, **more):
        seeds = {"train_seed": seed, "sample_seed": 1000 * seed}
        about = {"sampler": "ddpm", "nfe": 50, "seeds": seeds, "made": {"device": "cpu"}}
        return Record(
            metric, value, "1", 96, "digits", "corrected", method, parameters, **about, **more
        )

    found = [
        record("gflops_per_call", 10.0, "full", {}),
        record("gflops_per_call", 4.0, "shallow", {}),
        record("mean_exit_layer", 6.0 - seed, *settings["theta"]),
    ]
    for name, (method, parameters) in settings.items():
        distance = DISTANCES[name] + further * (name == "t_s=500")
        difference = distance - DISTANCES["t_s=0"]
        found.append(record("fd_digits", distance, method, parameters))
        if name != "t_s=0":
            interval = [difference - 1, difference + 1]
            about = {"interval": interval}
            found.append(record("fd_digits_difference", difference, method, parameters, **about))
        found.append(record("seconds_per_image", SECONDS[name], method, parameters))
        found.append(record("speedup", 2.0 / SECONDS[name], method, parameters))
    return found


def written(folder: Path, *trainings: list[Record]) -> list[Path]:
    paths = [folder / f"{i}.json" for i, _ in enumerate(trainings)]
    for path, found in zip(paths, trainings, strict=True):
        records.write(path, found)
    return paths


def loaded(folder: Path, *trainings: list[Record]) -> pd.DataFrame:
    return load_records(written(folder, *trainings))


THREE = training(0, 0, 0.2), training(1, 1, 0.3), training(2, 2, 0.4)


def three(folder: Path) -> pd.DataFrame:
    return loaded(folder, *THREE)


def test_a_row_is_a_cell_with_its_mean_and_spread_over_the_trainings(tmp_path):
    table = over_trainings(cells(three(tmp_path), "ddpm"))
    assert table["cell"].tolist() == ["t_s=0", "t_s=500", "t_s=1000", "theta=q0.4"]
    half = table[table["t_s"] == 500].iloc[0]
    assert (half["distance"], half["distance_sd"], half["trainings"]) == (13.0, 1.0, 3)
    assert half["train_seed"] == "0 to 2"
    # paired differences 2, 3, 4; Student's t of 2 degrees is 4.3027
    assert half["minus_full"] == 3.0
    assert half["minus_full_95"] == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    exits = table[table["method"] == "adadiff"].iloc[0]
    assert exits["theta"] == pytest.approx(0.3)
    assert (exits["mean_exit_layer"], exits["mean_exit_layer_sd"]) == (5.0, 1.0)
    assert table[table["t_s"] == 0]["distance_sd"].item() == 0


def test_one_training_keeps_what_it_has(tmp_path):
    table = cells(loaded(tmp_path, training(3, 0, 0.2)), "ddpm")
    alone = over_trainings(table)
    pd.testing.assert_frame_equal(alone.drop(columns="trainings"), table)
    assert set(alone["trainings"]) == {1}


def test_a_number_that_one_training_lacks_is_missing(tmp_path):
    found = three(tmp_path)
    lacking = (found["metric"] == "speedup") & (found["train_seed"] == 1) & (found["t_s"] == 500)
    table = over_trainings(cells(found[~lacking], "ddpm"))
    speedups = table.set_index("t_s")["speedup"]
    assert np.isnan(speedups[500])
    assert speedups[1000] == 2.0


def test_table_2_has_one_row_a_cell_and_says_how_many_trainings(tmp_path):
    published = pd.read_csv(PAPER / "table2.csv")
    table = comparison(three(tmp_path), published, "ddpm", STUDIES)
    ours = table[table["dataset"] == "Digits"].dropna(subset="trainings")
    assert len(ours) == 4
    half = ours[ours["t_s"] == 500].iloc[0]
    assert half["relative_distance"] == pytest.approx(1.3)
    assert half["relative_distance_sd"] == pytest.approx(0.1)
    # the published rows beside it are those of one training's table
    one = comparison(loaded(tmp_path, training(0, 0, 0.2)), published, "ddpm", STUDIES)
    paper = ["relative_paper", "speedup_paper", "compared_with"]
    assert half[paper].tolist() == one[one["t_s"] == 500].iloc[0][paper].tolist()
    # AdaDiff's time is half way from t_s = 500 to the full backbone, in each training
    assert ours[ours["method"] == "adadiff"]["duodiff_at_seconds"].item() == pytest.approx(11.5)
    shown = readable(table.drop(columns=[*ASIDE]), COLUMNS)
    assert shown["", "Trainings"][0] == "3"
    assert shown["", "Training seed"][0] == "0 to 2"
    assert ("Distance", "sd over trainings") in shown
    assert ("Distance", "sd over trainings") not in readable(one.drop(columns=[*ASIDE]), COLUMNS)


@pytest.mark.parametrize(
    ("seeds", "text"), [([3], "3"), ([0, 1], "0, 1"), ([2, 0, 1], "0 to 2"), ([0, 2, 5], "0, 2, 5")]
)
def test_seeds_as_text(seeds, text):
    assert seeds_text(seeds) == text


def test_means_stand_beside_the_lines_of_several_trainings_alone():
    rows = [
        ("A", 0, 1, 2.0),
        ("A", 1, 1, 4.0),
        ("A", 0, 2, 5.0),
        ("A", 1, 2, 5.0),
        ("B", 0, 1, 7.0),
    ]
    lines = pd.DataFrame(rows, columns=["title", "train_seed", "t", "mse"])
    found = with_means(lines, ["t"])
    assert found[found["faint"]]["mse"].tolist() == [2.0, 4.0, 5.0, 5.0]
    means = found[~found["faint"]]
    assert means[["title", "t", "mse", "trainings"]].to_numpy().tolist() == [
        ["A", 1, 3.0, 2],
        ["A", 2, 5.0, 2],
        ["B", 1, 7.0, 1],
    ]


def test_figure_4_has_a_panel_an_experiment_with_its_trainings_and_their_mean(tmp_path):
    points = trade_off_points(written(tmp_path, *THREE), PAPER / "table2.csv", STUDIES)
    ours = points[points["panel"] == "Digits (ours, 96 images)"]
    half = ours[(ours["method"] == "duodiff") & (ours["distance"] > 11) & (ours["distance"] < 15)]
    assert half["distance"].tolist() == [12.0, 13.0, 14.0, 13.0]
    assert half["faint"].tolist() == [True, True, True, False]
    assert half["label"].tolist() == ["", "", "", "500"]
    # one training: the records' interval; three: Student's over the differences 2, 3, 4
    students = 4.3027 / np.sqrt(3)
    assert half["distance_95"].tolist() == pytest.approx([1, 1, 1, students], rel=1e-4)
    assert half["speedup_95"].tolist() == pytest.approx([np.nan] * 3 + [0], nan_ok=True)
    assert half["trainings"].tolist() == [1, 1, 1, 3]
    assert not points[points["panel"] != "Digits (ours, 96 images)"]["faint"].any()
    (alone,) = written(tmp_path, training(4, 0, 0.2))
    points = trade_off_points([alone], PAPER / "table2.csv", STUDIES)
    assert points["panel"].iloc[0] == "Digits, training seed 4 (ours, 96 images)"
    assert not points["faint"].any()


def test_relative_distances_are_divided_within_each_training(tmp_path):
    architectures = tmp_path / "architectures.json"
    depths = {name: {"full": {"architecture": {"depth": 13}}} for name in DATASETS}
    write_json(architectures, {"paper": depths})
    points = relative_points(
        written(tmp_path, *THREE), PAPER / "table2.csv", architectures, STUDIES
    )
    ours = points[points["source"].str.startswith("Digits")]
    assert set(ours["source"]) == {"Digits (ours, fd_digits)"}
    half = ours[ours["label"] == "500"]
    assert half["relative_distance"].tolist() == pytest.approx([1.2, 1.3, 1.4, 1.3])
    assert half["faint"].tolist() == [True, True, True, False]
    assert half["time_saved"].tolist() == [25.0] * 4
    assert half["relative_95"].tolist()[:3] == pytest.approx([0.1] * 3)
    assert half["relative_95"].tolist()[3] == pytest.approx(0.1 * 4.3027 / np.sqrt(3), rel=1e-4)


def test_lines_of_several_trainings_have_one_title(tmp_path):
    rows = {"sampler": "ddpm", "setting": "q0.4", "theta": 0.2, "t": [0, 999], "mean": [4.0, 2.0]}
    paths = []
    for seed in (0, 1):
        path = tmp_path / f"digits/train{seed}/profile/exits.csv"
        table = pd.DataFrame(rows).assign(
            sample_seed=1000 * seed, mean=lambda t, s=seed: t["mean"] + s
        )
        write_csv(path, pd.concat([table, table.assign(sample_seed=77, mean=9.0)]))
        paths.append(path)
    lines = exit_layer_lines(paths, STUDIES)
    assert set(lines["title"]) == {"Digits"}
    assert lines["mean"].tolist() == [4.0, 2.0, 5.0, 3.0, 4.5, 2.5]
    assert set(exit_layer_lines(paths[1:], STUDIES)["title"]) == {"Digits, training seed 1"}
