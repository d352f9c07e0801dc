"""Networks loaded from checkpoints: held to their conventions, to each other, and to a precision."""

import shutil
import sys

import pandas as pd
import pytest
import torch
from unit import recorded
from unit.tiny_study import (
    BACKBONE_TRAINING,
    USED,
    loaded,
    train,
)

from duodiff import checkpoints
from duodiff.compiled import DTYPES, WHOLE, FastGraphs
from duodiff.protocol import CORRECTED, PAPER
from duodiff.running.files import read_json, write_json
from duodiff.sampling.generation import captured
from duodiff.sampling.models import Models
from duodiff.training.backbone import denoising_loss, noisers


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


def test_checkpoints_that_disagree_are_refused(paths, tmp_path):
    description = read_json(paths["shallow"]) | {"null_class": True}
    write_json(tmp_path / "manifest.json", description)
    (tmp_path / "model.safetensors").symlink_to(paths["shallow"].parent / "model.safetensors")
    with pytest.raises(ValueError, match="checkpoints disagree on null_class"):
        loaded({"full": paths["full"], "shallow": tmp_path / "manifest.json"})


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


def test_an_unknown_precision_is_refused(paths):
    with pytest.raises(ValueError, match="precision: found 'float16'; accepted: float32 or bfl"):
        Models(USED, "corrected", full=paths["full"], precision="float16")


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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_early_exit_is_compiled_where_backbones_are_on_a_gpu(paths, precision):
    models = Models(USED, "corrected", **paths, precision=precision)
    models.compiled = True
    assert not models.early_exit(0.4).compiled
    models = Models(USED, "corrected", **paths, precision=precision)
    models.compiled, models.device = True, "cuda"
    exits = [models.early_exit(theta) for theta in (0.2, 0.4)]
    assert all(each.compiled for each in exits)
    assert exits[0].ahead.parts is exits[1].ahead.parts  # one copy of the weights
    assert exits[0].ahead.parts.dtype == DTYPES[precision]
    assert not models.early_exit(0.4, simulate=True).compiled


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


@pytest.mark.slow
def test_torch_compiles_the_form_of_a_gpu(paths, monkeypatch, tmp_path):
    """By inductor for a CPU, whole; a GPU's kernels are tuned as well."""
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("duodiff.compiled.COMPILE", WHOLE)
    torch._dynamo.reset()
    backbone = Models(USED, "corrected", shallow=paths["shallow"]).shallow
    x, t, y = torch.randn(6, 1, 8, 8), torch.full((6,), 700), torch.arange(6)
    with torch.inference_mode():
        eager = backbone(x, t, y)
        for precision, tolerance in (("float32", 1e-5), ("bfloat16", 0.01)):
            ours = FastGraphs(backbone.net, precision)(x, t, y)
            assert ours.dtype == torch.float32
            assert (eager - ours).abs().mean() <= tolerance * eager.abs().mean()
    assert list(tmp_path.rglob("*.so"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("compiled", [False, True])
def test_steps_are_captured_where_backbones_are_compiled_on_a_gpu(
    paths, monkeypatch, device, compiled
):
    made, forms = recorded.pretend(monkeypatch), []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: self)
    monkeypatch.setattr("duodiff.compiled.OpenvinoGraphs", lambda net: forms.append("openvino"))
    monkeypatch.setattr("duodiff.compiled.FastGraphs", lambda net, precision: forms.append("fast"))
    both = {role: paths[role] for role in ("full", "shallow")}
    models = Models(USED, "corrected", **both, device=device, compiled=compiled)
    assert forms == 2 * compiled * [{"cpu": "openvino", "cuda": "fast"}[device]]
    assert models.captures == (compiled and device == "cuda")
    graphs = captured(models)
    assert (graphs is not None) == models.captures
    assert captured(models) is graphs
    assert not made.all_of_them


def test_compiled_backbones_need_openvino_on_a_cpu(paths, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match="compiled: found no package openvino"):
        Models(USED, "corrected", **paths, compiled=True)
