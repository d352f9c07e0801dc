"""Any dataset to one packed store, shuffled once and split into training and held-out images.

Several processes decode the images. Images are written in order, each with its label. So no image stays in memory, and
the store does not depend on the number of processes. An interrupted packing is continued.
"""

import hashlib
import logging
import math
import os
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from duodiff.data.decode import Decoded, decode_member
from duodiff.data.families import family
from duodiff.data.source import Skipped, Source, some_of
from duodiff.data.store import finish_store
from duodiff.data.unfinished import Unfinished
from duodiff.identity import code_digest
from duodiff.running.files import remove_leftovers, require_space
from duodiff.running.pool import Lost, mapped

log = logging.getLogger("duodiff")

_KEPT_EVERY = 2048  # images: where a packing that is killed continues


def pack(dataset: dict, data: Path, workers: int, manifest: Path) -> dict:
    """Manifest of `dataset` (an entry of the configuration) packed into the store at `manifest`.

    `data` is the folder that the dataset's `path` is under, `workers` the number of decoding processes (1: this one).
    Training images come first, in a fixed random order: all, or as many as `subset` says. The `held_out` images follow;
    they are never trained on. Skipped images (`duodiff.data.decode`) leave no holes; manifest and log name them.

    What is packed is kept beside the manifest (`duodiff.data.unfinished`), and the same call continues there. Raises
    ValueError for a value out of range or if too few images are left, FileNotFoundError for a missing file, and
    ChildProcessError, with the image that it had, for a process that was killed.
    """
    if workers < 1:
        raise ValueError(f"workers: found {workers}; accepted: 1 or more")
    source = family(dataset).read(dataset, data)
    order, train = _order(source, dataset["held_out"], dataset.get("subset"))
    remove_leftovers(manifest.parent)
    unfinished = Unfinished(manifest, _identity(dataset, source, order), _shape(source))
    tally = _Tally(source, order, train, dataset["held_out"])
    tally.restore(unfinished.state)
    size = tally.wanted * math.prod(_shape(source))
    require_space(manifest.parent, size - unfinished.size, "packing")
    _pack_images(source, order, workers, tally, unfinished)
    for line in tally.skipped.lines():
        log.warning("%s", line)
    try:
        splits = tally.splits()
    except ValueError:
        unfinished.remove()
        raise
    unfinished.finish()
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
            **tally.unused(),
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


def _identity(dataset: dict, source: Source, order: np.ndarray) -> list:
    """What decides the packed images and their counts; of the files it is a cheap fingerprint."""
    files = hashlib.sha256(source.labels.tobytes() + order.tobytes())
    if isinstance(source.images, np.ndarray):
        files.update(source.images.tobytes())
    else:
        folder = source.images.root if source.images.root.is_dir() else None
        files.update(_stat(source.images.root) if folder is None else b"")
        for name in source.images.names():
            files.update(os.fsencode(name) + (b"" if folder is None else _stat(folder / name)))
    transform = source.transform.describe() if source.transform else None
    skipped = source.skipped.as_dict()
    return [dataset, transform, files.hexdigest(), skipped, code_digest(pack)]


def _stat(path: Path) -> bytes:
    found = path.stat()
    return f"/{found.st_size}/{found.st_mtime_ns}/".encode()


def _pack_images(
    source: Source, order: np.ndarray, workers: int, tally: "_Tally", unfinished: Unfinished
) -> None:
    """Adds the images that are missing in `unfinished`, until there are enough."""
    bar = tqdm(total=tally.wanted, initial=tally.position, desc="pack", unit="image", disable=None)
    missing = order[:0] if tally.enough() else order[tally.position :]
    decoded = _decoded(source, missing, workers)
    with unfinished, bar, closing(decoded):
        try:
            for image in decoded:
                if image.pixels is not None:
                    unfinished.append(image.pixels, tally.label())
                tally.count(image)
                bar.update()
                if tally.enough():
                    break
                if tally.position % _KEPT_EVERY == 0:
                    unfinished.keep(tally.state())
        except Lost as lost:
            unfinished.keep(tally.state())
            raise ChildProcessError(_advice(lost, workers, unfinished.count)) from lost
        unfinished.keep(tally.state())


def _advice(lost: Lost, workers: int, packed: int) -> str:
    what = (
        "a process that decodes images"
        if lost.item is None
        else f"the process that decoded {lost.item.name}"
    )
    return (
        f"{what} {lost}. Lower the number of processes, now {workers} (`snakemake --set-threads pack_dataset=N`),"
        " give the job more memory (`--set-resources pack_dataset:mem_mb=N` on a cluster), or take the image out."
        f" The {packed} images packed so far are kept: the same command continues"
    )


def _decoded(source: Source, order: np.ndarray, workers: int) -> Generator[Decoded, None, None]:
    """The images at the indices in `order`, decoded, in the same order."""
    images, transform = source.images, source.transform
    if transform is None or isinstance(images, np.ndarray):
        yield from (Decoded(np.asarray(images[i])) for i in order)
        return
    yield from mapped(
        partial(decode_member, transform=transform), (images[i] for i in order), workers
    )


class _Tally:
    """Counts what becomes of the images of `order`; the first `train` of them are to be trained on.

    Of the others `held_out` are packed.
    """

    def __init__(self, source: Source, order: np.ndarray, train: int, held_out: int):
        self._source, self._order, self._train, self._held_out = source, order, train, held_out
        self.position = 0
        """The number of images counted."""
        self.wanted = train + held_out
        """The number of images to pack, if none is skipped."""
        self._usable = [0, 0]  # to train on, to hold out
        self.converted: Counter = Counter()
        self.skipped = Skipped(source.skipped.as_dict())

    def state(self) -> dict:
        """All counts, for `restore`."""
        return {
            "position": self.position,
            "usable": self._usable,
            "converted": dict(self.converted),
            "skipped": self.skipped.as_dict(),
        }

    def restore(self, state: dict) -> None:
        """Sets the counts to those of a `state`; an empty one leaves them as they are."""
        if state:
            self.position, self._usable = state["position"], state["usable"]
            self.converted, self.skipped = Counter(state["converted"]), Skipped(state["skipped"])

    def unused(self) -> dict[str, int]:
        """The number of images that are not packed, for a manifest, if the source has some of its own."""
        if self._source.unused is None:
            return {}
        return {"unused": self._source.unused + len(self._source.labels) - self.position}

    def enough(self) -> bool:
        """Whether no further image is needed."""
        return self._usable[1] == self._held_out

    def label(self) -> int:
        """The label of the next image."""
        return int(self._source.labels[self._order[self.position]])

    def count(self, image: Decoded) -> None:
        """Counts the next image."""
        if image.skipped is None:
            self._usable[self.position >= self._train] += 1
            self.converted.update(image.converted)
        else:
            self.skipped.add(image.skipped, self._source.images[self._order[self.position]].name)
        self.position += 1

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
