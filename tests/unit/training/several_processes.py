"""Trains small networks under torchrun: torchrun --standalone --nproc-per-node 2 several_processes.py FOLDER.

Every process writes what it found to FOLDER/<rank>.pt.
"""

import logging
import signal
import sys
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch

from duodiff.early_exit import AdaDiff
from duodiff.protocol import CORRECTED, PAPER
from duodiff.running import signals
from duodiff.schedules import noise_schedule
from duodiff.training import devices
from duodiff.training.backbone import denoising_loss
from duodiff.training.batches import Noiser
from duodiff.training.heads import heads_loss
from duodiff.training.loop import TrainingConfig, fit
from duodiff.training.state import Saves
from duodiff.uvit import Denoiser, UViT

CONFIG = TrainingConfig(
    steps=10,
    batch=8,
    lr=3e-3,
    lr_schedule="cosine",
    betas=(0.9, 0.99),
    weight_decay=0.01,
    warmup_steps=5,
    grad_clip=1.0,
    ema=0.8,
    precision="float32",
)
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (13, 3, 6, 6)).astype(np.uint8)
MOMENTS = RNG.standard_normal((13, 2, 6, 6, 6)).astype(np.float16)
OPTIONS = {"flips": True, "label_dropout": 0.25, "null_class": 4}
NOISERS = {
    name: Noiser(images, np.arange(13) % 4, noise_schedule("linear"), **OPTIONS)
    for name, images in (("pixels", PIXELS), ("latents", MOMENTS))
}


def uvit() -> UViT:
    torch.manual_seed(0)
    return UViT(
        img_size=6, patch_size=2, in_chans=3, embed_dim=14, depth=3, num_heads=7, num_classes=5
    )


def trained(model, parameters, loss, noiser, config=CONFIG, saves=None) -> dict:
    average, curve = fit(
        model, parameters, loss, noiser, noiser.stratified(1), config=config, seed=0, saves=saves
    )
    weights = {k: v.detach().clone() for k, v in average.state_dict().items()}
    return {"weights": weights, "curve": curve}


def backbone(noiser, loss=denoising_loss, **options) -> dict:
    model = Denoiser(uvit())
    return trained(model, list(model.parameters()), loss, noiser, **options)


def heads(protocol) -> dict:
    model = AdaDiff(uvit(), protocol.timestep_aware_uncertainty)
    model.uvit.requires_grad_(False)
    loss = partial(heads_loss, time_convention="t", protocol=protocol)
    return trained(model, model.heads_parameters(), loss, NOISERS["pixels"])


def trainings() -> dict[str, dict]:
    """10 steps of every kind of training: a loss that is a mean, one that is a sum, pixels and latents."""
    found = {name: backbone(noiser) for name, noiser in NOISERS.items()}
    return found | {f"heads, {p.name}": heads(p) for p in (CORRECTED, PAPER)}


SPOILT, STOPPING = count(), count()  # the steps that these two trainings have done


def spoilt(model, batch):
    """In step 4 the last process alone has a loss that is not finite, in step 7 a gradient."""
    value = denoising_loss(model, batch)
    if not torch.is_grad_enabled() or devices.is_first():
        return value
    step = next(SPOILT)
    if step == 3:
        return value * torch.nan
    # the root of 0 has a finite value and no finite slope
    return value + (value * 0).sqrt() if step == 6 else value


def stopping(model, batch):
    """In step 5 the last process alone is asked to stop."""
    if torch.is_grad_enabled() and not devices.is_first() and next(STOPPING) == 4:
        signal.raise_signal(signal.SIGUSR1)
    return denoising_loss(model, batch)


def message_of(run) -> str:
    try:
        run()
    except (ValueError, signals.Stopped) as stopped:
        return str(stopped)


def main(folder: Path) -> None:
    pixels, out = NOISERS["pixels"], folder / "full/manifest.json"
    odd = TrainingConfig(**vars(CONFIG) | {"batch": 9})
    found = trainings() | {"spoilt": backbone(pixels, spoilt)}
    found["uneven"] = message_of(lambda: backbone(pixels, config=odd))
    found["stopped"] = message_of(lambda: backbone(pixels, stopping, saves=Saves(out, {})))
    devices.wait()
    found["states"] = [path.name for path in sorted(folder.glob(".resume/*/*"))]
    found["continued"] = backbone(pixels, saves=Saves(out, {}))
    torch.save(found, folder / f"{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    logging.disable()
    torch.set_num_threads(1)
    with devices.joined("cpu"):
        main(Path(sys.argv[1]))
