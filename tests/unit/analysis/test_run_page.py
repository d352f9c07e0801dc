"""The page of a run and the galleries."""

import numpy as np
import pandas as pd
import yaml

from duodiff.analysis.panels import gallery_panels, qualitative_panels
from duodiff.analysis.runs import machines, run_times, write_run
from duodiff.data.pictures import grid
from duodiff.data.store import write_store
from duodiff.records import Record, write
from duodiff.running.files import read_json

HEADER = "s\th:m:s\tmax_rss\tcpu_time\n"
RULES = ["pack_dataset", "compute_reference", "sample_images"]


def benchmark(folder, path, seconds, megabytes):
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{HEADER}{seconds}\t0:00:00\t{megabytes}\t1.0\n", encoding="utf-8")


def benchmarks(folder):
    benchmark(folder, "data/digits/pack_dataset.tsv", 30, 100)
    benchmark(folder, "data/digits/fd_digits/compute_reference_all.tsv", 12, 200)
    benchmark(folder, "data/digits/fd_digits/compute_reference_512.tsv", 18, "-")
    benchmark(folder, "mine/train0/sample_images/ddpm/duodiff/t_s=0/seed0.tsv", 60, 500)
    benchmark(folder, "mine/train0/sample_images/ddpm/duodiff/t_s=500/seed0.tsv", 30, 700)
    benchmark(folder, "other/train0/sample_images/ddpm/duodiff/t_s=0/seed0.tsv", 600, 900)
    benchmark(folder, "mine/train0/unlisted.tsv", 600, 900)


def test_run_times_are_summed_by_rule_over_the_folders_of_the_run(tmp_path):
    benchmarks(tmp_path)
    table = run_times(tmp_path, ["mine", "data/digits"], RULES)
    assert table["rule"].tolist() == RULES
    assert table["jobs"].tolist() == [1, 2, 2]
    assert table["minutes"].tolist() == [0.5, 0.5, 1.5]
    assert table["longest_minutes"].tolist() == [0.5, 0.3, 1.0]
    assert table["peak_mb"].tolist() == [100, 200, 700]
    assert run_times(tmp_path, ["nowhere"], RULES).empty


def record(device, experiment="mine", sampled=None):
    return Record(
        "m", 1.0, "1", 8, experiment, "corrected", "full", made=made(device, "2", samples=sampled)
    )


def made(device, torch, **of):
    """An object `made`, or an empty one without a device."""
    found = {"code": "c" * 64, "commit": "d" * 40, "device": device, "libraries": {"torch": torch}}
    return (found if device else {}) | {"of": {role: one for role, one in of.items() if one}}


def test_machines_are_named_once_each(tmp_path):
    rows = [vars(record(device)) for device in ("cpu", "cpu", None, "gpu")]
    table = machines(pd.DataFrame(rows), {"mine": {"title": "Mine"}})
    assert table["device"].tolist() == ["cpu", "gpu"]
    assert set(table["experiment"]) == {"Mine"}
    assert set(table["libraries"]) == {"torch 2"}
    assert set(table["commit"]) == {"d" * 10}


def test_the_machines_that_trained_sampled_and_measured_are_told_apart():
    full, heads = made("trainer", "2.1"), made("trainer", "2.2") | {"modified": True}
    shards = {"parts": [made("left", "2.3", full=full, heads=heads), made("right", "2.3")]}
    rows = pd.DataFrame([vars(record("measurer", sampled=shards)) for _ in range(2)])
    table = machines(rows, {"mine": {"title": "Mine"}})
    assert table[["work", "device", "dtype", "libraries"]].values.tolist() == [
        ["measuring", "measurer", "float32", "torch 2"],
        ["sampling", "left", "float32", "torch 2.3"],
        ["training full", "trainer", "", "torch 2.1"],
        ["training heads", "trainer", "", "torch 2.2"],
        ["sampling", "right", "float32", "torch 2.3"],
    ]
    assert table["commit"].tolist()[2:4] == ["d" * 10, "d" * 10 + " (modified)"]


