"""Every metric of every sample store of one study, as records."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from duodiff.data.store import ImageStore
from duodiff.identity import code_digest, digest
from duodiff.metrics.bootstrap import RESAMPLES, resampled_means
from duodiff.metrics.distances import (
    FrechetTo,
    extrapolation,
    frechet_distance,
    gaussian,
    inception_score,
    kernel_distance,
    nearest_distances,
    precision_recall,
    random_halves,
    same_noise_bound,
    thumbnails,
)
from duodiff.metrics.features import Extractor
from duodiff.metrics.reference import Reference
from duodiff.records import Record, of_samples
from duodiff.running import provenance
from duodiff.running.files import sha256
from duodiff.samplers import to_uint8
from duodiff.spaces import images_to_extrapolate, space

_SPLITS = 20  # random halves of the real images
_RMS = "rms of [-1, 1] pixels, of thumbnails of at most 32x32"


class Value(NamedTuple):
    """A measured number. The fields mean the same as those of `Record`."""

    metric: str
    value: float
    unit: str = "1"
    interval: tuple[float, float] | None = None
    covers: str | None = None
    """The variation that the interval covers."""

    reference_n: int | None = None
    """The size of the reference, if it is not the study's."""

    resampled: list[float] | None = None


def _about(metric: str, value: float, spread: float, covers: str) -> Value:
    """A value whose interval reaches `spread` to each side."""
    return Value(metric, value, "1", (value - spread, value + spread), covers)


class _Base:
    """A full backbone's features, distance and influences, which other settings are compared with."""

    def __init__(self, features: Tensor, to: FrechetTo):
        self.features, self.distance, self.influences = (
            features,
            to(features),
            to.influences(features),
        )


