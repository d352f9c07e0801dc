"""Checkpoints: safetensors weights beside a JSON manifest that says how to rebuild the model.

A checkpoint is named by the path of its manifest; `model.safetensors` lies beside it and is pinned
by `weights_sha256`.
"""

from pathlib import Path

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


def save(manifest: str | Path, weights: dict[str, torch.Tensor], description: dict) -> None:
    """Writes `weights`, then the manifest: `description` plus weights_sha256."""
    path = Path(manifest).parent / "model.safetensors"
    remove_leftovers(path.parent)
    require_space(path.parent, sum(v.nbytes for v in weights.values()), "a checkpoint")
    with atomic(path) as temporary:
        save_file({k: v.detach().contiguous() for k, v in weights.items()}, temporary)
    write_json(manifest, {**description, "weights_sha256": sha256(path)})


def load(manifest: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """The manifest and its weights. Raises ValueError if the weights are not the manifest's."""
    path, description = Path(manifest).parent / "model.safetensors", read_json(manifest)
    if sha256(path) != description["weights_sha256"]:
        raise ValueError(
            f"{path}: its sha256 is not the one in {manifest}; train or fetch it again"
        )
    return description, load_file(path)


def load_backbone(manifest: str | Path, **conventions: str) -> tuple[Denoiser, dict]:
    """A backbone in evaluation mode and its manifest. Raises ValueError if the weights are not its own.

    `conventions` (schedule, time_input) are used in place of those it was trained with.
    """
    description, weights = load(manifest)
    net = UViT(**description["architecture"])
    net.load_state_dict(weights)
    used = {k: description[k] for k in ("schedule", "time_input", "prediction")} | conventions
    return Denoiser(net, **used).eval(), description


def load_adadiff(full: Denoiser, full_manifest: dict, heads: str | Path) -> tuple[AdaDiff, dict]:
    """AdaDiff in evaluation mode on a loaded backbone (shared, not copied), and the heads' manifest.

    Raises ValueError if the heads were trained on another backbone.
    """
    description, weights = load(heads)
    if description["backbone_sha256"] != full_manifest["weights_sha256"]:
        raise ValueError(
            f"{heads}: trained on backbone {description['backbone_sha256'][:12]},"
            f" not on {full_manifest['weights_sha256'][:12]}"
        )
    model = AdaDiff(full.net, description["timestep_aware"])
    backbone = {f"uvit.{k}": v for k, v in full.net.state_dict().items()}
    model.load_state_dict(weights | backbone)
    return model.eval(), description


def departures(
    manifests: dict[str, dict], configured: dict[str, str | None], protocol: Protocol
) -> list[str]:
    """Where checkpoints (their manifests, by role) disagree with what is configured, by key.

    Raises ValueError if there is any and the protocol holds checkpoints to their conventions; otherwise
    the departures are to be recorded. A key that a manifest does not have, or that is configured as None,
    is not compared.
    """
    found = [
        f"{role}: {key} is {manifest[key]}, configured {value}"
        for role, manifest in manifests.items()
        for key, value in configured.items()
        if value is not None and manifest.get(key) not in (None, value)
    ]
    if found and protocol.checkpoint_conventions:
        raise ValueError("checkpoints refused: " + "; ".join(found))
    return found
