"""Training a small KL autoencoder in the pipeline, for images that no published one knows.

The objective is latent diffusion's (Rombach et al. 2022, Section 3.1 and Appendix G) without its perceptual
and its adversarial term: both need networks of their own, and what they add, sharpness, does not show at
the sizes this is for.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR
from tqdm import tqdm

from duodiff.autoencoder import WEIGHTS, KLNet, network_config
from duodiff.data.store import ImageStore, to_unit_range
from duodiff.identity import code_digest
from duodiff.running.files import atomic
from duodiff.training.loop import Watch
from duodiff.training.state import Saves, State, optimizer_state, restore_optimizer

_SEED = 0
_EVALUATION_BATCH = 64
_EVALUATIONS = 20


def train_autoencoder(
    data: Path,
    architecture: dict,
    training: dict,
    device: str,
    out: Path,
    *,
    monitor: Path | None = None,
) -> dict[str, float]:
    """`rms` of the reconstructed held-out images ([-1, 1] units) and `scale` of the trained autoencoder.

    It is trained on the training images of the store `data` and written as diffusers saves it: `out`, the
    path of its config.json, has the scale as scaling_factor, and the weights lie beside it. `architecture`
    and `training` (steps, batch, lr of Adam with a cosine decay to 0, kl_weight) are those sections of the
    configuration. The same arguments on the same machine give the same bytes, also where the training was
    interrupted and is continued. `monitor` is the folder to follow the training in
    (`duodiff.training.monitor`). Raises ValueError if the images do not fit the architecture.
    """
    from diffusers import AutoencoderKL  # slow to import

    store = ImageStore(data)
    channels, *size = store.shape
    reduction = 2 ** (len(architecture["block_out_channels"]) - 1)
    if any(length % reduction for length in size):
        raise ValueError(
            f"images: found {list(store.shape)}; accepted: [C, H, W], H and W multiples of {reduction}"
        )
    (train, _), (held_out, _) = store.split("train"), store.split("held_out")
    torch.manual_seed(_SEED)
    net = AutoencoderKL.from_config(network_config(architecture, channels)).to(device)
    shown = torch.from_numpy(to_unit_range(held_out[:_EVALUATION_BATCH])).to(device)
    watch = None
    if monitor is not None:
        from duodiff.training.monitor import Monitor, reconstructions_of

        watch = Monitor(monitor, training["steps"], reconstructions_of(shown))
    described = {"architecture": architecture, "training": training, "seed": _SEED}
    code = code_digest(train_autoencoder)
    saves = Saves(out, described | {"dataset": store.manifest, "code": code})
    _fit(net, train, training, device, saves, held_out=shown, watch=watch)
    net.eval()
    scale = 1 / _latents_std(net, train, device)
    net.register_to_config(scaling_factor=scale)
    _save(net, out.parent)
    saves.clear()
    return {"rms": reconstruction_rms(net, held_out, device), "scale": scale}


def loss(net: KLNet, x: Tensor, kl_weight: float, generator: torch.Generator) -> Tensor:
    """Mean absolute error of the reconstruction plus kl_weight times the KL divergence to N(0, 1), a scalar.

    x: float32 [B, C, H, W] in [-1, 1]; `generator`, on the CPU, draws z. The divergence is summed over the
    latent and divided by C H W: in proportion to the error it is latent diffusion's, which sums both, so a
    weight means the same here and there (1e-6 there).
    """
    posterior = net.encode(x).latent_dist
    reconstruction = net.decode(posterior.sample(generator)).sample
    divergence = posterior.kl().mean() / x[0].numel()
    return (reconstruction - x).abs().mean() + kl_weight * divergence


@torch.inference_mode()
def reconstruction_rms(net: KLNet, images: np.ndarray, device: str) -> float:
    """Root of the mean squared error of uint8 images [N, C, H, W] through the mean of their latents.

    In units of [-1, 1], unclipped.
    """
    total = 0.0
    for x in _batches(images, device):
        reconstruction = net.decode(net.encode(x).latent_dist.mode()).sample
        total += (reconstruction - x).double().square().sum().item()
    return (total / images.size) ** 0.5


def _fit(
    net: KLNet,
    images: np.ndarray,
    training: dict,
    device: str,
    saves: Saves,
    *,
    held_out: Tensor,
    watch: Watch | None,
) -> None:
    """Trains `net` in place on random batches of uint8 images [N, C, H, W], from its last state on if there is one.

    `watch` is called some 20 times with the loss curve so far, which has the loss of `held_out` (float32
    [B, C, H, W] in [-1, 1]) too, and the network. Raises ValueError if a loss is not finite.
    """
    generator = torch.Generator().manual_seed(_SEED)
    optimizer = torch.optim.Adam(net.parameters(), lr=training["lr"])
    schedule = CosineAnnealingLR(optimizer, training["steps"])
    steps, every = training["steps"], max(1, training["steps"] // _EVALUATIONS)
    progress: dict[str, Any] = {"curve": [], "total": 0.0, "since": 0}

    def state() -> State:
        tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
        tensors |= optimizer_state(optimizer) | {"images": generator.get_state()}
        values = {"step": schedule.last_epoch, "schedule": schedule.state_dict()}
        return tensors, values | {"progress": progress}

    size = sum(p.nbytes for p in net.parameters())
    saves.require_space(3 * size, size)
    if (last := saves.restore()) is not None:
        tensors, values = last
        net.load_state_dict({k: tensors[f"net.{k}"] for k in net.state_dict()})
        restore_optimizer(optimizer, tensors)
        generator.set_state(tensors["images"])
        schedule.load_state_dict(values["schedule"])
        optimizer.param_groups[0]["lr"] = schedule.get_last_lr()[0]
        progress = values["progress"]
    first = schedule.last_epoch
    bar = tqdm(
        range(first, steps), "autoencoder", initial=first, total=steps, unit="step", disable=None
    )
    with saves.on_stop():
        for step in bar:
            index = torch.randint(len(images), (training["batch"],), generator=generator).numpy()
            x = torch.from_numpy(to_unit_range(images[index])).to(device)
            value = loss(net, x, training["kl_weight"], generator)
            lr = optimizer.param_groups[0]["lr"]
            if not torch.isfinite(value):
                raise ValueError(
                    f"step {step + 1} of {steps}, learning rate {lr:.3g}: loss {value.item()}; a smaller"
                    " autoencoder.train.lr may help"
                )
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            progress["total"] += float(value.detach())
            progress["since"] += 1
            if watch is not None and ((step + 1) % every == 0 or step + 1 == steps):
                entry = {"step": step + 1, "train_loss": progress["total"] / progress["since"]}
                entry |= {
                    "held_out_loss": _held_out_loss(net, held_out, training["kl_weight"]),
                    "lr": lr,
                }
                progress |= {"curve": [*progress["curve"], entry], "total": 0.0, "since": 0}
                watch(progress["curve"], net)
            saves.after_step(state)


@torch.inference_mode()
def _held_out_loss(net: KLNet, images: Tensor, kl_weight: float) -> float:
    """The loss of images (float32 [B, C, H, W] in [-1, 1]), always with the same draw of their latents."""
    return float(loss(net, images, kl_weight, torch.Generator().manual_seed(_SEED)))


@torch.inference_mode()
def _latents_std(net: KLNet, images: np.ndarray, device: str) -> float:
    """Standard deviation of all latent values of uint8 images [N, C, H, W], by its posteriors' moments."""
    count, total, square = 0, 0.0, 0.0
    for x in _batches(images, device):
        posterior = net.encode(x).latent_dist
        mean, var = posterior.mean.double(), posterior.var.double()
        count += mean.numel()
        total += mean.sum().item()
        square += (mean.square() + var).sum().item()
    return (square / count - (total / count) ** 2) ** 0.5


def _batches(images: np.ndarray, device: str) -> Iterator[Tensor]:
    """The images in order, float32 [B, C, H, W] in [-1, 1]."""
    for first in range(0, len(images), _EVALUATION_BATCH):
        yield torch.from_numpy(to_unit_range(images[first : first + _EVALUATION_BATCH])).to(device)


def _save(net: KLNet, folder: Path) -> None:
    """Writes the network as diffusers does, config.json last, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as saved:
        net.save_pretrained(saved)
        for name in (WEIGHTS, "config.json"):
            with atomic(folder / name) as temporary:
                shutil.copyfile(Path(saved, name), temporary)
