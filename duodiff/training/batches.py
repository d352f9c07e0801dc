"""Training batches as a pure function of (seed, step): nothing about the data position is stored.

They are made on the device of the network, by `duodiff.noise`. The host only queues the work: nothing here waits.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duodiff import noise
from duodiff.data.rows import Rows, mirrored, unit_range
from duodiff.schedules import NoiseSchedule, prediction_coefficients
from duodiff.transfer import moved


@dataclass
class Batch:
    """Noised images and what they were made from.

    x_0, x_t, eps and target (what the network is to predict): float32 [B, C, H, W]; t: int64 [B]; y:
    int64 [B], None without classes. This is one of `parts` equal parts of a training batch. Losses and gradients are
    averaged over the parts, so a loss that sums over the batch multiplies its sum by `parts`.
    """

    x_0: Tensor
    x_t: Tensor
    t: Tensor
    eps: Tensor
    target: Tensor
    y: Tensor | None
    parts: int = 1

    def __len__(self) -> int:
        return len(self.t)

    def chunks(self, size: int) -> Iterator["Batch"]:
        """The batch in parts of `size` images, the last one smaller."""
        for first in range(0, len(self), size):
            named = {field.name: getattr(self, field.name) for field in fields(self)}
            tensors: dict[str, Any] = {
                k: v[first : first + size] for k, v in named.items() if torch.is_tensor(v)
            }
            yield replace(self, **tensors)


class Noiser:
    """Makes batches of noised images from packed images, or of noised latents from packed moments.

    `images` is uint8 [N, C, H, W], or float moments [N, F, 2C, H, W] (mean and log-variance; F = 2 holds
    those of the mirrored images too) whose samples are multiplied by `scale`; `labels` int64 [N] or None.
    `flips` mirrors half of the training images, `label_dropout` is the share of training labels replaced
    by `null_class`.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        schedule: NoiseSchedule,
        device: str | torch.device = "cpu",
        prediction: str = "noise",
        *,
        scale: float = 1.0,
        flips: bool = False,
        label_dropout: float = 0.0,
        null_class: int | None = None,
    ):
        self.device, self.scale = torch.device(device), scale
        self.images = Rows(images, device)
        self.labels = None if labels is None else Rows(labels, device, beside=self.images)
        self.flips, self.label_dropout, self.null_class = flips, label_dropout, null_class
        self.latent = images.dtype != np.uint8
        *_, channels, height, width = images.shape
        self.shape = (channels // 2 if self.latent else channels, height, width)
        ab = torch.from_numpy(schedule.alphas_cumprod)
        a, b, *_ = prediction_coefficients(prediction, schedule)
        coefficients = (ab.sqrt(), (1 - ab).sqrt(), torch.from_numpy(a), torch.from_numpy(b))
        self.signal, self.noise, self.target_eps, self.target_x_0 = (
            c.float().to(device) for c in coefficients
        )

    def __len__(self) -> int:
        return len(self.images)

    def at_step(self, seed: int, step: int, batch: int, rows: slice | None = None) -> Batch:
        """Batch number `step` (0-based): every epoch visits each image once, in an order of its own.

        `rows` selects one of several equal parts of the batch. A part has the same values as in the whole batch.
        """
        rows = rows or slice(0, batch)
        first, count = rows.start, rows.stop - rows.start
        here = self.images.index_device
        index = _visited(seed, step * batch + first, count, len(self), here)
        drawn: dict[str, Any] = {"number": step, "device": self.device}
        bits = noise.integers(seed, noise.DRAWS, first, count, **drawn)
        flip, z = None, None
        if self.flips:
            where = (
                here if self.latent else self.device
            )  # views of latents are chosen where they lie
            there = noise.integers(seed, noise.DRAWS, first, count, **drawn | {"device": where})
            flip = noise.below(there[:, 1], 2) == 1
        y = None if self.labels is None else self.labels(index)
        if y is not None and self.null_class is not None and self.label_dropout:
            dropped = noise.below(bits[:, 2], _PARTS) < round(self.label_dropout * _PARTS)
            y = torch.where(dropped, self.null_class, y)
        if self.latent:
            z = noise.image_noise(seed, noise.LATENTS, first, count, self.shape, **drawn)
        part = self.noised(
            index,
            noise.below(bits[:, 0], len(self.signal)),
            noise.image_noise(seed, noise.NOISE, first, count, self.shape, **drawn),
            z,
            flip=flip,
            y=y,
        )
        return replace(part, parts=batch // count)

    def stratified(self, seed: int) -> Batch:
        """Every image once, its t spread evenly over 0..T-1: a fixed batch to validate on."""
        n, steps_t = len(self), len(self.signal)
        t = np.linspace(0, steps_t - 1, n).astype(np.int64)
        shuffled = torch.from_numpy(_generator(seed, 2, 0).permutation(t))
        return self._all(seed, 0, moved(shuffled, self.device), noise.HELD_OUT_NOISE)

    def at_timestep(self, seed: int, t: int) -> Batch:
        """Every image once, at the timestep t, with noise of its own for each t."""
        every = torch.full((len(self),), t, device=self.device)
        return self._all(seed, t, every, noise.PROFILE_NOISE)

    def _all(self, seed: int, number: int, t: Tensor, stream: int) -> Batch:
        """Every image at its timestep t [N]; the latents' stream follows the `stream` of the noise."""
        drawn: dict[str, Any] = {"number": number, "device": self.device}
        index = torch.arange(len(self), device=self.images.index_device)
        eps = noise.image_noise(seed, stream, 0, len(self), self.shape, **drawn)
        z = None
        if self.latent:
            z = noise.image_noise(seed, stream + 1, 0, len(self), self.shape, **drawn)
        return self.noised(index, t, eps, z)

    def noised(
        self,
        index: Tensor,
        t: Tensor,
        eps: Tensor,
        z: Tensor | None = None,
        *,
        flip: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Batch:
        """The batch of images `index` [B] at timesteps `t` [B] with noise `eps` [B, C, H, W].

        Latents are their mean plus their standard deviation times `z`, like eps. Images are mirrored where `flip` [B].
        `index`, and `flip` of latents, lie on `images.index_device`. The labels are `y` [B], or the images' own.
        """
        x_0 = self._clean(index, z, flip)
        # x_t = sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps (Eq. 1)
        x_t = _at(self.signal, t) * x_0 + _at(self.noise, t) * eps
        target = _at(self.target_eps, t) * eps + _at(self.target_x_0, t) * x_0
        if y is None and self.labels is not None:
            y = self.labels(index)
        return Batch(x_0, x_t, t, eps, target, y=y)

    def _clean(self, index: Tensor, z: Tensor | None, flip: Tensor | None) -> Tensor:
        """x_0 of the images, float32 [B, C, H, W]."""
        if not self.latent:
            images = self.images(index)
            return unit_range(images if flip is None else mirrored(images, flip))
        assert z is not None  # latents are drawn
        view = torch.zeros_like(index) if flip is None else flip.long()
        mean, log_variance = self.images(index, view).float().chunk(2, dim=1)
        return self.scale * (mean + (0.5 * log_variance).exp() * z)


_PARTS = 1 << 30
"""A share is a number of these parts: below 2^31, so that integers decide alike on every device."""


def _at(coefficients: Tensor, t: Tensor) -> Tensor:
    return coefficients[t].view(-1, 1, 1, 1)


def _visited(seed: int, first: int, count: int, n: int, device: torch.device) -> Tensor:
    """The images [count] visited from position `first` on, by epoch after epoch of n images each."""
    parts = []
    while count:
        epoch, at = divmod(first, n)
        part = _order(seed, epoch, n, device)[at : at + count]
        parts.append(part)
        first, count = first + len(part), count - len(part)
    return torch.cat(parts)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int, device: torch.device) -> Tensor:
    """The order in which an epoch visits n images; kept, since every step of the epoch asks for it."""
    return moved(torch.from_numpy(_generator(seed, 1, epoch).permutation(n)), device)


def _generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, number]))
