"""Training a small KL autoencoder in the pipeline, for images that no published one knows.

The objective is latent diffusion's (Rombach et al. 2022, Section 3.1 and Appendix G) without its perceptual
and its adversarial term: both need networks of their own, and what they add, sharpness, does not show at
the sizes this is for.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from duodiff import noise
from duodiff.autoencoder import WEIGHTS, KLNet, network_config
from duodiff.data.rows import Rows, unit_range
from duodiff.data.store import ImageStore
from duodiff.identity import code_digest
from duodiff.running.files import atomic
from duodiff.training.guard import LOOK_EVERY, Counts, Guard
from duodiff.training.loop import Watch
from duodiff.training.state import Saves, State, optimizer_state, restore_optimizer
from duodiff.transfer import sent

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
    shown = unit_range(sent(held_out[:_EVALUATION_BATCH], device))
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


def loss(net: KLNet, x: Tensor, kl_weight: float, eps: Tensor) -> Tensor:
    """Mean absolute error of the reconstruction plus kl_weight times the KL divergence to N(0, 1), a scalar.

    x: float32 [B, C, H, W] in [-1, 1]; eps: standard normal, of the latents' shape. The divergence is summed over the
    latent and divided by C H W: in proportion to the error it is latent diffusion's, which sums both, so a
    weight means the same here and there (1e-6 there).
    """
    posterior = net.encode(x).latent_dist
    reconstruction = net.decode(posterior.mean + posterior.std * eps).sample
    divergence = posterior.kl().mean() / x[0].numel()
    return (reconstruction - x).abs().mean() + kl_weight * divergence


def learning_rate(training: dict, step: int) -> float:
    """Learning rate of the 0-based `step`: a cosine from training["lr"] to 0 at the end."""
    return training["lr"] * 0.5 * (1 + math.cos(math.pi * step / training["steps"]))


@torch.inference_mode()
def reconstruction_rms(net: KLNet, images: np.ndarray, device: str) -> float:
    """Root of the mean squared error of uint8 images [N, C, H, W] through the mean of their latents.

    In units of [-1, 1], unclipped.
    """
    total = torch.zeros((), dtype=torch.float64, device=device)
    for x in _batches(images, device):
        reconstruction = net.decode(net.encode(x).latent_dist.mode()).sample
        total += (reconstruction - x).double().square().sum()
    return (total.item() / images.size) ** 0.5


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
    [B, C, H, W] in [-1, 1]) too, and the network. A step does not wait for the device. Raises ValueError if a loss is
    not finite: once the host looks, before the state is saved.
    """
    steps, every = training["steps"], max(1, training["steps"] // _EVALUATIONS)
    run, rows = _Run(net, training, saves), Rows(images, device)
    shape = _latent_shape(net, images)
    first = run.step
    bar = tqdm(
        range(first, steps), "autoencoder", initial=first, total=steps, unit="step", disable=None
    )
    with saves.on_stop():
        for step in bar:
            x, eps = drawn(rows, step, training["batch"], shape)
            run.update(loss(net, x, training["kl_weight"], eps))
            if watch is not None and (run.step % every == 0 or run.step == steps):
                run.add_to_curve(_held_out_loss(net, held_out, training["kl_weight"], shape))
                watch(run.curve, net)
            elif run.step % LOOK_EVERY == 0 or run.step == steps:
                run.look()
            saves.after_step(run.state)


def drawn(
    images: Rows, step: int, batch: int, shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """The images of a step, float32 [batch, C, H, W] in [-1, 1], and normals of their latents' shape [C, h, w].

    Both are functions of (seed, step, row), on the device.
    """
    where = images.index_device
    bits = noise.integers(_SEED, noise.AUTOENCODER, 0, batch, number=step, device=where)
    eps = noise.image_noise(
        _SEED, noise.AUTOENCODER_LATENTS, 0, batch, shape, number=step, device=images.device
    )
    return unit_range(images(noise.below(bits[:, 0], len(images)))), eps


class _Run:
    """The state of a training after `step` steps. It starts from the last saved state, or from the beginning."""

    def __init__(self, net: KLNet, training: dict, saves: Saves):
        self.net, self.training = net, training
        self.optimizer = torch.optim.Adam(net.parameters(), lr=training["lr"], fused=True)
        self.step, self.sums = 0, (0.0, 0)
        self.curve: list[dict] = []
        self.guard = Guard(next(net.parameters()).device)
        size = sum(p.nbytes for p in net.parameters())
        saves.require_space(3 * size, size)
        self._restore(saves.restore())

    def update(self, value: Tensor) -> None:
        """Updates the weights by the gradients of a loss, a scalar."""
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.training, self.step)
        value.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        value = value.detach()
        self.guard.accepts(self.step, value, value)

    def look(self) -> Counts:
        """The counts of the device. Raises ValueError if a loss was not finite."""
        counts = self.guard.look()
        if counts.skipped:
            step = counts.step - max(0, counts.in_a_row - 1)
            lr = learning_rate(self.training, step - 1)
            raise ValueError(
                f"step {step} of {self.training['steps']}, learning rate {lr:.3g}: loss {counts.loss};"
                " a smaller autoencoder.train.lr may help"
            )
        return counts

    def add_to_curve(self, held_out_loss: float) -> None:
        """Adds an entry to the curve, and starts the next mean of the training loss."""
        counts, (total, counted) = self.look(), self.sums
        self.sums = (counts.total, counts.counted)
        self.curve.append(
            {
                "step": self.step,
                "train_loss": (counts.total - total) / (counts.counted - counted),
                "held_out_loss": held_out_loss,
                "lr": learning_rate(self.training, self.step - 1),
            }
        )

    def state(self) -> State:
        """Everything that decides the rest of the training."""
        counts = self.look()
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        values = {"step": self.step, "curve": self.curve, "counts": vars(counts), "sums": self.sums}
        return tensors | optimizer_state(self.optimizer), values

    def _restore(self, state: State | None) -> None:
        if state is None:
            return
        tensors, values = state
        self.net.load_state_dict({k: tensors[f"net.{k}"] for k in self.net.state_dict()})
        restore_optimizer(self.optimizer, tensors)
        self.guard = Guard(next(self.net.parameters()).device, Counts(**values["counts"]))
        self.step, self.curve, self.sums = values["step"], values["curve"], values["sums"]


@torch.inference_mode()
def _held_out_loss(net: KLNet, images: Tensor, kl_weight: float, shape: tuple) -> float:
    """The loss of images (float32 [B, C, H, W] in [-1, 1]), always with the same draw of their latents."""
    eps = noise.image_noise(
        _SEED, noise.HELD_OUT_LATENTS, 0, len(images), shape, device=images.device
    )
    return float(loss(net, images, kl_weight, eps))


def _latent_shape(net: KLNet, images: np.ndarray) -> tuple[int, int, int]:
    """C, h, w of an image's latent."""
    _, _, height, width = images.shape
    reduction = 2 ** (len(net.config.block_out_channels) - 1)
    return net.config.latent_channels, height // reduction, width // reduction


@torch.inference_mode()
def _latents_std(net: KLNet, images: np.ndarray, device: str) -> float:
    """Standard deviation of all latent values of uint8 images [N, C, H, W], by its posteriors' moments."""
    count, sums = 0, torch.zeros(2, dtype=torch.float64, device=device)
    for x in _batches(images, device):
        posterior = net.encode(x).latent_dist
        mean, var = posterior.mean.double(), posterior.var.double()
        count += mean.numel()
        sums += torch.stack([mean.sum(), (mean.square() + var).sum()])
    total, square = sums.tolist()
    return (square / count - (total / count) ** 2) ** 0.5


def _batches(images: np.ndarray, device: str) -> Iterator[Tensor]:
    """The images in order, float32 [B, C, H, W] in [-1, 1]."""
    for first in range(0, len(images), _EVALUATION_BATCH):
        yield unit_range(sent(images[first : first + _EVALUATION_BATCH], device))


def _save(net: KLNet, folder: Path) -> None:
    """Writes the network as diffusers does, config.json last, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as saved:
        net.save_pretrained(saved)
        for name in (WEIGHTS, "config.json"):
            with atomic(folder / name) as temporary:
                shutil.copyfile(Path(saved, name), temporary)
