import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from duodiff.study.config import complete
from duodiff.study.grid import grid_points

ROOT = Path(__file__).parents[2]


def edit(workflow, path: str, old: str, new: str):
    """Replaces text in a file of the copy; returns a function that puts it back."""
    file = workflow.folder / path
    before = file.read_text(encoding="utf-8")
    assert old in before
    file.write_text(before.replace(old, new, 1), encoding="utf-8")
    return lambda: file.write_text(before, encoding="utf-8")


# --- before any run


def test_typos_are_refused_by_name_before_anything_runs(fresh):
    edit(fresh, "config/test.yaml", "embed_dim: 32", "embed_dimm: 32")
    done = fresh.run("--cores", "1")
    assert done.returncode != 0
    assert "unknown key 'embed_dimm' (did you mean 'embed_dim'?)" in done.stdout
    assert not (fresh.folder / "results").exists()


@pytest.mark.parametrize("cores", ["1", "2", "all"])
def test_a_fresh_clone_plans_the_whole_default_run(fresh, cores):
    found = fresh.snakemake("--dry-run", "--cores", cores, config="config/config.yaml")
    config = yaml.safe_load((fresh.folder / "config/config.yaml").read_text(encoding="utf-8"))
    cells = len(grid_points(complete(config)["experiments"]["digits"]))
    assert re.search(rf"sample_images +{cells}\n", found)


def test_a_dry_run_needs_no_number_of_cores(fresh):
    assert "measure_latency" in fresh.snakemake("--dry-run")


def test_a_configuration_file_replaces_the_default_instead_of_merging(fresh):
    text = (fresh.folder / "config/test.yaml").read_text(encoding="utf-8")
    (fresh.folder / "mine.yaml").write_text(
        text.replace("  digits: &digits\n", "  mine: &digits\n"), encoding="utf-8"
    )
    found = fresh.snakemake("--dry-run", "--cores", "1", config="mine.yaml")
    assert "results/mine/" in found
    assert "results/digits/" not in found


def test_the_papers_numbers_make_items_of_their_own_without_any_run(fresh):
    jobs = fresh.pending("paper_figures", config="config/config.yaml")
    assert set(jobs.values()) == {1}
    assert {name.partition("_")[0] for name in jobs} == {"describe", "make", "paper"}
    said = fresh.snakemake("--cores", "all", "paper_figures", config="config/config.yaml")
    assert "results/paper: claims, ddim, figure3" in said
    folder = fresh.folder / "results/paper"
    for name in ("table1", "table2", "table3", "table4"):
        for suffix in (".csv", ".md", ".tex", ".html"):
            assert (folder / f"{name}{suffix}").stat().st_size > 100
    for name in ("figure3", "figure4", "figure6", "figure7", "ddim", "relative"):
        for suffix in (".csv", ".svg", ".png", ".pdf"):
            assert (folder / f"{name}{suffix}").stat().st_size > 400
    assert fresh.pending("paper_figures", config="config/config.yaml") == {}
    assert not (fresh.folder / "results/data").exists()


# --- the finished run


def test_every_item_exists_and_is_not_empty(finished):
    for name in ("table1", "table2", "table3", "table4", "metrics", "resources", "front", "claims"):
        for suffix in (".csv", ".md", ".tex", ".html"):
            assert (finished.folder / f"results/tables/{name}{suffix}").stat().st_size > 100
    figures = [f"figure{i}" for i in range(1, 8)] + ["relative", "front", "training", "denoising"]
    for name in figures:
        for suffix in (".csv", ".svg", ".png", ".pdf"):
            assert (finished.folder / f"results/figures/{name}{suffix}").stat().st_size > 500


def test_the_run_ends_with_the_headline_and_where_the_report_is(finished):
    summary = (finished.folder / "results/summary.txt").read_text(encoding="utf-8")
    assert summary in finished.output
    assert "DuoDiff there" in summary
    assert "results/report.html" in summary
    assert "results/index.html" in summary


def test_an_edit_of_the_look_of_the_page_makes_the_page_alone(finished):
    undo = edit(finished, "report/page/style.css", "max-width: 84rem", "max-width: 85rem")
    jobs = finished.pending()
    undo()
    assert jobs == {"make_page": 1}
    assert finished.pending() == {}


