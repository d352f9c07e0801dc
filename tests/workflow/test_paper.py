"""config/paper.yaml: the whole study is planned, offline, and has the jobs its grids say."""

import re
from pathlib import Path

import pytest
import yaml

from duodiff.analysis import cost
from duodiff.study import config as configuration

ROOT = Path(__file__).parents[2]

# Cells of one experiment at one training and one sampling seed, from the grids of Tables 1 and 2:
# DDPM t_s + DDPM theta + DDIM t_s.
TABLE_GRIDS = {
    # t_s 0 300 400 500 1000; theta below 0.05, 0.05, 0.075 to 0.08; t_s 0 150 200 300 1000
    "cifar10": 5 + 3 + 5,
    "celeba64": 5 + 2 + 5,  # theta 0.07 0.08
    "imagenet64": 5 + 3 + 5,  # theta 0.05 0.07 0.09
    "imagenet256": 5 + 3 + 5,
}
DEEPER_GRID = 7 + 0 + 5  # shallow depth 5 or 7: t_s 0 300 400 500 600 700 1000, no AdaDiff
GUIDED_GRID = 5 + 0 + 5  # ImageNet-256 with guidance, which excludes early exit
PREDICTION_GRID = 5 + 3 + 5  # x_0 or v: three quantiles

JOBS = {
    # CIFAR-10, CelebA, and ImageNet at 64 and 256 in two class orders each
    "fetch_dataset": 1 + 1 + 2 * 2,
    "pack_dataset": 1 + 1 + 2 * 2,
    "fetch_autoencoder": 2,  # ImageNet-256 in two class orders
    "encode_latents": 2 * 8,  # shards
    "gather_latents": 2,
    "import_weights": 2 + 1,  # the official ImageNet-64 and ImageNet-256 backbones; guided
    "fetch_extractor": 1,  # Inception
    "compute_reference": 1 + 1 + 2 * 2,  # one a dataset: all have 5,120 training images and FID
    # corrected: full and shallow on CIFAR-10 and CelebA, shallow alone on the ImageNets (6);
    # paper's protocol: the shallow ImageNets, whose schedule differs, all else reused (2);
    # guided: another shallow one (1); studies: depths 5 and 7 (2), full and shallow for x_0 and v (4)
    "train_backbone": 6 + 2 + 1 + 2 + 4,
    "train_heads": 4 + 4 + 0 + 2,  # once per experiment with thetas
    "profile_denoising": 13,  # 4 corrected, 4 under the paper's protocol, 1 guided, 4 studies
    "choose_schedules": 13,
    "profile_exits": 4 + 4 + 0 + 2,
    # cells of DDIM are one job each; those of DDPM are cut into 2 shards (CIFAR-10, CelebA, the studies), 4 and 8
    # (ImageNet-64 and -256, in both protocols) or 20 (guided), and joined
    "sample_images": 13 * 5,
    "sample_shard": 2 * (2 * 8 + 2 * 7 + 4 * 8 + 8 * 8) + 20 * 5 + 2 * (2 * 7 + 2 * 8),
    "gather_samples": 2 * (8 + 7 + 8 + 8) + 5 + 2 * 7 + 2 * 8,
    "evaluate_samples": 13,
    "measure_latency": 13,
    "plot_gallery": 13,
} | dict.fromkeys(
    [
        "plot_training",
        "plot_denoising",
        *(f"plot_figure{i}" for i in range(1, 8)),
        "plot_relative",
        "plot_front",
        "make_table1",
        "make_table2",
        "describe_architectures",
        "make_table3",
        "make_table4",
        "make_metrics",
        "make_resources",
        "make_front",
        "make_claims",
        "describe_run",
        "summarise",
        "make_page",
    ],
    1,
)


def test_the_counts_follow_from_the_grids():
    both_protocols = 2 * sum(TABLE_GRIDS.values())
    others = GUIDED_GRID + 2 * DEEPER_GRID + 2 * PREDICTION_GRID
    assert JOBS["sample_images"] + JOBS["gather_samples"] == both_protocols + others == 162


def test_a_dry_run_plans_every_job_of_the_paper(fresh):
    assert fresh.pending(config="config/paper.yaml") == JOBS
    assert not (fresh.folder / "data").exists()


@pytest.mark.parametrize(
    ("only", "cells", "trained"),
    [
        ("cifar10", 13, {"train_backbone": 2, "train_heads": 1}),
        # the other protocol's backbones are trained where they are reused
        ("cifar10_released", 13, {"train_backbone": 2, "train_heads": 1}),
        ("celeba64,imagenet64", 12 + 13, {"train_backbone": 2 + 1, "train_heads": 2}),
    ],
)
def test_experiments_are_selected_on_the_command_line(fresh, only, cells, trained):
    jobs = fresh.pending("--config", f"only={only}", config="config/paper.yaml")
    assert jobs["sample_images"] + jobs["gather_samples"] == cells
    assert jobs["evaluate_samples"] == only.count(",") + 1
    assert trained.items() <= jobs.items()


def test_an_experiment_that_does_not_exist_is_refused_by_name(fresh):
    done = fresh.run("--dry-run", "--config", "only=cifar100", config="config/paper.yaml")
    assert done.returncode != 0
    assert re.search(r"only: found 'cifar100'; accepted: cifar10, celeba64, ", done.stdout)


@pytest.mark.parametrize(
    ("only", "messages"),
    [
        ("celeba64", [r"data/celeba/img_align_celeba.zip is missing; .*mmlab.ie.cuhk"]),
        (
            "imagenet256",
            [
                r"data/imagenet/ILSVRC2012_img_train.tar is missing; .*image-net.org",
                r"data/weights/imagenet256_uvit_large.pth is missing; .*drive.google",
                r"data/weights/autoencoder_kl.pth is missing; ",
            ],
        ),
    ],
)
def test_files_that_are_not_there_are_asked_for_before_any_compute(fresh, only, messages):
    options = ["--cores", "2", "--keep-going", "--config", f"only={only}"]
    done = fresh.run(*options, config="config/paper.yaml")
    assert done.returncode != 0
    for message in messages:
        assert re.search(message, done.stdout)
    assert not list(fresh.folder.glob("results/*/train*"))


def test_the_cost_command_counts_the_jobs_that_ask_for_a_gpu():
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    asking = [rule for rule in re.split(r"^rule ", rules, flags=re.M) if " gpu=" in rule]
    names = [*(rule.partition(":")[0] for rule in asking), "sample_shard"]  # as sample_images
    config = configuration.complete(
        yaml.safe_load((ROOT / "config/paper.yaml").read_text(encoding="utf-8"))
    )
    found = sum(work.jobs for works in cost.works(config).values() for work in works)
    # train_autoencoder is no job of this configuration
    assert found == sum(JOBS.get(name, 0) for name in names)
