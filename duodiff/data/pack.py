"""Any dataset to one packed store, shuffled once and split into training and held-out images."""

from pathlib import Path

import numpy as np

from duodiff.data import digits
from duodiff.data.store import write_store

_SOURCES = {"digits": digits.images_and_labels}


def pack(source: str, held_out: int, manifest: str | Path) -> dict:
    """Manifest of the dataset `source` packed into the store at `manifest`.

    Its last `held_out` images are never trained on. Raises ValueError for an unknown source, or if no
    image would be left to train on.
    """
    if source not in _SOURCES:
        raise ValueError(f"dataset.source: {source!r} is unknown; accepted: {', '.join(_SOURCES)}")
    images, labels, class_names = _SOURCES[source]()
    if not 0 < held_out < len(images):
        raise ValueError(f"dataset.held_out: found {held_out}; accepted: 1 to {len(images) - 1}")
    order = np.random.default_rng(0).permutation(len(images))
    train = len(images) - held_out
    return write_store(
        manifest,
        images[order],
        labels[order],
        {
            "source": source,
            "num_classes": len(class_names),
            "class_names": class_names,
            "transform": "none",
            "splits": {"train": [0, train], "held_out": [train, len(images)]},
        },
    )
