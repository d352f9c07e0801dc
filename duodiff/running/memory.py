"""What the C library does with the memory that a process frees."""

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_NEVER, _GROW_BY = 2**31 - 1, 64 << 20


@cache
def keep_freed_memory() -> bool:
    """Has this process keep what it frees for what it needs next; whether the C library can be told to (glibc's can).

    By default glibc maps every large tensor anew and gives it back when it is freed. The system then clears each page
    of it again, in each layer of each step: up to a fifth of the time of training a U-ViT-S/2 at batch 16 on a CPU
    (docs/benchmarks.md). What a process has at its peak it keeps until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _GROW_BY))
    return all(mallopt(key, value) for key, value in wanted)