class Evaluation:
    """The reference that the samples of one study are measured against, and the values their manifests must have.

    `data` is the manifest of the packed images. `study` (experiment, protocol, train_seed), `images` (the number of
    images) and `checkpoints` (weights_sha256 by role) must stand in the manifest of every sample store.
    """

    def __init__(
        self,
        data: Path,
        extract: Extractor,
        reference: Reference,
        *,
        study: dict[str, Any],
        images: int,
        checkpoints: dict[str, str],
    ):
        self.extract, self.reference = extract, reference.on(extract.device)
        self.metric, self.device = extract.metric, extract.device
        self.study, self.images, self.checkpoints = study, images, checkpoints
        store = ImageStore(data)
        (self.train, _), self.held_out = store.split("train"), store.split("held_out")
        self.thumbnails = thumbnails(self.train, self.device)
        self.common = {
            "experiment": study["experiment"],
            "protocol": study["protocol"],
            "reference_sha256": reference.sha256,
            "extractor": reference.extractor,
        }
        parameters = [self.metric, study, reference.extractor]
        code = digest([code_digest(work, parameters) for work in (Evaluation, Extractor)])
        self.made = provenance.made(code, self.device, libraries=extract.libraries)
        self.to_reference = FrechetTo(reference.fitted, self.device)
        # pairs of halves of the real images; their distances are the smallest that samples can be expected to have
        self.real = torch.cat([self.reference.features, self.reference.held_out])
        self.half = len(self.real) // 2
        self.dim = self.real.shape[1]
        splits = random_halves(len(self.real), _SPLITS, seed=0)
        self.halves = [  # empty if a half is too small for a covariance
            (a, FrechetTo(gaussian(self.real[b]), self.device))
            for a, b in splits
            if self.half > self.dim
        ]

    def of_study(self, samples: list[Path]) -> tuple[list[Record], list[dict[str, Any]]]:
        """Records of all sample stores, and the distance against the number of images as table rows.

        Differences are to the full backbone (t_s = 0) of the same sampler and seed, at the most steps of this sampler.
        The distance against the number of images is of these steps alone. Raises ValueError as `opened`.
        """
        stores = [self.opened(path) for path in samples]
        own = _own_steps(stores)
        # the full backbones first: the other stores are compared with them
        stores.sort(key=lambda store: store.manifest["method"] != "full" or not own(store))
        bases: dict[tuple[str, int], _Base] = {}
        records: list[Record] = []
        curves: list[dict[str, Any]] = []
        for store in tqdm(stores, desc="evaluate", unit="store", disable=None):
            manifest = store.manifest
            sampler, seed = manifest["sampler"], manifest["seed"]
            features, logits = self.extract(store.images)
            values = self.of_features(features, logits, store.images, store.labels)
            values += _of_exits(store)
            key = (sampler["name"], seed)
            if manifest["method"] == "full" and own(store):
                bases[key] = _Base(features, self.to_reference)
            elif key in bases:
                values += self._against(features, bases[key])
            if manifest["count"] >= images_to_extrapolate(self.metric):
                limit, rows = self._limit(features)
                values.append(limit)
                setting = _in_a_cell(manifest["parameters"])
                setting |= {"sampler": sampler["name"], "sample_seed": seed}
                curves += [self.study | setting | row for row in rows if own(store)]
            records += self._records(
                values, manifest["count"], manifest.get("made"), **of_samples(manifest)
            )
        return records + _spreads(records, self.metric), curves

    def opened(self, path: Path) -> ImageStore:
        """The sample store at `path`.

        Raises ValueError if it belongs to another study, has another number of images, was made by other checkpoints,
        or if its files are not those of its manifest.
        """
        store = ImageStore(path)
        manifest, images = store.manifest, self.images
        for key, expected in self.study.items():
            if manifest[key] != expected:
                raise ValueError(f"{path}: {key} is {manifest[key]!r}, expected {expected!r}")
        if not len(store) == manifest["count"] == images:
            raise ValueError(f"{path}: found {len(store)} images, expected {images}")
        for role, checkpoint in manifest["checkpoint_sha256"].items():
            if checkpoint != self.checkpoints.get(role):
                raise ValueError(
                    f"{path}: sampled from another {role} checkpoint ({checkpoint[:12]}) than the study's"
                )
        for name in ("images", "labels", "blocks_run"):
            described = manifest.get(f"{name}_sha256")
            if described and sha256(store.folder / f"{name}.npy") != described:
                raise ValueError(f"{path}: {name}.npy is not the file the manifest describes")
        return store

    def of_features(
        self, features: Tensor, logits: Tensor | None, images: np.ndarray, labels: np.ndarray
    ) -> list[Value]:
        """Every metric of uint8 images [N, C, H, W], from their features [N, D], logits [N, K] and labels [N].

        Labels are -1 without classes. Frechet distances need more images than features, and are absent otherwise.
        """
        reference, metric = self.reference, self.metric
        nearest = nearest_distances(thumbnails(images, self.device), self.thumbnails, self.device)
        kernel, deviation, size = kernel_distance(features, reference.features)
        subsets = f"standard deviation over random subsets of {size}"
        precision, recall = precision_recall(features, reference.features)
        values = [
            _about(_kernel_name(metric), kernel, deviation, subsets),
            Value("precision", precision),
            Value("recall", recall),
            *_memorisation(nearest),
        ]
        if len(images) > self.dim:
            values += self._frechet(features)
        if logits is None:
            return values
        if metric == "fid":
            score, deviation = inception_score(logits)
            values.append(
                _about("inception_score", score, deviation, "standard deviation over 10 splits")
            )
        # the logits of the project's own classifier are the dataset's classes; the null class has none
        known = (labels >= 0) & (labels < logits.shape[1])
        if space(metric).weights is None and known.any():
            agreement = (logits.argmax(1).cpu().numpy() == labels)[known]
            values.append(Value("label_agreement", float(agreement.mean())))
        return values

    def _frechet(self, features: Tensor) -> list[Value]:
        """Distances to the reference, to all training images, and to halves of the real images."""
        fitted, all_train = gaussian(features), self.reference.all_train
        values = [Value(self.metric, frechet_distance(fitted, self.reference.fitted))]
        if self.reference.fitted is not all_train:
            standard = frechet_distance(fitted, all_train)
            values.append(Value(f"{self.metric}_standard", standard, reference_n=all_train.n))
        if self.halves and len(features) >= self.half:
            distances = [to(features[: self.half]) for _, to in self.halves]
            matched = float(np.mean(distances))
            values.append(Value(f"{self.metric}_matched", matched, reference_n=self.half))
        return values

    def of_scale(self) -> list[Record]:
        """Records of held-out real images, of halves of the real images, and of noise: the scale of the distances."""
        images, labels = self.held_out
        values = self.of_features(*self.extract(images), images, labels)
        records = self._records(values, len(images), method="real_held_out")
        noise = _noise(max(self.half, self.dim + 1), self.train.shape[1:])
        values = self.of_features(*self.extract(noise), noise, np.full(len(noise), -1))
        records += self._records(values, len(noise), method="noise")
        if self.halves:
            between = [to(self.real[a]) for a, to in self.halves]
            covers = f"standard deviation over {_SPLITS} random splits"
            mean, deviation = float(np.mean(between)), float(np.std(between, ddof=1))
            floor = _about(f"{self.metric}_matched", mean, deviation, covers)
            floor = floor._replace(reference_n=self.half)
            records += self._records([floor], self.half, method="real_halves")
        return records

    def _against(self, features: Tensor, base: _Base) -> list[Value]:
        """The distance minus the full backbone's, and the bound on the two distances' roots by their same noise."""
        to = self.to_reference
        moved = resampled_means((to.influences(features) - base.influences)[None].numpy())[1:, 0]
        value = to(features) - base.distance
        deviation = 1.96 * float(np.std(moved, ddof=1))
        covers = f"95%: 1.96 standard deviations over {RESAMPLES} paired resamples of the images, to first order"
        difference = _about(f"{self.metric}_difference", value, deviation, covers)
        return [
            difference._replace(resampled=[float(f"{value + one:.6g}") for one in moved]),
            Value(f"{self.metric}_same_noise", same_noise_bound(features, base.features)),
        ]

    def _limit(self, features: Tensor) -> tuple[Value, list[dict[str, Any]]]:
        """The distance extrapolated to infinitely many samples, and a table row for each point of its line."""
        fit = extrapolation(features, self.to_reference)
        covers = f"residual error of the line in 1/n through {len(fit.sizes)} subsets, not over new images"
        limit = _about(f"{self.metric}_infinity", fit.limit, fit.error, covers)
        line = {"limit": fit.limit, "slope": fit.slope, "r2": fit.r2, "metric": self.metric}
        points = zip(fit.sizes, fit.distances, strict=True)
        return limit, [line | {"n": n, "distance": distance} for n, distance in points]

    def _records(
        self, values: list[Value], n: int, sampled: dict | None = None, **identity: Any
    ) -> list[Record]:
        """Records of values of `n` images; `sampled` says what made them."""
        made = provenance.made_of(self.made, {"samples": sampled or {}})
        return [
            Record(
                v.metric,
                float(v.value),
                v.unit,
                n,
                reference_n=v.reference_n or self.reference.fitted.n,
                interval=None if v.interval is None else [float(end) for end in v.interval],
                interval_covers=v.covers,
                resampled=v.resampled,
                made=made,
                **self.common,
                **identity,
            )
            for v in values
        ]


