"""Checkpoints: safetensors weights beside a JSON manifest that says how to rebuild the model.

A checkpoint is named by the path of its manifest; `model.safetensors` lies beside it and is pinned
by `weights_sha256`.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from duodiff.backbones import Denoiser
from duodiff.early_exit import AdaDiff
from duodiff.files import atomic, read_json, sha256, write_json
from duodiff.uvit import UViT


def save(manifest: str | Path, weights: dict[str, torch.Tensor], description: dict) -> None:
    """Writes `weights`, then the manifest: `description` plus weights_sha256."""
    path = Path(manifest).parent / "model.safetensors"
    with atomic(path) as temporary:
        save_file({k: v.detach().contiguous() for k, v in weights.items()}, temporary)
    write_json(manifest, {**description, "weights_sha256": sha256(path)})


def _load(manifest: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    path, description = Path(manifest).parent / "model.safetensors", read_json(manifest)
    if sha256(path) != description["weights_sha256"]:
        raise ValueError(
            f"{path}: its sha256 is not the one in {manifest}; train or fetch it again"
        )
    return description, load_file(path)


def load_backbone(manifest: str | Path) -> tuple[Denoiser, dict]:
    """A backbone in evaluation mode and its manifest. Raises ValueError if the weights are not its own."""
    description, weights = _load(manifest)
    net = UViT(**description["architecture"])
    net.load_state_dict(weights)
    return Denoiser(net, description["time_input"]).eval(), description


def load_adadiff(full: Denoiser, full_manifest: dict, heads: str | Path) -> tuple[AdaDiff, dict]:
    """AdaDiff in evaluation mode on a loaded backbone (shared, not copied), and the heads' manifest.

    Raises ValueError if the heads were trained on another backbone.
    """
    description, weights = _load(heads)
    if description["backbone_sha256"] != full_manifest["weights_sha256"]:
        raise ValueError(
            f"{heads}: trained on backbone {description['backbone_sha256'][:12]},"
            f" not on {full_manifest['weights_sha256'][:12]}"
        )
    model = AdaDiff(full.net, description["timestep_aware"])
    backbone = {f"uvit.{k}": v for k, v in full.net.state_dict().items()}
    model.load_state_dict(weights | backbone)
    return model.eval(), description


def heads_state(model: AdaDiff) -> dict[str, torch.Tensor]:
    """The weights of AdaDiff's heads, without the backbone's."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith("uvit.")}
