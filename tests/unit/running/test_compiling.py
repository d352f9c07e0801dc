"""A training's loss compiled, as on a GPU, here by the graphs that torch traces for it."""

from functools import partial

import numpy as np
import pytest
import torch

from duodiff import identity
from duodiff.early_exit import AdaDiff
from duodiff.protocol import PROTOCOLS
from duodiff.running import compiling, provenance
from duodiff.schedules import noise_schedule
from duodiff.training.backbone import denoising_loss
from duodiff.training.batches import Noiser
from duodiff.training.heads import heads_loss
from duodiff.uvit import Denoiser, UViT

NET = {"img_size": 6, "patch_size": 2, "in_chans": 3, "embed_dim": 14, "depth": 3, "num_heads": 7}
HEADS = partial(heads_loss, time_convention="t", protocol=PROTOCOLS["corrected"])


def model_of(kind: str):
    torch.manual_seed(0)
    net = UViT(**NET, num_classes=5)
    if kind == "backbone":
        return Denoiser(net), denoising_loss, list(net.parameters())
    net.requires_grad_(False)
    model = AdaDiff(net)
    return model, HEADS, model.heads_parameters()


@pytest.fixture
def traced(monkeypatch):
    """torch.compile without a compiler of kernels; what was compiled, by its options."""
    torch._dynamo.reset()
    found, compile_ = [], torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda f, **options: found.append(options) or compile_(f, backend="aot_eager", **options),
    )
    monkeypatch.setattr(compiling, "used", set())
    monkeypatch.setattr(compiling, "_has_compiler", lambda: True)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["backbone", "heads"])
def test_compiled_losses_and_gradients_are_the_eager_ones_in_one_graph(kind, traced):
    images, labels = np.zeros((13, 3, 6, 6), np.uint8), np.arange(13) % 4
    noiser = Noiser(images, labels, noise_schedule("linear"), label_dropout=0.1, null_class=4)
    model, loss, parameters = model_of(kind)
    fast = compiling.faster(loss, "cuda", "bfloat16")
    found = []
    for step in range(2):
        of_step = []
        for function in (loss, fast):
            with torch.autocast("cpu", torch.bfloat16):
                value = function(model, noiser.at_step(0, step, 8))
            value.backward()
            of_step.append([value.detach(), *(p.grad.clone() for p in parameters)])
            model.zero_grad()
        found += zip(*of_step, strict=True)
    for eager, compiled in found:
        assert (eager - compiled).abs().max() <= 0.02 * eager.abs().max() + 1e-6
    assert [options["fullgraph"] for options in traced] == [True]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1


def test_a_gpu_without_a_compiler_trains_eagerly(monkeypatch):
    monkeypatch.setattr(compiling, "_has_compiler", lambda: False)
    assert compiling.faster(denoising_loss, "cuda", "bfloat16") is denoising_loss
    assert not compiling.used


def test_held_out_losses_other_devices_and_float32_are_eager(traced):
    calls = []

    def loss(model, batch):
        calls.append(torch.is_grad_enabled())
        return batch

    assert compiling.faster(loss, "cpu", "bfloat16") is loss
    assert compiling.faster(loss, "cuda", "float32") is loss
    assert not compiling.used
    fast = compiling.faster(loss, "cuda", "bfloat16")
    with torch.inference_mode():
        assert fast(None, 3) == 3
    assert calls == [False]


def test_what_was_trained_by_a_compiled_loss_says_so(traced):
    assert "compiled" not in provenance.made("code")
    compiling.faster(denoising_loss, "cuda", "bfloat16")
    assert provenance.made("code")["compiled"] == [f"torch {torch.__version__}"]


def test_how_fast_a_loss_is_computed_is_no_part_of_an_identity(tmp_path, monkeypatch):
    (tmp_path / "duodiff").mkdir()
    (tmp_path / "duodiff/protocol.py").touch()
    monkeypatch.setattr(identity, "ROOT", tmp_path)
    for name in ("_source", "_keys", "_read"):  # nothing of these modules is remembered
        monkeypatch.setattr(identity, name, getattr(identity, name).__wrapped__)
    forms = [
        "from duodiff.running import compiling\ndef work(x):\n    return f(compiling.faster(x, 3))\n",
        "from duodiff.running.compiling import faster\ndef work(x):\n    return f(faster(x, 4, 5))\n",
        "def work(x):\n    return f(x)\n",
        "from duodiff.running import compiling\ndef work(x):\n    return f(compiling.other(x))\n",
    ]
    found = []
    for i, form in enumerate(forms):
        (tmp_path / f"duodiff/planted{i}.py").write_text(form, encoding="utf-8")
        found.append(identity.code_digest((f"duodiff.planted{i}", "work")))
    assert found[0] == found[1] == found[2] != found[3]