def test_the_page_holds_machines_times_and_the_whole_configuration(tmp_path):
    benchmarks(tmp_path)
    write(tmp_path / "records.json", [record("A <fast> machine")])
    config = {"threads": 1, "experiments": {"mine": {"title": "Mine & yours"}}}
    page, times, settings = (tmp_path / name for name in ("run.html", "times.csv", "config.yaml"))
    line = write_run(
        [tmp_path / "records.json"],
        tmp_path,
        ["mine", "data/digits"],
        RULES,
        config,
        overview=page,
        times=times,
        settings=settings,
    )
    assert line == "5 jobs, 2.5 minutes in all"
    assert yaml.safe_load(settings.read_text(encoding="utf-8")) == config
    assert pd.read_csv(times)["minutes"].sum() == 2.5
    text = page.read_text(encoding="utf-8")
    for part in ("A &lt;fast&gt; machine", "sample_images", "Mine &amp; yours"):
        assert part in text


def test_a_grid_puts_images_in_rows_with_white_between_and_enlarges_small_ones():
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(64, axis=2).repeat(64, axis=3)
    picture = grid(images, columns=3)
    assert picture.shape == (2 * 66 - 2, 3 * 66 - 2, 3)
    assert picture[0, ::66, 0].tolist() == [0, 1, 2]
    assert picture[66, ::66, 1].tolist() == [3, 4, 255]
    assert (picture[64:66] == 255).all()
    small = np.zeros((1, 3, 2, 2), np.uint8)
    small[0, 1, 0, 1] = 9
    assert grid(small, columns=1).shape == (64, 64, 3)
    assert (grid(small, columns=1)[:32, 32:] == [0, 9, 0]).all()


def cell(folder, method, parameters, *, seed=5, sampler="ddpm", labels=(0,) * 40):
    images = np.full((len(labels), 1, 2, 2), len(str(folder)), np.uint8)
    description = {
        "experiment": "mine",
        "train_seed": 0,
        "seed": seed,
        "method": method,
        "parameters": parameters,
        "sampler": {"name": sampler, "steps": 5},
    }
    write_store(folder / "manifest.json", images, np.array(labels, np.int64), description)
    return folder / "manifest.json"


def test_figure_5_names_classes_where_they_are_known(tmp_path):
    packed = tmp_path / "pets/manifest.json"
    known = {"class_names": ["cat", "a dog with a long name"]}
    write_store(packed, np.zeros((4, 1, 2, 2), np.uint8), np.zeros(4), known)
    stores = []
    for name, t_s in (("a", 500), ("b", 0)):
        stores.append(cell(tmp_path / name, "duodiff", {"t_s": t_s}, labels=[0, 1, 2, -1]))
    studies = {"mine": {"title": "Mine", "dataset": "pets"}}
    (panel,), table = qualitative_panels(stores, [packed], studies)
    assert panel["labels"] == ["cat", "a dog with …", "2", "#3"]
    assert [name for name, _ in panel["duodiff"]] == ["0", "500"]
    assert table["label"].tolist() == [0, 1, 2, -1] * 2


def test_a_gallery_shows_training_images_then_cells_of_the_first_seed(tmp_path):
    real = tmp_path / "real/manifest.json"
    write_store(
        real,
        np.zeros((50, 1, 2, 2), np.uint8),
        np.zeros(50, np.int64),
        {"splits": {"held_out": [0, 10], "train": [10, 50]}},
    )
    cells = [  # the grid's first seed, which need not be the smallest
        cell(tmp_path / "a", "adadiff", {"theta": 0.2}),
        cell(tmp_path / "b", "duodiff", {"t_s": 500}),
        cell(tmp_path / "c", "full", {"t_s": 0}, seed=1),
        cell(tmp_path / "d", "full", {"t_s": 0}),
        cell(tmp_path / "e", "full", {"t_s": 0}, sampler="ddim"),
        cell(tmp_path / "f", "full", {"t_s": 0}, sampler="dpm_solver_pp"),
    ]
    title, panels, table = gallery_panels(cells, real, {"mine": {"title": "Mine"}})
    assert title == "Mine"
    assert [name for name, _ in panels] == [
        "Training images",
        "DDPM-5, AdaDiff, θ = 0.200",
        "DDPM-5, full backbone",
        "DDPM-5, DuoDiff, $t_s$ = 500",
        "DDIM-5, full backbone",
        "DPM-Solver++(2M)-5, full backbone",
    ]
    assert all(len(images) == 36 for _, images in panels)
    assert table["images_sha256"][0] == read_json(real)["images_sha256"]