def test_the_report_holds_every_item(finished):
    report = (finished.folder / "results/report.html").read_text(encoding="utf-8")
    labels = re.findall(
        r'(?:label=|"item": )"(.+?)"', (ROOT / "rules/paper.smk").read_text(encoding="utf-8")
    )
    assert len(labels) == 22
    labels.remove("Distance against n, extrapolated")  # too few images here
    for label in labels:
        label = label.format(experiment="digits", train_seed=0)
        assert f'"item": "{label}"' in report


def test_a_second_run_does_nothing(finished):
    assert finished.pending() == {}
    assert "Nothing to be done" in finished.snakemake("--cores", "all")


def test_one_changed_theta_reruns_only_what_depends_on_it(finished):
    undo = edit(finished, "config/test.yaml", "theta: [q0.5, 0.3]", "theta: [q0.5, 0.35]")
    jobs = finished.pending()
    undo()
    assert jobs.pop("sample_images") == 1
    assert set(jobs) == {
        "profile_exits",
        "evaluate_samples",
        "measure_latency",
        "make_table1",
        "make_table2",
        "make_metrics",
        "make_resources",
        "make_front",
        "make_claims",
        "plot_figure1",
        "plot_figure4",
        "plot_figure5",
        "plot_relative",
        "plot_front",
        "plot_gallery",
        "describe_run",
        "summarise",
        "make_page",
    }


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("samplers", "(x.clamp(-1, 1) + 1) * 127.5", "(x.clamp(-1, 1) + 1) * 127.4"),
        ("backbones", "T - later[0]", "T - later[0] - 1"),
    ],
)
def test_an_edit_of_the_samplers_or_the_switch_reruns_sampling_and_not_training(
    finished, module, old, new
):
    undo = edit(finished, f"duodiff/{module}.py", old, new)
    jobs = finished.pending()
    undo()
    assert jobs["sample_images"] == 10 + 3
    assert {"train_backbone", "train_heads", "train_classifier", "pack_dataset"}.isdisjoint(jobs)
    assert finished.pending() == {}


def test_an_edit_of_a_figure_reruns_that_figure_alone(finished):
    script = "workflow_scripts/plot_figure5.py"
    undo = edit(finished, script, "qualitative_panels(samples, ", "qualitative_panels(samples[:], ")
    jobs = finished.pending()
    undo()
    assert jobs == {"plot_figure5": 1}


# --- its checkpoints, used


