"""The shipped classifiers: each is what its description says, and is used only for the images it was trained on."""

import json
import runpy
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from duodiff.data.pack import pack
from duodiff.data.store import ImageStore
from duodiff.identity import ROOT
from duodiff.metrics import classifier
from duodiff.metrics.features import Extractor
from duodiff.metrics.reference import compute_reference
from duodiff.metrics.weights import take_classifier
from duodiff.running.files import read_json, sha256
from duodiff.spaces import SHIPPED, shipped_classifiers

DEFAULT = yaml.safe_load((SHIPPED.parent / "config.yaml").read_text(encoding="utf-8"))
MOST_BYTES = 2_500_000
OF_CIFAR10 = yaml.safe_load((SHIPPED.parent / "cifar10_gpu.yaml").read_text(encoding="utf-8"))
DATA = ROOT.parent / "shared/data"


def dataset_of(metric: str) -> dict:
    """The entry of the datasets that an experiment with this metric uses, without its autoencoder."""
    config = OF_CIFAR10 if metric == "fd_cifar10" else DEFAULT
    chosen = next(e for e in config["experiments"].values() if e["metric"]["name"] == metric)
    return {k: v for k, v in config["datasets"][chosen["dataset"]].items() if k != "autoencoder"}


def files(metric: str) -> tuple[Path, Path]:
    return SHIPPED / f"{metric}.safetensors", SHIPPED / f"{metric}.json"


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """The default's digits, packed."""
    path = tmp_path_factory.mktemp("digits") / "manifest.json"
    pack(dataset_of("fd_digits"), path.parent, 1, path)
    return path


def test_every_metric_of_the_default_has_its_classifier_shipped():
    metrics = {e["metric"]["name"] for e in DEFAULT["experiments"].values()}
    assert metrics == {"fd_digits", "fd_digits16"}
    assert {*shipped_classifiers()} == metrics | {"fd_cifar10"}


def test_the_study_of_one_gpu_measures_with_the_shipped_classifier_where_the_images_are_its_own():
    assert "classifier" not in OF_CIFAR10["experiments"]["cifar10_gpu"]["metric"]
    text = (SHIPPED.parent / "cifar10_official.yaml").read_text(encoding="utf-8")
    assert "classifier" in yaml.safe_load(text)["experiments"]["cifar10_gpu"]["metric"]


LEAST = {"fd_digits": 0.98, "fd_digits16": 0.98, "fd_cifar10": 0.65}
"""The least accuracy of each classifier on held-out images."""


@pytest.mark.parametrize("metric", shipped_classifiers())
def test_a_shipped_classifier_is_what_its_description_says(metric, tmp_path):
    weights, description = files(metric)
    if metric == "fd_cifar10" and not DATA.exists():
        pytest.skip(f"needs the zip of CIFAR-10 images in {DATA}")
    manifest = tmp_path / "packed/manifest.json"
    pack(dataset_of(metric), DATA, 1, manifest)
    described = take_classifier(weights, description, manifest, tmp_path / "taken.safetensors")
    assert weights.stat().st_size < MOST_BYTES
    assert sha256(tmp_path / "taken.safetensors") == described["weights_sha256"]
    images, labels = ImageStore(manifest).split("held_out")
    assert described["held_out_images"] == len(images)
    # another machine may see one image near a border otherwise
    found = classifier.accuracy(classifier.load(weights), images, labels)
    assert found == pytest.approx(described["held_out_accuracy"], abs=1.5 / len(images))
    assert found > LEAST[metric]
    assert {"steps", "batch", "seed"} == set(described["training"])
    assert {"device", "libraries", "code"} <= set(described["made"])


def test_a_reference_in_a_shipped_space_names_the_hash_of_its_weights(packed, tmp_path):
    weights, description = files("fd_digits")
    extract = Extractor("fd_digits", weights)
    receipt = compute_reference(packed, extract, None, tmp_path, tmp_path / "reference.json")
    digest = read_json(description)["weights_sha256"]
    assert receipt["extractor"].endswith(digest[:12])
    classifier.save(tmp_path / "other.safetensors", classifier.SmallClassifier(1, 8, 10))
    other = Extractor("fd_digits", tmp_path / "other.safetensors")
    again = compute_reference(packed, other, None, tmp_path, tmp_path / "other.json")
    assert set(again["files"].values()).isdisjoint(receipt["files"].values())


def test_images_that_it_was_not_trained_on_are_refused(tmp_path):
    weights, description = files("fd_digits")
    more = tmp_path / "more/manifest.json"
    pack(dataset_of("fd_digits") | {"held_out": 300}, tmp_path, 1, more)
    expected = r"found train \[0, 1497\]; accepted .* fd_digits.safetensors: \[0, 1437\].*metric.classifier"
    with pytest.raises(ValueError, match=expected):
        take_classifier(weights, description, more, tmp_path / "out.safetensors")
    larger = tmp_path / "larger/manifest.json"
    pack(dataset_of("fd_digits16"), tmp_path, 1, larger)
    with pytest.raises(ValueError, match=r"found images_sha256 \w+; accepted"):
        take_classifier(weights, description, larger, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_changed_file_of_weights_is_refused(packed, tmp_path):
    weights, description = files("fd_digits")
    changed = tmp_path / "changed.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    with pytest.raises(ValueError, match=r"changed.safetensors: found sha256 \w+; accepted: \w+"):
        take_classifier(changed, description, packed, tmp_path / "out.safetensors")


def test_a_trained_classifier_is_described_as_a_shipped_one_is(packed, tmp_path):
    out = tmp_path / "trained.safetensors"
    script = runpy.run_path(str(ROOT / "workflow_scripts/train_classifier.py"))
    script["train_classifier"](packed, steps=3, batch=8, device="cpu", out=out)
    described = read_json(out.with_suffix(".json"))
    shipped = json.loads(files("fd_digits")[1].read_text(encoding="utf-8"))
    assert described.keys() == shipped.keys()
    assert described["data"] == shipped["data"]
    taken = take_classifier(out, out.with_suffix(".json"), packed, tmp_path / "taken.safetensors")
    assert taken["training"] == {"steps": 3, "batch": 8, "seed": 0}
    floats = [v for v in load_file(tmp_path / "taken.safetensors").values() if v.dtype.kind == "f"]
    assert {v.dtype.itemsize for v in floats} == {2}
