"""scikit-learn's bundled handwritten digits: 1,797 real 8x8 grey images of ten classes."""

import numpy as np
from sklearn.datasets import load_digits


def images_and_labels() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images uint8 [1797, 1, 8, 8] (levels 0..16 spread over 0..255), labels int64 [1797], class names."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return images, digits.target.astype(np.int64), [str(name) for name in digits.target_names]
