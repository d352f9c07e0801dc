"""Training batches as a pure function of (seed, step): nothing about the data position is stored."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from duodiff.data.store import to_unit_range
from duodiff.schedules import NoiseSchedule


@dataclass
class Batch:
    """Noised images and what they were made from.

    x_0, x_t, eps: float32 [B, C, H, W]; t: int64 [B]; y: int64 [B], None without classes.
    """

    x_0: Tensor
    x_t: Tensor
    t: Tensor
    eps: Tensor
    y: Tensor | None


class Noiser:
    """Makes batches of noised images from an array of images [N, C, H, W] (uint8) and labels [N]."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        schedule: NoiseSchedule,
        device: str | torch.device = "cpu",
    ):
        self.images, self.labels, self.device = images, labels, device
        ab = torch.from_numpy(schedule.alphas_cumprod)
        self.signal, self.noise = ab.sqrt().float(), (1 - ab).sqrt().float()

    def noised(self, index: np.ndarray, t: np.ndarray, eps: np.ndarray) -> Batch:
        """The batch of images `index` [B] at timesteps `t` [B] with noise `eps` [B, C, H, W]."""
        x_0 = torch.from_numpy(to_unit_range(self.images[index]))
        t, eps = torch.from_numpy(t), torch.from_numpy(eps)
        # x_t = sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps (Eq. 1)
        signal, noise = (coef[t].view(-1, 1, 1, 1) for coef in (self.signal, self.noise))
        x_t = signal * x_0 + noise * eps
        y = None if self.labels is None else torch.from_numpy(self.labels[index])
        moved = (None if v is None else v.to(self.device) for v in (x_0, x_t, t, eps, y))
        return Batch(*moved)

    def at_step(self, seed: int, step: int, batch: int) -> Batch:
        """Batch number `step` (0-based): every epoch visits each image once, in an order of its own."""
        n, steps_t = len(self.images), len(self.signal)
        position = np.arange(step * batch, (step + 1) * batch)
        index = np.empty(batch, np.int64)
        for epoch in np.unique(position // n):
            here = position // n == epoch
            index[here] = _generator(seed, 1, int(epoch)).permutation(n)[position[here] % n]
        rng = _generator(seed, 0, step)
        t = rng.integers(steps_t, size=batch)
        eps = rng.standard_normal((batch, *self.images.shape[1:]), dtype=np.float32)
        return self.noised(index, t, eps)

    def stratified(self, seed: int) -> Batch:
        """Every image once, its t spread evenly over 0..T-1: a fixed batch to validate on."""
        n, steps_t = len(self.images), len(self.signal)
        rng = _generator(seed, 2, 0)
        t = rng.permutation(np.linspace(0, steps_t - 1, n).astype(np.int64))
        eps = rng.standard_normal((n, *self.images.shape[1:]), dtype=np.float32)
        return self.noised(np.arange(n), t, eps)


def _generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, number]))
