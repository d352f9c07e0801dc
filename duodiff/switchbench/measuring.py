"""What SwitchBench measures of one training: distances of all masks, losses of each network, and what choosers need."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from duodiff.data.rows import unit_range
from duodiff.data.store import ImageStore
from duodiff.early_exit import exit_layers
from duodiff.metrics.denoising import measure
from duodiff.metrics.distances import FrechetTo, gaussian
from duodiff.metrics.exits import step_fit
from duodiff.metrics.features import Extractor
from duodiff.running.parts import Parts
from duodiff.samplers import Step
from duodiff.sampling.generation import to_host
from duodiff.sampling.models import Models
from duodiff.schedules import T, timestep_weights, timesteps
from duodiff.spaces import SHIPPED
from duodiff.switchbench.masks import switched
from duodiff.switchbench.sampling import sample_masks
from duodiff.training.batches import Noiser

CLASSIFIER = "fd_digits"
"""The metric whose shipped classifier is the first feature space."""

_PROFILED = 50  # timesteps of AdaDiff's exits, as in the default's profile
_ERRORS = ("full", "shallow", "between")
_THETA = 0.4  # the quantile of the uncertainties that AdaDiff exits at, one of the default's


class Rulers:
    """Frechet distances to the training images of a packed dataset, in each feature space by name.

    `fd_digits` is the distance of the study: in the features of the shipped classifier. `fd_pixels` is in the pixels
    themselves, in [-1, 1]: nothing was trained for it.
    """

    def __init__(self, data: Path, device: str = "cpu"):
        extract = Extractor(CLASSIFIER, SHIPPED / f"{CLASSIFIER}.safetensors", device)
        self.extractor = extract.name
        self._features: dict[str, Callable[[np.ndarray], Tensor]] = {
            CLASSIFIER: lambda images: extract(images)[0],
            "fd_pixels": lambda images: unit_range(torch.from_numpy(images)).flatten(1).double(),
        }
        train, _ = ImageStore(data).split("train")
        images = np.array(train)  # a copy in memory
        self._to = {
            space: FrechetTo(gaussian(features(images)), device)
            for space, features in self._features.items()
        }

    def __call__(self, images: np.ndarray) -> dict[str, float]:
        """The distances of images uint8 [N, C, H, W], by feature space."""
        return {space: to(self._features[space](images)) for space, to in self._to.items()}


def distances(
    models: Models,
    steps: Sequence[Step],
    masks: Sequence[str],
    rulers: Rulers,
    parts: Parts,
    *,
    name: str,
    images: int,
    batch: int,
    seed: int,
) -> pd.DataFrame:
    """A row for each mask, with its distances of `images` images; `images` is a multiple of the compute batch.

    Finished compute batches are kept in `parts`, under `name`, and so are the finished distances.
    """
    finished = parts.load(name)
    if finished is None:
        batches = []
        for first in range(0, images, batch):
            part = parts.load(f"{name}_{first}")
            if part is None:
                part = {
                    "images": _images(models, steps, masks, first=first, batch=batch, seed=seed)
                }
                parts.save(f"{name}_{first}", part)
            batches.append(part["images"])
        each = [rulers(np.concatenate(of_mask)) for of_mask in zip(*batches, strict=True)]
        finished = {space: np.array([one[space] for one in each]) for space in each[0]}
        parts.save(name, finished)
    return pd.DataFrame({"mask": masks, **finished})


def _images(
    models: Models,
    steps: Sequence[Step],
    masks: Sequence[str],
    *,
    first: int,
    batch: int,
    seed: int,
) -> np.ndarray:
    """The images of a compute batch, uint8 [masks, batch, C, H, W]. Raises ValueError if one is not finite."""
    found = sample_masks(models, steps, masks, first=first, batch=batch, seed=seed)
    copied = torch.stack([to_host(found[mask], truncate=False) for mask in masks])
    if not copied[..., -1].all():
        raise ValueError(f"images {first} to {first + batch - 1} are not finite")
    return copied[..., :-1].reshape(len(masks), batch, *models.shape).numpy()


@torch.inference_mode()
def losses(
    models: Models, held_out: Noiser, ts: Sequence[int], batch: int, seed: int
) -> pd.DataFrame:
    """A row for each t and held-out image: squared errors, each summed over the values of the image.

    `full` and `shallow` are the errors of the two networks, `between` is that of the shallow one against the full one.
    They are the profile's, of the same noise: `seed` is the training's.
    """
    tables = []
    for t in ts:
        one = measure(models, held_out.at_timestep(seed, t), batch, {})
        errors = torch.cat([one["errors"], one["disagreements"][1:]]).double().cpu().numpy()
        summed = dict(zip(_ERRORS, errors * math.prod(models.shape), strict=True))
        tables.append(pd.DataFrame({"t": t, "image": np.arange(errors.shape[1]), **summed}))
    return pd.concat(tables, ignore_index=True)


def displacements(models: Models, steps: Sequence[Step], batch: int, seed: int) -> pd.DataFrame:
    """The Gram matrix of what each step's replacement moves an image by: a row for each pair of steps.

    The shallow network makes the step at t = i alone, and the image moves by d_i from that of the full network, of the
    same noise. `product` is the mean of d_i . d_j over one compute batch.
    """
    n = len(steps)
    alone = [switched(n, 0)[:i] + "s" + switched(n, 0)[i + 1 :] for i in range(n)]
    full = switched(n, 0)
    found = sample_masks(models, steps, [full, *alone], first=0, batch=batch, seed=seed)
    moved = torch.stack([found[mask] - found[full] for mask in alone]).flatten(1).double()
    gram = (moved @ moved.T / batch).cpu().numpy()
    rows = [
        {"i": one.t, "j": other.t, "product": gram[i, j]}
        for i, one in enumerate(steps)
        for j, other in enumerate(steps)
    ]
    return pd.DataFrame(rows)


@torch.inference_mode()
def exit_change(models: Models, held_out: Noiser, batch: int, seed: int) -> dict[str, float]:
    """The t at which AdaDiff's mean exit layer changes, as the best step has it, and the threshold theta.

    The exits are those of the held-out images on the profile's timesteps, at the 0.4 quantile of their uncertainties:
    nothing is sampled.
    """
    ts = timesteps(_PROFILED)
    noised = (held_out.at_timestep(seed, int(t)) for t in ts)
    u = torch.stack(
        [measure(models, one, batch, {})["u"] for one in noised]
    ).cpu()  # [T, layers, N]
    theta = float(np.quantile(u.numpy(), _THETA))
    profile = torch.stack([exit_layers(of_t, theta) for of_t in u]).double().mean(1)
    _, (first,), _ = step_fit(profile[None].numpy(), timestep_weights(ts) / T)
    return {"theta": theta, "change": float(ts[first - 1] + ts[first]) / 2}
