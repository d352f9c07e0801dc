"""Distances between sets of images: Frechet and kernel in a feature space, nearest neighbour in pixels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    isc_features_to_metric,
)
from torch_fidelity.metric_kid import (
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kid_features_to_metric,
)
from torch_fidelity.metric_prc import (
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)

from duodiff.data.store import to_unit_range

_SUBSETS, _SUBSET_SIZE = 100, 1000  # of KID, as Binkowski et al. 2018 have them
_SCORE_SPLITS = 10  # of the Inception score, as Salimans et al. 2016
_SIZES = 15  # of the extrapolation, as Chong & Forsyth 2020


@dataclass(frozen=True)
class Gaussian:
    """Mean float64 [D] and covariance float64 [D, D] of n features."""

    mu: np.ndarray
    sigma: np.ndarray
    n: int


def gaussian(features: Tensor) -> Gaussian:
    """The Gaussian fitted to features float64 [N, D] (torch-fidelity's)."""
    fitted = fid_features_to_statistics(features)
    return Gaussian(fitted["mu"], fitted["sigma"], len(features))


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """Frechet distance between two Gaussians (torch-fidelity's).

    To be called FID only on Inception-v3 features. Raises ValueError for one fitted to fewer than D + 1
    features, whose covariance is singular.
    """
    for fitted in (one, other):
        dim = len(fitted.mu)
        if fitted.n <= dim:
            raise ValueError(f"Frechet distance: {fitted.n} samples for {dim} features are too few")
    statistics = ({"mu": fitted.mu, "sigma": fitted.sigma} for fitted in (one, other))
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


class FrechetTo:
    """Frechet distances to one fixed Gaussian, many of them: `frechet_distance` with its square root taken once.

    sqrt(S_1) S S_1^(1/2) is symmetric and has the eigenvalues of S_1 S, which `frechet_distance` takes the
    roots of; a symmetric problem is several times faster.
    """

    def __init__(self, fixed: Gaussian, device: str = "cpu"):
        self.mu, sigma = (torch.from_numpy(x).to(device) for x in (fixed.mu, fixed.sigma))
        values, vectors = torch.linalg.eigh(sigma)
        self.root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        self.trace, self.device = sigma.trace(), device

    def __call__(self, features: Tensor, counts: Tensor | None = None) -> float:
        """Distance of features float64 [N, D], each counted `counts` (int [N]) times, once by default."""
        features = features.to(self.device)
        counts = torch.ones(len(features)) if counts is None else counts
        weights = counts.to(features)
        total = weights.sum()
        mu = weights @ features / total
        centred = (features - mu) * weights.sqrt()[:, None]
        sigma = centred.T @ centred / (total - 1)
        values = torch.linalg.eigvalsh(self.root @ sigma @ self.root)
        cross = values.clamp(min=0).sqrt().sum()
        return float((mu - self.mu).square().sum() + sigma.trace() + self.trace - 2 * cross)


def paired_differences(
    features: Tensor, base: Tensor, to: FrechetTo, resamples: int
) -> list[float]:
    """`to(features) - to(base)` in `resamples` paired bootstrap resamples, drawn alike for all features of one N.

    Row i of both (float64 [N, D]) is the same image by its noise and label, and a resample draws the same
    rows of both; the Gaussian compared with stays as it is. Duplicates raise a distance, so a resample says
    nothing of its level, but they raise both alike: the standard deviation is what counts.
    """
    generator = torch.Generator().manual_seed(0)
    n, found = len(features), []
    for _ in range(resamples):
        drawn = torch.randint(n, (n,), generator=generator)
        counts = torch.bincount(drawn, minlength=n)
        found.append(to(features, counts) - to(base, counts))
    return found


@dataclass(frozen=True)
class Extrapolation:
    """Distance against the number of samples and the line in 1/n through it; `limit` is its value at 1/n = 0,
    `error` the standard error of that by the residuals (the subsets overlap: it does not cover new
    samples), `r2` the share of variance the line explains.
    """

    sizes: list[int]
    distances: list[float]
    limit: float
    slope: float
    error: float
    r2: float


def extrapolation(features: Tensor, to: FrechetTo) -> Extrapolation:
    """The distance of infinitely many samples, from random subsets of features float64 [N, D].

    Chong & Forsyth 2020: a Frechet distance is biased upward by a term that is linear in 1/n where n is
    many times D, as `duodiff.spaces.images_to_extrapolate` asks for. From half of N to N samples, a subset
    for each size. What stays is the bias that the finite reference has.
    """
    n = len(features)
    sizes = np.linspace(n // 2, n, _SIZES).astype(int)
    generator = torch.Generator().manual_seed(0)
    orders = (torch.randperm(n, generator=generator) for _ in sizes)
    distances = [to(features[order[:size]]) for order, size in zip(orders, sizes, strict=True)]
    design = np.stack([np.ones(_SIZES), 1 / sizes], axis=1)
    (limit, slope), *_ = np.linalg.lstsq(design, distances, rcond=None)
    residual = distances - design @ (limit, slope)
    variance = residual @ residual / (_SIZES - 2)
    error = np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0])
    r2 = 1 - residual.var() / np.var(distances)
    return Extrapolation(sizes.tolist(), distances, *map(float, (limit, slope, error, r2)))


