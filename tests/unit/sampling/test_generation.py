"""Checkpoints written and loaded back, and whole cells generated from them."""

import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from duodiff import checkpoints, samplers
from duodiff.analysis.operations import network
from duodiff.autoencoder import load as load_autoencoder
from duodiff.backbones import EarlyExit
from duodiff.compiled import COMPILE
from duodiff.data.latents import encode_shard, gather
from duodiff.data.pack import pack
from duodiff.data.store import ImageStore, write_store
from duodiff.metrics import latency
from duodiff.metrics.denoising import write_profile
from duodiff.metrics.resources import energy_meter, peak_bytes, trajectory_gflops
from duodiff.protocol import CORRECTED, PAPER
from duodiff.records import of_samples
from duodiff.running.files import read_json, write_json
from duodiff.sampling import generation, samples
from duodiff.sampling.cells import build_cell
from duodiff.sampling.gather import gather_samples
from duodiff.sampling.generation import generate, sample_batch
from duodiff.sampling.models import Models
from duodiff.sampling.samples import write_samples
from duodiff.settings import Setting
from duodiff.training.backbone import denoising_loss, noisers, train_backbone
from duodiff.training.heads import train_heads

NET = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 12,
    "num_heads": 3,
    "num_classes": 10,
}
TRAINING = {
    "steps": 4,
    "batch": 8,
    "lr": 1e-3,
    "lr_schedule": "cosine",
    "betas": [0.9, 0.99],
    "weight_decay": 0.0,
    "warmup_steps": 1,
    "grad_clip": 1.0,
    "ema": 0.5,
    "precision": "float32",
    "flips": False,
}
BACKBONE_TRAINING = TRAINING | {"init": "official", "label_dropout": 0}
DDPM = {"name": "ddpm", "steps": 10}
DPM_SOLVER = {"name": "dpm_solver_pp", "steps": 10}
STUDY = {"experiment": "digits", "train_seed": 0}
TIMED = STUDY | {"protocol": "corrected", "batch": 4, "threads": 1, "seed": 0, "device": "cpu"}
USED = {"schedule": "linear", "time_input": "t"}
CONVENTIONS = USED | {"prediction": "noise"}


def train(data, changes, out, training=BACKBONE_TRAINING, null_class=False):
    """A backbone like NET but for `changes`, barely trained."""
    return train_backbone(
        data, NET | changes, CONVENTIONS, null_class, training, seed=0, device="cpu", out=out
    )


def loaded(paths, protocol="corrected", **conventions) -> Models:
    return Models(USED | conventions, protocol, **paths)


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict:
    """A study's checkpoints, barely trained, and quantiles 0..1 of an imagined uncertainty in [0.2, 0.6]."""
    folder = tmp_path_factory.mktemp("study")
    data = folder / "data/manifest.json"
    pack({"source": "digits", "held_out": 360}, folder, 1, data)
    found = {role: folder / role / "manifest.json" for role in ("full", "shallow", "heads")}
    for role, depth in (("full", 5), ("shallow", 3)):
        train(data, {"depth": depth}, found[role])
    train_heads(
        data, found["full"], USED, TRAINING, "corrected", seed=0, device="cpu", out=found["heads"]
    )
    found["quantiles"] = folder / "quantiles.json"
    write_json(found["quantiles"], {"levels": [0.0, 1.0], "values": [0.2, 0.6]})
    return found


def test_a_loaded_backbone_computes_what_was_saved(paths):
    model, description = checkpoints.load_backbone(paths["full"])
    assert description.architecture["depth"] == 5
    assert description.schedule == "linear"
    assert description.weights_sha256 == checkpoints.sha256(
        paths["full"].parent / "model.safetensors"
    )
    again, _ = checkpoints.load_backbone(paths["full"])
    x, t, y = torch.randn(2, 1, 8, 8), torch.tensor([3, 4]), torch.tensor([0, 9])
    assert torch.equal(model(x, t, y), again(x, t, y))


