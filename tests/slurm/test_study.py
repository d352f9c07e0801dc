"""A study whose jobs go through sbatch, with cells in shards, against the same study run here in one."""

import json

import pytest
import yaml
from conftest import ROOT, Workflow

from slurm.conftest import PROFILE, Submitted

CONFIG = "study.yaml"
RECORDS = "results/digits/train0/records/evaluate_samples.json"
CELLS = [
    "ddpm/duodiff/t_s=0",
    "ddpm/duodiff/t_s=500",
    "ddpm/adadiff/theta=q0.5",
    "ddim/duodiff/t_s=0",
]


def write_study(workflow: Workflow, shards: int) -> None:
    """config/test.yaml with four cells, those of DDPM in so many shards."""
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text(encoding="utf-8"))
    del config["datasets"]["digits_latent"], config["experiments"]["digits_latent"]
    none = {"seeds": [], "t_s": [], "theta": []}
    config["experiments"]["digits"]["grid"] = {
        "ddpm": {"steps": 20, "shards": shards, "t_s": [0, 500], "theta": ["q0.5"], "spread": none},
        "ddim": {"steps": 10, "eta": 0, "t_s": [0], "theta": [], "spread": none},
    }
    (workflow.folder / CONFIG).write_text(yaml.safe_dump(config), encoding="utf-8")


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Workflow:
    """The study's images and metrics, made on this machine."""
    workflow = Workflow(tmp_path_factory.mktemp("here"))
    write_study(workflow, shards=1)
    workflow.snakemake("--cores", "2", RECORDS, config=CONFIG)
    return workflow


@pytest.fixture(scope="module")
def submitted(tmp_path_factory, cluster) -> Submitted:
    """The whole study after a submission that has ended well; a GPU, that is no GPU, for each job that may want one."""
    workflow = Workflow(tmp_path_factory.mktemp("submitted"))
    write_study(workflow, shards=2)
    resources = {rule: dict(values) for rule, values in PROFILE["set-resources"].items()}
    for rule in ("train_backbone", "train_heads", "sample_images", "sample_shard"):
        resources[rule]["gpu"] = 1
    study = Submitted(workflow, cluster, resources)
    study.run(config=CONFIG)
    return study


def test_images_and_metrics_are_those_of_this_machine(here, submitted):
    for cell in CELLS:
        for name in ("manifest.json", "images.npy", "labels.npy", "blocks_run.npy"):
            path = f"results/digits/train0/samples/{cell}/seed0/{name}"
            found = (submitted.workflow.folder / path).read_bytes()
            assert found == (here.folder / path).read_bytes(), path
    metrics, expected = (
        json.loads((workflow.folder / RECORDS).read_text(encoding="utf-8"))
        for workflow in (submitted.workflow, here)
    )
    assert len(metrics) > len(CELLS)
    assert metrics == expected


def test_the_jobs_ran_on_several_nodes_and_the_small_ones_here(submitted):
    jobs = submitted.jobs()
    rules = [job["comment"].split("_wildcards")[0].removeprefix("rule_") for job in jobs]
    assert {job["state"] for job in jobs} == {"COMPLETED"}
    assert len({job["node"] for job in jobs}) > 1
    assert rules.count("sample_shard") == 3 * 2
    assert set(rules) <= set(PROFILE["set-resources"])
    assert (submitted.workflow.folder / "results/summary.txt").exists()


def test_a_second_submission_does_nothing(submitted):
    before = submitted.jobs()
    submitted.run(config=CONFIG)
    assert "Nothing to be done" in submitted.output
    assert submitted.jobs() == before


def test_shards_are_gone_once_they_are_joined(submitted):
    folder = submitted.workflow.folder / "results/digits/train0/samples"
    assert not [path for path in folder.rglob("shards/**/*") if path.is_file()]