def kernel_distance(features: Tensor, others: Tensor) -> tuple[float, float, int]:
    """Mean, standard deviation over random subsets, and size of a subset of the unbiased squared kernel distance
    (cubic kernel, torch-fidelity's); to be called KID only on Inception-v3 features.

    A subset has 1,000 samples, or a quarter of the fewer.
    """
    size = min(_SUBSET_SIZE, len(features) // 4, len(others) // 4)
    found = kid_features_to_metric(
        features, others, kid_subsets=_SUBSETS, kid_subset_size=size, verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD], size


def precision_recall(features: Tensor, others: Tensor) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, 3 neighbours, torch-fidelity's): the share of
    `features` in the real manifold of `others`, and the reverse.
    """
    found = prc_features_to_metric(features, others, save_cpu_ram=True, verbose=False)
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


def inception_score(logits: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the Inception score over 10 splits of logits [N, K] (torch-fidelity's)."""
    found = isc_features_to_metric(logits, splits=_SCORE_SPLITS)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD]


def random_halves(n: int, repeats: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`repeats` random splits of range(n) into two disjoint halves of n // 2 indices each."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(repeats):
        order = torch.randperm(n, generator=generator)
        yield order[: n // 2], order[n // 2 : 2 * (n // 2)]


def thumbnails(images: np.ndarray, size: int = 32, part: int = 1024) -> np.ndarray:
    """Images uint8 [N, C, H, W] averaged down to at most `size` pixels each way; smaller ones as they are."""
    if max(images.shape[2:]) <= size:
        return images
    found = np.empty((*images.shape[:2], size, size), np.uint8)
    for first in range(0, len(images), part):
        pixels = torch.from_numpy(np.array(images[first : first + part])).float()
        found[first : first + part] = F.adaptive_avg_pool2d(pixels, size).round().to(torch.uint8)
    return found


def nearest_distances(
    images: np.ndarray, others: np.ndarray, device: str = "cpu", part: int = 4096
) -> np.ndarray:
    """Root-mean-square pixel distance, range [0, 2], of each uint8 image [N, C, H, W] to its nearest other.

    The others are read `part` at a time, so they may be a memmap larger than memory.
    """
    a = torch.from_numpy(to_unit_range(images)).flatten(1).to(device)
    nearest = torch.full((len(a),), torch.inf, device=device)
    for first in range(0, len(others), part):
        b = torch.from_numpy(to_unit_range(others[first : first + part])).flatten(1).to(device)
        nearest = torch.minimum(nearest, torch.cdist(a, b).min(1).values)
    return (nearest / a.shape[1] ** 0.5).cpu().numpy()
