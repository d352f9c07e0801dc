"""Counter-based noise: a pure function of (seed, stream, number, index), whatever the batch, shard, process or device.

Philox 4x64-10 (Salmon et al. 2011, numpy's implementation) is keyed by (seed, stream). Its counter holds the index of
an image or row, and a number such as a training's step. So any range is generated directly, and bit for bit the same. A
CPU takes the integers from numpy. Another device computes the same integers itself, and copies nothing from the host.
"""

import shutil
from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from duodiff.schedules import T

INITIAL = T
"""The stream of x_T; the stream of the noise injected at timestep t is t itself."""

_LABELS = T + 1  # the stream of labels drawn at random

(
    DRAWS,
    NOISE,
    LATENTS,
    HELD_OUT_NOISE,
    HELD_OUT_LATENTS,
    PROFILE_NOISE,
    PROFILE_LATENTS,
    CLASSIFIER,
    AUTOENCODER,
    AUTOENCODER_LATENTS,
) = range(1 << 32, (1 << 32) + 10)
"""The streams of trainings and profiles, which sampling never uses. Their numbers are training steps, or timesteps."""

_NORMALS_PER_COUNT = 8  # one Philox count gives 4 x 64 bits, two 32-bit uniforms make two normals

Integer = int | Tensor
"""An integer, or an int64 scalar on the device. A captured graph is replayed with other values of a tensor alone."""