def test_a_loaded_backbone_has_the_held_out_loss_its_curve_ends_with(paths):
    model, _ = checkpoints.load_backbone(paths["full"])
    data = paths["full"].parents[1] / "data/manifest.json"
    _, _, held_out = noisers(data, model, "linear", "cpu")
    with torch.inference_mode():
        loss = denoising_loss(model, held_out.stratified(0)).item()
    curve = pd.read_csv(paths["full"].parent / "curve.csv")
    assert loss == pytest.approx(curve["held_out_loss"].iloc[-1], rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"in_chans": 3}, r"images of \(1, 8, 8\) for a network of \(3, 8, 8\)"),
        ({"num_classes": 7}, "backbone.num_classes: found 7; accepted: -1 or the dataset's 10"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(paths, tmp_path, wrong, message):
    data = paths["full"].parents[1] / "data/manifest.json"
    with pytest.raises(ValueError, match=message):
        train(data, {"depth": 3} | wrong, tmp_path / "m.json")


def test_an_unconditional_network_trains_on_labelled_data(paths, tmp_path):
    data = paths["full"].parents[1] / "data/manifest.json"
    options = BACKBONE_TRAINING | {"init": "residual_zero"}
    train(data, {"depth": 3, "num_classes": -1}, tmp_path / "m.json", options)
    models = loaded({"full": tmp_path / "m.json"})
    cell = build_cell(models, DDPM, Setting.parse("t_s=0"))
    labels = generate(models, cell, 0, 3, batch=4, seed=0)[1]
    assert labels.tolist() == [-1, -1, -1]


def test_checkpoints_that_disagree_with_the_configuration_are_refused(paths):
    assert loaded(paths).departures == []
    for wrong in ({"schedule": "sd"}, {"time_input": "t+1"}):
        with pytest.raises(ValueError, match=r"checkpoints refused: full: .* configured"):
            loaded(paths, **wrong)


def test_the_papers_protocol_uses_the_configured_conventions_and_records_it(paths):
    models = loaded(paths, "paper", schedule="sd", time_input="t+1", class_order="alphabetical")
    assert models.departures[:3] == [
        "full: schedule is linear, configured sd",
        "full: time_input is t, configured t+1",
        "shallow: schedule is linear, configured sd",
    ]
    assert models.departures[-1] == "heads: protocol is corrected, configured paper"
    assert models.schedule.name == "sd"
    t = torch.tensor([3])
    x, y = torch.randn(1, 1, 8, 8), torch.tensor([1])
    own = loaded(paths)
    assert torch.equal(models.full(x, t, y), own.full(x, t + 1, y))


def test_weights_that_are_not_the_manifests_are_refused(paths, tmp_path):
    for name in ("manifest.json", "model.safetensors"):
        (tmp_path / name).write_bytes((paths["full"].parent / name).read_bytes())
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"model.safetensors: its sha256 is not the one in"):
        checkpoints.load_backbone(tmp_path / "manifest.json")


def test_heads_of_another_backbone_are_refused(paths):
    with pytest.raises(ValueError, match="trained on backbone"):
        loaded({"full": paths["shallow"], "heads": paths["heads"]})


def test_adadiff_shares_its_backbone(paths):
    models = loaded({"full": paths["full"], "heads": paths["heads"]})
    assert models.adadiff.uvit is models.full.net


def test_checkpoints_that_disagree_are_refused(paths, tmp_path):
    description = read_json(paths["shallow"]) | {"null_class": True}
    write_json(tmp_path / "manifest.json", description)
    (tmp_path / "model.safetensors").symlink_to(paths["shallow"].parent / "model.safetensors")
    with pytest.raises(ValueError, match="checkpoints disagree on null_class"):
        loaded({"full": paths["full"], "shallow": tmp_path / "manifest.json"})


@pytest.mark.parametrize(
    ("setting", "method", "parameters"),
    [
        ("t_s=0", "full", {"t_s": 0}),
        ("t_s=400", "duodiff", {"t_s": 400}),
        ("t_s=1000", "shallow", {"t_s": 1000}),
        ("theta=0.3", "adadiff", {"theta": 0.3, "setting": "0.3", "depth": 5}),
        ("theta=q0.5", "adadiff", {"theta": 0.4, "setting": "q0.5", "depth": 5}),
    ],
)
def test_settings_become_cells(paths, setting, method, parameters):
    cell = build_cell(loaded(paths), DDPM, Setting.parse(setting))
    assert (cell.method, cell.parameters) == (method, pytest.approx(parameters))
    assert isinstance(cell.early_exit, EarlyExit) == (method == "adadiff")


def test_dpm_solver_is_the_same_in_both_protocols_and_under_early_exit(paths):
    both = [loaded(paths, protocol) for protocol in ("corrected", "paper")]
    cells = [build_cell(models, DPM_SOLVER, Setting.parse("t_s=300")) for models in both]
    models = both[0]
    assert cells[0].steps == cells[1].steps == samplers.dpm_solver_pp(models.schedule, 10)
    for own, cell in zip(both, cells, strict=True):
        assert [cell.schedule.at(s.t) is own.shallow for s in cell.steps] == [
            s.t >= 700 for s in cell.steps
        ]
    exits = build_cell(models, DPM_SOLVER, Setting.parse("theta=0"))
    full = build_cell(models, DPM_SOLVER, Setting.parse("t_s=0"))
    found = [generate(models, cell, 0, 4, batch=4, seed=0)[0] for cell in (exits, full)]
    assert np.array_equal(*found)  # theta = 0 is full depth


def test_the_papers_protocol_changes_ddim_by_its_named_options(paths):
    ddim = {"name": "ddim", "steps": 50, "eta": 0}
    calls, shallow = [], []
    for protocol in ("corrected", "paper"):
        models = loaded(paths, protocol)
        cell = build_cell(models, ddim, Setting.parse("t_s=300"))
        calls.append(len(cell.steps))
        shallow.append(sum(cell.schedule.at(s.t) is models.shallow for s in cell.steps))
    assert calls == [50, 49]
    assert shallow == [15, 16]


