"""The studies of real CIFAR-10 images, with as little training and sampling as runs through every rule."""

import json

import pandas as pd
import pytest
import yaml
from conftest import ROOT

DATA = ROOT.parent / "shared/data"


needs_images = pytest.mark.skipif(
    not DATA.exists(), reason=f"needs the zips of CIFAR-10 images in {DATA}"
)


@needs_images
def test_real_cifar10_images_run_from_the_zip_to_the_tables(fresh):
    config = yaml.safe_load((ROOT / "config/cifar10_cpu.yaml").read_text(encoding="utf-8"))
    config["datasets"]["cifar10_jpeg"]["path"] = "cifar10-test-jpeg.zip"
    experiment = config["experiments"]["cifar10_cpu"]
    for key in ("backbone_training", "heads_training"):
        experiment[key] |= {"steps": 20, "warmup_steps": 5}
    experiment["profile"]["timesteps"] = 4
    experiment["sampling"]["images"] = 128
    lists = {"t_s": [0, 500], "theta": ["q0.3"]}
    none = {"seeds": [], "t_s": [], "theta": []}
    experiment["grid"] = {"ddpm": {"steps": 5, **lists, "spread": none}}
    experiment["metric"] |= {"classifier": {"steps": 20, "batch": 64}, "reference": 500}
    experiment["latency"] = {"batch": 8, "repeats": 10}
    (fresh.folder / "real.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    fresh.snakemake("--config", f"data={DATA}", "--cores", "all", config="real.yaml")
    results = fresh.folder / "results"
    store = json.loads((results / "data/cifar10_jpeg/manifest.json").read_text(encoding="utf-8"))
    assert store["splits"] == {"train": [0, 9000], "held_out": [9000, 10000]}
    assert len(store["class_names"]) == 10
    assert (store["skipped"], store["converted"]) == ({}, {})
    table = pd.read_csv(results / "tables/table2.csv").query("dataset == 'CIFAR-10 at 16x16'")
    generated = table.dropna(subset="seconds")
    assert sorted(generated["method"]) == ["adadiff", "duodiff", "full"]
    assert generated["distance"].notna().all()


@needs_images
def test_the_study_of_one_gpu_is_two_commands_of_which_the_first_samples_all_cells(fresh):
    """As `make reproduce-gpu` runs it, but eager, in float32 and on a CPU, with tiny networks."""
    config = yaml.safe_load((ROOT / "config/cifar10_gpu.yaml").read_text(encoding="utf-8"))
    config |= {"device": "cpu", "threads": 1}
    config["datasets"]["cifar10_jpeg"]["path"] = "cifar10-test-jpeg.zip"
    experiment = config["experiments"]["cifar10_gpu"]
    experiment["backbone"] |= {"patch_size": 8, "embed_dim": 16, "depth": 5, "num_heads": 2}
    for key in ("backbone_training", "heads_training"):
        experiment[key] |= {"steps": 20, "warmup_steps": 5, "batch": 32, "precision": "float32"}
    experiment["profile"]["timesteps"] = 4
    eager = {"precision": "float32", "compiled": False}
    experiment["sampling"] |= {"images": 128, "batch": 64, **eager}
    experiment["grid"]["ddpm"] |= {"steps": 6, "fewer_steps": [{"steps": 4, "t_s": [0]}]}
    experiment["grid"]["ddim"]["steps"] = 5
    experiment["metric"] |= {"classifier": {"steps": 5, "batch": 64}, "reference": 500}
    experiment["latency"] = {"batch": 8, "repeats": 10}
    del config["experiments"]["cifar10_gpu_fid"]
    (fresh.folder / "gpu.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    study = ("--config", f"data={DATA}", "only=cifar10_gpu ", "--cores", "all")
    cells = "results/cifar10_gpu/train0/samples/cells.json"
    fresh.snakemake(*study, "--", cells, config="gpu.yaml")
    made = json.loads((fresh.folder / cells).read_text(encoding="utf-8"))
    assert len(made) == 6 + 3 + 3 + 1 + 3  # DDPM, thetas, the second seed, fewer steps, DDIM
    output = fresh.snakemake(*study, config="gpu.yaml")
    assert "rule sample_images" not in output
    claims = pd.read_csv(fresh.folder / "results/tables/claims.csv")
    rows = claims[claims["experiment"] == "cifar10_gpu"].set_index("claim")
    assert {*rows["scale"]} == {"reduced"}
    declared = ["full_beats_shallow", "step_like", "quality_kept", "lower_at_equal_time"]
    assert rows.loc[declared, "verdict"].notna().all()
