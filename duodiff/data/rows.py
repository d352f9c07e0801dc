"""Rows of an array, gathered on the device of the network if the array fits there, and else on the host."""

import numpy as np
import torch
from torch import Tensor

from duodiff.transfer import moved

SHARE = 3
"""An array is kept on a GPU if it takes at most this part, 1 / SHARE, of the memory that is free there."""

_PART = 1 << 26  # bytes copied to a device at once


class Rows:
    """`rows(index)`: rows [B, ...] of an array at int64 `index` [B], on the device; `rows(i, j)`: array[i, j].

    `index_device` is where an index is to lie. `beside` is an array whose rows are wanted by the same index: both are
    then kept at one place. No call waits for the device. Rows from the host go over pinned memory.
    """

    def __init__(self, array: np.ndarray, device: str | torch.device, beside: "Rows | None" = None):
        self.device = torch.device(device)
        where = self.device if _fits(array.nbytes, self.device) else torch.device("cpu")
        self.index_device: torch.device = beside.index_device if beside else where
        # a CPU reads the array where it is: a memory map stays one, and two jobs share it
        self.array = array if self.index_device.type == "cpu" else _copied(array, self.device)

    def __len__(self) -> int:
        return len(self.array)

    def __call__(self, *index: Tensor) -> Tensor:
        if isinstance(self.array, Tensor):
            return self.array[index]
        return moved(torch.from_numpy(self.array[tuple(i.numpy() for i in index)]), self.device)


def mirrored(images: Tensor, which: Tensor) -> Tensor:
    """Images [B, C, H, W], those mirrored whose `which` (bool [B]) is true."""
    return torch.where(which[:, None, None, None], images.flip(-1), images)


def unit_range(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1], the range that every network is fed."""
    return images.float() / 127.5 - 1


def _fits(size: int, device: torch.device) -> bool:
    """Whether an array of `size` bytes is kept on the device."""
    return device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] // SHARE


def _copied(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device. The host never holds more than a part of it beside the memory map."""
    there = torch.empty(array.shape, dtype=torch.from_numpy(array[:0].copy()).dtype, device=device)
    each = max(1, _PART // max(1, array[:1].nbytes))
    for first in range(0, len(array), each):
        there[first : first + each] = torch.from_numpy(np.array(array[first : first + each]))
    return there
