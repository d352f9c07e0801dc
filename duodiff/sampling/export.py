"""Samples as files for other tools: the `.npz` of the ADM evaluator, and PNG files."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from duodiff.data.pictures import pixels_last, write_png
from duodiff.data.store import ImageStore
from duodiff.running.files import atomic


def write_npz(samples: Path, out: Path) -> int:
    """Writes a sample store as the `.npz` that the evaluator of guided-diffusion (ADM) reads; the number of images.

    `arr_0` is uint8 [N, H, W, 3]; grey images get three equal channels. `arr_1` is int64 [N], the classes, and is
    absent for images without classes.
    """
    store = ImageStore(samples)
    arrays = [pixels_last(store.images)]
    if (store.labels >= 0).all():
        arrays.append(store.labels)
    with atomic(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, *arrays)
    return len(store)


def write_pngs(samples: Path, folder: Path) -> int:
    """Writes a sample store as `folder`/000000.png and so on, in the order of the indices; the number of images."""
    store = ImageStore(samples)
    folder.mkdir(parents=True, exist_ok=True)
    for i in tqdm(range(len(store)), desc="export", unit="image", disable=None):
        write_png(folder / f"{i:06d}.png", pixels_last(store.images[i : i + 1])[0])
    return len(store)
