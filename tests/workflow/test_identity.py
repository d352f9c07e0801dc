"""What is made again after an edit, by dry runs on copies of the finished run, and what is taken for finished."""

import json
import os
import random
import re
import shutil
import subprocess

import pytest
import yaml
from conftest import Workflow

CONFIG = "config/test.yaml"
AFTER_TIMING = {
    "make_claims",
    "make_metrics",
    "make_resources",
    "make_front",
    "make_table1",
    "make_table2",
    "plot_figure4",
    "plot_relative",
    "plot_front",
    "summarise",
    "describe_run",
    "make_page",
}
"""What shows a timing."""


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Workflow:
    """The finished run with Snakemake's memory of it, for these tests alone: they edit its files."""
    workflow = Workflow(tmp_path_factory.mktemp("identity"))
    for name in ("results", ".snakemake"):
        shutil.copytree(finished.folder / name, workflow.folder / name)
    return workflow


@pytest.fixture(scope="module")
def elsewhere(finished, tmp_path_factory) -> Workflow:
    """Its results alone in a fresh clone, where the files have got new times in an order of chance."""
    workflow = Workflow(tmp_path_factory.mktemp("elsewhere"))
    shutil.copytree(finished.folder / "results", workflow.folder / "results")
    files = sorted(path for path in workflow.folder.glob("results/**/*") if path.is_file())
    random.Random(0).shuffle(files)
    for i, path in enumerate(files):
        os.utime(path, (1e9 + i, 1e9 + i))
    return workflow


def configuration(workflow: Workflow) -> dict:
    found = yaml.safe_load((workflow.folder / CONFIG).read_text(encoding="utf-8"))
    return json.loads(json.dumps(found))  # the experiments share no section


def planned(workflow: Workflow, config: dict) -> dict[str, int]:
    """The jobs that a run with this configuration would start."""
    path = workflow.folder / "edited.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return workflow.pending(config="edited.yaml")


