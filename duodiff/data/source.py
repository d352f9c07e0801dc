"""What a dataset family provides to be packed."""

from dataclasses import dataclass, field

import numpy as np

from duodiff.data.archives import Members
from duodiff.data.decode import Transform


@dataclass(frozen=True)
class Source:
    """N images before packing: pixels (uint8 [N, C, H, W], `transform` None) or files to decode.

    `labels` int64 [N] index `class_names` (-1 and [] where there are none). `test` bool [N] marks
    images that may only be held out; None: the held-out images are split off at random. `details` go
    into the manifest.
    """

    images: np.ndarray | Members
    labels: np.ndarray
    class_names: list[str]
    transform: Transform | None = None
    test: np.ndarray | None = None
    details: dict = field(default_factory=dict)
