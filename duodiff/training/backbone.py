"""Training a backbone on all timesteps, from a packed store to a checkpoint with its loss curve."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duodiff import checkpoints
from duodiff.data.store import ImageStore, LatentStore
from duodiff.identity import code_digest
from duodiff.running import compiling, provenance
from duodiff.running.files import read_json, write_csv
from duodiff.schedules import noise_schedule
from duodiff.training import devices
from duodiff.training.batches import Batch, Noiser
from duodiff.training.loop import TrainingConfig, Watch, fit
from duodiff.training.state import Saves
from duodiff.uvit import Denoiser, UViT


def denoising_loss(model: Denoiser, batch: Batch) -> Tensor:
    """Mean squared error of the network's prediction, a scalar: of the noise (Eq. 2), or of another target."""
    return F.mse_loss(model.predict(batch.x_t, batch.t, batch.y), batch.target)


def open_store(manifest: Path) -> ImageStore | LatentStore:
    """The store of packed images, or of their latents, at `manifest`."""
    return (LatentStore if "moments_sha256" in read_json(manifest) else ImageStore)(manifest)


def noisers(
    data: Path,
    model: Denoiser,
    schedule: str,
    device: str,
    null_class: bool = False,
    *,
    flips: bool = False,
    label_dropout: float = 0.0,
) -> tuple[dict, Noiser, Noiser]:
    """The manifest of the store at `data`, its training images and its held-out images, both as a `Noiser`.

    Batches have labels if the network takes labels. `flips` and `label_dropout` apply to training images only.
    Raises ValueError if the network does not fit the images or their classes.
    """
    store, net = open_store(data), model.net
    shape = (net.in_chans, net.img_size, net.img_size)
    if tuple(store.shape) != shape:
        raise ValueError(f"{data}: images of {tuple(store.shape)} for a network of {shape}")
    if net.num_classes > 0 and store.num_classes != net.num_classes - null_class:
        raise ValueError(
            f"backbone.num_classes: found {net.num_classes};"
            f" accepted: -1 or the dataset's {store.num_classes}"
            + (" and one more for null_class" if null_class else "")
        )

    def noiser(split: str, flips: bool = False, label_dropout: float = 0.0) -> Noiser:
        images, labels = store.split(split)
        return Noiser(
            images,
            labels if net.num_classes > 0 else None,
            noise_schedule(schedule),
            device,
            model.prediction,
            scale=store.manifest.get("scale", 1.0),
            flips=flips,
            label_dropout=label_dropout,
            null_class=net.num_classes - 1 if null_class else None,
        )

    return store.manifest, noiser("train", flips, label_dropout), noiser("held_out")


def train_backbone(
    data: Path,
    architecture: dict,
    conventions: dict,
    null_class: bool,
    training: dict,
    *,
    seed: int,
    device: str,
    out: Path,
    monitor: Path | None = None,
) -> list[dict]:
    """Loss curve of a U-ViT trained on all t (Eq. 2), written with its checkpoint at the manifest `out`.

    `conventions` are the schedule, time_input and prediction; `training` is that section of the
    configuration; `null_class` makes the last class the null label. `monitor` is the folder to follow the
    training in (`duodiff.training.monitor`). An interrupted training is continued.
    """
    options = dict(training)
    init, flips, label_dropout = (options.pop(k) for k in ("init", "flips", "label_dropout"))
    torch.manual_seed(seed)
    net = UViT(**architecture)
    if init == "residual_zero":
        _init_residual_zero(net)
    model = Denoiser(net, **conventions).to(device)
    dataset, train, held_out = noisers(
        data,
        model,
        conventions["schedule"],
        device,
        null_class,
        flips=flips,
        label_dropout=label_dropout,
    )
    watch = None
    if monitor is not None:
        classes = net.num_classes - null_class
        watch = _monitor(monitor, training["steps"], train, classes, conventions["schedule"])
    manifest = checkpoints.BackboneManifest(
        architecture=architecture,
        **conventions,
        null_class=null_class,
        class_order=dataset.get("class_order"),
        training=training,
        seed=seed,
        dataset_sha256=dataset.get("moments_sha256", dataset["images_sha256"]),
    )
    described = checkpoints.as_json(manifest)
    code = code_digest(train_backbone, described)
    saves = Saves(out, {"checkpoint": described, "dataset": dataset, "code": code})
    average, curve = fit(
        model,
        list(model.parameters()),
        compiling.faster(denoising_loss, device, training["precision"]),
        train,
        held_out.stratified(seed),
        config=TrainingConfig(**options),
        seed=seed,
        name=f"train depth {net.depth}",
        watch=watch,
        saves=saves,
    )
    if not devices.is_first():
        return curve
    write_csv(Path(out).parent / "curve.csv", curve)
    made = provenance.made(code, device)
    manifest = replace(manifest, skipped_steps=curve[-1]["skipped_steps"], made=made)
    checkpoints.save(out, average.net.state_dict(), manifest)
    saves.clear()
    return curve


def _monitor(folder: Path, steps: int, train: Noiser, classes: int, schedule: str) -> Watch:
    """Shows a training in `folder`, with samples where the network makes images: latents would have to be decoded."""
    from duodiff.training.monitor import Monitor, samples_of  # takes a second, for trainings alone

    picture = None if train.latent else samples_of(train.shape, classes, schedule, train.device)
    return Monitor(folder, steps, picture)


def _init_residual_zero(net: UViT) -> None:
    """Xavier-uniform linears, with the last linear of every residual branch at zero (as in DiT).

    Each block starts as the identity. In a training of few steps, a deep narrow network then learns much faster than
    with the official truncated normal.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if name.endswith(("attn.proj", "mlp.fc2")):
                nn.init.zeros_(module.weight)
