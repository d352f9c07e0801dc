"""Manifests of checkpoints: their bytes, and what is refused."""

import json

import pytest
import torch

from duodiff.checkpoints import BackboneManifest, HeadsManifest, as_json, load, read, save
from duodiff.running.files import read_json, write_json
from duodiff.running.provenance import made

CONVENTIONS = {"schedule": "linear", "time_input": "t", "class_order": None}
BACKBONE = BackboneManifest(
    architecture={"depth": 5, "conv": True},
    **CONVENTIONS,
    prediction="noise",
    null_class=False,
    training={"steps": 3, "betas": [0.9, 0.99]},
    seed=0,
    dataset_sha256="d" * 64,
    skipped_steps=0,
    made=made("c" * 64),
)
HEADS = HeadsManifest(
    backbone_sha256="b" * 64,
    timestep_aware=True,
    protocol="corrected",
    **CONVENTIONS,
    training={"steps": 3},
    seed=0,
    dataset_sha256="d" * 64,
    departures=[],
    skipped_steps=0,
    made=made("c" * 64),
)
KEYS = {
    "backbone": "kind architecture schedule time_input prediction null_class class_order training seed dataset_sha256"
    " skipped_steps weights_sha256 made",
    "heads": "kind backbone_sha256 timestep_aware protocol schedule time_input class_order training seed"
    " dataset_sha256 departures skipped_steps weights_sha256 made",
}


@pytest.mark.parametrize("manifest", [BACKBONE, HEADS], ids=["backbone", "heads"])
def test_what_is_saved_is_read(manifest, tmp_path):
    path, weights = tmp_path / "manifest.json", {"w": torch.arange(3.0)}
    saved = save(path, weights, manifest)
    loaded, again = load(path, type(manifest))
    assert loaded == saved
    assert torch.equal(again["w"], weights["w"])
    assert list(json.loads(path.read_text(encoding="utf-8"))) == KEYS[manifest.KIND].split()


def test_an_unfinished_manifest_has_no_keys_that_it_does_not_know_yet():
    assert {"source", "weights_sha256"}.isdisjoint(as_json(BACKBONE))
    assert as_json(BACKBONE)["skipped_steps"] == 0


def test_a_manifest_that_does_not_say_what_made_it_is_read(tmp_path):
    path = tmp_path / "manifest.json"
    save(path, {}, BACKBONE)
    write_json(path, {key: value for key, value in read_json(path).items() if key != "made"})
    assert read(path, BackboneManifest).made == {}
    assert "made" not in as_json(read(path, BackboneManifest))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prediction": ...}, "prediction: missing"),
        ({"weights_sha256": ...}, "weights_sha256: missing"),
        ({"colour": "red"}, "colour: unknown"),
        ({"kind": "heads"}, "kind: found 'heads'; accepted: 'backbone'"),
    ],
)
def test_a_key_that_is_missing_or_unknown_is_named(changed, message, tmp_path):
    path = tmp_path / "manifest.json"
    save(path, {}, BACKBONE)
    values = read_json(path) | changed
    write_json(path, {key: value for key, value in values.items() if value is not ...})
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        read(path, BackboneManifest)
