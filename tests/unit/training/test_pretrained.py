"""Published U-ViT weights: the official networks' outputs survive conversion; what does not fit is refused."""

import os
import pickle
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.image_files import STAND_INS

from duodiff.checkpoints import BackboneManifest, as_json, load, load_backbone
from duodiff.identity import code_digest
from duodiff.running.files import read_json, sha256
from duodiff.running.provenance import made
from duodiff.training.pretrained import convert

ROOT = Path(__file__).parents[3]
import_weights = runpy.run_path(str(ROOT / "workflow_scripts/import_weights.py"))["import_weights"]

CONVENTIONS = {"schedule": "vpsde", "time_input": "999(t+1)/1000", "class_order": "synset"}
SMALL = {"img_size": 8, "patch_size": 2, "in_chans": 3, "embed_dim": 32, "num_heads": 4}
FIRST = {"img_size": 16, "patch_size": 2, "in_chans": 3, "embed_dim": 64, "num_heads": 4}
NETWORKS = {
    "uvit_uncond_depth4": FIRST | {"depth": 5},
    "uvit_noconv_depth2": FIRST | {"depth": 3, "conv": False},
    "uvit_cond_depth4": SMALL | {"depth": 5, "mlp_ratio": 2, "num_classes": 7},
    "uvit_cond_timemlp_qkvbias_noconv": SMALL
    | {"in_chans": 4, "depth": 5, "mlp_ratio": 2, "num_classes": 7}
    | {"mlp_time_embed": True, "qkv_bias": True, "conv": False},
    "uvit_timemlp_depth2": SMALL | {"depth": 3, "mlp_time_embed": True},
}
SMALLEST = "uvit_timemlp_depth2"


