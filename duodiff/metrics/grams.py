"""How changes of network at single steps move the images of a sampler without noise, and do so together (no torch).

d_(k, i) is the image of a trajectory that network k computes at step i and the full backbone at the others, minus the
image of the full backbone alone, from the same noise. To first order the displacements of several such changes add.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duodiff.running.files import atomic
from duodiff.running.receipts import made_by


@dataclass(frozen=True)
class Gram:
    """The products of the displacements of `networks` at the descending timesteps `t` [S], on N trajectories.

    `products` is float32 [N, K S, K S] for K networks: row (and column) k S + i is that of d_(k, i). The full backbone
    is none of the K.
    """

    networks: tuple[str, ...]
    t: np.ndarray
    products: np.ndarray

    def write(self, path: Path) -> None:
        """Writes the file `path`, the same bytes each time."""
        about = np.array(json.dumps({"networks": self.networks}))
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, about=about, t=self.t, products=self.products)


def read_gram(path: Path) -> Gram:
    """The products in `path`. Raises FileNotFoundError with the command that makes them."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: found no such file{made_by(path)}")
    with np.load(path, allow_pickle=False) as arrays:
        networks = tuple(json.loads(str(arrays["about"]))["networks"])
        return Gram(networks, arrays["t"], arrays["products"])