def python(workflow, *arguments: str) -> None:
    """A program on the finished run, with the number of threads of its jobs."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(workflow.folder)}
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=workflow.folder, env=environment, check=True)


@pytest.mark.parametrize(
    ("study", "cell", "setting"),
    [
        ("digits", "ddpm/duodiff/t_s=500", ["--t-s", "500"]),
        ("digits", "ddim/duodiff/t_s=500", ["--t-s", "500", "--sampler", "ddim"]),
        ("digits", "ddpm/adadiff/theta=q0.5", ["--theta", "q0.5"]),
        ("digits_latent", "ddpm/duodiff/t_s=500", ["--t-s", "500"]),
    ],
)
def test_the_command_line_makes_the_images_of_the_grid(finished, tmp_path, study, cell, setting):
    folder = f"results/{study}/train0"
    command = ["-m", "duodiff", "sample", folder, *setting, "--images", "70", "--pngs"]
    python(finished, *command, "--out", str(tmp_path))
    stored = finished.folder / folder / "samples" / cell / "seed0"
    assert np.array_equal(np.load(tmp_path / "images.npy"), np.load(stored / "images.npy")[:70])
    of_the_grid, manifest = (
        json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        for path in (stored, tmp_path)
    )
    for key in ("parameters", "checkpoint_sha256", "sampler", "compute_batch", "made"):
        assert manifest[key] == of_the_grid[key]
    assert (tmp_path / "grid.png").stat().st_size > 1000
    assert len(list((tmp_path / "images").glob("*.png"))) == 70


def test_the_example_runs_on_the_trained_backbones(finished, tmp_path):
    example = str(ROOT / "docs/examples/two_backbones.py")
    python(finished, example, "results/digits/train0", str(tmp_path / "two.png"))
    with Image.open(tmp_path / "two.png") as picture:
        assert picture.size == (10 * 66 - 2, 6 * 66 - 2)


def test_trainings_leave_their_progress_beside_the_logs(finished):
    logs = finished.folder / "logs"
    study = logs / "digits/train0"
    trainings = [
        study / "train_backbone/full",
        study / "train_backbone/shallow",
        study / "train_heads",
    ]
    for folder in [*trainings, logs / "data/digits_latent/train_autoencoder"]:
        assert (folder / "progress.png").stat().st_size > 5000
        assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_an_edit_of_what_shows_a_training_reruns_nothing(finished):
    monitor = "duodiff/training/monitor.py"
    undo = edit(finished, monitor, "class Monitor", "EDITED = 1\n\n\nclass Monitor")
    jobs = finished.pending()
    undo()
    assert jobs == {}


def test_a_changed_limit_reruns_the_claims_alone(finished):
    undo = edit(finished, "config/test.yaml", "threads: 1\n", "threads: 1\nclaims: {trend: 0.5}\n")
    jobs = finished.pending()
    undo()
    # and what shows them, and the whole configuration
    assert jobs == {"make_claims": 1, "summarise": 1, "describe_run": 1, "make_page": 1}


def test_the_claims_are_made_again_from_records_alone_byte_for_byte(finished):
    tables = sorted((finished.folder / "results/tables").glob("claims.*"))
    before = [path.read_bytes() for path in tables]
    for path in tables:
        path.unlink()
    assert finished.pending() == {"make_claims": 1, "summarise": 1, "make_page": 1}
    finished.snakemake("--cores", "1")
    assert [path.read_bytes() for path in tables] == before


# --- what it measured


def manifest(finished, cell: str) -> dict:
    path = finished.folder / f"results/digits/train0/samples/{cell}/manifest.json"
    return json.loads(path.read_text(encoding="utf-8"))


def samples(finished, cell: str) -> np.ndarray:
    return np.load(finished.folder / f"results/digits/train0/samples/{cell}/images.npy")


def test_records_say_what_they_measured(finished):
    folder = finished.folder / "results/digits/train0/records"
    records = [
        r for path in folder.glob("*.json") for r in json.loads(path.read_text(encoding="utf-8"))
    ]
    timings = [r for r in records if r["metric"] == "seconds_per_image"]
    # three t_s, two thetas, all heads and no exit under DDPM, two t_s under DDIM
    assert len(timings) == 9
    for record in timings:
        assert record["steps"] == {"ddpm": 20, "ddim": 10}[record["sampler"]]
        assert record["interval"][0] <= record["value"] <= record["interval"][1]
        assert record["made"]["device"].endswith("1 thread")
    for metric in (
        "gflops_per_trajectory",
        "resident_parameters",
        "peak_memory_mb",
        "load_seconds",
    ):
        assert sum(r["metric"] == metric and r["value"] > 0 for r in records) == 9
    flips = [r for r in records if r["method"] == "adadiff_simulated_against_shrinking"]
    assert {r["metric"] for r in flips} == {"exits_flipped", "images_within_one_level"}
    assert all(0 <= r["value"] <= 1 and r["n"] == 16 for r in flips)
    distances = [r for r in records if r["metric"] == "fd_digits" and r["sampler"]]
    assert len(distances) == 10
    fewer = [
        (r["sampler"], r["steps"], r["parameters"]["t_s"]) for r in distances if r["steps"] == 5
    ]
    assert sorted(fewer) == [("ddpm", 5, 0), ("ddpm", 5, 500)]
    for record in distances:
        assert record["n"] == 96
        assert record["reference_n"] == 1437
        assert record["protocol"] == "corrected"
        assert record["compute_batch"] == 64
        assert record["nfe"] == record["steps"]
        assert record["made"]["device"]
        assert set(record["seeds"]) == {"train_seed", "sample_seed"}
        assert all(len(digest) == 64 for digest in record["reference_sha256"].values())
        assert all(len(digest) == 64 for digest in record["checkpoint_sha256"].values())
    assert {r["method"] for r in records} >= {
        "full",
        "shallow",
        "duodiff",
        "adadiff",
        "adadiff_all_heads",
        "real_halves",
        "real_held_out",
        "noise",
    }
    assert not any(r["metric"].startswith("fid") for r in records)


def test_every_cell_has_every_metric_with_its_interval(finished):
    table = pd.read_csv(finished.folder / "results/tables/metrics.csv")
    cells = table[table["sampler"].notna()]
    assert cells.groupby("dataset").size().tolist() == [3, 9]  # latent, and in pixels
    for column in ("distance", "kernel", "precision", "recall"):
        assert np.isfinite(cells[column]).all()
    base = (cells["method"] == "full") & (cells["steps"] != 5)
    others = cells[~base]
    assert (others["difference_low"] < others["difference"]).all()
    assert (others["difference"] < others["difference_high"]).all()
    assert cells[base]["difference"].isna().all()
    assert set(table["method"]) >= {"real_held_out", "noise"}


def test_a_cell_is_exported_for_other_tools_on_request(finished):
    cell = "ddpm/duodiff/t_s=500/seed0"
    target = f"results/digits/train0/export/{cell}"
    finished.snakemake("--cores", "1", f"{target}.npz", target)
    exported = np.load(finished.folder / f"{target}.npz")["arr_0"]
    assert np.array_equal(exported[..., 0], samples(finished, cell)[:, 0])
    assert len(list((finished.folder / target).glob("*.png"))) == 96


def test_cells_share_labels_and_differ_in_images(finished):
    cells = [f"ddpm/duodiff/t_s={t_s}/seed0" for t_s in (0, 500, 1000)]
    digests = [manifest(finished, cell) for cell in cells]
    assert len({m["labels_sha256"] for m in digests}) == 1
    assert len({m["images_sha256"] for m in digests}) == 3
    assert not np.array_equal(
        samples(finished, cells[0]), samples(finished, "ddpm/duodiff/t_s=0/seed1")
    )


def test_checkpoints_named_by_a_cell_are_those_it_used(finished):
    used = {
        "ddpm/duodiff/t_s=0/seed0": {"full"},
        "ddpm/duodiff/t_s=500/seed0": {"full", "shallow"},
        "ddpm/duodiff/t_s=1000/seed0": {"shallow"},
        "ddpm/adadiff/theta=0.3/seed0": {"full", "heads"},
    }
    for cell, roles in used.items():
        assert set(manifest(finished, cell)["checkpoint_sha256"]) == roles


def test_a_quantile_theta_is_resolved_from_the_observed_uncertainties(finished):
    quantiles = json.loads(
        (finished.folder / "results/digits/train0/profile/quantiles.json").read_text(
            encoding="utf-8"
        )
    )
    parameters = manifest(finished, "ddpm/adadiff/theta=q0.5/seed0")["parameters"]
    assert parameters["setting"] == "q0.5"
    assert parameters["theta"] == pytest.approx(quantiles["values"][500])


def test_exit_profile_summarises_the_stored_exit_layers(finished):
    folder = finished.folder / "results/digits/train0"
    exits = np.load(folder / "samples/ddpm/adadiff/theta=q0.5/seed0/blocks_run.npy")
    assert exits.shape == (20, 96)
    table = pd.read_csv(folder / "profile/exits.csv")
    table = table[table["setting"] == "q0.5"]
    assert table["t"].tolist() == np.linspace(0, 999, 20).astype(int)[::-1].tolist()
    np.testing.assert_allclose(table["mean"], exits.mean(1), rtol=1e-6)
    np.testing.assert_allclose(table["std"], exits.std(1), rtol=1e-6, atol=1e-9)
    assert (table["min"] == exits.min(1)).all()
    assert (table["max"] == exits.max(1)).all()


def test_tables_show_the_papers_numbers_beside_ours(finished):
    table = pd.read_csv(finished.folder / "results/tables/table2.csv")
    published = table[table["dataset"] == "ImageNet 64x64"]
    assert published[published["t_s"] == 300]["fid_paper"].item() == 21.49
    ours = table[table["dataset"] == "Digits 8x8 (test)"]
    scale = ours["method"].isin(["noise", "real_halves", "real_held_out"])
    assert scale.sum() == 3
    assert set(ours[~scale]["method"]) == {"full", "duodiff", "shallow", "adadiff"}
    assert ours["fid_paper"].isna().all()
    assert (
        ours[~scale][["distance", "label_agreement", "seconds", "speedup"]].notna().all(axis=None)
    )


def test_the_claims_are_tested_on_every_study_and_on_the_published_tables(finished):
    table = pd.read_csv(finished.folder / "results/tables/claims.csv").set_index(
        ["claim", "source"]
    )
    sources = table.index.get_level_values("source")
    ours = ["Digits 8x8 (test)", "Digits 16x16, latent (test)"]
    assert list(sources.unique()[:2]) == ours
    assert (table.loc[sources.isin(ours), "rests_on"] == "one training (seed 0)").all()
    found = table["verdict"].unstack()
    assert found.loc["latent_faster", ours].tolist()[0] == "not tested"
    assert found.loc["ddim_faster", ours].tolist()[1] == "not tested"
    # others may be untested here: exits that hardly vary over t, an AdaDiff faster than every t_s
    tested = found.loc[["full_beats_noise", "losses_agree", "heads_cost", "heads_operations"], ours]
    assert not (tested == "not tested").any(axis=None)
    # the study in latent space has no shallow backbone alone, so it can say nothing about t_s
    assert found.loc["faster_than_base", ours].tolist()[1] == "void"
    assert (table.loc[sources.isin(ours), "scale"] == "toy").all()
    row = table.loc[("losses_agree", ours[0])]
    records = json.loads(
        (finished.folder / "results/digits/train0/records/profile_denoising.json").read_text(
            encoding="utf-8"
        )
    )
    (record,) = (r for r in records if r["metric"] == "loss_ratio_large_t")
    assert [row["value"], row["low"], row["high"]] == pytest.approx(
        [record["value"], *record["interval"]]
    )
    # the same rows without a run
    finished.snakemake("--cores", "1", "results/paper/claims.csv")
    both, alone = (
        pd.read_csv(finished.folder / f"results/{folder}/claims.csv", dtype=str)
        for folder in ("tables", "paper")
    )
    both = both[~both["source"].isin(ours)].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone)


# --- in latent space


def test_the_latent_chain_leaves_its_autoencoder_and_moments(finished):
    folder = finished.folder / "results/data/digits_latent"
    config = json.loads((folder / "autoencoder/config.json").read_text(encoding="utf-8"))
    assert (config["in_channels"], config["latent_channels"]) == (1, 3)
    assert (folder / "autoencoder/diffusion_pytorch_model.safetensors").stat().st_size > 10_000
    manifest = json.loads((folder / "latents/manifest.json").read_text(encoding="utf-8"))
    assert manifest["scale"] == config["scaling_factor"]
    assert np.load(folder / "latents/moments.npy", mmap_mode="r").shape == (1797, 1, 6, 8, 8)
    assert not list(folder.glob("latents/shards/*"))
    log = finished.folder / "logs/data/digits_latent/train_autoencoder.log"
    assert re.search(r"held-out reconstruction rms 0\.\d+", log.read_text(encoding="utf-8"))


def test_the_latent_cells_are_decoded_and_name_what_they_were_made_with(finished):
    folder = finished.folder / "results/digits_latent/train0"
    for role in ("full", "shallow", "heads"):
        assert (folder / role / "model.safetensors").exists()
    latents = finished.folder / "results/data/digits_latent/latents/manifest.json"
    weights = json.loads(latents.read_text(encoding="utf-8"))["autoencoder"]["weights_sha256"]
    cells = sorted(folder.glob("samples/ddpm/*/*/seed0"))
    assert len(cells) == 3
    for cell in cells:
        images = np.load(cell / "images.npy")
        assert (images.shape, images.dtype) == ((96, 1, 16, 16), np.uint8)
        made = json.loads((cell / "manifest.json").read_text(encoding="utf-8"))
        assert made["autoencoder"]["weights_sha256"] == weights


def test_the_latent_cells_are_measured_and_decoding_is_timed_apart(finished):
    folder = finished.folder / "results/digits_latent/train0/records"
    records = [
        r for path in folder.glob("*.json") for r in json.loads(path.read_text(encoding="utf-8"))
    ]
    distances = [r for r in records if r["metric"] == "fd_digits16" and r["sampler"]]
    assert {r["method"] for r in distances} == {"full", "duodiff", "adadiff"}
    (decoding,) = [r for r in records if r["metric"] == "decode_seconds_per_image"]
    assert (decoding["method"], decoding["sampler"]) == ("decode", None)
    table = pd.read_csv(finished.folder / "results/tables/table2.csv")
    ours = table[table["dataset"] == "Digits 16x16, latent (test)"]
    assert {"full", "duodiff", "adadiff"} <= set(ours["method"])
    assert "decoding takes" in (finished.folder / "results/summary.txt").read_text(encoding="utf-8")
