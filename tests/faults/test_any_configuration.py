"""Every accepted configuration also runs: random small ones, through every step that uses networks."""

import copy
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from duodiff.data.pack import pack
from duodiff.metrics.denoising import write_profile
from duodiff.sampling.cells import build_cell
from duodiff.sampling.generation import generate
from duodiff.sampling.models import Models
from duodiff.settings import Schedules
from duodiff.study import config as configuration
from duodiff.study.grid import (
    backbone_architecture,
    backbones,
    grid_points,
    has_heads,
    sampler_options,
    schedules,
)
from duodiff.training.backbone import train_backbone
from duodiff.training.heads import train_heads
from faults.scripts import ROOT

TEST = yaml.safe_load((ROOT / "config/test.yaml").read_text(encoding="utf-8"))
EXAMPLES = 60
IMAGES, BATCH = 3, 2  # of a cell: one batch, and half of another

flags = st.booleans()
unit = st.floats(0, 1)
t_s = st.sampled_from([1, 20, 500, 999, 1000] * 4 + [1001])
theta = st.one_of(st.sampled_from([0, 1, "q0", "q0.5", "q1"] * 4 + ["q1.5"]), st.floats(0, 1))
seeds = st.sampled_from([1, 2, 2**32 - 1])


def mostly(usual, *others):
    """`usual` in most draws, and sometimes one of the `others`."""
    return st.sampled_from([usual] * 20 + list(others))


trainings = st.fixed_dictionaries(
    {
        "steps": st.integers(1, 3),
        "batch": st.integers(1, 5),
        "lr": st.floats(1e-6, 1e-2),
        "lr_schedule": st.sampled_from(["cosine", "constant"]),
        "betas": st.lists(st.one_of(mostly(0.9, 1.0), st.floats(0, 0.999)), min_size=2, max_size=2),
        "weight_decay": st.floats(0, 0.1),
        "warmup_steps": st.integers(0, 4),
        "grad_clip": st.floats(1e-3, 10),
        "ema": unit,
        "precision": st.sampled_from(["float32", "bfloat16"]),
        "flips": flags,
        "deterministic": flags,
        "accumulate": st.integers(1, 2),
    }
).map(lambda keys: keys | {"batch": keys["batch"] * keys["accumulate"]})


def lists(values):
    return st.lists(values, max_size=3, unique=True)


@st.composite
def grids(draw, exits: bool) -> dict:
    """A sampler's steps and settings. The spread has some of the settings."""
    grid = {"steps": draw(mostly(draw(st.integers(2, 12)), 1, 1001))}
    grid["t_s"] = [0, *draw(lists(t_s))]
    grid["theta"] = draw(lists(theta)) if exits else []
    grid["spread"] = {
        "seeds": [0] if draw(flags) else [],
        "t_s": grid["t_s"][: draw(st.integers(0, 2))],
        "theta": grid["theta"][: draw(st.integers(0, 1))],
    }
    return grid


@st.composite
def named(draw, depth: int, made: bool) -> dict:
    """Networks and a schedule of all of them, with `made` of those without a checkpoint too."""
    networks: dict[str, dict] = {"middle": {"depth": draw(mostly(3, 4))}}
    if made:
        networks["early"] = {"exit": draw(mostly(draw(st.integers(0, 2)), depth))}
        by = draw(mostly(draw(st.sampled_from(["shallow", "middle", "early"])), "guided"))
        networks["guided"] = {"network": "full", "by": by, "weight": draw(st.floats(0.1, 2))}
    cuts = sorted({0, 1000, *draw(st.lists(st.integers(1, 999), max_size=4)), draw(mostly(0, 5))})
    names = st.sampled_from(["full", "shallow", *networks])
    intervals = [
        {"network": draw(names), "t": [low, draw(mostly(high - 1, high))]}
        for low, high in pairwise(cuts)
    ]
    schedule: dict = {"intervals": intervals}
    if draw(flags):
        between = draw(st.lists(st.integers(1, 998), max_size=6, unique=True))
        schedule["timesteps"] = [999, *sorted(between, reverse=True), draw(mostly(0, 1))]
    return {"networks": networks, "schedules": {"one": schedule}}


