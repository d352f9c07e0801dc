import json

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_statistics_to_metric

from duodiff.analysis.tables import load_records
from duodiff.data.pack import pack
from duodiff.data.store import ImageStore, to_unit_range, write_store
from duodiff.files import sha256
from duodiff.metrics import classifier, inception
from duodiff.metrics.distances import (
    frechet_distance,
    nearest_distances,
    random_halves,
    thumbnails,
)
from duodiff.metrics.features import Extractor
from duodiff.metrics.latency import interleaved_seconds
from duodiff.records import Record, library_versions, write
from duodiff.samplers import to_uint8

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> ImageStore:
    path = tmp_path_factory.mktemp("digits") / "manifest.json"
    pack({"source": "digits", "held_out": 360}, path.parent, 1, path)
    return ImageStore(path)


def test_digits_are_packed_whole_and_split_without_overlap(digits):
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.dtype == np.uint8
    assert (digits.images.min(), digits.images.max()) == (0, 255)
    assert digits.num_classes == 10
    (train, train_labels), (held_out, _) = digits.split("train"), digits.split("held_out")
    assert (len(train), len(held_out)) == (1437, 360)
    assert set(train_labels) == set(range(10))


def test_packing_is_deterministic(digits, tmp_path):
    dataset = {"source": "digits", "held_out": 360}
    assert pack(dataset, tmp_path, 1, tmp_path / "manifest.json") == digits.manifest


def test_bad_datasets_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"dataset.source: 'mnist' is unknown; accepted: digits"):
        pack({"source": "mnist", "held_out": 10}, tmp_path, 1, tmp_path / "manifest.json")
    with pytest.raises(ValueError, match=r"dataset.held_out: found 1797; accepted: 1 to 1796"):
        pack({"source": "digits", "held_out": 1797}, tmp_path, 1, tmp_path / "manifest.json")


def test_store_round_trip_and_refusals(tmp_path):
    images, labels = RNG.integers(0, 256, (5, 3, 7, 7)).astype(np.uint8), np.arange(5)
    write_store(tmp_path / "manifest.json", images, labels, {"num_classes": 5})
    store = ImageStore(tmp_path / "manifest.json")
    assert np.array_equal(store.images, images)
    assert np.array_equal(store.labels, labels)
    assert store.shape == (3, 7, 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "images.npy",
        "labels.npy",
        "manifest.json",
    ]
    with pytest.raises(ValueError, match="found float32"):
        write_store(tmp_path / "manifest.json", images.astype(np.float32), labels, {})
    with pytest.raises(ValueError, match=r"found shape \(4,\) for 5 images"):
        write_store(tmp_path / "manifest.json", images, labels[:4], {})


def test_quantisation_inverts_the_unit_range():
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8(torch.from_numpy(to_unit_range(levels))).numpy(), levels)


# --- distances


def test_frechet_distance_of_known_gaussians():
    """Means m_1, m_2 and commuting covariances: |m_1 - m_2|^2 + sum (s_1 - s_2)^2."""
    x = torch.from_numpy(np.linalg.qr(RNG.standard_normal((501, 7)) - 0.5)[0])
    x = x - x.mean(0)
    x = torch.linalg.qr(x)[0] * 500**0.5  # exactly zero mean, unit covariance
    s_1, s_2 = torch.arange(1, 8.0).double(), torch.arange(2, 9.0).double() ** 1.2
    shift = torch.linspace(-1, 2, 7).double()
    expected = (shift**2).sum() + ((s_1 - s_2) ** 2).sum()
    assert frechet_distance(x * s_1, x * s_2 + shift) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_distance_is_torch_fidelitys_and_refuses_too_few():
    a, b = (torch.from_numpy(RNG.standard_normal((50, 5))) for _ in range(2))
    statistics = [{"mu": x.numpy().mean(0), "sigma": np.cov(x.numpy().T)} for x in (a, b)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)
    assert frechet_distance(a, b) == pytest.approx(expected["frechet_inception_distance"])
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="5 samples for 5 features are too few"):
        frechet_distance(a[:5], b)


@pytest.mark.parametrize("n", [10, 11])
def test_random_halves_are_disjoint_and_differ(n):
    splits = list(random_halves(n, 4, seed=0))
    for a, b in splits:
        assert len(a) == len(b) == 5
        assert len(set(a.tolist()) | set(b.tolist())) == 10
    assert len({tuple(sorted(a.tolist())) for a, _ in splits}) > 1