STORE = ("manifest.json", "images.npy", "labels.npy", "blocks_run.npy")


def cell_of(setting: str, images=6, batch=4, seed=0, sampler=DDPM) -> dict:
    """The arguments of `write_samples` that describe a cell."""
    described = {"setting": Setting.parse(setting), "sampler": sampler, "images": images}
    return STUDY | described | {"batch": batch, "seed": seed}


def sampled_in_shards(paths, folder, setting, shards, sampler=DDPM) -> list:
    """Manifests of the shards of a cell of 30 images in four batches."""
    found = [folder / f"shards/{i}-of-{shards}/manifest.json" for i in range(shards)]
    for i, out in enumerate(found):
        cell = cell_of(setting, 30, 8, 7, sampler)
        write_samples(out, loaded(paths), **cell, shard=i, shards=shards)
    return found


@pytest.mark.parametrize("sampler", [DDPM, DPM_SOLVER], ids=lambda sampler: sampler["name"])
@pytest.mark.parametrize("setting", ["t_s=400", "theta=0.3"])
def test_a_cell_joined_from_shards_is_the_bytes_of_the_cell_made_in_one(
    paths, tmp_path, setting, sampler
):
    whole = cell_of(setting, 30, 8, 7, sampler)
    write_samples(tmp_path / "1/manifest.json", loaded(paths), **whole)
    for shards, first in ((2, 16), (4, 24)):
        folder = tmp_path / str(shards)
        parts = sampled_in_shards(paths, folder, setting, shards, sampler)
        assert read_json(parts[-1])["indices"] == [first, 30]
        gather_samples(parts, 30, folder / "manifest.json")
        for name in STORE:
            assert (folder / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_shards_that_do_not_make_up_a_cell_are_refused(paths, tmp_path):
    first, last = sampled_in_shards(paths, tmp_path / "a", "t_s=400", 2)
    (alien, _) = sampled_in_shards(paths, tmp_path / "b", "t_s=500", 2)
    out = tmp_path / "manifest.json"
    for wrong in ([last, first], [first], [last]):
        with pytest.raises(
            ValueError, match=r"shards: found images .*; accepted: all from 0 to 30"
        ):
            gather_samples(wrong, 30, out)
    with pytest.raises(ValueError, match="shards: they were not sampled alike"):
        gather_samples([alien, last], 30, out)
    np.save(last.parent / "labels.npy", np.zeros(14, np.int64))
    with pytest.raises(ValueError, match=r"labels.npy: its sha256 is not the one in its manifest"):
        gather_samples([first, last], 30, out)
    assert not out.exists()


@pytest.mark.parametrize("setting", ["t_s=400", "theta=q0.5"])
def test_shards_at_one_compute_batch_give_identical_images(paths, setting):
    models = loaded(paths)
    cell = build_cell(models, DDPM, Setting.parse(setting))
    images, labels, blocks = generate(models, cell, 0, 22, batch=8, seed=3)
    for start, stop in ((0, 8), (5, 19), (16, 22)):
        part_images, part_labels, part_blocks = generate(models, cell, start, stop, batch=8, seed=3)
        assert np.array_equal(part_images, images[start:stop])
        assert np.array_equal(part_labels, labels[start:stop])
        assert np.array_equal(part_blocks, blocks[:, start:stop])


def test_blocks_run_are_the_depth_of_the_backbone_at_work(paths):
    models = loaded(paths)
    cell = build_cell(models, DDPM, Setting.parse("t_s=400"))
    blocks = generate(models, cell, 0, 3, batch=4, seed=0)[2]
    assert blocks.tolist() == [[3] * 3] * 4 + [[5] * 3] * 6  # t = 999, 888, 777, 666 are above 599


def test_another_compute_batch_changes_at_most_the_last_bits(paths):
    models = loaded(paths)
    cell = build_cell(models, DDPM, Setting.parse("t_s=400"))
    a, b = (generate(models, cell, 0, 16, batch=batch, seed=3)[0].astype(int) for batch in (4, 16))
    assert np.abs(a - b).max() <= 1


def test_a_written_cell_says_what_it_is(paths, tmp_path):
    out = tmp_path / "cell/manifest.json"
    manifest = write_samples(out, loaded(paths), **cell_of("theta=0.3", 10, seed=7))
    assert ImageStore(out).images.shape == (10, 1, 8, 8)
    assert np.load(out.parent / "blocks_run.npy").shape == (10, 10)
    assert manifest["seed"] == 7
    assert manifest["nfe"] == 10
    assert manifest["nan_uncertainties"] == 0
    assert set(manifest["checkpoint_sha256"]) == {"full", "heads"}
    assert manifest["departures"] == []


def test_images_that_are_not_finite_are_refused(paths):
    models = loaded({"full": paths["full"]})
    models.full.net.norm.bias.data.fill_(float("nan"))
    cell = build_cell(models, DDPM, Setting.parse("t_s=0"))
    with pytest.raises(ValueError, match="images 0 to 7 are not finite"):
        generate(models, cell, 0, 8, batch=8, seed=0)


# --- label dropout, guidance, other predictions, latents


@pytest.fixture(scope="module")
def data(paths):
    return paths["full"].parents[1] / "data/manifest.json"


def test_a_null_class_gets_no_balanced_labels_but_the_released_ones(data, tmp_path):
    options = BACKBONE_TRAINING | {"label_dropout": 0.5, "flips": True}
    out = tmp_path / "m.json"
    train(data, {"depth": 3, "num_classes": 11}, out, options, null_class=True)
    models = loaded({"full": out})
    assert models.labels(0, 0, 30, CORRECTED).max() == 9
    released = models.labels(0, 0, 2000, PAPER)
    assert (released.min(), released.max()) == (1, 10)
    with pytest.raises(ValueError, match="disagree on architecture"):
        loaded({"full": out, "shallow": data.parents[1] / "shallow/manifest.json"})


def test_guided_cells_are_guided_and_cost_the_same_number_of_steps(data, tmp_path):
    out = tmp_path / "m.json"
    train(data, {"depth": 3, "num_classes": 11}, out, null_class=True)
    models = loaded({"full": out})
    plain, guided = (
        build_cell(models, DDPM | extra, Setting.parse("t_s=0"))
        for extra in ({}, {"guidance": 0.4})
    )
    assert guided.parameters == {"t_s": 0, "guidance": 0.4}
    # as floats: a barely trained network's pixels are all saturated
    a, b = (sample_batch(models, cell, 0, 4, seed=0) for cell in (plain, guided))
    assert not torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert b[2].tolist() == [[3] * 4] * 10
    operations, twice = (
        trajectory_gflops(models, c, r) for c, (*_, r) in ((plain, a), (guided, b))
    )
    assert twice == 2 * operations > 0


def test_the_protocol_rounds_or_truncates_pixels(paths):
    models = loaded({"full": paths["full"]})
    cell = build_cell(models, DDPM, Setting.parse("t_s=0"))
    truncating = replace(cell, protocol=replace(CORRECTED, round_pixels=False))
    rounded, truncated = (
        generate(models, c, 0, 4, batch=4, seed=0)[0].astype(int) for c in (cell, truncating)
    )
    assert set(np.unique(rounded - truncated)) == {0, 1}


@pytest.mark.parametrize("prediction", ["x_0", "v"])
def test_a_network_that_predicts_something_else_samples_and_exits_early(data, tmp_path, prediction):
    conventions = USED | {"prediction": prediction}
    paths = {role: tmp_path / role / "manifest.json" for role in ("full", "heads")}
    train_backbone(
        data,
        NET | {"depth": 3},
        conventions,
        False,
        BACKBONE_TRAINING,
        seed=0,
        device="cpu",
        out=paths["full"],
    )
    train_heads(
        data, paths["full"], USED, TRAINING, "corrected", seed=0, device="cpu", out=paths["heads"]
    )
    models = loaded(paths)
    x, t, y = torch.randn(3, 1, 8, 8), torch.full((3,), 700), torch.tensor([0, 4, 9])
    full = models.full(x, t, y)
    # theta = 0 never exits: the converted output of the full network
    torch.testing.assert_close(models.early_exit(0.0)(x, t, y), full)
    exits = models.early_exit(1.0)
    g = models.adadiff.all_layers(x, t, y)[2]
    torch.testing.assert_close(exits(x, t, y), models.full.to_eps(g[0], x, t))
    assert exits.exits[0].tolist() == [0, 0, 0]
    assert not torch.equal(full, models.full.predict(x, t, y))
    cell = build_cell(models, DDPM, Setting.parse("t_s=0"))
    images = generate(models, cell, 0, 4, batch=4, seed=0)[0]
    assert images.shape == (4, 1, 8, 8)


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    """A study in the latent space of a tiny autoencoder of random weights: its folder, paths and codec."""
    from diffusers import AutoencoderKL

    folder = tmp_path_factory.mktemp("latent")
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        latent_channels=4,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "codec")
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (12, 3, 32, 32)).astype(np.uint8), np.arange(12) % 10
    splits = {"train": [0, 8], "held_out": [8, 12]}
    description = {"num_classes": 10, "splits": splits, "class_names": list("abcdefghij")}
    data = folder / "data/manifest.json"
    write_store(data, pixels, labels, description)
    section = {"path": "codec", "sha256": None, "flips": True, "batch": 3}
    latents, shard = folder / "latents/manifest.json", folder / "latents/0-of-1.json"
    encode_shard(data, section, folder, "cpu", 0, 1, shard)
    gather(data, [shard], latents)
    changes = {"img_size": 4, "patch_size": 2, "in_chans": 4}
    paths = {role: folder / role / "manifest.json" for role in ("full", "shallow", "heads")}
    for role, depth in (("full", 5), ("shallow", 3)):
        options = BACKBONE_TRAINING | {"flips": True}
        train(latents, changes | {"depth": depth}, paths[role], options)
    train_heads(
        latents,
        paths["full"],
        USED,
        TRAINING,
        "corrected",
        seed=0,
        device="cpu",
        out=paths["heads"],
    )
    return folder, paths, load_autoencoder(section, folder)


