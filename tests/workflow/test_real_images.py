"""config/cifar10_cpu.yaml on the real images, with as little training and sampling as runs through every rule."""

import json

import pandas as pd
import pytest
import yaml
from conftest import ROOT

DATA = ROOT.parent / "shared/data"


@pytest.mark.skipif(not DATA.exists(), reason=f"needs the zips of CIFAR-10 images in {DATA}")
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