def reversed_keys(value):
    """The same configuration with its keys in the other order, and 1 where 1.0 stood."""
    if isinstance(value, dict):
        return {key: reversed_keys(item) for key, item in reversed(list(value.items()))}
    if isinstance(value, list):
        return [reversed_keys(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- nothing to do


def test_comments_in_every_module_and_script_make_nothing_again(run):
    files = [*run.folder.glob("duodiff/**/*.py"), *run.folder.glob("workflow_scripts/*.py")]
    before = {path: path.read_text(encoding="utf-8") for path in files}
    for path, text in before.items():
        path.write_text(f"# a comment\n{text}\n# another\n", encoding="utf-8")
    jobs = run.pending()
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")
    assert jobs == {}


def test_another_form_of_the_same_configuration_makes_nothing_again(run):
    config = reversed_keys(configuration(run))
    experiment = config["experiments"]["digits"]
    assert "precision" not in experiment["sampling"]
    experiment["sampling"]["precision"] = "float32"  # the default
    assert experiment["backbone_training"]["grad_clip"] == 1
    assert planned(run, config) == {}


def test_the_number_of_shards_makes_nothing_again(run):
    config = configuration(run)
    config["datasets"]["digits_latent"]["autoencoder"]["shards"] = 3
    config["experiments"]["digits"]["grid"]["ddpm"]["shards"] = 2
    assert planned(run, config) == {}


def test_shards_are_not_kept_in_the_store_and_whole_cells_are(fresh):
    """All shards of a cell have its identity."""
    config = configuration(fresh)
    config["only"] = ["digits"]
    config["experiments"]["digits"]["grid"]["ddpm"]["shards"] = 2
    path = fresh.folder / "edited.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    printed = fresh.snakemake("-n", "-p", config="edited.yaml")
    plans = [
        json.loads(text)
        for text in re.findall(r"sample_images\.py .* --plan '(.*)' --log", printed)
    ]
    kept = {"/shards/" in plan["outputs"][0]: plan["kept"] for plan in plans}
    assert kept == {True: False, False: True}


@pytest.mark.parametrize("edited", [{"threads": 2}, {"device": "cuda"}], ids=["threads", "device"])
def test_threads_and_the_device_are_those_of_a_timing_alone(run, edited):
    jobs = planned(run, configuration(run) | edited)
    assert jobs.pop("measure_latency") == 2
    assert set(jobs) <= AFTER_TIMING


def test_results_that_were_copied_are_taken_for_finished_whatever_their_times(elsewhere):
    assert elsewhere.pending() == {}


def test_shards_of_an_unfinished_run_are_copied_with_it_and_compared_too(elsewhere):
    """They were joined whatever they had been sampled with, where Snakemake remembers nothing of them."""
    config = configuration(elsewhere)
    config["experiments"]["digits"]["grid"]["ddpm"]["shards"] = 2
    cell = elsewhere.folder / "results/digits/train0/samples/ddpm/duodiff/t_s=500/seed0"
    cell.rename(cell.with_name("aside"))
    for shard in ("0-of-2", "1-of-2"):
        (cell / "shards" / shard).mkdir(parents=True)
        for name in ("manifest.json", "images.npy", "labels.npy", "blocks_run.npy"):
            (cell / "shards" / shard / name).write_bytes(b"{}")
    jobs = planned(elsewhere, config)
    shutil.rmtree(cell)
    cell.with_name("aside").rename(cell)
    assert jobs["sample_shard"] == 2
    assert jobs["gather_samples"] == 1
    assert "train_backbone" not in jobs


# --- exactly what depends on it


TRAINED = {"train_backbone", "train_heads", "profile_denoising", "sample_images", "measure_latency"}
"""What makes results from the backbones."""


def test_an_edited_learning_rate_is_noticed_where_snakemake_remembers_nothing(elsewhere):
    config = configuration(elsewhere)
    config["experiments"]["digits"]["backbone_training"]["lr"] = 5.0e-3
    jobs = planned(elsewhere, config)
    assert jobs["train_backbone"] == 2  # of this study alone
    assert jobs["sample_images"] == 10
    assert set(jobs) >= TRAINED
    assert {"pack_dataset", "train_classifier", "compute_reference"}.isdisjoint(jobs)


def test_swapped_values_of_the_classifier_make_the_features_again_and_no_image(run):
    config = configuration(run)
    classifier = config["experiments"]["digits"]["metric"]["classifier"]
    classifier["steps"], classifier["batch"] = classifier["batch"], classifier["steps"]
    jobs = planned(run, config)
    assert jobs.pop("train_classifier") == 1
    assert jobs.pop("compute_reference") == 1
    assert jobs.pop("evaluate_samples") == 1
    assert set(jobs) <= AFTER_TIMING


def test_a_coefficient_of_a_sampler_makes_its_cells_again_and_no_training(run):
    path = run.folder / "duodiff/samplers.py"
    before = path.read_text(encoding="utf-8")
    old = "eps_coef, beta_tilde**0.5)"
    assert old in before
    path.write_text(before.replace(old, "eps_coef, 1.01 * beta_tilde**0.5)"), encoding="utf-8")
    jobs = run.pending()
    path.write_text(before, encoding="utf-8")
    assert jobs["sample_images"] >= 6 + 3  # the cells of DDPM, in both studies
    assert not {"pack_dataset", "profile_denoising", "compute_reference"} & set(jobs)
    assert not [name for name in jobs if name.startswith("train_")]


def test_a_job_whose_code_was_edited_while_the_run_was_at_work_says_so(fresh):
    """The run plans its jobs with the code of its start, and a job runs the code of its own start."""
    target = "results/data/digits/manifest.json"
    printed = fresh.snakemake("-n", "-p", target)
    command = re.search(r"Shell command: (.*pack_dataset\.py.*)", printed)[1]
    module = fresh.folder / "duodiff/data/pack.py"
    before = module.read_text(encoding="utf-8")
    assert "default_rng(0)" in before
    edited = before.replace("default_rng(0)", "default_rng(1)")
    module.write_text(edited, encoding="utf-8")
    subprocess.run(command, shell=True, check=True, cwd=fresh.folder, executable="bash")
    assert fresh.pending(target) == {}
    module.write_text(before, encoding="utf-8")
    assert fresh.pending(target) == {"pack_dataset": 1}