def integers(
    seed: Integer,
    stream: Integer,
    start: Integer,
    count: int,
    *,
    number: Integer = 0,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Philox's 64-bit integers of the counts start .. start+count-1, int64 [count, 4] on the device.

    They are numpy's, read as signed: those of `Philox(key=[seed, stream], counter=[start, number, 0, 0])`.
    """
    if torch.device(device).type == "cpu":
        bits = _of_numpy(seed, stream, start, count, number)
        return torch.from_numpy(bits.view(np.int64).reshape(count, 4))
    counters = tuple(_scalar(value, device) for value in (seed, stream, start, number))
    return _for_device(device)[0](counters, count)


def normals(
    seed: Integer,
    stream: Integer,
    start: Integer,
    count: int,
    size: int,
    *,
    number: Integer = 0,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Standard normals for the images start .. start+count-1, float32 [count, size] on the device.

    Box-Muller on pairs of 32-bit uniforms: a fixed number of bits per value, which is what makes
    the sequence addressable; the tail is cut at 6.7 standard deviations. Another device agrees with the CPU to 1e-6: it
    takes logarithms and cosines of the same float32 values in float64.
    """
    if torch.device(device).type == "cpu":
        return _of_streams(seed, [stream], start, count, size, number=number)
    each = -(-size // _NORMALS_PER_COUNT)  # counts an image
    counters = tuple(_scalar(value, device) for value in (seed, stream, start, number))
    return _for_device(device)[1](counters, count, size, each)


def image_noise(
    seed: Integer,
    stream: Integer,
    start: Integer,
    count: int,
    shape: tuple[int, ...],
    *,
    number: Integer = 0,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Noise of `stream` for images start .. start+count-1, float32 [count, *shape] on the device (shape: C, H, W)."""
    values = normals(seed, stream, start, count, prod(shape), number=number, device=device)
    return values.reshape(count, *shape)


class Drawn:
    """`drawn(stream)`: the noise of one of `streams` for images start .. start+count-1, as `image_noise` gives it.

    The streams are asked for in their order. A CPU draws small images for several streams at once: one stream at a time
    would cost several times as much, since its caches hold the network's data by then.
    """

    _VALUES = 1 << 18  # normals that are drawn at once, 1 MB

    def __init__(
        self,
        seed: int,
        streams: Sequence[int],
        start: int,
        count: int,
        shape: tuple[int, ...],
        *,
        device: str | torch.device = "cpu",
    ):
        self.seed, self.start, self.count, self.shape = seed, start, count, shape
        self.device = torch.device(device)
        fit = self._VALUES // (count * prod(shape)) if self.device.type == "cpu" else 1
        self._groups = (streams[i : i + max(1, fit)] for i in range(0, len(streams), max(1, fit)))
        self._kept: dict[int, Tensor] = {}

    def __call__(self, stream: int) -> Tensor:
        while stream not in self._kept:
            self._kept = self._drawn(next(self._groups))
        return self._kept[stream]

    def _drawn(self, streams: Sequence[int]) -> dict[int, Tensor]:
        if self.device.type == "cpu":
            values = _of_streams(self.seed, streams, self.start, self.count, prod(self.shape))
            return dict(zip(streams, values.view(-1, self.count, *self.shape), strict=True))
        return {
            stream: image_noise(
                self.seed, stream, self.start, self.count, self.shape, device=self.device
            )
            for stream in streams
        }


def below(bits: Tensor, n: int) -> Tensor:
    """A random number from 0..n-1 for each of Philox's integers, int64 of their shape; n is at most 2^31.

    The upper 32 bits times n, over 2^32: no value is more than n / 2^32 likelier than another.
    """
    return _shifted(_shifted(bits) * n)


def balanced_labels(start: int, count: int, num_classes: int) -> Tensor:
    """Class of the images start .. start+count-1, int64 [count]: the index modulo num_classes."""
    return torch.arange(start, start + count) % num_classes


def labels_in_turn(classes: list[int], start: int, count: int) -> Tensor:
    """Class of the images start .. start+count-1, int64 [count]: the given classes in turn."""
    return torch.tensor(classes)[torch.arange(start, start + count) % len(classes)]


def labels_from_1(seed: int, start: int, count: int, num_classes: int) -> Tensor:
    """Random classes from 1..num_classes-1 for the images start .. start+count-1, int64 [count].

    As the released code drew them (never class 0); a function of (seed, index) alone.
    """
    bits = _of_numpy(seed, _LABELS, start, count, 0)[::4] >> np.uint64(11)  # 53 bits of a count
    return torch.from_numpy((bits * 2.0**-53 * (num_classes - 1)).astype(np.int64) + 1)


# --- the two ways to the same integers


def _of_numpy(
    seed: Integer, stream: Integer, start: Integer, count: int, number: Integer
) -> np.ndarray:
    """The integers of `count` counts, uint64 [4 count]."""
    key = np.array([int(seed), int(stream)], np.uint64)
    counter = np.array([int(start), int(number), 0, 0], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(4 * count)


def _of_streams(
    seed: Integer,
    streams: Sequence[Integer],
    start: Integer,
    count: int,
    size: int,
    *,
    number: Integer = 0,
) -> Tensor:
    """The normals of `normals` on a CPU, of one stream after the other: float32 [streams x count, size]."""
    each = -(-size // _NORMALS_PER_COUNT)  # counts an image
    bits = np.stack([_of_numpy(seed, s, int(start) * each, count * each, number) for s in streams])
    u = torch.from_numpy(bits.view(np.uint32).astype(np.float32))
    return _box_muller(u, len(streams) * count, size, torch.float32)


_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


def _philox(
    seed: Tensor, stream: Tensor, start: Tensor, number: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four integers of each count, int64 [count], by wrapping arithmetic on the device of the int64 scalars."""
    first = start + 1  # numpy raises its counter before it draws
    a = first + torch.arange(count, device=start.device)
    b = number + torch.zeros_like(a)
    c, d = torch.zeros_like(a), torch.zeros_like(a)
    for i in range(_ROUNDS):
        high_a, low_a = _product(a, _MULTIPLIERS[0])
        high_c, low_c = _product(c, _MULTIPLIERS[1])
        key_0, key_1 = seed + _signed(i * _KEY_STEPS[0]), stream + _signed(i * _KEY_STEPS[1])
        a, b, c, d = high_c ^ b ^ key_0, low_c, high_a ^ d ^ key_1, low_a
    return a, b, c, d


def _product(x: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Upper and lower 64 bits of an unsigned product, from the products of 32-bit halves."""
    high, low = _shifted(x), x & _LOW
    by_high, by_low = by >> 32, by & _LOW
    middle = high * by_low + _shifted(low * by_low)
    other = low * by_high + (middle & _LOW)
    return high * by_high + _shifted(middle) + _shifted(other), x * _signed(by)


def _shifted(x: Tensor) -> Tensor:
    """x >> 32 of int64 values that stand for unsigned ones."""
    return (x >> 32) & _LOW


def _signed(value: int) -> int:
    """The 64-bit integer of the same bits, from -2^63 on."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _scalar(value: Integer, device: str | torch.device) -> Tensor:
    """The integer as an int64 scalar on the device, filled there: nothing is copied from the host."""
    if isinstance(value, Tensor):
        return value
    return torch.full((), _signed(value), dtype=torch.int64, device=device)


# --- normals


def _integers(counters: tuple[Tensor, ...], count: int) -> Tensor:
    """The integers of `integers`; `counters` are seed, stream, start and number as scalars on the device."""
    seed, stream, start, number = counters
    return torch.stack(_philox(seed, stream, start, number, count), dim=1)


def _normals(counters: tuple[Tensor, ...], count: int, size: int, each: int) -> Tensor:
    """The normals of `normals`, from `each` counts an image; `counters` as in `_integers`."""
    seed, stream, start, number = counters
    words = _philox(seed, stream, start * each, number, count * each)
    # as numpy's view of 32-bit integers: the lower half of each word first
    halves = [half.float() for word in words for half in (word & _LOW, _shifted(word))]
    return _box_muller(torch.stack(halves, dim=1), count, size, torch.float64)


def _box_muller(u: Tensor, count: int, size: int, dtype: torch.dtype) -> Tensor:
    """Normals [count, size], computed in dtype from 32-bit integers (float32), of which an image may leave some."""
    u = u.reshape(count, 2, -1)  # [count, 2, size/2 padded]
    radius = u[:, 0].add(0.5).mul(2.0**-32).to(dtype).log().mul(-2.0).sqrt()
    angle = u[:, 1].mul(2.0 * np.pi * 2.0**-32).to(dtype)
    pairs = [(radius * angle.cos()).float(), (radius * angle.sin()).float()]
    return torch.cat(pairs, dim=1)[:, :size]


def _for_device(device: str | torch.device) -> tuple:
    """`_integers` and `_normals` as the device computes them: a GPU with a compiler in two kernels."""
    fuses = torch.device(device).type == "cuda" and _has_compiler()
    return _fused() if fuses else (_integers, _normals)


@lru_cache
def _fused() -> tuple:
    """Both as kernels of torch.compile. Operation by operation, 330 of them would each read and write memory."""
    return tuple(torch.compile(f, dynamic=True, fullgraph=True) for f in (_integers, _normals))


def _has_compiler() -> bool:
    """Whether torch.compile finds what it needs for a GPU: Triton, and a C compiler for its launcher."""
    from torch.utils._triton import has_triton

    return any(map(shutil.which, ("cc", "gcc", "clang"))) and has_triton()