def golden(name: str) -> dict[str, torch.Tensor]:
    with np.load(ROOT / f"tests/goldens/{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def state_dict(name: str) -> dict[str, torch.Tensor]:
    arrays = golden(name)
    return {k.removeprefix("sd/"): v for k, v in arrays.items() if k.startswith("sd/")}


@pytest.fixture
def published(tmp_path):
    """A function that saves anything as a published file and returns its path."""

    def save(content) -> Path:
        torch.save(content, tmp_path / "uvit.pth")
        return tmp_path / "uvit.pth"

    return save


def convert_as(
    name: str, path: Path, pinned: str | None = None, **changed
) -> tuple[BackboneManifest, Path]:
    """`path` converted as the network of the golden `name`, with other keywords where `changed` has them."""
    out = path.parent / "converted/manifest.json"
    return convert(path, pinned, NETWORKS[name] | changed, CONVENTIONS, False, out=out), out


def refusal(name: str, path: Path, pinned: str | None = None, **changed) -> str:
    """The message of the refusal, the path in it shortened; nothing may have been written."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        convert_as(name, path, pinned, **changed)
    assert not (path.parent / "converted").exists()
    return str(error.value).replace(str(path), path.name)


# --- conversion


@pytest.mark.parametrize("name", NETWORKS)
def test_a_converted_network_gives_the_official_output(name, published):
    g = golden(name)
    _, out = convert_as(name, published(state_dict(name)))
    model, _ = load_backbone(out)
    with torch.no_grad():
        output = model.net(g["x"], g["t"], g.get("y"))
    torch.testing.assert_close(output, g["out"], atol=2e-5, rtol=0)


def test_the_manifest_says_what_was_converted_and_how_to_use_it(published):
    path = published(state_dict(SMALLEST))
    manifest, out = convert_as(SMALLEST, path, sha256(path))
    assert as_json(manifest) == read_json(out)
    assert as_json(manifest) == CONVENTIONS | {
        "kind": "backbone",
        "architecture": NETWORKS[SMALLEST],
        "prediction": "noise",
        "null_class": False,
        "training": None,
        "seed": None,
        "dataset_sha256": None,
        "source": {"file": "uvit.pth", "sha256": sha256(path), "verified": True},
        "weights_sha256": sha256(out.with_name("model.safetensors")),
        "made": made(code_digest(convert, CONVENTIONS)),
    }


def test_an_unpinned_file_is_marked_and_its_hash_logged(published, caplog):
    path = published(state_dict(SMALLEST))
    manifest, _ = convert_as(SMALLEST, path)
    assert manifest.source == {"file": "uvit.pth", "sha256": sha256(path), "verified": False}
    assert caplog.messages == [
        f"{path} is not verified; if you trust it, pin its sha256: {sha256(path)}"
    ]
    caplog.clear()
    convert_as(SMALLEST, path, sha256(path))
    assert caplog.messages == []


def test_half_precision_weights_become_float32(published):
    halves = {k: v.bfloat16() for k, v in state_dict(SMALLEST).items()}
    _, out = convert_as(SMALLEST, published(halves))
    _, weights = load(out, BackboneManifest)
    # the golden's weights are float32 of bfloat16 values, so nothing is lost on the way
    torch.testing.assert_close(weights, state_dict(SMALLEST), atol=0, rtol=0)


# --- refusals


def test_another_file_than_the_pinned_one_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "uvit.pth"
    path.write_bytes(b"not even a checkpoint")
    assert refusal(SMALLEST, path, "0" * 64) == (
        f"uvit.pth: found sha256 {sha256(path)}, expected {'0' * 64}"
    )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        convert_as(SMALLEST, tmp_path / "absent.pth")


def test_few_differences_are_all_named(published):
    path = published(state_dict("uvit_cond_depth4"))
    assert refusal("uvit_cond_depth4", path, num_classes=-1) == (
        "uvit.pth does not fit backbone: pos_embed: found [1, 18, 32], expected [1, 17, 32];"
        " label_emb.weight: found [7, 32], expected none"
    )


def test_of_many_differences_the_first_three_are_named_in_the_networks_order(published):
    weights = state_dict(SMALLEST)
    weights["pos_embed"] = weights["pos_embed"][:, 1:]
    weights = {"before": torch.zeros(2)} | dict(reversed(weights.items()))
    assert refusal(SMALLEST, published(weights), qkv_bias=True, depth=5) == (
        "uvit.pth does not fit backbone: pos_embed: found [1, 16, 32], expected [1, 17, 32];"
        " in_blocks.0.attn.qkv.bias: found none, expected [96];"
        " in_blocks.1.norm1.weight: found none, expected [32]; ... (31 differences in all)"
    )


class RunsWhenRead:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_pickle_that_needs_code_is_refused_and_not_run(published, tmp_path):
    trace = tmp_path / "trace"
    path = published(state_dict(SMALLEST) | {"norm.weight": RunsWhenRead(trace)})
    assert refusal(SMALLEST, path) == (
        "uvit.pth: found a file that needs the code of posix.mkdir, accepted: tensors alone;"
        " nothing in it was run"
    )
    assert not trace.exists()
    torch.load(path, weights_only=False)  # it does run where it is let
    assert trace.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"<!doctype html>", pickle.dumps({"a": 1}, 2)[:-3], b"PK\x03\x04 cut off"],
    ids=["empty", "page", "cut pickle", "cut archive"],
)
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "uvit.pth"
    path.write_bytes(content)
    assert refusal(SMALLEST, path) == (
        "uvit.pth: found a file that cannot be read, accepted: tensors alone; nothing in it was run"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "found a value of type list, accepted: a state dict"),
        (
            {"state_dict": {"norm.weight": torch.zeros(2)}, "epoch": 3},
            "state_dict: found a value of type dict, accepted: a tensor of real numbers",
        ),
        (
            {"norm.weight": torch.zeros(2), "step": torch.tensor(3)},
            "step: found a tensor of int64, accepted: a tensor of real numbers",
        ),
    ],
)
def test_anything_but_a_state_dict_is_refused(content, message, published):
    assert refusal(SMALLEST, published(content)) == f"uvit.pth: {message}"


# --- the script


def run_script(data: Path, **weights) -> str:
    chosen = {"path": "weights/uvit.pth", "sha256": None} | weights
    out = data / "results/manifest.json"
    return import_weights(chosen, data, NETWORKS[SMALLEST], CONVENTIONS, False, out)


def test_the_script_converts_the_file_below_the_data_folder(published, tmp_path):
    source = published(state_dict(SMALLEST))
    path = tmp_path / "weights/uvit.pth"
    path.parent.mkdir()
    source.rename(path)
    digest = sha256(path)
    assert run_script(tmp_path) == f"{path}: sha256 {digest} (not verified)"
    assert run_script(tmp_path, sha256=digest) == f"{path}: sha256 {digest}"
    load_backbone(tmp_path / "results/manifest.json")


def test_the_script_says_where_a_missing_file_is_found(tmp_path):
    path = tmp_path / "weights/uvit.pth"
    for weights, page in (
        ({"page": "https://example.org/page"}, "https://example.org/page"),
        ({}, "https://github.com/baofff/U-ViT"),
    ):
        with pytest.raises(FileNotFoundError) as error:
            run_script(tmp_path, **weights)
        assert str(path) in str(error.value)
        assert str(error.value).endswith(page)


@pytest.mark.parametrize("found", STAND_INS)
def test_the_script_names_what_stands_in_for_the_file(tmp_path, found):
    path = tmp_path / "weights/uvit.pth"
    path.parent.mkdir()
    path.write_bytes(STAND_INS[found])
    with pytest.raises(ValueError, match=f"{path}: found {found} in place of the file"):
        run_script(tmp_path)


def test_the_script_downloads_a_missing_file_alone(published, tmp_path, monkeypatch):
    source, calls = published(state_dict(SMALLEST)), []

    def fetch(url: str, path: Path, sha256: str | None) -> None:
        calls.append((url, path, sha256))
        path.parent.mkdir()
        source.rename(path)

    monkeypatch.setitem(import_weights.__globals__, "fetch", fetch)
    digest = sha256(source)
    for _ in range(2):
        run_script(tmp_path, sha256=digest, url="https://example.org/uvit.pth")
    assert calls == [("https://example.org/uvit.pth", tmp_path / "weights/uvit.pth", digest)]
