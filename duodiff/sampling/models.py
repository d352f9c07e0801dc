"""The networks of a study, loaded from their checkpoints and held to the configured conventions."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duodiff import noise
from duodiff.ahead import CompiledParts
from duodiff.backbones import EarlyExit, FixedExit
from duodiff.checkpoints import (
    BackboneManifest,
    Manifest,
    departures,
    load_adadiff,
    load_backbone,
)
from duodiff.compiled import DTYPES, compile_forward
from duodiff.early_exit import AdaDiff
from duodiff.protocol import PROTOCOLS, Protocol
from duodiff.running.files import read_json
from duodiff.schedules import noise_schedule
from duodiff.settings import Setting
from duodiff.uvit import Denoiser

PRECISIONS = ("float32", "bfloat16")

_SHARED = ("in_chans", "img_size", "num_classes")  # of the architecture, by all backbones


class Models:
    """The networks that cells run, and what their checkpoints agree on.

    `heads` and those of `backbones`, by role (full, shallow and the names of further ones), are the manifests of
    checkpoints. `quantiles` is the JSON file of the observed uncertainties. Each may be None if no cell needs it.

    `conventions` are the configured schedule, time_input and class_order (which may be None or absent). Checkpoints
    with other conventions are refused. A protocol may allow them; then the configured conventions are used, and
    `departures` lists the differences.

    `precision` is the dtype that the networks compute in: "float32", or "bfloat16" by autocast. `compiled` compiles
    each backbone (`duodiff.compiled`), and on a GPU AdaDiff (`duodiff.ahead`). There sampling captures its steps
    (`captures`). `graphs` are those that it has captured (`sampling.generation.captured`). They are no part of loading:
    what only loads networks does not depend on samplers.

    `shape` is [C, H, W] of an image, or of a latent. Raises ValueError for an unknown precision, for refused
    checkpoints, and for checkpoints that disagree on image shape, classes or prediction.
    """

    def __init__(
        self,
        conventions: Mapping[str, Any],
        protocol: str,
        *,
        heads: Path | None = None,
        quantiles: Path | None = None,
        device: str = "cpu",
        precision: str = "float32",
        compiled: bool = False,
        **backbones: Path | None,
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision: found {precision!r}; accepted: {' or '.join(PRECISIONS)}")
        self.conventions, self.protocol = conventions, PROTOCOLS[protocol]
        self.device, self.precision, self.compiled = device, precision, compiled
        self.quantiles = quantiles
        used = {key: conventions[key] for key in ("schedule", "time_input")}
        self._backbones: dict[str, Denoiser] = {}
        self._adadiff: AdaDiff | None = None
        described: dict[str, BackboneManifest] = {}
        for role, path in backbones.items():
            if path:
                self._backbones[role], described[role] = load_backbone(path, **used)
        self.manifests: dict[str, Manifest] = {**described}
        if heads:
            self._adadiff, self.manifests["heads"] = load_adadiff(
                self.full, described["full"], heads
            )
        configured = {**conventions, "protocol": protocol}
        self.departures = departures(self.manifests, configured, self.protocol)
        for backbone in self._backbones.values():
            backbone.precision = precision
        for model in (*self._backbones.values(), self._adadiff):
            if model is not None:
                model.to(device).requires_grad_(False)
        if compiled:
            for backbone in self._backbones.values():
                compile_forward(backbone.net, device, precision)
        self.captures = compiled and torch.device(device).type == "cuda"
        self.graphs: Any = None
        architectures = {
            role: {key: manifest.architecture[key] for key in _SHARED}
            for role, manifest in described.items()
        }
        net = _agreed("architecture", architectures)
        self.shape = (net["in_chans"], net["img_size"], net["img_size"])
        self.num_classes: int = net["num_classes"]
        self.null_class: bool = _agreed("null_class", _values("null_class", described))
        _agreed("prediction", _values("prediction", described))
        self.schedule = noise_schedule(conventions["schedule"])

    @property
    def full(self) -> Denoiser:
        """The full backbone. Raises ValueError if its checkpoint was not given."""
        return self.backbone("full")

    @property
    def shallow(self) -> Denoiser:
        """The shallow backbone. Raises ValueError if its checkpoint was not given."""
        return self.backbone("shallow")

    @property
    def adadiff(self) -> AdaDiff:
        """AdaDiff on the full backbone. Raises ValueError if the checkpoint of its heads was not given."""
        if self._adadiff is None:
            raise _missing("heads")
        return self._adadiff

    @property
    def has_heads(self) -> bool:
        """Whether the checkpoint of AdaDiff's heads was given."""
        return self._adadiff is not None

    @property
    def backbones(self) -> tuple[str, ...]:
        """The roles of the backbones."""
        return tuple(self._backbones)

    def backbone(self, role: str) -> Denoiser:
        """The backbone in this role. Raises ValueError if its checkpoint was not given."""
        if role not in self._backbones:
            raise _missing(role)
        return self._backbones[role]

    def labels(self, seed: int, start: int, count: int, protocol: Protocol) -> torch.Tensor | None:
        """Classes of the images start .. start+count-1, int64 [count]; None without classes."""
        if self.num_classes < 1:
            return None
        if protocol.labels_from_1:
            return noise.labels_from_1(seed, start, count, self.num_classes)
        return noise.balanced_labels(start, count, self.num_classes - self.null_class)

    def sha256(self, roles: Iterable[str]) -> dict[str, str]:
        """weights_sha256 of the checkpoints in `roles`."""
        return {role: self.manifests[role].weights_sha256 for role in roles}

    def made(self, roles: Iterable[str]) -> dict[str, dict]:
        """What made the checkpoints in `roles`, as their manifests say."""
        return {role: self.manifests[role].made for role in roles}

    def early_exit(self, theta: float, simulate: bool = False) -> EarlyExit:
        """AdaDiff at the threshold theta. With `simulate` every layer is computed and one is selected."""
        return EarlyExit(self.adadiff, theta, self.full, simulate, self._parts)

    @cached_property
    def _parts(self) -> CompiledParts | None:
        """AdaDiff's parts, where they are compiled: on a GPU."""
        if not self.compiled or torch.device(self.device).type != "cuda":
            return None
        return CompiledParts(self.adadiff, DTYPES[self.precision])

    def fixed_exit(self, layer: int) -> FixedExit:
        """AdaDiff's output at one layer for all images."""
        return FixedExit(self.adadiff, layer, self.full)

    def threshold(self, setting: Setting) -> float:
        """The theta of an AdaDiff setting. A quantile is interpolated between the observed ones."""
        if not setting.is_quantile:
            return setting.number
        if self.quantiles is None:
            raise _missing("quantiles")
        observed = read_json(self.quantiles)
        return float(np.interp(setting.number, observed["levels"], observed["values"]))


def _missing(role: str) -> ValueError:
    return ValueError(f"{role}: found no file; the setting needs one")


def _values(key: str, described: Mapping[str, BackboneManifest]) -> dict[str, Any]:
    return {role: getattr(manifest, key) for role, manifest in described.items()}


def _agreed(key: str, values: Mapping[str, Any]) -> Any:
    """The one value of `key` that all checkpoints have, from their `values` by role."""
    first, *others = values.values()
    if any(other != first for other in others):
        raise ValueError(f"checkpoints disagree on {key}: {values}")
    return first
