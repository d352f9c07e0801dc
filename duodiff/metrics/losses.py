"""The held-out errors of a profile's networks, image by image, in one small file (no torch)."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from duodiff.metrics.bootstrap import resampled_means
from duodiff.running.files import atomic
from duodiff.running.receipts import made_by
from duodiff.schedules import NoiseSchedule, noise_schedule


@dataclass(frozen=True)
class Losses:
    """Squared errors ||eps - eps_k(x_t, t)||^2 of K networks on N held-out images at P descending timesteps `t`.

    `errors` and `disagreements` (||eps_k - eps_full||^2) are float32 [K, P, N], summed over the values of an image.
    `networks` names the K networks, the full backbone first. `about` says what they are: `architecture` (of the full
    backbone), `networks` (the depth of each, or the depth of its exit), and `schedule`.
    """

    networks: tuple[str, ...]
    t: np.ndarray
    errors: np.ndarray
    disagreements: np.ndarray
    about: dict[str, Any]

    @property
    def images(self) -> int:
        """The number of held-out images."""
        return self.errors.shape[-1]

    @property
    def dimension(self) -> int:
        """The number of values of an image."""
        architecture = self.about["architecture"]
        return architecture["in_chans"] * architecture["img_size"] ** 2

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule."""
        return noise_schedule(self.about["schedule"])

    def of(self, images: slice) -> "Losses":
        """The same of some of the images."""
        errors, disagreements = (v[..., images] for v in (self.errors, self.disagreements))
        return Losses(self.networks, self.t, errors, disagreements, self.about)

    def only(self, *networks: str) -> "Losses":
        """The same of some of the networks, in this order."""
        rows = [self.networks.index(name) for name in networks]
        errors, disagreements = self.errors[rows], self.disagreements[rows]
        return Losses(networks, self.t, errors, disagreements, self.about)

    def means(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean errors and disagreements at the timesteps `t` [S], both float64 [1 + RESAMPLES, K, S].

        The first is of the images, the others of resamples of them. Between profiled timesteps the logarithm of a mean
        is a straight line in that of the signal-to-noise ratio.
        """
        return self._means(self.errors, t), self._means(self.disagreements, t)

    def _means(self, values: np.ndarray, t: np.ndarray) -> np.ndarray:
        networks, profiled, images = values.shape
        means = resampled_means(values.reshape(-1, images)).reshape(-1, networks, profiled)
        before, share = self._between(t)
        one, other = means[..., before], means[..., np.minimum(before + 1, profiled - 1)]
        return one ** (1 - share) * other**share

    def _between(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The profiled timestep before each of `t`, by index, and the share of the way to the next one."""
        ab = self.schedule.alphas_cumprod
        log_snr = np.log(ab / (1 - ab))
        place = np.interp(log_snr[t], log_snr[self.t], np.arange(len(self.t)))
        before = np.floor(place + _ROUNDING).astype(int)
        return before, np.maximum(place - before, 0)

    def write(self, path: Path) -> None:
        """Writes the file `path`, the same bytes each time."""
        about = json.dumps(self.about | {"order": self.networks}, sort_keys=True)
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                about=np.array(about),
                t=self.t,
                errors=self.errors,
                disagreements=self.disagreements,
            )


_ROUNDING = 1e-9


def read_losses(path: Path) -> Losses:
    """The profile in `path`. Raises FileNotFoundError with the command that makes it."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: found no such file{made_by(path)}")
    with np.load(path, allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        order = tuple(about.pop("order"))
        return Losses(order, arrays["t"], arrays["errors"], arrays["disagreements"], about)