def test_latents_are_encoded_trained_on_sampled_and_decoded(latent):
    folder, paths, codec = latent
    models = loaded({"full": paths["full"]})
    cell = cell_of("t_s=0")
    manifest = write_samples(folder / "cell/manifest.json", models, **cell, autoencoder=codec)
    assert manifest["shape"] == [3, 32, 32]
    assert manifest["count"] == 6
    assert manifest["autoencoder"] == codec.source | {"batch": 3}
    trained_on = read_json(folder / "latents/manifest.json")["moments_sha256"]
    assert read_json(paths["full"])["dataset_sha256"] == trained_on


def test_decoded_images_do_not_depend_on_the_range_that_is_generated(latent):
    _, paths, codec = latent
    models = loaded({"full": paths["full"]})
    cell = build_cell(models, DDPM, Setting.parse("t_s=0"))
    how = {"batch": 4, "seed": 0, "autoencoder": codec}
    whole = generate(models, cell, 0, 6, **how)[0]
    assert whole.dtype == np.uint8
    parts = [generate(models, cell, *part, **how)[0] for part in ((0, 1), (1, 5), (5, 6))]
    assert np.array_equal(np.concatenate(parts), whole)


# --- precision, and compiled backbones


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return request.param


GRAPHS = COMPILE | {"mode": None, "backend": "eager"}
CALLS = ["t_s=0", "t_s=400", "theta=0.4", "theta=q0.5"]


