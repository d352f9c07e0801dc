import json

import numpy as np
import pytest
import torch

from duodiff.analysis.cells import load_records
from duodiff.data.pack import pack
from duodiff.data.store import ImageStore, to_unit_range, write_store
from duodiff.records import Record, write
from duodiff.running.provenance import cpu_name, made
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


# --- records


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
        made=made("c" * 64),
    )
    write(tmp_path / "r.json", [record])
    row = load_records([tmp_path / "r.json"]).iloc[0]
    assert (row["value"], row["t_s"], row["sample_seed"], row["n"]) == (1.5, 500, 1, 96)
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))[0]["made"] == made(
        "c" * 64
    )
    assert row["device"] == cpu_name()
    record.value = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "nan.json", [record])
    assert not (tmp_path / "nan.json").exists()
