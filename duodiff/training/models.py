"""The three trainings of a study, from a packed store to a checkpoint with its loss curve."""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from duodiff.backbones import Denoiser
from duodiff.data.store import ImageStore
from duodiff.early_exit import AdaDiff
from duodiff.files import write_csv
from duodiff.protocol import PROTOCOLS
from duodiff.schedules import noise_schedule
from duodiff.training import checkpoints
from duodiff.training.batches import Noiser
from duodiff.training.loop import TrainingConfig, fit
from duodiff.training.losses import adadiff_heads_loss, denoising_loss
from duodiff.uvit import UViT


def noisers(store: ImageStore, schedule: str, device: str) -> tuple[Noiser, Noiser]:
    """Noised training images and noised held-out images of a store, with labels if it has classes."""
    splits = (store.split(name) for name in ("train", "held_out"))
    labelled = store.num_classes > 0
    return tuple(
        Noiser(images, labels if labelled else None, noise_schedule(schedule), device)
        for images, labels in splits
    )


def train_backbone(
    data: Path,
    architecture: dict,
    schedule: str,
    time_input: str,
    training: dict,
    seed: int,
    device: str,
    out: Path,
) -> list[dict]:
    """Loss curve of a U-ViT trained on all t (Eq. 2), written with its checkpoint at the manifest `out`."""
    options = dict(training)
    init = options.pop("init")
    torch.manual_seed(seed)
    net = UViT(**architecture)
    if init == "residual_zero":
        _init_residual_zero(net)
    model = Denoiser(net, time_input).to(device)
    store = ImageStore(data)
    train, held_out = noisers(store, schedule, device)
    average, curve = fit(
        model,
        list(model.parameters()),
        denoising_loss,
        train,
        held_out.stratified(seed),
        TrainingConfig(**options),
        seed,
        name=f"train depth {net.depth}",
    )
    _save(
        out,
        average.net.state_dict(),
        curve,
        {
            "kind": "backbone",
            "architecture": architecture,
            "schedule": schedule,
            "time_input": time_input,
            "training": training,
            "seed": seed,
            "dataset_sha256": store.manifest["images_sha256"],
        },
    )
    return curve


def train_heads(
    data: Path, backbone: Path, training: dict, protocol: str, seed: int, device: str, out: Path
) -> list[dict]:
    """Loss curve of AdaDiff's heads on a frozen backbone (Eq. 8), written with their checkpoint."""
    full, description = checkpoints.load_backbone(backbone)
    rules = PROTOCOLS[protocol]
    torch.manual_seed(seed)
    model = AdaDiff(full.net, rules.timestep_aware_uncertainty).to(device)
    model.uvit.requires_grad_(False)
    store = ImageStore(data)
    train, held_out = noisers(store, description["schedule"], device)
    average, curve = fit(
        model,
        model.heads_parameters(),
        partial(adadiff_heads_loss, time_convention=full.time_input, protocol=rules),
        train,
        held_out.stratified(seed),
        TrainingConfig(**training),
        seed,
        name="train heads",
    )
    _save(
        out,
        checkpoints.heads_state(average),
        curve,
        {
            "kind": "heads",
            "backbone_sha256": description["weights_sha256"],
            "timestep_aware": rules.timestep_aware_uncertainty,
            "protocol": protocol,
            "training": training,
            "seed": seed,
            "dataset_sha256": store.manifest["images_sha256"],
        },
    )
    return curve


def _save(out: Path, weights: dict, curve: list[dict], description: dict) -> None:
    write_csv(Path(out).parent / "curve.csv", curve)
    checkpoints.save(out, weights, description)


def _init_residual_zero(net: UViT) -> None:
    """Xavier-uniform linears, with the last linear of every residual branch at zero (as in DiT).

    Each block starts by passing on what it gets, which trains a deep narrow network much faster than
    the official truncated normal when the steps are few.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if name.endswith(("attn.proj", "mlp.fc2")):
                nn.init.zeros_(module.weight)
