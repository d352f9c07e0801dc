"""The checkpoints that sampling needs, loaded and held to their conventions."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from duodiff import noise
from duodiff.backbones import EarlyExit
from duodiff.checkpoints import departures, load_adadiff, load_backbone
from duodiff.compiled import compile_forward
from duodiff.protocol import PROTOCOLS, Protocol
from duodiff.running.files import read_json
from duodiff.schedules import noise_schedule
from duodiff.settings import Setting

PRECISIONS = ("float32", "bfloat16")


class Models:
    """The checkpoints a cell needs, by the paths of their manifests, and what they agree on.

    `full`, `shallow`, `heads` may each be None where no cell uses them; `quantiles` is the JSON file
    of the observed uncertainties. `conventions` are the configured schedule, time_input and (or None)
    class_order: checkpoints that disagree with them are refused or, where the protocol says so, used
    with them all the same, which `departures` lists. `precision` is what the networks compute in: "float32", or
    "bfloat16" by autocast. With `compiled` each backbone is a graph for each size of batch (`duodiff.compiled`); early
    exit, whose batches shrink, stays as it is. Raises ValueError also for another precision, and if two checkpoints
    disagree on image shape, classes or prediction.
    """

    def __init__(
        self,
        conventions: dict,
        protocol: str,
        full: Path | None = None,
        shallow: Path | None = None,
        heads: Path | None = None,
        quantiles: Path | None = None,
        device: str = "cpu",
        precision: str = "float32",
        compiled: bool = False,
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision: found {precision!r}; accepted: {' or '.join(PRECISIONS)}")
        self.device, self.quantiles = device, quantiles
        self.manifests, self.full, self.shallow, self.adadiff = {}, None, None, None
        used = {key: conventions[key] for key in ("schedule", "time_input")}
        if full:
            self.full, self.manifests["full"] = load_backbone(full, **used)
        if shallow:
            self.shallow, self.manifests["shallow"] = load_backbone(shallow, **used)
        if heads:
            self.adadiff, self.manifests["heads"] = load_adadiff(
                self.full, self.manifests["full"], heads
            )
        configured = conventions | {"protocol": protocol}
        self.departures = departures(self.manifests, configured, PROTOCOLS[protocol])
        for model in (self.full, self.shallow):
            if model is not None:
                model.precision = precision
                if compiled:
                    compile_forward(model.net, device, precision)
        for model in (self.full, self.shallow, self.adadiff):
            if model is not None:
                model.to(device).requires_grad_(False)
        net = self._agreed("architecture")
        self.shape = (net["in_chans"], net["img_size"], net["img_size"])
        self.num_classes, self.null_class = net["num_classes"], self._agreed("null_class")
        self._agreed("prediction")
        self.schedule = noise_schedule(conventions["schedule"])

    def _agreed(self, key: str):
        backbones = {k: getattr(v, key) for k, v in self.manifests.items() if k != "heads"}
        if key == "architecture":
            names = ("in_chans", "img_size", "num_classes")
            backbones = {k: {n: v[n] for n in names} for k, v in backbones.items()}
        first, *others = backbones.values()
        if any(other != first for other in others):
            raise ValueError(f"checkpoints disagree on {key}: {backbones}")
        return first

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

    def early_exit(self, theta: float, simulate: bool = False) -> EarlyExit:
        """AdaDiff at threshold theta."""
        return EarlyExit(self.adadiff, theta, self.full, simulate)

    def threshold(self, setting: Setting) -> float:
        """The theta of an AdaDiff setting, quantiles resolved."""
        if not setting.is_quantile:
            return setting.number
        observed = read_json(self.quantiles)
        return float(np.interp(setting.number, observed["levels"], observed["values"]))
