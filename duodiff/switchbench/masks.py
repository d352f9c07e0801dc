"""Masks: which of two networks, full or shallow, makes each step of a sampler (no torch)."""

from collections.abc import Sequence
from itertools import product

import numpy as np

NETWORKS = {"f": "full", "s": "shallow"}
"""The network that each letter of a mask stands for."""


def masks(steps: int) -> list[str]:
    """Every mask of `steps` letters that ends with the full network: 2^(steps - 1) texts, in one fixed order.

    The first letter is of the noisiest step.
    """
    return ["".join(letters) + "f" for letters in product(NETWORKS, repeat=steps - 1)]


def switched(steps: int, calls: int) -> str:
    """The mask of a single switch: the shallow network makes the first `calls` of all steps."""
    return "s" * calls + "f" * (steps - calls)


def shallow_steps(of: Sequence[str]) -> np.ndarray:
    """Whether the shallow network makes each step, bool [masks, steps]."""
    return np.array([[letter == "s" for letter in mask] for mask in of])
