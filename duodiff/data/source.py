"""What a dataset family provides to be packed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from duodiff.data.archives import Members
from duodiff.data.decode import Transform


@dataclass(frozen=True)
class Source:
    """N images before packing: pixels (uint8 [N, C, H, W], `transform` None) or files to decode.

    `labels` [N] index `class_names` (-1 and [] where there are none). `test` [N] is true for images that
    may only be held out; None: the held-out images are split off at random. Both are arrays or, where
    there are files without limit to their number, `duodiff.data.disk.Numbers`. `details` go into the manifest.
    """

    images: np.ndarray | Members
    labels: Sequence[int]
    class_names: list[str]
    transform: Transform | None = None
    test: Sequence[int] | None = None
    details: dict = field(default_factory=dict)
