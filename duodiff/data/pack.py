"""Any dataset to one packed store, shuffled once and split into training and held-out images.

Images are decoded by several processes, a chunk at a time, and written in order: the memory in use does
not grow with the dataset, and the store does not depend on the workers.
"""

import logging
import math
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from duodiff.data.decode import Decoded, decode_all
from duodiff.data.families import family
from duodiff.data.source import Source
from duodiff.data.store import append_images, finish_store
from duodiff.files import atomic, remove_leftovers, require_space

log = logging.getLogger("duodiff")

_CHUNK = 64  # images a task: enough to hide the cost of sending it
_AHEAD = 4  # chunks in flight for each worker
_NAMES = 20  # skipped images named in the manifest, of each kind


def pack(dataset: dict, data: Path, workers: int, manifest: Path) -> dict:
    """Manifest of `dataset` (an entry of the configuration) packed into the store at `manifest`.

    `data` is the folder its `path` is under, `workers` the number of decoding processes (1: this one).
    Training images come first, in a fixed random order, `subset` of them if given; the `held_out` ones
    after them are never trained on. Images skipped (`duodiff.data.decode`) leave no holes, and are
    named in the manifest and the log. Raises ValueError for values it cannot use or if too few images
    are left, FileNotFoundError for files that are missing.
    """
    if workers < 1:
        raise ValueError(f"workers: found {workers}; accepted: 1 or more")
    source = family(dataset).read(dataset, data)
    train, held_out = _order(source, dataset["held_out"], dataset.get("subset"))
    order, tally = np.concatenate([train, held_out]), _Tally()
    remove_leftovers(manifest.parent)
    require_space(manifest.parent, len(order) * math.prod(_shape(source)), "packing")
    with atomic(manifest.parent / "images.npy") as file:
        with tqdm(total=len(order), desc="pack", unit="image", disable=None) as bar:
            pixels = tally.kept(_decoded(source, order, workers), bar)
            append_images(file, _shape(source), pixels)
        kept = np.array(tally.positions, np.int64)
        skipped = tally.skipped(source, order)
        for reason, found in skipped.items():
            log.warning("%d skipped as %s: %s", found["count"], reason, ", ".join(found["names"]))
        splits = _splits(kept, len(train), len(held_out), source.test is not None)
    return finish_store(
        manifest,
        source.labels[order[kept]],
        {
            "source": dataset["source"],
            "num_classes": len(source.class_names) or -1,
            "class_names": source.class_names,
            "transform": source.transform.describe() if source.transform else "none",
            "splits": splits,
            "converted": dict(sorted(tally.converted.items())),
            "skipped": skipped,
            **source.details,
        },
    )


def _order(source: Source, held_out: int, subset: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on and of those to hold out, shuffled (seed 0)."""
    order = np.random.default_rng(0).permutation(len(source.labels))
    if source.test is None:
        _check("held_out", held_out, len(order) - 1)
        train, held = np.split(order, [len(order) - held_out])
    else:
        train, held = order[~source.test[order]], order[source.test[order]]
        _check("held_out", held_out, len(held))
        held = held[:held_out]
    if subset is not None:
        _check("subset", subset, len(train))
        train = train[:subset]
    return train, held


def _check(key: str, found: int, most: int) -> None:
    if not 1 <= found <= most:
        raise ValueError(f"dataset.{key}: found {found}; accepted: 1 to {most}")


def _shape(source: Source) -> tuple[int, int, int]:
    return source.transform.shape if source.transform else source.images.shape[1:]


def _decoded(source: Source, order: np.ndarray, workers: int) -> Iterator[Decoded]:
    """The images of `order`, in that order."""
    if source.transform is None:
        yield from (Decoded(source.images[i]) for i in order)
        return
    chunks = (order[i : i + _CHUNK] for i in range(0, len(order), _CHUNK))
    tasks = (([source.images[i] for i in chunk], source.transform) for chunk in chunks)
    if workers == 1:
        for task in tasks:
            yield from decode_all(*task)
        return
    # Spawned, as a fork of a process with threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = deque()
        for task in tasks:
            waiting.append(pool.submit(decode_all, *task))
            if len(waiting) == _AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


class _Tally:
    """What became of the images of an order, by their position in it."""

    def __init__(self):
        self.positions = array("q")  # of those kept
        self.converted: Counter = Counter()
        self._skipped: dict[str, list[int]] = {}

    def kept(self, decoded: Iterable[Decoded], bar: tqdm) -> Iterator[np.ndarray]:
        """The pixels of those not skipped; all are counted."""
        for position, image in enumerate(decoded):
            bar.update()
            if image.skipped is not None:
                self._skipped.setdefault(image.skipped, []).append(position)
                continue
            self.positions.append(position)
            self.converted.update(image.converted)
            yield image.pixels

    def skipped(self, source: Source, order: np.ndarray) -> dict[str, dict]:
        """For each reason the count and the first names."""
        return {
            reason: {
                "count": len(positions),
                "names": [source.images[order[p]].name for p in positions[:_NAMES]],
            }
            for reason, positions in sorted(self._skipped.items())
        }


def _splits(kept: np.ndarray, train: int, held_out: int, separate: bool) -> dict[str, list[int]]:
    """[first, past the last] of the training and of the held-out images among those kept.

    The held-out ones stay as many as asked for: where both come from one pool (not `separate`) training
    images take the place of skipped ones. Raises ValueError if too few are left.
    """
    first = int((kept < train).sum()) if separate else len(kept) - held_out
    if first < 1 or len(kept) - first < held_out:
        where = f", {len(kept) - first} of them to hold out" if separate else ""
        raise ValueError(
            f"dataset.held_out: found {held_out}, but only {len(kept)} of {train + held_out} images are"
            f" usable{where}"
        )
    return {"train": [0, first], "held_out": [first, len(kept)]}