@st.composite
def configurations(draw) -> dict:
    """The test's configuration with one experiment on the digits, whose settings are all drawn."""
    size = draw(st.sampled_from([None, 6, 12]))
    dataset = {"source": "digits", "held_out": draw(mostly(360, 0.2, 0.01, 1700, 1796, 20))}
    dataset |= {"size": size, "filter": "box"} if size else {}
    null_class, exits = draw(flags), draw(flags)
    classes = 11 if null_class else draw(st.sampled_from([10, -1]))
    classes = draw(mostly(classes, 0, 1, 9))
    heads = draw(st.integers(1, 4))
    backbone = {
        "img_size": draw(mostly(size or 8, 5)),
        "patch_size": draw(mostly(draw(st.sampled_from([1, 2])), 3, 4)),
        "in_chans": draw(mostly(1, 3)),
        "embed_dim": heads * draw(st.integers(1, 6)) + draw(mostly(0, 1)),
        "depth": draw(mostly(draw(st.sampled_from([5, 7])), 3, 4)),
        "num_heads": heads,
        "mlp_ratio": draw(mostly(draw(st.floats(1, 3)), 0.2)),
        "qkv_bias": draw(flags),
        "mlp_time_embed": draw(flags),
        "num_classes": classes,
        "conv": draw(flags),
    }
    for key in draw(lists(st.sampled_from(["img_size", "in_chans", "num_classes"]))):
        del backbone[key]  # the digits decide
    chosen = copy.deepcopy(TEST["experiments"]["digits"]) | {
        "protocol": draw(st.sampled_from(["corrected", "paper"])),
        "schedule": draw(st.sampled_from(["linear", "sd", "vpsde"])),
        "time_input": draw(st.sampled_from(["t", "t/1000", "t+1", "999(t+1)/1000"])),
        "prediction": draw(st.sampled_from(["noise", "x_0", "v"])),
        "backbone": backbone,
        "null_class": null_class,
        "shallow_depth": draw(mostly(3, 5)),
        "train_seeds": [draw(seeds)],
        "heads_training": draw(trainings),
        "sampling": {"images": 96, "batch": BATCH, "seed": draw(seeds)},
        "grid": {"ddpm": draw(grids(exits))},
    }
    more = {
        "label_dropout": draw(st.one_of(st.just(0), unit)) if null_class else 0,
        "init": draw(st.sampled_from(["official", "residual_zero"])),
    }
    chosen["backbone_training"] = draw(trainings) | more
    if draw(mostly(null_class and not exits, True)):
        chosen["sampling"]["guidance"] = draw(st.floats(0, 3))
    if draw(flags):
        chosen |= draw(named(backbone["depth"], "guidance" not in chosen["sampling"]))
        chosen["grid"]["ddpm"]["schedules"] = draw(mostly(["one"], [], ["other"]))
    if draw(flags):
        chosen["grid"]["ddim"] = draw(grids(exits)) | {"eta": draw(mostly(0, 0.1, 1))}
    if draw(flags):
        chosen["grid"]["dpm_solver_pp"] = draw(grids(exits))
    return TEST | {"datasets": {"digits": dataset}, "experiments": {"digits": chosen}}


def packed(dataset: dict, folder: Path) -> Path:
    """Manifest of a dataset packed below `folder`. Each dataset is packed once."""
    data = folder / "-".join(map(str, dataset.values())) / "manifest.json"
    if not data.exists():
        pack(dataset, folder, 1, data)
    return data


def run(config: dict, data: Path, folder: Path) -> None:
    """Runs a study as the rules do, with the same functions and arguments, but fewer images."""
    chosen = config["experiments"]["digits"]
    used = {key: chosen[key] for key in ("schedule", "time_input")}
    paths, seed = {}, chosen["train_seeds"][0]
    for role in backbones(chosen):
        paths[role] = folder / role / "manifest.json"
        train_backbone(
            data,
            backbone_architecture(chosen, role),
            used | {"prediction": chosen["prediction"]},
            chosen["null_class"],
            chosen["backbone_training"],
            seed=seed,
            device="cpu",
            out=paths[role],
        )
    protocol, paths["heads"] = chosen["protocol"], None
    if has_heads(chosen):
        paths["heads"] = folder / "heads/manifest.json"
        where = {"seed": seed, "device": "cpu", "out": paths["heads"]}
        train_heads(data, paths["full"], used, chosen["heads_training"], protocol, **where)
    quantiles = folder / "quantiles.json"
    write_profile(
        data,
        Models(used, protocol, **paths),
        n_timesteps=2,
        batch=BATCH * 64,
        seed=seed,
        experiment="digits",
        losses=folder / "losses.csv",
        errors=folder / "losses.npz",
        quantiles=quantiles,
        out=folder / "profile.json",
    )
    conventions = used | {"class_order": None}
    models = Models(conventions, protocol, **paths, quantiles=quantiles)
    known = Schedules(schedules(chosen, chosen["schedules"]))
    for point in grid_points(chosen):
        sampler = sampler_options(chosen, point.sampler)
        setting = known.setting(str(point.setting), sampler["name"])
        cell = build_cell(models, sampler, setting)
        images, labels, blocks = generate(models, cell, 0, IMAGES, batch=BATCH, seed=point.seed)
        assert images.shape == (IMAGES, *models.shape)
        assert images.dtype == np.uint8
        assert (labels < max(1, chosen["backbone"]["num_classes"])).all()
        assert blocks.shape == (len(cell.steps), IMAGES)
        most = 2 if setting.is_schedule else 1  # a guided network runs two
        assert 0 <= blocks.min() <= blocks.max() <= most * chosen["backbone"]["depth"]


def test_whatever_configuration_is_accepted_also_runs(tmp_path):
    accepted = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(configurations())
    def check(config):
        try:
            config = configuration.complete(config)
        except configuration.ConfigError as error:
            event(str(error).splitlines()[1].split(":")[0])
            return
        accepted.append(config)
        with tempfile.TemporaryDirectory() as folder:
            run(config, packed(config["datasets"]["digits"], tmp_path), Path(folder))

    check()
    print(f"{len(accepted)} of {EXAMPLES} random configurations were accepted, and ran")
    assert len(accepted) > EXAMPLES / 6