def _noise(count: int, shape: tuple[int, int, int], part: int = 256) -> np.ndarray:
    """Normal noise as images, uint8 [count, C, H, W]. Drawn in parts: as floats it is four times larger."""
    generator = torch.Generator().manual_seed(0)
    images = np.empty((count, *shape), np.uint8)
    for first in range(0, count, part):
        some = images[first : first + part]
        some[:] = to_uint8(torch.randn(some.shape, generator=generator)).numpy()
    return images


def _in_a_cell(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a cell of a table can hold: no intervals of a named schedule, for example."""
    return {k: v for k, v in parameters.items() if not isinstance(v, (list, dict))}


def _own_steps(stores: list[ImageStore]) -> Callable[[ImageStore], bool]:
    """Whether a store's sampler took its own number of steps, which is its most among `stores`."""
    most: dict[str, int] = {}
    for store in stores:
        sampler = store.manifest["sampler"]
        most[sampler["name"]] = max(sampler["steps"], most.get(sampler["name"], 0))
    return lambda store: (
        store.manifest["sampler"]["steps"] == most[store.manifest["sampler"]["name"]]
    )


def _memorisation(nearest: np.ndarray) -> list[Value]:
    """Low quantiles of the images' distances to their nearest training image: copies are few, and the nearest."""
    low = dict(zip(("q01", "q05"), np.quantile(nearest, [0.01, 0.05]), strict=True))
    return [Value(f"nearest_train_distance_{q}", float(value), _RMS) for q, value in low.items()]


def _kernel_name(metric: str) -> str:
    return "kid" if metric == "fid" else metric.replace("fd_", "kd_", 1)


def _of_exits(store: ImageStore) -> list[Value]:
    """AdaDiff's mean exit layer, and the number of uncertainties that were NaN."""
    if store.manifest["method"] != "adadiff":
        return []
    exits = np.load(store.folder / "blocks_run.npy")
    return [
        Value("mean_exit_layer", float(exits.mean()), "blocks"),
        Value("nan_uncertainties", store.manifest["nan_uncertainties"]),
    ]


def _spreads(records: list[Record], metric: str) -> list[Record]:
    """The standard deviation of `metric` over sampling seeds, for every setting that has several seeds."""
    by_setting: dict[tuple, list[Record]] = {}
    for record in records:
        if record.metric == metric and record.seeds:
            key = (record.sampler, record.steps, str(record.parameters), record.seeds["train_seed"])
            by_setting.setdefault(key, []).append(record)
    return [_spread(one) for one in by_setting.values() if len(one) > 1]


def _spread(records: list[Record]) -> Record:
    """The standard deviation of one setting's `records`, which differ in their sampling seed."""
    values, first = np.array([record.value for record in records]), records[0]
    return replace(
        first,
        metric=f"{first.metric}_spread",
        value=float(values.std(ddof=1)),
        seeds=first.seeds | {"sample_seed": [r.seeds["sample_seed"] for r in records]},
        interval=[float(values.min()), float(values.max())],
        interval_covers=f"minimum and maximum over {len(values)} sampling seeds",
        made=_made_of_all(records),
    )


def _made_of_all(records: list[Record]) -> dict[str, Any]:
    """What made a record of several records' samples: all their samples' makers."""
    sampled = provenance.joined(
        [record.made.get("of", {}).get("samples", {}) for record in records]
    )
    return provenance.made_of(records[0].made, {"samples": sampled})
