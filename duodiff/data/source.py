"""The images and labels that a dataset family provides for packing."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from duodiff.data.archives import Members
from duodiff.data.decode import Transform

_NAMES = 20  # named of each kind


def some_of(names: Sequence[str]) -> str:
    """The first 20 names, and how many more there are."""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


class Skipped:
    """Images that are left out: of each reason their number and the first names."""

    def __init__(self, of: dict[str, dict] | None = None):
        self._of = copy.deepcopy(of or {})

    def add(self, reason: str, name: str) -> None:
        """Counts one more image."""
        kind = self._of.setdefault(reason, {"count": 0, "names": []})
        kind["count"] += 1
        if len(kind["names"]) < _NAMES:
            kind["names"].append(name)

    @property
    def count(self) -> int:
        """How many there are, of all reasons."""
        return sum(kind["count"] for kind in self._of.values())

    def as_dict(self) -> dict[str, dict]:
        """`count` and `names` of each reason, for a manifest."""
        return dict(sorted(self._of.items()))

    def lines(self) -> list[str]:
        """A line for each reason."""
        return [
            f"{kind['count']} skipped as {reason}: {', '.join(kind['names'])}"
            for reason, kind in self.as_dict().items()
        ]


@dataclass(frozen=True)
class Source:
    """N images before packing: pixels (uint8 [N, C, H, W]), or files to decode, which have a `transform`.

    `labels` (int64 [N]) are positions in `class_names`; without classes they are -1 and `class_names` is empty.
    `test` (bool [N]) is true for images that may only be held out. If it is None, the held-out images are drawn at
    random. `details` go into the manifest, as do `skipped`, files that are left out before any is decoded. Unless
    `unused` is None, so does its sum with the number of images that are not packed.
    """

    images: np.ndarray | Members
    labels: np.ndarray
    class_names: list[str]
    transform: Transform | None = None
    test: np.ndarray | None = None
    details: dict = field(default_factory=dict)
    skipped: Skipped = field(default_factory=Skipped)
    unused: int | None = None
