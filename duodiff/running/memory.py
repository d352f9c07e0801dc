"""Tells the C library to keep the memory that a process frees."""

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_NEVER, _GROW_BY = 2**31 - 1, 64 << 20


@cache
def keep_freed_memory() -> bool:
    """Makes this process keep the memory that it frees, for later tensors. Returns whether the C library can do so.

    Only glibc can. By default it asks the system for new memory for every large tensor, and returns the memory when the
    tensor is freed. The system then clears each page again, in each layer of each step. This takes up to a fifth of the
    time of training a U-ViT-S/2 at batch 16 on a CPU (docs/benchmarks.md). With this function, the process keeps the
    memory of its peak until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _GROW_BY))
    return all(mallopt(key, value) for key, value in wanted)
