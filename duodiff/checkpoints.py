"""Checkpoints: safetensors weights beside a JSON manifest that says how to rebuild the model.

A checkpoint is named by the path of its manifest. `model.safetensors` lies beside the manifest, which pins it by
`weights_sha256`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors.torch import load_file, save_file

from duodiff.early_exit import AdaDiff
from duodiff.protocol import Protocol
from duodiff.running.files import (
    atomic,
    read_json,
    remove_leftovers,
    require_space,
    sha256,
    write_json,
)
from duodiff.uvit import Denoiser, UViT


@dataclass(frozen=True)
class BackboneManifest:
    """How a backbone was made, and what is needed to use it."""

    KIND: ClassVar = "backbone"

    architecture: dict[str, Any]
    """The keywords of `UViT`."""

    schedule: str
    """The noise schedule it was trained with."""

    time_input: str
    """The time convention it was trained with."""

    prediction: str
    """What it was trained to predict: "noise", "x_0" or "v"."""

    null_class: bool
    """Whether its last class means "no class"."""

    class_order: str | None
    """The order of the dataset's class ids, None where a dataset has only one."""

    training: dict[str, Any] | None
    """The hyperparameters, as the configuration has them; None for published weights, as the next two."""

    seed: int | None

    dataset_sha256: str | None
    """Hash of the packed images, or of the latents' moments."""

    source: dict[str, Any] | None = None
    """For published weights alone: the file they came from, its sha256, and whether the sha256 was given."""

    skipped_steps: int | None = None
    """For trained weights alone: training steps without an update, because loss or gradient was not finite."""

    weights_sha256: str = ""
    """Hash of model.safetensors; empty until `save` has written the file."""

    made: dict[str, Any] = field(default_factory=dict)
    """What made it (`duodiff.running.provenance`); empty until it is made, and in manifests that do not say."""


@dataclass(frozen=True)
class HeadsManifest:
    """How AdaDiff's heads were made, and on which backbone; the fields of `BackboneManifest` mean the same."""

    KIND: ClassVar = "heads"

    backbone_sha256: str
    """`weights_sha256` of the backbone they were trained on."""

    timestep_aware: bool
    """Whether the uncertainty heads see the time embedding (Eq. 4)."""

    protocol: str
    schedule: str
    time_input: str
    class_order: str | None
    training: dict[str, Any]
    seed: int
    dataset_sha256: str

    departures: list[str]
    """Where the backbone was used with other conventions than its own (see `departures`)."""

    skipped_steps: int | None = None
    weights_sha256: str = ""
    made: dict[str, Any] = field(default_factory=dict)


Manifest = BackboneManifest | HeadsManifest
M = TypeVar("M", BackboneManifest, HeadsManifest)


def as_json(manifest: Manifest) -> dict[str, Any]:
    """The JSON object of a manifest: its keys in the order of the fields, without fields that have their default."""
    defaults = {field.name: field.default for field in fields(manifest)} | {"made": {}}
    values = {key: value for key, value in asdict(manifest).items() if value != defaults[key]}
    return {"kind": manifest.KIND} | values


def read(path: str | Path, kind: type[M]) -> M:
    """The manifest at `path`. Raises ValueError if it is of another kind, or a key is missing or unknown."""
    values = read_json(path)
    if (found := values.pop("kind", None)) != kind.KIND:
        raise ValueError(f"{path}: kind: found {found!r}; accepted: {kind.KIND!r}")
    known = [field.name for field in fields(kind)]
    optional = {"source", "skipped_steps", "made"}
    problems = [f"{key}: missing" for key in known if key not in values.keys() | optional]
    problems += [f"{key}: unknown" for key in values if key not in known]
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}; train or fetch the checkpoint again")
    return kind(**values)


def save(path: str | Path, weights: Mapping[str, torch.Tensor], manifest: M) -> M:
    """Writes `weights`, then their manifest at `path`; returns the manifest with its weights_sha256."""
    file = Path(path).parent / "model.safetensors"
    remove_leftovers(file.parent)
    require_space(file.parent, sum(v.nbytes for v in weights.values()), "a checkpoint")
    with atomic(file) as temporary:
        save_file({k: v.detach().contiguous() for k, v in weights.items()}, temporary)
    manifest = replace(manifest, weights_sha256=sha256(file))
    write_json(path, as_json(manifest))
    return manifest


def load(path: str | Path, kind: type[M]) -> tuple[M, dict[str, torch.Tensor]]:
    """The manifest at `path` and its weights. Raises ValueError as `read`, or if the weights are not the manifest's."""
    file, manifest = Path(path).parent / "model.safetensors", read(path, kind)
    if sha256(file) != manifest.weights_sha256:
        raise ValueError(f"{file}: its sha256 is not the one in {path}; train or fetch it again")
    return manifest, load_file(file)


def load_backbone(path: str | Path, **conventions: str) -> tuple[Denoiser, BackboneManifest]:
    """A backbone in evaluation mode and its manifest. Raises ValueError as `load`.

    `conventions` (schedule, time_input) are used in place of those it was trained with.
    """
    manifest, weights = load(path, BackboneManifest)
    net = UViT(**manifest.architecture)
    net.load_state_dict(weights)
    own = {key: getattr(manifest, key) for key in ("schedule", "time_input", "prediction")}
    return Denoiser(net, **own | conventions).eval(), manifest


def load_adadiff(
    full: Denoiser, full_manifest: BackboneManifest, heads: str | Path
) -> tuple[AdaDiff, HeadsManifest]:
    """AdaDiff in evaluation mode on a loaded backbone (shared, not copied), and the heads' manifest.

    Raises ValueError as `load`, or if the heads were trained on another backbone.
    """
    manifest, weights = load(heads, HeadsManifest)
    if manifest.backbone_sha256 != full_manifest.weights_sha256:
        raise ValueError(
            f"{heads}: trained on backbone {manifest.backbone_sha256[:12]},"
            f" not on {full_manifest.weights_sha256[:12]}"
        )
    model = AdaDiff(full.net, manifest.timestep_aware)
    backbone = {f"uvit.{k}": v for k, v in full.net.state_dict().items()}
    model.load_state_dict(weights | backbone)
    return model.eval(), manifest


def departures(
    manifests: Mapping[str, Manifest], configured: Mapping[str, str | None], protocol: Protocol
) -> list[str]:
    """Where checkpoints disagree with the configuration, one text a role and key.

    `manifests` are the checkpoints' by role. A key is compared if it is configured and the manifest has it, neither as
    None. Raises ValueError for any departure if the protocol holds checkpoints to their conventions; otherwise the
    caller records the departures.
    """
    texts = [
        f"{role}: {key} is {trained}, configured {value}"
        for role, manifest in manifests.items()
        for key, value in configured.items()
        if value is not None and (trained := getattr(manifest, key, None)) not in (None, value)
    ]
    if texts and protocol.checkpoint_conventions:
        raise ValueError("checkpoints refused: " + "; ".join(texts))
    return texts
