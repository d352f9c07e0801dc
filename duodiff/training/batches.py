"""Training batches as a pure function of (seed, step): nothing about the data position is stored."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duodiff.data.store import to_unit_range
from duodiff.schedules import NoiseSchedule, prediction_coefficients


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
        self.images, self.labels, self.device, self.scale = images, labels, device, scale
        self.flips, self.label_dropout, self.null_class = flips, label_dropout, null_class
        self.latent = images.dtype != np.uint8
        *_, channels, height, width = images.shape
        self.shape = (channels // 2 if self.latent else channels, height, width)
        ab = torch.from_numpy(schedule.alphas_cumprod)
        self.signal, self.noise = ab.sqrt().float(), (1 - ab).sqrt().float()
        a, b, *_ = prediction_coefficients(prediction, schedule)
        self.target_eps, self.target_x_0 = (torch.from_numpy(c).float() for c in (a, b))

    def __len__(self) -> int:
        return len(self.images)

    def clean(
        self, index: np.ndarray, flip: np.ndarray, rng: np.random.Generator, before: int = 0
    ) -> np.ndarray:
        """x_0 of the images `index` [B], mirrored where `flip` [B], float32 [B, C, H, W].

        Latents are drawn anew from their moments with `rng`, after those of `before` other images.
        """
        if not self.latent:
            x_0 = to_unit_range(self.images[index])
            x_0[flip] = x_0[flip][..., ::-1]
            return x_0
        mean, log_variance = np.split(
            self.images[index, flip.astype(np.int64)].astype(np.float32), 2, axis=1
        )
        z = _normals(rng, before, before + len(index), self.shape)
        return self.scale * (mean + np.exp(0.5 * log_variance) * z)

    def noised(
        self,
        index: np.ndarray,
        t: np.ndarray,
        eps: np.ndarray,
        rng: np.random.Generator,
        flip: np.ndarray | None = None,
        *,
        y: np.ndarray | None = None,
        before: int = 0,
    ) -> Batch:
        """The batch of images `index` [B] at timesteps `t` [B] with noise `eps` [B, C, H, W]."""
        flip = np.zeros(len(index), bool) if flip is None else flip
        clean, noise = torch.from_numpy(self.clean(index, flip, rng, before)), torch.from_numpy(eps)
        at = torch.from_numpy(t)
        # x_t = sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps (Eq. 1)
        x_t = _at(self.signal, at) * clean + _at(self.noise, at) * noise
        target = _at(self.target_eps, at) * noise + _at(self.target_x_0, at) * clean
        if y is None and self.labels is not None:
            y = self.labels[index]
        x_0, x_t, at, noise, target = (v.to(self.device) for v in (clean, x_t, at, noise, target))
        labels = None if y is None else torch.from_numpy(np.array(y)).to(self.device)
        return Batch(x_0, x_t, at, noise, target, y=labels)

    def at_step(self, seed: int, step: int, batch: int, rows: slice | None = None) -> Batch:
        """Batch number `step` (0-based): every epoch visits each image once, in an order of its own.

        `rows` selects one of several equal parts of the batch. A part has the same values as in the whole batch.
        """
        rows = rows or slice(0, batch)
        n, steps_t = len(self), len(self.signal)
        position = np.arange(step * batch, (step + 1) * batch)
        index = np.empty(batch, np.int64)
        for epoch in np.unique(position // n):
            here = position // n == epoch
            index[here] = _order(seed, int(epoch), n)[position[here] % n]
        rng = _generator(seed, 0, step)
        t = rng.integers(steps_t, size=batch)
        eps = _normals(rng, rows.start, rows.stop, self.shape)
        flip = self.flips & (_generator(seed, 3, step).random(batch) < 0.5)
        y = None if self.labels is None else self.labels[index]
        if y is not None and self.null_class is not None and self.label_dropout:
            dropped = _generator(seed, 4, step).random(batch) < self.label_dropout
            y = np.where(dropped, self.null_class, y)
        part = self.noised(
            index[rows],
            t[rows],
            eps,
            _generator(seed, 5, step),
            flip[rows],
            y=None if y is None else y[rows],
            before=rows.start,
        )
        return replace(part, parts=batch // len(part))

    def stratified(self, seed: int) -> Batch:
        """Every image once, its t spread evenly over 0..T-1: a fixed batch to validate on."""
        n, steps_t = len(self), len(self.signal)
        rng = _generator(seed, 2, 0)
        t = rng.permutation(np.linspace(0, steps_t - 1, n).astype(np.int64))
        eps = rng.standard_normal((n, *self.shape), dtype=np.float32)
        return self.noised(np.arange(n), t, eps, _generator(seed, 6, 0))


def _normals(rng: np.random.Generator, start: int, stop: int, shape: tuple) -> np.ndarray:
    """Rows `start` to `stop` of what `rng` draws for a batch, float32 [stop - start, *shape]."""
    return rng.standard_normal((stop, *shape), dtype=np.float32)[start:]


def _at(coefficients: Tensor, t: Tensor) -> Tensor:
    return coefficients[t].view(-1, 1, 1, 1)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which an epoch visits n images; kept, since every step of the epoch asks for it."""
    return _generator(seed, 1, epoch).permutation(n)


def _generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, number]))
