"""Displacements of the images of a sampler without noise by a change of network at one step (see `grams`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from duodiff import noise, samplers
from duodiff.backbones import Backbone
from duodiff.metrics.grams import TRAJECTORIES, Gram
from duodiff.samplers import Step
from duodiff.sampling.models import Models
from duodiff.schedules import T


@torch.inference_mode()
def write_displacements(
    models: Models,
    sampler: Mapping[str, Any],
    further: Mapping[str, Mapping[str, int]],
    *,
    images: int = TRAJECTORIES,
    batch: int,
    seed: int,
    out: Path,
) -> str:
    """Computes the displacements by the shallow and `further` networks, and writes their `Gram`; a one-line summary.

    A further network has a `depth`, or an `exit` from AdaDiff's heads, by name. The noise of the `images` trajectories
    is that of no sampled image. `seed` is the training seed. `batch` images are computed at once. The cost is that of
    S / 2 trajectories for each network and image, S the steps. Raises ValueError for a sampler with noise.
    """
    networks: dict[str, Backbone] = {"shallow": models.shallow}
    for name, made in further.items():
        networks[name] = (
            models.fixed_exit(made["exit"]) if "exit" in made else models.backbone(name)
        )
    steps = samplers.steps_of(models.schedule, sampler, models.protocol)
    if any(step.noise_coef or step.x_0_coefs for step in steps):
        raise ValueError(f"sampler: found {sampler}; accepted: ddim with eta 0")
    drawn: dict[str, Any] = {"number": T, "device": models.device}  # no profile has this timestep
    x = noise.image_noise(seed, noise.PROFILE_NOISE, 0, images, models.shape, **drawn)
    y = models.labels(seed, 0, images, models.protocol)
    y = None if y is None else y.to(models.device)
    moved = x[None]  # [1 + K i, N, C, H, W] after i steps: the trajectory, then each change of it
    for step in tqdm(steps, desc="displacements", unit="step", disable=None):
        changed = [_taken(step, network, moved[:1], y, batch) for network in networks.values()]
        moved = torch.cat([_taken(step, models.full, moved, y, batch), *changed])
    displacements = (moved[1:] - moved[:1]).flatten(2).double()  # [S K, N, D], step by step
    ordered = displacements.unflatten(0, (len(steps), len(networks))).transpose(0, 1).flatten(0, 1)
    products = torch.einsum("and,bnd->nab", ordered, ordered).float().cpu().numpy()
    t = torch.tensor([step.t for step in steps]).numpy()
    Gram(tuple(networks), sampler, t, products).write(out)
    return f"{images} trajectories of {len(steps)} steps, {len(networks)} networks"


def _taken(step: Step, network: Backbone, x: Tensor, y: Tensor | None, batch: int) -> Tensor:
    """All trajectories x [M, N, C, H, W] after one step by a network, `batch` images at a time."""
    flat = x.flatten(0, 1)
    labels = None if y is None else y.repeat(len(x))
    parts = []
    for first in range(0, len(flat), batch):
        rows = slice(first, first + batch)
        t = torch.full((len(flat[rows]),), step.t, device=flat.device)
        eps = network(flat[rows], t, None if labels is None else labels[rows])
        parts.append(torch.add(step.x_coef * flat[rows], eps, alpha=step.eps_coef))
    return torch.cat(parts).unflatten(0, x.shape[:2])
