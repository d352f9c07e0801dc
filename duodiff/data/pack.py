"""Any dataset to one packed store, shuffled once and split into training and held-out images.

Several processes decode the images, a chunk at a time. Images are written in order, each with its label. So no image
stays in memory, and the store does not depend on the number of processes.
"""

import logging
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from duodiff.data.decode import Decoded, decode_all
from duodiff.data.families import family
from duodiff.data.source import Skipped, Source, some_of
from duodiff.data.store import finish_store, new_arrays, write_arrays
from duodiff.running.files import remove_leftovers, require_space

log = logging.getLogger("duodiff")

_CHUNK = 64  # images a task: enough to hide the cost of sending it
_AHEAD = 4  # chunks in flight for each worker


def pack(dataset: dict, data: Path, workers: int, manifest: Path) -> dict:
    """Manifest of `dataset` (an entry of the configuration) packed into the store at `manifest`.

    `data` is the folder that the dataset's `path` is under, `workers` the number of decoding processes (1: this one).
    Training images come first, in a fixed random order: all, or as many as `subset` says. The `held_out` images follow;
    they are never trained on. Skipped images (`duodiff.data.decode`) leave no holes; manifest and log name them. Raises
    ValueError for a value out of range or if too few images are left, FileNotFoundError for a missing file.
    """
    if workers < 1:
        raise ValueError(f"workers: found {workers}; accepted: 1 or more")
    source = family(dataset).read(dataset, data)
    order, train = _order(source, dataset["held_out"], dataset.get("subset"))
    tally = _Tally(source, order, train, dataset["held_out"])
    remove_leftovers(manifest.parent)
    packed = train + dataset["held_out"]
    require_space(manifest.parent, packed * math.prod(_shape(source)), "packing")
    with new_arrays(manifest.parent) as files:
        with tqdm(total=packed, desc="pack", unit="image", disable=None) as bar:
            write_arrays(*files, _shape(source), tally.kept(_decoded(source, order, workers), bar))
        for line in tally.skipped.lines():
            log.warning("%s", line)
        splits = tally.splits()
    _warn_of_untrained(manifest.parent / "labels.npy", splits["train"], source.class_names)
    return finish_store(
        manifest,
        {
            "source": dataset["source"],
            "num_classes": len(source.class_names) or -1,
            "class_names": source.class_names,
            "transform": source.transform.describe() if source.transform else "none",
            "splits": splits,
            "converted": dict(sorted(tally.converted.items())),
            "skipped": tally.skipped.as_dict(),
            **source.details,
            **({} if source.unused is None else {"unused": source.unused + tally.unseen}),
        },
    )


def _order(source: Source, held_out: int, subset: int | None) -> tuple[np.ndarray, int]:
    """Indices (int64) of the images to train on, then of those to hold out; and how many to train on.

    Both parts are shuffled. If the source marks test images, all of them follow: the first usable ones are held out.
    """
    n = len(source.labels)
    if n < 2:
        raise ValueError(
            f"found {n} image; accepted: 2 or more, one to train on and one to hold out"
        )
    most = n - 1 if source.test is None else int(source.test.sum())
    _check("held_out", held_out, most)
    train = n - (held_out if source.test is None else most)
    if subset is not None:
        _check("subset", subset, train)
    shuffled = np.random.default_rng(0).permutation(n)
    to_hold_out = np.arange(n) >= train if source.test is None else source.test[shuffled]
    training = shuffled[~to_hold_out][:subset]
    return np.concatenate([training, shuffled[to_hold_out]]), len(training)


def _warn_of_untrained(labels: Path, train: list[int], class_names: list[str]) -> None:
    """Warns of classes without an image among the training images, whose places in the file of labels are `train`."""
    trained = set(np.load(labels, mmap_mode="r")[slice(*train)].tolist())
    names = [name for i, name in enumerate(class_names) if i not in trained]
    if names:
        where = f"{len(names)} of {len(class_names)} classes: {some_of(names)}"
        log.warning("no image to train on in %s", where)


def _check(key: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise ValueError(f"dataset.{key}: found {value}; accepted: 1 to {most}")


def _shape(source: Source) -> tuple[int, int, int]:
    """C, H, W of the packed images."""
    if source.transform:
        return source.transform.shape
    assert isinstance(source.images, np.ndarray)
    return source.images.shape[1:]


def _decoded(source: Source, order: np.ndarray, workers: int) -> Iterator[Decoded]:
    """The images at the indices in `order`, decoded, in the same order."""
    images, transform = source.images, source.transform
    if transform is None or isinstance(images, np.ndarray):
        yield from (Decoded(np.asarray(images[i])) for i in order)
        return
    members = (images[i] for i in order)
    chunks = iter(lambda: list(islice(members, _CHUNK)), [])
    tasks = ((chunk, transform) for chunk in chunks)
    if workers == 1:
        for task in tasks:
            yield from decode_all(*task)
        return
    # Spawned: a forked process may hang if there are threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[list[Decoded]]] = deque()
        for task in tasks:
            waiting.append(pool.submit(decode_all, *task))
            if len(waiting) == _AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


class _Tally:
    """Counts what becomes of the images of `order`; the first `train` of them are to be trained on.

    Of the others `held_out` are packed.
    """

    def __init__(self, source: Source, order: np.ndarray, train: int, held_out: int):
        self._source, self._order, self._train, self._held_out = source, order, train, held_out
        self._usable = [0, 0]  # to train on, to hold out
        self.unseen = len(source.labels)
        self.converted: Counter = Counter()
        self.skipped = Skipped(source.skipped.as_dict())

    def kept(self, decoded: Iterable[Decoded], bar: tqdm) -> Iterator[tuple[np.ndarray, int]]:
        """Pixels and label of each image that was not skipped, until there are enough. Every image is counted."""
        for position, (i, image) in enumerate(zip(self._order, decoded, strict=True)):
            bar.update()
            self.unseen -= 1
            if image.skipped is not None:
                self.skipped.add(image.skipped, self._source.images[i].name)
                continue
            self._usable[position >= self._train] += 1
            self.converted.update(image.converted)
            assert image.pixels is not None  # it has pixels unless it was skipped
            yield image.pixels, int(self._source.labels[i])
            if self._usable[1] == self._held_out:
                return

    def splits(self) -> dict[str, list[int]]:
        """[first, past the last] of the training images and of the held-out ones, among the images kept.

        There are as many held-out images as the configuration asks for. If the source marks no test images, training
        images replace the held-out ones that were skipped. Raises ValueError if too few images are left.
        """
        separate = self._source.test is not None
        held_out, usable = self._held_out, sum(self._usable)
        first = self._usable[0] if separate else usable - held_out
        if first < 1 or usable - first < held_out:
            where = f", {usable - first} of them to hold out" if separate else ""
            raise ValueError(
                f"dataset.held_out: found {held_out}, but only {usable} of {len(self._order)} images are"
                f" usable{where}"
            )
        return {"train": [0, first], "held_out": [first, usable]}
