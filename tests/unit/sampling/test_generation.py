"""The images of cells: by compute batches, in both precisions, of latents too."""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from unit.tiny_study import (
    BACKBONE_TRAINING,
    DDPM,
    NET,
    TRAINING,
    USED,
    loaded,
    train,
)

from duodiff.compiled import WHOLE, FastGraphs
from duodiff.graphs import StepGraphs
from duodiff.protocol import CORRECTED
from duodiff.sampling import generation
from duodiff.sampling.cells import build_cell
from duodiff.sampling.generation import generate, sample_batch
from duodiff.sampling.models import Models
from duodiff.settings import Setting
from duodiff.training.backbone import train_backbone
from duodiff.training.heads import train_heads


def test_an_unconditional_network_trains_on_labelled_data(paths, tmp_path):
    data = paths["full"].parents[1] / "data/manifest.json"
    options = BACKBONE_TRAINING | {"init": "residual_zero"}
    train(data, {"depth": 3, "num_classes": -1}, tmp_path / "m.json", options)
    models = loaded({"full": tmp_path / "m.json"})
    cell = build_cell(models, DDPM, Setting.parse("t_s=0"))
    labels = generate(models, cell, 0, 3, batch=4, seed=0)[1]
    assert labels.tolist() == [-1, -1, -1]


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


def test_chosen_classes_come_in_turn_whatever_the_batch(paths):
    models = loaded(paths)
    cell = build_cell(models, DDPM, Setting.parse("t_s=400"))
    images, labels, _ = generate(models, cell, 0, 7, batch=4, seed=3, classes=[8, 3, 5])
    assert labels.tolist() == [8, 3, 5, 8, 3, 5, 8]
    part, part_labels, _ = generate(models, cell, 5, 7, batch=4, seed=3, classes=[8, 3, 5])
    assert part_labels.tolist() == [5, 8]
    assert np.array_equal(part, images[5:7])
    chosen, in_turn, by_default = (
        sample_batch(models, cell, 0, 4, 3, classes=classes)[0]
        for classes in ([8, 3, 5], list(range(10)), None)
    )
    assert torch.equal(in_turn, by_default)
    assert not torch.equal(chosen, by_default)


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


def test_images_that_are_not_finite_are_refused(paths):
    models = loaded({"full": paths["full"]})
    models.full.net.norm.bias.data.fill_(float("nan"))
    cell = build_cell(models, DDPM, Setting.parse("t_s=0"))
    with pytest.raises(ValueError, match="images 0 to 7 are not finite"):
        generate(models, cell, 0, 8, batch=8, seed=0)


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


def test_decoded_images_do_not_depend_on_the_range_that_is_generated(latent):
    _, paths, codec = latent
    models = loaded({"full": paths["full"]})
    cell = build_cell(models, DDPM, Setting.parse("t_s=0"))
    how = {"batch": 4, "seed": 0, "autoencoder": codec}
    whole = generate(models, cell, 0, 6, **how)[0]
    assert whole.dtype == np.uint8
    parts = [generate(models, cell, *part, **how)[0] for part in ((0, 1), (1, 5), (5, 6))]
    assert np.array_equal(np.concatenate(parts), whole)


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


GRAPHS = WHOLE | {"backend": "eager"}


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
        monkeypatch.setattr("duodiff.compiled.WHOLE", GRAPHS)
    # tuning takes minutes: `make bench-gpu` does it
    monkeypatch.setattr("duodiff.compiled.COMPILE", WHOLE)
    counts = (6, 8) if device == "cpu" else (6, 6)
    options = {"device": device, "precision": precision}
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    both = [Models(USED, "corrected", **paths, **options, compiled=c) for c in (False, True)]
    # on a GPU early exit is compiled, too, and exits at a threshold may flip: see test_ahead.py
    for setting in ("t_s=400", *["theta=0.4"] * (device == "cpu")):
        cells = [build_cell(models, DDPM, Setting.parse(setting)) for models in both]
        for start, count in zip((0, 6), counts, strict=True):
            eager, ours = (
                sample_batch(*pair, start, count, 0)[0] for pair in zip(both, cells, strict=True)
            )
            assert (eager - ours).abs().mean() <= tolerance * eager.abs().mean()
            assert (setting == "theta=0.4" or uncompiled) == torch.equal(eager, ours)
    if device == "cuda":
        captured = [len(memory.run) for memory in both[1].graphs._memories.values()]
        assert captured == [3]  # both backbones with noise, and the last step without
    else:  # two backbones, each whole, for two sizes of batch
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4 * by_torch
    if not by_torch:
        graphs = [model.net.forward.requests for model in (both[1].full, both[1].shallow)]
        assert [list(sizes) for sizes in graphs] == [[6, 8], [6, 8]]
        assert sys.modules["openvino_telemetry"] is None  # nobody is told


def test_the_form_of_a_gpu_is_compiled_for_more_sizes_of_batch_than_torch_allows(
    paths, monkeypatch
):
    monkeypatch.setattr("duodiff.compiled.COMPILE", GRAPHS)
    torch._dynamo.reset()
    net = loaded({"shallow": paths["shallow"]}).shallow.net
    graphs = FastGraphs(net, "float32")
    with torch.inference_mode():
        for batch in range(1, 11):
            given = torch.randn(batch, 1, 8, 8), torch.arange(batch), torch.arange(batch)
            torch.testing.assert_close(graphs(*given), net(*given), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.01)])
@pytest.mark.parametrize("setting", ["t_s=400", "theta=0.4"])
def test_the_way_of_a_gpu_gives_the_images_of_eager_networks(
    paths, monkeypatch, setting, precision, tolerance
):
    """Its forms of the networks and its steps, on a CPU: neither compiled nor captured."""
    monkeypatch.setattr("duodiff.compiled.COMPILE", GRAPHS)
    both = [Models(USED, "corrected", **paths, precision=precision) for _ in range(2)]
    for role in both[1].backbones:
        net = both[1].backbone(role).net
        net.forward = FastGraphs(net, precision)
    both[1].graphs = StepGraphs("cpu")
    cells = [build_cell(models, DDPM, Setting.parse(setting)) for models in both]
    for start, seed in ((0, 0), (6, 1)):
        (eager, y, ran), (ours, *others) = (
            sample_batch(*pair, start, 6, seed) for pair in zip(both, cells, strict=True)
        )
        assert (eager - ours).abs().mean() <= tolerance * eager.abs().mean()
        assert torch.equal(y, others[0])
        assert torch.equal(ran, others[1])
        assert torch.equal(eager, ours) == (setting == "theta=0.4")  # which the loop samples


@pytest.mark.parametrize(
    ("images", "logged"),
    [
        (12, "1.50 ms an image in batches of 4"),
        (11, "1.50 ms an image in batches of 4, of which 1 images only fill batches up"),
        (4, "0.75 ms an image in"),
    ],
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