@pytest.mark.parametrize("setting", CALLS)
def test_bfloat16_images_are_near_those_of_float32_under_the_same_noise(paths, setting, device):
    found = []
    for precision in ("float32", "bfloat16"):
        models = Models(USED, "corrected", **paths, device=device, precision=precision)
        cell = build_cell(models, DDPM, Setting.parse(setting))
        x, _, ran = sample_batch(models, cell, 0, 16, seed=0)
        assert x.dtype == torch.float32
        found.append((x, ran))
    (x_32, ran_32), (x_16, ran_16) = found
    same = (ran_32 == ran_16).all(0)  # images whose exits did not flip
    assert same.double().mean() >= 0.75
    difference = (x_32 - x_16)[same].abs()
    assert 0 < difference.mean() < 0.01 * x_32.abs().mean()


def test_only_the_networks_compute_in_bfloat16(paths, monkeypatch):
    seen = {"linear": set(), "eps": set(), "u": set()}
    models = Models(USED, "corrected", **paths, precision="bfloat16")
    models.full.net.mid_block.mlp.fc1.register_forward_hook(
        lambda _, inputs, output: seen["linear"].add(output.dtype)
    )
    x, t, y = torch.randn(3, 1, 8, 8), torch.full((3,), 700), torch.tensor([0, 4, 9])
    with torch.inference_mode():
        for backbone in (models.full, models.early_exit(0.0), models.early_exit(0.4)):
            seen["eps"].add(backbone(x, t, y).dtype)
        with models.full.computing(x.device):
            seen["u"].add(models.adadiff.all_layers(x, t, y)[1].dtype)
    assert seen == {"linear": {torch.bfloat16}, "eps": {torch.float32}, "u": {torch.float32}}
    assert all(p.dtype == torch.float32 for p in models.adadiff.parameters())


def test_the_shrinking_batch_and_the_simulated_exit_agree_in_bfloat16(paths, device):
    models = Models(USED, "corrected", **paths, device=device, precision="bfloat16")
    torch.manual_seed(0)
    x, t, y = torch.randn(32, 1, 8, 8), torch.full((32,), 700), torch.arange(32) % 10
    x, t, y = (a.to(device) for a in (x, t, y))
    with torch.inference_mode(), models.full.computing(x.device):
        middle = models.adadiff.all_layers(x, t, y)[1].median().item()
    exits = [models.early_exit(middle, simulate) for simulate in (False, True)]
    with torch.inference_mode():
        a, b = (early_exit(x, t, y) for early_exit in exits)
    same = exits[0].exits[0] == exits[1].exits[0]
    assert same.double().mean() > 0.9
    torch.testing.assert_close(a[same], b[same], rtol=0.02, atol=0.02)


