"""The images and labels that a dataset family provides for packing."""

from dataclasses import dataclass, field

import numpy as np

from duodiff.data.archives import Members
from duodiff.data.decode import Transform


@dataclass(frozen=True)
class Source:
    """N images before packing: pixels (uint8 [N, C, H, W]), or files to decode, which have a `transform`.

    `labels` (int64 [N]) are positions in `class_names`; without classes they are -1 and `class_names` is empty.
    `test` (bool [N]) is true for images that may only be held out. If it is None, the held-out images are drawn at
    random. `details` go into the manifest.
    """

    images: np.ndarray | Members
    labels: np.ndarray
    class_names: list[str]
    transform: Transform | None = None
    test: np.ndarray | None = None
    details: dict = field(default_factory=dict)
