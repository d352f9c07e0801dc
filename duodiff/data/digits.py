"""scikit-learn's bundled handwritten digits: 1,797 real 8x8 grey images of ten classes."""

from pathlib import Path

import numpy as np

from duodiff.data.source import Source


def fetch(dataset: dict, data: Path) -> dict:
    """No file: they come with the library."""
    return {}


def read(dataset: dict, data: Path) -> Source:
    """Images uint8 [1797, 1, 8, 8], levels 0..16 spread over 0..255."""
    from sklearn.datasets import load_digits  # heavy, and no other family needs it

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    names = [str(name) for name in digits.target_names]
    return Source(images, digits.target.astype(np.int64), names)
