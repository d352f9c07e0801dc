"""Every metric of every sample store of one experiment, as records."""

from pathlib import Path

import numpy as np
import torch

from duodiff.data.store import ImageStore
from duodiff.files import sha256
from duodiff.metrics.distances import (
    frechet_distance,
    nearest_distances,
    random_halves_distance,
)
from duodiff.metrics.features import Extractor
from duodiff.records import Record
from duodiff.samplers import to_uint8

_HALVES = 20  # random splits behind the distance of real halves


def evaluate(
    samples: list[Path],
    data: Path,
    classifier: Path,
    metric: str,
    experiment: str,
    protocol: str,
) -> list[Record]:
    """Records of all sample stores, of their spread over sampling seeds, and of the scale they stand on.

    `metric` (say fd_digits) is the Frechet distance to the training images in the features of
    `classifier`; beside it the share of samples classified as their label and the distance to the
    nearest training image. Raises ValueError for a store of another experiment or protocol.
    """
    reference, extract = ImageStore(data), Extractor("classifier", classifier)
    train, _ = reference.split("train")
    real = extract(train)[0]
    common = {
        "experiment": experiment,
        "protocol": protocol,
        "reference_sha256": reference.manifest["images_sha256"],
        "extractor": f"classifier {sha256(classifier)[:12]}",
    }
    found = _scale(reference, extract, real, metric, common)
    for path in samples:
        store = ImageStore(path)
        _check(store, path, experiment, protocol)
        found += _of_store(store, extract, real, train, metric, common)
    return found + _spreads(found, metric)


def _check(store: ImageStore, path: Path, experiment: str, protocol: str) -> None:
    for key, expected in (("experiment", experiment), ("protocol", protocol)):
        if store.manifest[key] != expected:
            raise ValueError(f"{path}: {key} is {store.manifest[key]!r}, expected {expected!r}")


def _of_store(store, extract, real, train, metric, common) -> list[Record]:
    manifest = store.manifest
    features, logits = extract(store.images)
    labels = torch.tensor(np.array(store.labels))
    values = {
        (metric, "1"): frechet_distance(features, real),
        ("nearest_train_distance", "rms of [-1, 1] pixels"): np.median(
            nearest_distances(store.images, train)
        ),
    }
    if store.num_classes > 0:
        values["label_agreement", "1"] = (logits.argmax(1) == labels).double().mean()
    if manifest["method"] == "adadiff":
        exits = np.load(store.folder / "blocks_run.npy")
        values["mean_exit_layer", "blocks"] = exits.mean()
    identity = {
        "method": manifest["method"],
        "parameters": manifest["parameters"],
        "sampler": manifest["sampler"]["name"],
        "steps": manifest["sampler"]["steps"],
        "nfe": manifest["nfe"],
        "seeds": {"train_seed": manifest["train_seed"], "sample_seed": manifest["seed"]},
        "dtype": manifest["dtype"],
        "compute_batch": manifest["compute_batch"],
        "device": manifest["device"],
        "checkpoint_sha256": manifest["checkpoint_sha256"],
    }
    return [
        Record(name, float(value), unit, manifest["count"], **common, **identity)
        for (name, unit), value in values.items()
    ]


def _scale(reference, extract, real, metric, common) -> list[Record]:
    """What the distances stand against: real images, and noise."""
    train, held_out = (reference.split(name)[0] for name in ("train", "held_out"))
    everything = torch.cat([real, extract(held_out)[0]])
    halves = random_halves_distance(everything, _HALVES, seed=0)
    half = len(everything) // 2
    noise = to_uint8(
        torch.randn(half, *reference.shape, generator=torch.Generator().manual_seed(0))
    )
    shuffled = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:half]]
    spread = halves.std(ddof=1)
    real_halves = {
        "interval": [halves.mean() - spread, halves.mean() + spread],
        "interval_covers": f"standard deviation over {_HALVES} random splits",
    }
    nearest = np.median(nearest_distances(held_out, train))
    return [
        Record(metric, halves.mean(), "1", half, method="real_halves", **real_halves, **common),
        Record(
            metric,
            frechet_distance(extract(noise.numpy())[0], shuffled),
            "1",
            half,
            method="noise",
            **common,
        ),
        Record(
            metric,
            frechet_distance(everything[len(real) :], real),
            "1",
            len(held_out),
            method="real_held_out",
            **common,
        ),
        Record(
            "nearest_train_distance",
            float(nearest),
            "rms of [-1, 1] pixels",
            len(held_out),
            method="real_held_out",
            **common,
        ),
    ]


def _spreads(found: list[Record], metric: str) -> list[Record]:
    """Mean and standard deviation over sampling seeds of every cell that has several."""
    cells = {}
    for record in found:
        if record.metric == metric and record.seeds:
            key = (record.sampler, str(record.parameters), record.seeds["train_seed"])
            cells.setdefault(key, []).append(record)
    spreads = []
    for records in cells.values():
        if len(records) < 2:
            continue
        values = np.array([record.value for record in records])
        mean, std = values.mean(), values.std(ddof=1)
        seeds = records[0].seeds | {"sample_seed": [r.seeds["sample_seed"] for r in records]}
        fields = vars(records[0]) | {
            "seeds": seeds,
            "interval": [mean - std, mean + std],
            "interval_covers": f"standard deviation over {len(values)} sampling seeds",
        }
        spreads.append(Record(**fields | {"metric": f"{metric}_mean", "value": mean}))
        spreads.append(Record(**fields | {"metric": f"{metric}_spread", "value": std}))
    return spreads
