"""What would grow with the number of images, kept in temporary files that vanish with their owner.

They are read and written, not mapped: the pages of a mapped file count as the memory of the process.
"""

import os
import sqlite3
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from duodiff.running.files import naming_full_disk

_BLOCK = 1024  # numbers in memory at a time
_BYTES = array("q").itemsize


def database() -> sqlite3.Connection:
    """An empty database in a file of its own, half a MB of it in memory."""
    connection = sqlite3.connect("")
    connection.execute("PRAGMA cache_size = -512")  # KiB; it would take 2 MB
    return connection


class Numbers:
    """A sequence of int64 on disk."""

    def __init__(self, numbers: Iterable[int]):
        """Raises OSError naming the folder of temporary files if its disk is full."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, open as long as the sequence lives
        self._len, numbers = 0, iter(numbers)
        with naming_full_disk(tempfile.gettempdir()):
            while block := array("q", islice(numbers, _BLOCK)):
                self._file.write(block)
                self._len += len(block)
            self._file.flush()

    def __del__(self):
        self._file.close()

    def __len__(self) -> int:
        return self._len

    def __getitem__(self, i: int) -> int:
        return next(self._block(i, 1))

    def __setitem__(self, i: int, number: int) -> None:
        os.pwrite(self._file.fileno(), array("q", [number]), i * _BYTES)

    def __iter__(self) -> Iterator[int]:
        for first in range(0, self._len, _BLOCK):
            yield from self._block(first, _BLOCK)

    def _block(self, first: int, most: int) -> Iterator[int]:
        return iter(array("q", os.pread(self._file.fileno(), most * _BYTES, first * _BYTES)))


def permutation(n: int, seed: int) -> Numbers:
    """0 to n - 1 in the order of `np.random.default_rng(seed).permutation(n)`, which holds them in memory.

    Its Fisher-Yates shuffle: every place, from the last one down, swaps with a random one up to itself,
    the first of the random words that is, cut to the bits such a place takes, no larger.
    """
    order, words = Numbers(range(n)), _words(seed)
    for i in range(n - 1, 0, -1):
        mask = (1 << i.bit_length()) - 1
        j = next(word & mask for word in words if word & mask <= i)
        order[i], order[j] = order[j], order[i]
    return order


def _words(seed: int) -> Iterator[int]:
    """Random words of 32 bits, without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.integers(0, 1 << 32, _BLOCK, np.uint32).tolist()
