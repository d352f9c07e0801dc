"""Every metric of every sample store of one experiment, as records."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from duodiff.data.store import ImageStore
from duodiff.metrics.distances import (
    frechet_distance,
    nearest_distances,
    random_halves,
    thumbnails,
)
from duodiff.metrics.features import Extractor
from duodiff.records import Record, device_name
from duodiff.samplers import to_uint8

_SPLITS = 20  # random halves of the real images
_RMS = "rms of [-1, 1] pixels, of thumbnails of at most 32x32"


class Evaluation:
    """The reference of one experiment (training images, in one feature space), to measure against.

    `metric` is fid, or a name (say fd_digits) for the Frechet distance in the features of a classifier
    whose file is `weights`; `reference` is the number of random training images, None for all.
    """

    def __init__(
        self,
        data: Path,
        weights: Path,
        metric: str,
        reference: int | None,
        experiment: str,
        protocol: str,
        device: str = "cpu",
    ):
        self.metric, self.extract = metric, Extractor(metric, weights, device=device)
        self.judges_labels = (
            metric != "fid"
        )  # the classifier knows the dataset's classes, Inception does not
        store = ImageStore(data)
        (self.train, _), self.held_out = store.split("train"), store.split("held_out")
        chosen = (
            self.train if reference is None else self.train[_random(len(self.train), reference)]
        )
        self.real, self.device = self.extract(chosen)[0], device
        self.thumbnails = thumbnails(self.train)
        self.common = {
            "experiment": experiment,
            "protocol": protocol,
            "device": device_name(device),
            "reference_sha256": hashlib.sha256(np.ascontiguousarray(chosen)).hexdigest(),
            "extractor": self.extract.name,
        }
        # halves of all real images, and the distances between them: the floor
        self.all_real = torch.cat([self.real, self.extract(self.held_out[0])[0]])
        self.halves = list(random_halves(len(self.all_real), _SPLITS, seed=0))

    def to_halves(self, features: Tensor) -> np.ndarray:
        """Distances of as many samples as half the real images to each of the random halves [splits]."""
        chosen = features[: len(self.all_real) // 2]
        return np.array([frechet_distance(chosen, self.all_real[b]) for _, b in self.halves])

    def of_images(self, images: np.ndarray, labels: np.ndarray) -> dict[tuple[str, str], float]:
        """Every (metric, unit) of uint8 images [N, C, H, W] with labels [N] (-1 without classes)."""
        features, logits = self.extract(images)
        nearest = nearest_distances(thumbnails(images), self.thumbnails, self.device)
        found = {
            (self.metric, "1"): frechet_distance(features, self.real),
            ("nearest_train_distance", _RMS): np.median(nearest),
        }
        half = len(self.all_real) // 2
        if len(images) >= half > features.shape[1]:
            found[f"{self.metric}_matched", "1"] = self.to_halves(features).mean()
        if self.judges_labels and (labels >= 0).all():
            agreement = logits.argmax(1) == torch.tensor(np.array(labels))
            found["label_agreement", "1"] = agreement.double().mean()
        return {key: float(value) for key, value in found.items()}

    def of_store(self, path: Path) -> list[Record]:
        """Records of one sample store. Raises ValueError if it is of another experiment or protocol."""
        store = ImageStore(path)
        manifest = store.manifest
        for key in ("experiment", "protocol"):
            if manifest[key] != self.common[key]:
                raise ValueError(
                    f"{path}: {key} is {manifest[key]!r}, expected {self.common[key]!r}"
                )
        values = self.of_images(store.images, store.labels)
        if manifest["method"] == "adadiff":
            exits = np.load(store.folder / "blocks_run.npy")
            values["mean_exit_layer", "blocks"] = float(exits.mean())
            values["nan_uncertainties", "1"] = manifest["nan_uncertainties"]
        identity = {
            "method": manifest["method"],
            "parameters": manifest["parameters"],
            "sampler": manifest["sampler"]["name"],
            "steps": manifest["sampler"]["steps"],
            "nfe": manifest["nfe"],
            "seeds": {"train_seed": manifest["train_seed"], "sample_seed": manifest["seed"]},
            "dtype": manifest["dtype"],
            "compute_batch": manifest["compute_batch"],
            "checkpoint_sha256": manifest["checkpoint_sha256"],
        }
        return self._records(values, manifest["count"], **identity)

    def of_scale(self) -> list[Record]:
        """What the distances stand against: held-out real images, real halves, and noise."""
        half, dim = len(self.all_real) // 2, self.all_real.shape[1]
        if half <= dim:
            return []  # too few real images for a covariance of their own
        between = [frechet_distance(self.all_real[a], self.all_real[b]) for a, b in self.halves]
        mean, spread = np.mean(between), np.std(between, ddof=1)
        interval = {
            "interval": [mean - spread, mean + spread],
            "interval_covers": f"standard deviation over {_SPLITS} random splits",
        }
        generator = torch.Generator().manual_seed(0)
        noise = to_uint8(torch.randn(half, *self.train.shape[1:], generator=generator)).numpy()
        unlabelled = np.full(half, -1)
        found = {(f"{self.metric}_matched", "1"): mean}
        records = self._records(found, half, method="real_halves", **interval)
        if len(self.held_out[0]) > dim:
            found, n = self.of_images(*self.held_out), len(self.held_out[0])
            records += self._records(found, n, method="real_held_out")
        return records + self._records(self.of_images(noise, unlabelled), half, method="noise")

    def _records(self, values: dict, n: int, **identity) -> list[Record]:
        return [
            Record(name, value, unit, n, **self.common, **identity)
            for (name, unit), value in values.items()
        ]


def _random(n: int, count: int) -> np.ndarray:
    """`count` random indices below n, in rising order, the same each time."""
    if count > n:
        raise ValueError(
            f"metric.reference: found {count}; accepted: up to the {n} training images"
        )
    return np.sort(np.random.default_rng(0).permutation(n)[:count])


def spreads(found: list[Record], metric: str) -> list[Record]:
    """Standard deviation of `metric` over sampling seeds, of every cell that has several."""
    cells = {}
    for record in found:
        if record.metric == metric and record.seeds:
            key = (record.sampler, str(record.parameters), record.seeds["train_seed"])
            cells.setdefault(key, []).append(record)
    result = []
    for records in cells.values():
        if len(records) > 1:
            values = np.array([record.value for record in records])
            seeds = records[0].seeds | {"sample_seed": [r.seeds["sample_seed"] for r in records]}
            fields = vars(records[0]) | {"metric": f"{metric}_spread", "seeds": seeds}
            fields["value"] = float(values.std(ddof=1))
            fields["interval"] = [float(values.min()), float(values.max())]
            fields["interval_covers"] = f"minimum and maximum over {len(values)} sampling seeds"
            result.append(Record(**fields))
    return result
