"""The handwritten digits that come with scikit-learn: 1,797 real 8x8 grey images of ten classes."""

from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from duodiff.data.decode import FILTERS
from duodiff.data.source import Source


def fetch(dataset: dict, data: Path) -> dict:
    """No file: the images come with the library."""
    return {}


def read(dataset: dict, data: Path) -> Source:
    """Images uint8 [1797, 1, 8, 8], with the levels 0..16 spread over 0..255; or enlarged to `size` with `filter`.

    Raises ValueError for a filter that is none of `duodiff.data.decode.FILTERS`.
    """
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    details = {}
    if "size" in dataset:
        size, name = dataset["size"], dataset["filter"]
        images = _enlarged(images, size, name)
        details["transform"] = {"size": size, "filter": name, "pillow": PIL.__version__}
    names = [str(name) for name in digits.target_names]
    return Source(images[:, None], digits.target.astype(np.int64), names, details=details)


def _enlarged(images: np.ndarray, size: int, name: str) -> np.ndarray:
    """The images [N, H, W], enlarged to [N, size, size] by the filter `name`; uint8."""
    if name not in FILTERS:
        raise ValueError(f"dataset.filter: found {name!r}; accepted: {', '.join(FILTERS)}")
    resized = (Image.fromarray(image).resize((size, size), FILTERS[name]) for image in images)
    return np.stack([np.asarray(image) for image in resized])
