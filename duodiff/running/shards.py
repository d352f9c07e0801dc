"""A long job cut into shards that jobs of their own do side by side (no torch)."""

import math


def shard_range(count: int, batch: int, shard: int, shards: int) -> tuple[int, int]:
    """First and past the last of the images of one shard (0-based) of `shards`, cut between batches.

    Shards differ by at most one batch; where there are more of them than batches some are empty.
    """
    batches = math.ceil(count / batch)
    first, end = (batches * s // shards * batch for s in (shard, shard + 1))
    return min(first, count), min(end, count)


def require_whole(ranges: list[list[int]], count: int) -> None:
    """Raises ValueError unless the `ranges` of shards, in their order, are all of 0..count-1, each once."""
    cuts = [0, *(end for _, end in ranges)]
    if [first for first, _ in ranges] != cuts[:-1] or cuts[-1] != count:
        raise ValueError(f"shards: found images {ranges}; accepted: all from 0 to {count}")
