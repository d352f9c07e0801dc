"""Cuts a long job into shards, which are jobs that can run side by side (no torch)."""

import math


def shard_range(count: int, batch: int, shard: int, shards: int) -> tuple[int, int]:
    """The range (first, end) of the images of one `shard` (0-based) of `shards`; `end` is excluded.

    The images are cut between batches. Shards differ by at most one batch. Where there are more shards than batches,
    some shards are empty.
    """
    batches = math.ceil(count / batch)
    first, end = (batches * s // shards * batch for s in (shard, shard + 1))
    return min(first, count), min(end, count)


def require_whole(ranges: list[list[int]], count: int) -> None:
    """Raises ValueError unless the `ranges` of all shards, in their order, hold each image 0..count-1 once."""
    cuts = [0, *(end for _, end in ranges)]
    if [first for first, _ in ranges] != cuts[:-1] or cuts[-1] != count:
        raise ValueError(f"shards: found images {ranges}; accepted: all from 0 to {count}")