def test_a_cell_of_another_precision_is_another_cell(paths, tmp_path, monkeypatch):
    out = tmp_path / "cell/manifest.json"
    full = {"full": paths["full"]}
    kept = []

    def counted(*arguments, **options):
        kept.append(arguments[2])
        if len(kept) == 2:
            raise InterruptedError  # after the first compute batch
        return sample_batch(*arguments, **options)

    monkeypatch.setattr(generation, "sample_batch", counted)
    with pytest.raises(InterruptedError):
        write_samples(out, loaded(full), **cell_of("t_s=0"))
    models = Models(USED, "corrected", **full, precision="bfloat16")
    manifest = write_samples(out, models, **cell_of("t_s=0"))
    assert kept == [0, 4, 0, 4]  # what float32 had computed is not taken
    assert manifest["dtype"] == "bfloat16"
    assert of_samples(manifest)["dtype"] == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.01)])
def test_compiled_backbones_give_the_images_of_eager_ones(
    paths, device, precision, tolerance, monkeypatch
):
    by_torch = device == "cuda" or precision == "bfloat16"
    if device == "cuda" and shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++")
    uncompiled = by_torch and device == "cpu"
    if uncompiled:  # graphs as torch traces them: the next test compiles one
        monkeypatch.setattr("duodiff.compiled.COMPILE", GRAPHS)
    options = {"device": device, "precision": precision}
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    both = [Models(USED, "corrected", **paths, **options, compiled=c) for c in (False, True)]
    for setting in ("t_s=400", "theta=0.4"):
        cells = [build_cell(models, DDPM, Setting.parse(setting)) for models in both]
        for start, end in ((0, 6), (6, 8)):
            eager, ours = (
                sample_batch(*pair, start, end, 0)[0] for pair in zip(both, cells, strict=True)
            )
            assert (eager - ours).abs().mean() <= tolerance * eager.abs().mean()
            assert (setting == "theta=0.4" or uncompiled) == torch.equal(eager, ours)
    # two backbones, each whole, for two sizes of batch
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4 * by_torch
    if not by_torch:
        graphs = [model.net.forward.requests for model in (both[1].full, both[1].shallow)]
        assert [list(sizes) for sizes in graphs] == [[6, 8], [6, 8]]
        assert sys.modules["openvino_telemetry"] is None  # nobody is told


