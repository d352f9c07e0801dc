"""Named schedules in tables, figures and the summary: cells beside the others, and no case of a claim."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from unit.analysis.test_analysis import PAPER, STUDIES, record, row, study, summarised, written

from duodiff.analysis.cells import cells, load_records
from duodiff.analysis.claims.sources import our_sources
from duodiff.analysis.diagrams import parts
from duodiff.analysis.figures import relative_points, trade_off_points
from duodiff.analysis.metrics import all_metrics
from duodiff.analysis.panels import gallery_panels, qualitative_panels
from duodiff.analysis.resources import resources_table
from duodiff.analysis.specifications import (
    architecture_table,
    published_values,
    readable_specifications,
)
from duodiff.analysis.tables import comparison
from duodiff.analysis.trainings import over_trainings
from duodiff.data.store import write_store
from duodiff.metrics.architecture import describe
from duodiff.metrics.evaluation import _in_a_cell
from duodiff.plotting import figures, style

THREE = {"schedule": "three", "intervals": [["middle", 500, 999], ["full", 0, 499]]}
FEW = {"schedule": "few", "intervals": [["full", 0, 999]], "timesteps": [999, 500, 0]}


def scheduled() -> list:
    """The study of test_analysis.py with two named schedules, `few` of three calls."""
    found = [record("gflops_per_trajectory", 500.0, "full", {"t_s": 0})]
    for parameters, distance, speedup, operations in (
        (THREE, 11.0, 1.6, 400.0),
        (FEW, 19.0, 16.0, 30.0),
    ):
        nfe = len(parameters.get("timesteps", [])) or 50
        for metric, value in {
            "fd_digits": distance,
            "speedup": speedup,
            "seconds_per_image": 2.0 / speedup,
            "gflops_per_trajectory": operations,
        }.items():
            found.append(replace(record(metric, value, "schedule", parameters), nfe=nfe))
    every = [*study(), *found]
    for one in every:
        if one.metric == "fd_digits" and one.sampler and one.method != "full":
            about = {"metric": "fd_digits_difference", "value": one.value - 10.0}
            found.append(replace(one, interval=[one.value - 11.0, one.value - 9.0], **about))
    return [replace(one, steps=50) if one.sampler else one for one in [*study(), *found]]


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    return written(tmp_path, scheduled())


def test_a_named_schedule_is_a_cell_with_its_operations_as_the_ideal(paths):
    table = cells(load_records(paths), "ddpm").set_index("cell")
    assert table["schedule"].dropna().to_dict() == {
        "schedule=few": "few",
        "schedule=three": "three",
    }
    three, few = table.loc["schedule=three"], table.loc["schedule=few"]
    assert (three["distance"], three["speedup"], three["nfe"]) == (11.0, 1.6, 50)
    assert (three["ideal_speedup"], few["ideal_speedup"]) == (500 / 400, 500 / 30)
    assert three["lost_share"] == pytest.approx(0.1)
    assert few["nfe"] == 3
    assert table.loc["t_s=500", "ideal_speedup"] == pytest.approx(1 / (1 - 0.5 * 0.6))


def test_it_is_a_row_of_each_table_and_no_case_of_a_claim(paths):
    records = load_records(paths)
    table = comparison(records, pd.read_csv(PAPER / "table2.csv"), "ddpm", STUDIES)
    ours = table[(table["dataset"] == "Digits") & (table["method"] == "schedule")]
    assert ours.set_index("schedule")["distance"].to_dict() == {"few": 19.0, "three": 11.0}
    distances = records[records["metric"].str.startswith("fd_")]
    metrics = all_metrics(distances.assign(reference_n=100), STUDIES)
    named = metrics[metrics["method"] == "schedule"].set_index("schedule")
    assert named["distance"].to_dict() == {"few": 19.0, "three": 11.0}
    assert named["steps"].to_dict() == {"few": 3, "three": 50}
    resources = resources_table(records[records["device"].notna()], STUDIES).set_index("schedule")
    assert resources.loc["three", "gflops_relative"] == pytest.approx(0.8)
    (source,) = our_sources(records, STUDIES)
    assert "schedule" not in set(source.trainings[0].ddpm["method"])
    assert len(source.trainings[0].ddpm) == 4


def test_the_summary_has_a_line_for_it(tmp_path):
    text = summarised(tmp_path, scheduled())
    (line,) = (one for one in text.splitlines() if "three" in one)
    assert line.split() == [
        *("schedule", "three", "11.00", "+1.00", "±", "1.00"),
        *("1250.00", "ms", "1.60x", "(by", "FLOPs", "1.25x)"),
    ]


def test_a_budget_whose_choice_differs_between_trainings_is_one_row(paths):
    one = cells(load_records(paths), "ddpm")
    other = one.assign(train_seed=1)
    other.loc[other["schedule"] == "few", "nfe"] = 5
    table = over_trainings(pd.concat([one, other], ignore_index=True))
    assert len(table) == len(one)
    assert row(table[table["schedule"] == "few"], "schedule")["nfe"] == 4


def test_figure_4_shows_each_named_schedule_as_a_point_with_its_name(paths, tmp_path):
    points = trade_off_points(paths, PAPER / "table2.csv", STUDIES)
    named = points[points["method"] == "schedule"].set_index("label")
    assert named["seconds"].to_dict() == pytest.approx({"three": 2.0 / 1.6, "few": 2.0 / 16})
    assert len(named) == 2
    ours = points[points["panel"].str.contains("ours")]
    assert ours["method"].value_counts()["duodiff"] == 3
    figure = figures.trade_off(ours)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"three", "few"} <= set(texts)
    assert style.METHODS["schedule"].dashes is None


def stores(tmp_path) -> list[Path]:
    """Sample stores of a switch time and of a named schedule."""
    found = []
    about = {"experiment": "digits", "train_seed": 0, "seed": 0}
    for method, parameters in (("full", {"t_s": 0}), ("schedule", FEW)):
        path = tmp_path / f"{method}/manifest.json"
        sampler = {"name": "ddpm", "steps": 50}
        manifest = about | {"method": method, "parameters": parameters, "sampler": sampler}
        write_store(path, np.zeros((12, 1, 2, 2), np.uint8), np.arange(12) % 10, manifest)
        found.append(path)
    return found


def test_its_images_have_columns_of_figure_5_and_a_panel_of_the_gallery(tmp_path):
    found = stores(tmp_path)
    data = tmp_path / "data/manifest.json"
    about = {"splits": {"train": [0, 3]}, "class_names": []}
    write_store(data, np.zeros((3, 1, 2, 2), np.uint8), np.zeros(3), about)
    studies = {"digits": STUDIES["digits"] | {"dataset": "data"}}
    panels, shown = qualitative_panels(found, [data], studies)
    assert [name for name, _ in panels[0]["schedule"]] == ["few"]
    assert set(shown["method"]) == {"full", "schedule"}
    headers = [text.get_text() for axis in figures.qualitative(panels).axes for text in axis.texts]
    assert headers == ["DuoDiff: rising $t_s$ →", "By name"]
    _, panels, _ = gallery_panels(found, data, STUDIES)
    assert [name for name, _ in panels] == [
        "Training images",
        "DDPM-50, full backbone",
        "DDPM-3, schedule few",
    ]


def test_a_row_of_the_distance_against_n_has_its_name_without_its_intervals():
    assert _in_a_cell(FEW | {"eta": 0}) == {"schedule": "few", "eta": 0}


def test_relative_distances_leave_it_out(paths, tmp_path):
    architectures = {
        name: {"full": {"architecture": {"depth": 13}}}
        for name in pd.read_csv(PAPER / "table2.csv")["dataset"].unique()
    }
    (tmp_path / "architectures.json").write_text(
        pd.io.json.ujson_dumps({"paper": architectures}), encoding="utf-8"
    )
    points = relative_points(paths, PAPER / "table2.csv", tmp_path / "architectures.json", STUDIES)
    assert "schedule" not in set(points["method"])


NET = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 12,
    "num_heads": 3,
    "num_classes": 10,
}


def test_a_further_network_has_rows_of_table_3_and_a_look_of_its_own():
    depths = {"full": 7, "shallow": 3, "middle": 5}
    networks = describe({role: NET | {"depth": depth} for role, depth in depths.items()})
    assert len(parts(networks, ["middle"])) > len(parts(networks, ["shallow"]))
    published = published_values(PAPER / "table3.csv")
    table = architecture_table({"studies": {"digits": networks}, "paper": {}}, published, STUDIES)
    mine = table[table["model"] == "Network middle"].set_index("quantity")["ours"]
    assert mine["Blocks"] == "5"
    shown = readable_specifications(table)
    assert "Network middle" in set(shown["", "Model"])
    looks = style.networks(["full", "middle", "shallow", "other"])
    for part in ("color", "marker"):
        assert len({getattr(look, part) for look in looks.values()}) == 5  # and AdaDiff's heads
    rows = [(n, np.nan, t, 0.1) for n in depths for t in (0, 999)]
    losses = pd.DataFrame(rows, columns=["network", "layer", "t", "mse"]).assign(title="Digits")
    _, labels = figures.denoising_losses(losses).axes[0].get_legend_handles_labels()
    assert labels == ["middle", "Shallow backbone", "Full backbone"]
    curves = pd.DataFrame({"model": [*depths], "title": "Digits", "step": 1})
    drawn = figures.training_curves(curves.assign(train_loss=0.2, held_out_loss=0.1))
    assert len(drawn.axes) == 1