def test_nearest_distances_by_brute_force():
    a, b = (RNG.integers(0, 256, (n, 2, 3, 3)).astype(np.uint8) for n in (4, 6))
    expected = [
        min(np.sqrt(np.mean((to_unit_range(x) - to_unit_range(y)) ** 2)) for y in b) for x in a
    ]
    np.testing.assert_allclose(nearest_distances(a, b), expected, rtol=1e-4)
    assert nearest_distances(b, b).max() < 1e-2


def test_extractor_gives_the_classifiers_features_through_torch_fidelity(digits, tmp_path):
    model = classifier.train_classifier(*digits.split("train"), 10, steps=30, batch=64, seed=0)
    classifier.save(tmp_path / "c.safetensors", model)
    images, labels = digits.split("held_out")
    features, logits = Extractor("fd_digits", tmp_path / "c.safetensors")(images)
    with torch.inference_mode():
        expected, expected_logits = model(torch.from_numpy(to_unit_range(images)))
    torch.testing.assert_close(features, expected.double(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, expected_logits.double(), atol=1e-4, rtol=1e-4)
    agreement = (logits.argmax(1).numpy() == labels).mean()
    assert classifier.accuracy(model, images, labels) == pytest.approx(agreement)
    assert agreement > 0.6  # ten classes; the classifier has learned something in 30 steps


# --- timing and records


def test_interleaved_runs_are_repeated_in_turn():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = interleaved_seconds(runs, repeats=2)
    assert calls == ["a", "b", "b", "a"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_records_round_trip_with_parameters_and_seeds_as_columns(tmp_path):
    record = Record(
        "fd_digits",
        1.5,
        "1",
        96,
        "digits",
        "corrected",
        "duodiff",
        parameters={"t_s": 500},
        seeds={"train_seed": 0, "sample_seed": 1},
    )
    write(tmp_path / "r.json", [record])
    row = load_records([tmp_path / "r.json"]).iloc[0]
    assert (row["value"], row["t_s"], row["sample_seed"], row["n"]) == (1.5, 500, 1, 96)
    assert json.loads((tmp_path / "r.json").read_text())[0]["libraries"] == library_versions()
    record.value = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "nan.json", [record])
    assert not (tmp_path / "nan.json").exists()


def test_other_weights_than_inceptions_are_refused_and_absent_ones_named(tmp_path, monkeypatch):
    weights = tmp_path / "weights/inception.pth"
    monkeypatch.setattr(
        inception, "URL", "http://127.0.0.1:9/inception.pth"
    )  # nobody answers there
    with pytest.raises(OSError, match=r"inception.pth"):
        inception.fetch_weights(weights, tmp_path / "receipt.json")
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"metric.inception: .* FID is defined on those weights"):
        inception.fetch_weights(weights, tmp_path / "receipt.json")
    assert not (tmp_path / "receipt.json").exists()
    monkeypatch.setattr(inception, "SHA256", sha256(weights))
    assert inception.fetch_weights(weights, tmp_path / "receipt.json")["file"] == "inception.pth"


def test_fid_runs_on_inception_in_a_file_of_the_real_format(tmp_path, monkeypatch):
    """Random weights: the numbers mean nothing, the path is the real one."""
    with monkeypatch.context() as patch:  # the constructor insists on loading weights
        patch.setattr(torch, "load", lambda *a, **k: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *a: None)
        model = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], "unused")
    torch.save(model.state_dict(), tmp_path / "inception.pth")
    extract = Extractor("fid", tmp_path / "inception.pth")
    images = RNG.integers(0, 256, (3, 3, 32, 32)).astype(np.uint8)
    features, logits = extract(images)
    assert (features.shape, features.dtype) == ((3, 2048), torch.float64)
    assert logits.shape == (3, 1008)
    assert extract.name.startswith("inception-v3-compat ")


def test_thumbnails_are_means_of_blocks_and_small_images_stay_as_they_are():
    images = RNG.integers(0, 256, (5, 3, 64, 64)).astype(np.uint8)
    found = thumbnails(images, part=2)
    expected = images.reshape(5, 3, 32, 2, 32, 2).astype(float).mean((3, 5))
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.5
    assert np.array_equal(thumbnails(images[..., :32, :32]), images[..., :32, :32])


def test_a_classifier_needs_classes():
    images = np.zeros((9, 3, 8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"2 or more classes; found none .* accepted there: fid"):
        classifier.train_classifier(images, np.full(9, -1), -1, 1, 4, 0)
