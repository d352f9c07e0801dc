"""One run of tests/workflow/variants.yaml: what the default leaves out, through every rule of the workflow."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import Workflow
from PIL import Image

from duodiff.data.store import ImageStore
from duodiff.uvit import UViT

CONFIG = Path(__file__).parent / "variants.yaml"
CLASSES = ["bar", "cross", "square"]


def shapes(path: Path) -> None:
    """300 images of 12 x 10 pixels in three class folders, drawn at random; one more is no image at all."""
    rng = np.random.default_rng(0)
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bar/broken.png", b"not an image")
        for i in range(300):
            pixels = np.full((12, 10, 3), rng.integers(0, 90, 3), np.uint8)
            pixels[4:7] = rng.integers(160, 256, 3)
            if i % 3 == 1:
                pixels[:, 4:7] = pixels[5, 0]
            elif i % 3 == 2:
                pixels[2:9, 2:8] = pixels[5, 0]
            with archive.open(f"{CLASSES[i % 3]}/{i:03d}.png", "w") as file:
                Image.fromarray(pixels).save(file, "png")


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> Workflow:
    workflow = Workflow(tmp_path_factory.mktemp("variants"))
    shutil.copy(CONFIG, workflow.folder / "variants.yaml")
    shapes(workflow.folder / "data/shapes.zip")
    backbone = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["experiments"]["velocity"][
        "backbone"
    ]
    torch.manual_seed(0)
    (workflow.folder / "data/weights").mkdir()
    torch.save(UViT(**backbone).state_dict(), workflow.folder / "data/weights/full.pth")
    only = "only=velocity,published,released"
    workflow.output = workflow.snakemake("--cores", "all", "--config", only, config="variants.yaml")
    return workflow


def read(variants, path: str) -> dict | list:
    return json.loads((variants.folder / "results" / path).read_text(encoding="utf-8"))


def cell(variants, path: str) -> dict:
    return read(variants, f"{path}/seed0/manifest.json")


def test_the_zip_is_packed_and_what_is_left_out_is_named(variants):
    store = read(variants, "data/shapes/manifest.json")
    assert store["class_names"] == CLASSES
    assert store["splits"] == {"train": [0, 220], "held_out": [220, 300]}
    assert "bar/broken.png" in json.dumps(store)


def test_models_are_trained_once_and_shared(variants):
    results = variants.folder / "results"
    trained = [p.parent.relative_to(results) for p in results.glob("*/train0/*/model.safetensors")]
    assert sorted(map(str, trained)) == [
        "published/train0/shallow",
        "released/train0/heads",
        "velocity/train0/full",
        "velocity/train0/heads",
        "velocity/train0/middle",
        "velocity/train0/shallow",
    ]
    full = read(variants, "published/pretrained/manifest.json")
    guided = cell(variants, "published/train0/samples/ddpm/duodiff/t_s=500")
    released = cell(variants, "released/train0/samples/ddpm/duodiff/t_s=500")
    assert guided["checkpoint_sha256"] == released["checkpoint_sha256"]
    assert released["checkpoint_sha256"]["full"] == full["weights_sha256"]


def test_cells_and_records_carry_the_protocol_and_the_departures(variants):
    released = cell(variants, "released/train0/samples/ddpm/adadiff/theta=q0.3")
    assert released["departures"] == [
        "full: schedule is vpsde, configured linear",
        "full: time_input is 999(t+1)/1000, configured t",
    ]
    assert cell(variants, "published/train0/samples/ddpm/duodiff/t_s=500")["departures"] == []
    protocols = {"velocity": "corrected", "published": "corrected", "released": "paper"}
    for name, protocol in protocols.items():
        for kind in ("evaluate_samples", "measure_latency"):
            records = read(variants, f"{name}/train0/records/{kind}.json")
            assert {r["protocol"] for r in records} == {protocol}


def test_released_ddim_makes_one_call_less_and_labels_from_1(variants):
    released = cell(variants, "released/train0/samples/ddim/duodiff/t_s=0")
    corrected = cell(variants, "velocity/train0/samples/ddim/duodiff/t_s=0")
    assert (released["nfe"], corrected["nfe"]) == (4, 5)
    folder = variants.folder / "results"
    drawn = ImageStore(folder / "released/train0/samples/ddim/duodiff/t_s=0/seed0/manifest.json")
    balanced = ImageStore(folder / "velocity/train0/samples/ddim/duodiff/t_s=0/seed0/manifest.json")
    assert set(np.unique(drawn.labels)) == {1, 2, 3}
    assert set(np.unique(balanced.labels)) == {0, 1, 2}


def test_a_third_sampler_goes_through_every_rule(variants):
    switched = cell(variants, "velocity/train0/samples/dpm_solver_pp/duodiff/t_s=500")
    assert (switched["nfe"], switched["timesteps"]) == (4, [999, 666, 333, 0])
    metrics = pd.read_csv(variants.folder / "results/tables/metrics.csv")
    assert set(metrics["sampler"].dropna()) == {"ddpm", "ddim", "dpm_solver_pp"}
    records = read(variants, "velocity/train0/records/measure_latency.json")
    timed = [r for r in records if r["sampler"] == "dpm_solver_pp" and r["metric"] == "speedup"]
    assert [r["parameters"].get("t_s") for r in timed] == [0, 500, None]


def test_a_named_schedule_goes_through_every_rule(variants):
    every = cell(variants, "velocity/train0/samples/dpm_solver_pp/schedule/schedule=every")
    assert (every["nfe"], every["timesteps"]) == (5, [999, 600, 400, 200, 0])
    assert set(every["checkpoint_sha256"]) == {"full", "shallow", "heads", "middle"}
    networks = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["experiments"]["velocity"][
        "networks"
    ]
    assert every["parameters"]["networks"] == {k: networks[k] for k in ("early", "guided")}
    records = [
        record
        for kind in ("evaluate_samples", "measure_latency")
        for record in read(variants, f"velocity/train0/records/{kind}.json")
        if record["parameters"].get("schedule") == "every"
    ]
    assert {r["method"] for r in records} == {"schedule"}
    found = {r["metric"]: r["value"] for r in records}
    assert {"fd_shapes", "speedup", "gflops_per_trajectory", "peak_memory_mb"} <= set(found)
    metrics = pd.read_csv(variants.folder / "results/tables/metrics.csv")
    (row,) = metrics[metrics["schedule"] == "every"].to_dict("records")
    assert (row["method"], row["steps"]) == ("schedule", 5)
    assert row["distance"] == pytest.approx(found["fd_shapes"])
    resources = pd.read_csv(variants.folder / "results/tables/resources.csv")
    (row,) = resources[resources["schedule"] == "every"].to_dict("records")
    assert row["gflops_trajectory"] == pytest.approx(found["gflops_per_trajectory"])
    curves = pd.read_csv(variants.folder / "results/figures/training.csv")
    assert {"full", "shallow", "middle", "heads"} == set(curves["model"])


def test_a_budget_is_chosen_before_it_is_sampled(variants):
    chosen = variants.folder / "results/velocity/train0/profile/chosen.json"
    found = json.loads(chosen.read_text(encoding="utf-8"))["ddpm"]["few"]
    few = cell(variants, "velocity/train0/samples/ddpm/schedule/schedule=few")
    said = few["parameters"]
    assert (said["schedule"], said["intervals"]) == ("few", found["intervals"])
    assert said["prediction_sha256"] == hashlib.sha256(chosen.read_bytes()).hexdigest()
    assert found["operations"] <= 0.9
    records = read(variants, "velocity/train0/records/evaluate_samples.json")
    measured = [r for r in records if r["parameters"].get("schedule") == "few"]
    assert {r["parameters"]["prediction_sha256"] for r in measured} == {said["prediction_sha256"]}
    summary = (variants.folder / "results/summary.txt").read_text(encoding="utf-8")
    predicted = found["predicted_share"] is not None
    assert ("few (ddpm), chosen before sampling: predicted share" in summary) == predicted


def test_the_lines_that_choose_prints_are_run_as_they_are(variants):
    """A file of them follows the configuration. Only the chosen cell is sampled."""
    study = "results/velocity/train0"
    command = [sys.executable, "-m", "duodiff", "choose", study, "--budget", "0.5", "--by", "steps"]
    lines = subprocess.run(
        command, cwd=variants.folder, check=True, capture_output=True, encoding="utf-8"
    ).stdout
    (variants.folder / "chosen.yaml").write_text(lines, encoding="utf-8")
    target = f"{study}/samples/ddpm/schedule/schedule=chosen/seed0/manifest.json"
    options = ("--configfile", "variants.yaml", "chosen.yaml", "--config", "only=velocity")
    assert variants.pending(*options, "--", target) == {"sample_images": 1}
    variants.snakemake(*options, "--cores", "all", "--", target)
    (schedule,) = yaml.safe_load(lines)["experiments"]["velocity"]["schedules"].values()
    said = cell(variants, "velocity/train0/samples/ddpm/schedule/schedule=chosen")
    wanted = [[one["network"], *one["t"]] for one in schedule["intervals"]]
    assert said["parameters"]["intervals"] == wanted
    assert said["timesteps"] == schedule["timesteps"]


def test_guidance_is_recorded(variants):
    assert (
        cell(variants, "published/train0/samples/ddpm/duodiff/t_s=500")["parameters"]["guidance"]
        == 0.4
    )


def test_switch_schedules_are_sampled_anew_where_backbones_are_compiled(variants):
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["experiments"]["velocity"]["sampling"]["compiled"] = True
    (variants.folder / "compiled.yaml").write_text(
        yaml.safe_dump(config, sort_keys=False), encoding="utf-8"
    )
    options = ("--dry-run", "--printshellcmds", "--config", "only=velocity")
    commands = variants.snakemake(*options, config="compiled.yaml").splitlines()
    sampling = [line for line in commands if "workflow_scripts/sample_images.py" in line]
    assert len(sampling) == 7  # and not theta's, which would be the same
    assert all("--compiled" in line for line in sampling)


def test_exits_of_a_network_that_predicts_v_are_profiled(variants):
    profile = pd.read_csv(variants.folder / "results/velocity/train0/profile/exits.csv")
    assert profile["sampler"].unique().tolist() == ["ddim"]
    assert profile["mean"].between(0, 5).all()


def test_every_item_is_made_of_all_three(variants):
    folder = variants.folder / "results"
    for name in ("table1", "table2"):
        table = pd.read_csv(folder / f"tables/{name}.csv")
        ours = table[table["dataset"].str.startswith("Shapes")]
        assert ours["distance"].notna().any()
    summary = (folder / "summary.txt").read_text(encoding="utf-8")
    assert summary.count("real images against real images") == 3
    assert summary.count("paper protocol") == 1
    assert not (folder / "left_out").exists()
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "Experiments: velocity,published,released." in report
