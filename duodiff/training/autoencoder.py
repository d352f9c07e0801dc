"""Training a small KL autoencoder in the pipeline, for images that no published one knows.

The objective is latent diffusion's (Rombach et al. 2022, Section 3.1 and Appendix G) without its perceptual
and its adversarial term: both need networks of their own, and what they add, sharpness, does not show at
the sizes this is for.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from tqdm import tqdm

from duodiff.autoencoder import WEIGHTS, network_config
from duodiff.data.store import ImageStore, to_unit_range
from duodiff.files import atomic
from duodiff.training.loop import Watch

_SEED = 0
_EVALUATION_BATCH = 64
_EVALUATIONS = 20


def train_autoencoder(
    data: Path,
    architecture: dict,
    training: dict,
    device: str,
    out: Path,
    monitor: Path | None = None,
) -> dict[str, float]:
    """`rms` of the reconstructed held-out images ([-1, 1] units) and `scale` of the trained autoencoder.

    It is trained on the training images of the store `data` and written as diffusers saves it: `out`, the
    path of its config.json, has the scale as scaling_factor, and the weights lie beside it. `architecture`
    and `training` (steps, batch, lr of Adam with a cosine decay to 0, kl_weight) are those sections of the
    configuration. The same arguments on the same machine give the same bytes. `monitor` is the folder to follow
    the training in (`duodiff.training.monitor`). Raises ValueError if the images do not fit the architecture.
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
    _fit(net, train, training, device, shown, watch)
    net.eval()
    scale = 1 / _latents_std(net, train, device)
    net.register_to_config(scaling_factor=scale)
    _save(net, out.parent)
    return {"rms": reconstruction_rms(net, held_out, device), "scale": scale}


def loss(net: nn.Module, x: Tensor, kl_weight: float, generator: torch.Generator) -> Tensor:
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
def reconstruction_rms(net: nn.Module, images: np.ndarray, device: str) -> float:
    """Root of the mean squared error of uint8 images [N, C, H, W] through the mean of their latents.

    In units of [-1, 1], unclipped.
    """
    total = 0.0
    for x in _batches(images, device):
        found = net.decode(net.encode(x).latent_dist.mode()).sample
        total += (found - x).double().square().sum().item()
    return (total / images.size) ** 0.5


def _fit(
    net: nn.Module,
    images: np.ndarray,
    training: dict,
    device: str,
    held_out: Tensor,
    watch: Watch | None,
) -> None:
    """Trains `net` in place on random batches of uint8 images [N, C, H, W].

    `watch` is called some 20 times with the loss curve so far, which has the loss of `held_out` (float32
    [B, C, H, W] in [-1, 1]) too, and the network.
    """
    generator = torch.Generator().manual_seed(_SEED)
    optimizer = torch.optim.Adam(net.parameters(), lr=training["lr"])
    schedule = CosineAnnealingLR(optimizer, training["steps"])
    every = max(1, training["steps"] // _EVALUATIONS)
    curve, total, since = [], 0.0, 0
    bar = tqdm(
        range(training["steps"]), desc="autoencoder", unit="step", disable=None, mininterval=1
    )
    for step in bar:
        index = torch.randint(len(images), (training["batch"],), generator=generator).numpy()
        x = torch.from_numpy(to_unit_range(images[index])).to(device)
        value = loss(net, x, training["kl_weight"], generator)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        lr = optimizer.param_groups[0]["lr"]
        schedule.step()
        total, since = total + value.detach(), since + 1
        if watch is not None and ((step + 1) % every == 0 or step + 1 == training["steps"]):
            with torch.inference_mode():
                z = torch.Generator().manual_seed(_SEED)
                validation = float(loss(net, held_out, training["kl_weight"], z))
            losses = {"train_loss": float(total) / since, "held_out_loss": validation}
            curve.append({"step": step + 1, **losses, "lr": lr})
            total, since = 0.0, 0
            watch(curve, net)


@torch.inference_mode()
def _latents_std(net: nn.Module, images: np.ndarray, device: str) -> float:
    """Standard deviation of all latent values of uint8 images [N, C, H, W], by its posteriors' moments."""
    count, total, square = 0, 0.0, 0.0
    for x in _batches(images, device):
        posterior = net.encode(x).latent_dist
        mean, var = posterior.mean.double(), posterior.var.double()
        count += mean.numel()
        total += mean.sum().item()
        square += (mean.square() + var).sum().item()
    return (square / count - (total / count) ** 2) ** 0.5


def _batches(images: np.ndarray, device: str):
    """The images in order, float32 [B, C, H, W] in [-1, 1]."""
    for first in range(0, len(images), _EVALUATION_BATCH):
        yield torch.from_numpy(to_unit_range(images[first : first + _EVALUATION_BATCH])).to(device)


def _save(net: nn.Module, folder: Path) -> None:
    """Writes the network as diffusers does, config.json last, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as saved:
        net.save_pretrained(saved)
        for name in (WEIGHTS, "config.json"):
            with atomic(folder / name) as temporary:
                shutil.copyfile(Path(saved, name), temporary)
