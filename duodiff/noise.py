"""Counter-based noise: a pure function of (seed, stream, image index), whatever the batch or shard.

Philox 4x64 (Salmon et al. 2011, numpy's implementation) is keyed by (seed, stream) and its counter
is set by the global image index, so any range of images is generated directly and bit for bit the
same. Normals are drawn on the CPU and moved to the device, so CPU and GPU runs see the same noise.
"""

import numpy as np
import torch

from duodiff.schedules import T

INITIAL = T
"""The stream of x_T; the stream of the noise injected at timestep t is t itself."""

_LABELS = T + 1  # the stream of labels drawn at random

_NORMALS_PER_COUNT = 8  # one Philox count gives 4 x 64 bits, two 32-bit uniforms make two normals


def normals(seed: int, stream: int, start: int, count: int, size: int) -> torch.Tensor:
    """Standard normals for the images start .. start+count-1, float32 [count, size].

    Box-Muller on pairs of 32-bit uniforms: a fixed number of bits per value, which is what makes
    the sequence addressable; the tail is cut at 6.7 standard deviations.
    """
    counts_per_image = -(-size // _NORMALS_PER_COUNT)
    philox = np.random.Philox(counter=start * counts_per_image, key=[seed, stream])
    bits = philox.random_raw(count * counts_per_image * 4).view(np.uint32)
    u = torch.from_numpy(bits.reshape(count, 2, -1).astype(np.float32))  # [count, 2, size/2 padded]
    radius = u[:, 0].add_(0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
    angle = u[:, 1].mul_(2.0 * np.pi * 2.0**-32)
    return torch.cat([radius * angle.cos(), radius * angle.sin_()], dim=1)[:, :size]


def image_noise(seed: int, stream: int, start: int, count: int, shape: tuple) -> torch.Tensor:
    """Noise of `stream` for images start .. start+count-1, float32 [count, *shape] (shape: C, H, W)."""
    return normals(seed, stream, start, count, int(np.prod(shape))).reshape(count, *shape)


def balanced_labels(start: int, count: int, num_classes: int) -> torch.Tensor:
    """Class of the images start .. start+count-1, int64 [count]: the index modulo num_classes."""
    return torch.arange(start, start + count) % num_classes


def labels_in_turn(classes: list[int], start: int, count: int) -> torch.Tensor:
    """Class of the images start .. start+count-1, int64 [count]: the given classes in turn."""
    return torch.tensor(classes)[torch.arange(start, start + count) % len(classes)]


def labels_from_1(seed: int, start: int, count: int, num_classes: int) -> torch.Tensor:
    """Random classes from 1..num_classes-1 for the images start .. start+count-1, int64 [count].

    As the released code drew them (never class 0); a function of (seed, index) alone.
    """
    philox = np.random.Philox(counter=start, key=[seed, _LABELS])
    bits = philox.random_raw(count * 4)[::4] >> np.uint64(11)  # one count an image, 53 bits of it
    return torch.from_numpy((bits * 2.0**-53 * (num_classes - 1)).astype(np.int64) + 1)
