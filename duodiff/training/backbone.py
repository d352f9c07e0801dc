"""Training a backbone on all timesteps, from a packed store to a checkpoint with its loss curve."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duodiff.data.store import ImageStore
from duodiff.files import write_csv
from duodiff.schedules import noise_schedule
from duodiff.training import checkpoints
from duodiff.training.batches import Batch, Noiser
from duodiff.training.loop import TrainingConfig, fit
from duodiff.uvit import Denoiser, UViT


def denoising_loss(model: Denoiser, batch: Batch) -> Tensor:
    """Mean squared error of the predicted noise (Eq. 2)."""
    return F.mse_loss(model(batch.x_t, batch.t, batch.y), batch.eps)


def noisers(data: Path, net: UViT, schedule: str, device: str) -> tuple[ImageStore, Noiser, Noiser]:
    """The store at `data`, its noised training and its noised held-out images, with labels if `net` takes them.

    Raises ValueError if the network does not fit the images or their classes.
    """
    store = ImageStore(data)
    shape = (net.in_chans, net.img_size, net.img_size)
    if tuple(store.shape) != shape:
        raise ValueError(f"{data}: images of {tuple(store.shape)} for a network of {shape}")
    if net.num_classes > 0 and store.num_classes != net.num_classes:
        raise ValueError(
            f"backbone.num_classes: found {net.num_classes};"
            f" accepted: -1 or the dataset's {store.num_classes}"
        )
    splits = []
    for name in ("train", "held_out"):
        images, labels = store.split(name)
        labels = labels if net.num_classes > 0 else None
        splits.append(Noiser(images, labels, noise_schedule(schedule), device))
    return store, *splits


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
    store, train, held_out = noisers(data, net, schedule, device)
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
    write_csv(Path(out).parent / "curve.csv", curve)
    checkpoints.save(
        out,
        average.net.state_dict(),
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