@pytest.mark.slow
def test_torch_compiles_a_backbone_for_a_cpu(paths, monkeypatch, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    options = {"precision": "bfloat16", "shallow": paths["shallow"]}
    x, t, y = torch.randn(6, 1, 8, 8), torch.full((6,), 700), torch.arange(6)
    with torch.inference_mode():
        eager, ours = (
            Models(USED, "corrected", **options, compiled=c).shallow(x, t, y) for c in (False, True)
        )
    assert (eager - ours).abs().mean() <= 0.01 * eager.abs().mean()
    assert list(tmp_path.rglob("*.so"))


def test_compiled_backbones_need_openvino_on_a_cpu(paths, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match="compiled: found no package openvino"):
        Models(USED, "corrected", **paths, compiled=True)


def test_a_record_says_whether_its_backbones_were_compiled(paths, tmp_path, monkeypatch):
    monkeypatch.setattr("duodiff.sampling.models.compile_forward", lambda *arguments: None)
    found = {}
    for setting in ("t_s=0", "theta=0.4"):
        roles = {"full": paths["full"]} | ({"heads": paths["heads"]} if "theta" in setting else {})
        for compiled in (False, True):
            out = tmp_path / f"{setting}-{compiled}/manifest.json"
            models = Models(USED, "corrected", **roles, compiled=compiled)
            manifest = write_samples(out, models, **cell_of(setting, 4))
            found[setting, compiled] = of_samples(manifest)["compiled"]
    assert [key for key, value in found.items() if value] == [("t_s=0", True)]


def test_a_cell_compiled_by_another_version_is_another_cell(paths, tmp_path, monkeypatch):
    full = {"full": paths["full"]}
    kept = []

    def counted(*arguments, **options):
        kept.append(arguments[2])
        if len(kept) in (2, 4):
            raise InterruptedError  # after the first compute batch
        return sample_batch(*arguments, **options)

    monkeypatch.setattr(generation, "sample_batch", counted)
    monkeypatch.setattr("duodiff.sampling.models.compile_forward", lambda *arguments: None)
    for version in ("1", "2", "2"):
        monkeypatch.setattr(samples, "engine", lambda *where, v=version: v)
        models = Models(USED, "corrected", **full, compiled=True)
        with suppress(InterruptedError):
            write_samples(tmp_path / "cell/manifest.json", models, **cell_of("t_s=0"))
    assert kept == [0, 4, 0, 4, 4]  # begun anew by version 2, which goes on after its own part


def test_an_unknown_precision_is_refused(paths):
    with pytest.raises(ValueError, match="precision: found 'float16'; accepted: float32 or bfl"):
        Models(USED, "corrected", full=paths["full"], precision="float16")


def test_uncertainties_are_profiled_in_the_precision_they_are_used_in(paths, data, tmp_path):
    values = []
    for precision in ("float32", "bfloat16"):
        names = {"losses": "losses.csv", "quantiles": "quantiles.json", "out": "records.json"}
        files = {key: tmp_path / precision / name for key, name in names.items()}
        models = Models(USED, "corrected", **paths, precision=precision)
        how = {"n_timesteps": 3, "batch": 64, "seed": 0, "experiment": "digits"}
        write_profile(data, models, **how, **files)
        assert {r["dtype"] for r in read_json(files["out"])} == {precision}
        values.append(np.array(read_json(files["quantiles"])["values"]))
    assert 0 < np.abs(values[0] - values[1]).max() < 0.01


# --- timing


@pytest.mark.parametrize(
    ("images", "logged"), [(12, "1.50 ms an image in batches of 4"), (4, "0.75 ms an image in")]
)
def test_the_logged_time_is_that_of_warm_networks_where_there_is_one(
    paths, monkeypatch, caplog, images, logged
):
    # a compute batch takes 3 ms the first time, 4 and 8 ms then
    ticks = iter([0.0, 0.003, 1.0, 1.004, 2.0, 2.008])
    monkeypatch.setattr(generation, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    models = loaded({"full": paths["full"]})
    with caplog.at_level("INFO", "duodiff"):
        cell = build_cell(models, DDPM, Setting.parse("t_s=0"))
        generate(models, cell, 0, images, batch=4, seed=0)
    assert logged in caplog.text
    assert ("warming up included" in caplog.text) == (images == 4)


@pytest.mark.parametrize(("protocol", "warm_ups"), [("corrected", 4), ("paper", 0)])
def test_the_clock_starts_after_a_warm_up_where_the_protocol_has_one(
    paths, protocol, warm_ups, monkeypatch
):
    calls = []

    def counted(*arguments):
        calls.append(len(arguments[1].steps))
        return sample_batch(*arguments)

    monkeypatch.setattr(latency, "sample_batch", counted)
    grid = [[DDPM, ["t_s=0", "t_s=1000", "theta=0.4"]]]  # and AdaDiff with all heads
    timed = TIMED | {"protocol": protocol, "repeats": 1}
    records = latency.measure_cells(paths, USED, grid, **timed)
    # and those that measure memory, and the two that compare AdaDiff's two ways to exit
    assert len(calls) == warm_ups + 4 + 4 + 2
    assert {r.protocol for r in records} == {protocol}
    speedups = {r.method: r.value for r in records if r.metric == "speedup"}
    assert speedups["full"] == 1
    assert set(speedups) == {"full", "shallow", "adadiff", "adadiff_all_heads"}


def test_decoding_is_timed_apart_from_denoising(latent, monkeypatch):
    _, paths, codec = latent
    decode, decoded = codec.decode, []

    def counted(latents):
        decoded.append(len(latents))
        return decode(latents)

    monkeypatch.setattr(codec, "decode", counted)
    grid = [[DDPM, ["t_s=0", "theta=0.4"]]]
    records = latency.measure_cells(paths, USED, grid, **TIMED, repeats=2, autoencoder=codec)
    (record,) = [r for r in records if r.method == "decode"]
    assert (record.metric, record.unit, record.n) == ("decode_seconds_per_image", "s", 4)
    assert record.interval[0] <= record.value <= record.interval[1]
    assert record.compute_batch == codec.batch == 3
    assert record.checkpoint_sha256 == {"autoencoder": codec.source["weights_sha256"]}
    # a warm-up, two rounds, and the two ways to exit; none for any method's time
    assert decoded == [4] * (1 + 2 + 2)


# --- what the methods need


@pytest.fixture(scope="module")
def needs(paths):
    """Records of two samplers' settings, and the models they are of."""
    ddim = {"name": "ddim", "steps": 6, "eta": 0}
    grid = [[DDPM, ["t_s=0", "t_s=400", "t_s=1000", "theta=q0.5"]], [ddim, ["t_s=0", "t_s=400"]]]
    found = latency.measure_cells(paths, USED, grid, **TIMED, repeats=2)
    return [r for r in found if r.sampler], loaded(paths)


def test_timings_say_the_precision_they_were_measured_in(paths):
    records = latency.measure_cells(
        paths, USED, [[DDPM, ["t_s=0"]]], **TIMED, repeats=1, precision="bfloat16"
    )
    assert {r.dtype for r in records} == {"bfloat16"}


def values_of(metric: str, records) -> dict:
    return {(r.sampler, r.method): r.value for r in records if r.metric == metric}


def test_a_trajectory_costs_the_calls_that_each_image_made_by_the_closed_form(needs):
    records, models = needs
    defaults = {"mlp_ratio": 4, "qkv_bias": False, "mlp_time_embed": False, "conv": True}
    full, shallow = (network(NET | defaults | {"depth": depth}) for depth in (5, 3))
    cell = build_cell(models, DDPM, Setting.parse("theta=q0.5"))
    exits = sample_batch(models, cell, 0, 4, 0)[2]
    assert exits.min() < exits.max()
    expected = {
        ("ddpm", "full"): 10 * full.forward,
        ("ddpm", "duodiff"): 4 * shallow.forward + 6 * full.forward,
        ("ddpm", "shallow"): 10 * shallow.forward,
        ("ddpm", "adadiff"): sum(full.exiting(e) for e in exits.flatten().tolist()) / 4,
        ("ddpm", "adadiff_all_heads"): 10 * full.all_heads,
        ("ddim", "full"): 6 * full.forward,
        ("ddim", "duodiff"): 2 * shallow.forward + 4 * full.forward,  # 999 and 799
    }
    trajectories = values_of("gflops_per_trajectory", records)
    assert trajectories == pytest.approx({k: v / 1e9 for k, v in expected.items()}, rel=1e-9)
    calls = values_of("mean_gflops_per_call", records)
    steps = {"ddpm": 10, "ddim": 6}
    assert calls == pytest.approx({k: v / steps[k[0]] for k, v in trajectories.items()}, rel=1e-9)


def test_duodiff_holds_both_networks_and_adadiff_its_heads(needs):
    records, models = needs
    full, shallow = (
        sum(p.numel() for p in model.parameters()) for model in (models.full, models.shallow)
    )
    heads = sum(p.numel() for p in models.adadiff.heads_parameters())
    found = values_of("resident_parameters", records)
    assert found["ddpm", "full"] == full
    assert found["ddpm", "shallow"] == shallow
    assert found["ddpm", "duodiff"] == found["ddim", "duodiff"] == full + shallow
    assert found["ddpm", "adadiff"] == full + heads


def test_two_networks_take_the_memory_of_the_second_beside_that_of_the_full_one(needs):
    records, models = needs
    second = sum(t.nbytes for t in [*models.shallow.parameters(), *models.shallow.buffers()])
    found = values_of("peak_memory_mb", records)
    assert found["ddpm", "duodiff"] - found["ddpm", "full"] == pytest.approx(second / 1e6)
    weights = 4e-6 * values_of("resident_parameters", records)["ddpm", "full"]
    tokens = 4e-6 * 4 * 6 * NET["embed_dim"]  # of a batch of 4 images, float32
    assert found["ddpm", "full"] > weights + 3 * tokens  # with its two skips, at the least


def test_held_memory_is_that_of_tensors_made_and_not_yet_freed():
    there = torch.zeros(5000)

    def run():
        a = torch.zeros(1000)
        view, c = a[:10], torch.ones(10)
        del a
        there.add_(1)
        d = torch.ones(500)  # the peak: the view keeps all of a
        del d, view, c
        torch.ones(1200)

    assert peak_bytes(run, "cpu") == 4 * (1000 + 10 + 500)


def test_only_a_methods_own_checkpoints_are_loaded_for_its_load_time(paths, monkeypatch):
    asked = []

    def counted(*arguments, **roles):
        asked.append(sorted(set(roles) - {"device", "precision"}))
        return Models(*arguments, **roles)

    monkeypatch.setattr(latency, "Models", counted)
    grid = [[DDPM, ["t_s=0", "t_s=400", "theta=0.4"]]]
    records = latency.measure_cells(paths, USED, grid, **TIMED, repeats=2)
    assert asked[0] == ["full", "heads", "quantiles", "shallow"]
    own = [["full"], ["full", "heads"], ["full", "shallow"]]
    assert sorted(asked[1:]) == sorted(2 * own)  # two rounds
    loads = [r for r in records if r.metric == "load_seconds"]
    assert all(0 < r.interval[0] <= r.value <= r.interval[1] for r in loads)
    assert {r.method for r in loads} == {"full", "duodiff", "adadiff", "adadiff_all_heads"}


def test_a_gpus_energy_is_read_where_there_is_a_meter_and_recorded_an_image(paths, monkeypatch):
    joules = iter(range(0, 100, 8))
    monkeypatch.setattr(latency, "energy_meter", lambda device: lambda: next(joules))
    records = latency.measure_cells(paths, USED, [[DDPM, ["t_s=0"]]], **TIMED, repeats=1)
    (record,) = [r for r in records if r.metric == "joules_per_image"]
    assert (record.value, record.unit, record.n) == (2.0, "J", 4)  # 8 J for 4 images


def test_there_is_no_energy_to_read_without_a_gpu_or_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_meter("cpu") is None
    assert energy_meter("cuda") is None


@pytest.mark.parametrize("counts", [True, False])
def test_energy_is_that_of_the_gpu_behind_the_torch_device(monkeypatch, counts):
    class NVMLError(Exception):
        pass

    def total(handle):
        if not counts:  # as a GPU before Volta
            raise NVMLError
        return {"of GPU-1-2": 2500}[handle]

    library = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID="of {}".format,
        nvmlDeviceGetTotalEnergyConsumption=total,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    properties = SimpleNamespace(uuid="1-2")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    meter = energy_meter("cuda")
    assert (meter() if counts else meter) == (2.5 if counts else None)
