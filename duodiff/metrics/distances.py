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

from duodiff.data.rows import unit_range
from duodiff.transfer import sent

_SUBSETS, _SUBSET_SIZE = 100, 1000  # of KID (Binkowski et al. 2018)
_SUBSET_SEED = 2020  # torch-fidelity's
_SCORE_SPLITS = 10  # of the Inception score (Salimans et al. 2016)
_SIZES = 15  # of the extrapolation (Chong & Forsyth 2020)
_SINGULAR = 1e-10  # eigenvalues below this part of the largest count as this part


@dataclass(frozen=True)
class Gaussian:
    """Mean float64 [D] and covariance float64 [D, D] of n features."""

    mu: np.ndarray
    sigma: np.ndarray
    n: int


def gaussian(features: Tensor) -> Gaussian:
    """The Gaussian fitted to features float64 [N, D]: torch-fidelity's, which computes on the CPU alone.

    On another device `moments` takes its place.
    """
    if features.device.type == "cpu":
        fitted = fid_features_to_statistics(features)
        return Gaussian(fitted["mu"], fitted["sigma"], len(features))
    mu, sigma = (values.cpu().numpy() for values in moments(features))
    return Gaussian(mu, sigma, len(features))


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and covariance [D, D] of features [N, D], on their device."""
    mu = features.mean(0)
    centred = features - mu
    return mu, centred.T @ centred / (len(features) - 1)


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """Frechet distance between two Gaussians (torch-fidelity's). It is called FID only on Inception-v3 features.

    Raises ValueError if a Gaussian is fitted to fewer than D + 1 features: its covariance is singular.
    """
    for fitted in (one, other):
        dim = len(fitted.mu)
        if fitted.n <= dim:
            raise ValueError(f"Frechet distance: {fitted.n} samples for {dim} features are too few")
    statistics = ({"mu": fitted.mu, "sigma": fitted.sigma} for fitted in (one, other))
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


class FrechetTo:
    """Many Frechet distances to one `fixed` Gaussian: `frechet_distance`, with one square root of its covariance S_1.

    `frechet_distance` needs the eigenvalues of S_1 S. The symmetric matrix S_1^(1/2) S S_1^(1/2) has the same
    eigenvalues, and those of a symmetric matrix are computed several times faster.
    """

    def __init__(self, fixed: Gaussian, device: str = "cpu"):
        self.mu, sigma = (torch.from_numpy(x).to(device) for x in (fixed.mu, fixed.sigma))
        values, vectors = torch.linalg.eigh(sigma)
        self.root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        self.trace, self.device = sigma.trace(), device

    def __call__(self, features: Tensor) -> float:
        """Distance of features float64 [N, D]."""
        features = features.to(self.device)
        mu = features.mean(0)
        values = torch.linalg.eigvalsh(self._product(features - mu))
        trace = (features - mu).square().sum() / (len(features) - 1)
        cross = values.clamp(min=0).sqrt().sum()
        return float((mu - self.mu).square().sum() + trace + self.trace - 2 * cross)

    def influences(self, features: Tensor) -> Tensor:
        """By how much each image moves the distance, to first order: float64 [N] of features float64 [N, D], mean 0.

        A resample that draws image i counts[i] times has the distance plus the mean of counts x influences. The
        gradient by the covariance S is I - S_1^(1/2) (S_1^(1/2) S S_1^(1/2))^(-1/2) S_1^(1/2).
        """
        features = features.to(self.device)
        mu = features.mean(0)
        centred = features - mu
        values, vectors = torch.linalg.eigh(self._product(centred))
        inverse = vectors * values.clamp(min=_SINGULAR * float(values.max())).rsqrt() @ vectors.T
        moved = centred - centred @ (self.root @ inverse @ self.root)
        influences = 2 * centred @ (mu - self.mu) + (moved * centred).sum(1)
        return (influences - influences.mean()).cpu()

    def _product(self, centred: Tensor) -> Tensor:
        """S_1^(1/2) S S_1^(1/2), S the covariance of centred features [N, D]."""
        return self.root @ (centred.T @ centred / (len(centred) - 1)) @ self.root


def same_noise_bound(features: Tensor, base: Tensor) -> float:
    """The most by which the roots of two sets' Frechet distances to one reference can differ.

    Row i of `features` and of `base` (both float64 [N, D]) belongs to the same noise and label. The bound is the root
    mean squared distance of these pairs (Gelbrich 1990), with the covariances' N - 1. It needs no resampling.
    """
    return float(((features - base).square().sum() / (len(base) - 1)).sqrt())


@dataclass(frozen=True)
class Extrapolation:
    """The distance against the number of samples, and a line in 1/n through these points.

    `limit` is the line's value at 1/n = 0. `error` is the standard error of the limit by the residuals; the subsets
    overlap, so it does not cover new samples. `r2` is the share of variance that the line explains.
    """

    sizes: list[int]
    distances: list[float]
    limit: float
    slope: float
    error: float
    r2: float


def extrapolation(features: Tensor, to: FrechetTo) -> Extrapolation:
    """The distance of infinitely many samples, from random subsets of features float64 [N, D] (Chong & Forsyth 2020).

    A Frechet distance is biased upward. The bias is linear in 1/n if n is many times D
    (`duodiff.spaces.images_to_extrapolate`). Each of the sizes from N/2 to N has one subset. The bias of the finite
    reference remains.
    """
    n = len(features)
    sizes = np.linspace(n // 2, n, _SIZES).astype(int)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(n, generator=generator).to(features.device) for _ in sizes]
    distances = [to(features[order[:size]]) for order, size in zip(orders, sizes, strict=True)]
    design = np.stack([np.ones(_SIZES), 1 / sizes], axis=1)
    (limit, slope), *_ = np.linalg.lstsq(design, distances, rcond=None)
    residual = distances - design @ (limit, slope)
    variance = residual @ residual / (_SIZES - 2)
    error = np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0])
    r2 = 1 - residual.var() / np.var(distances)
    return Extrapolation(
        sizes.tolist(),
        distances,
        limit=float(limit),
        slope=float(slope),
        error=float(error),
        r2=float(r2),
    )


def kernel_distance(features: Tensor, others: Tensor) -> tuple[float, float, int]:
    """The unbiased squared kernel distance (cubic kernel, torch-fidelity's): mean, standard deviation, subset size.

    The standard deviation is over random subsets. A subset has 1,000 samples, or a quarter of the smaller set if that
    is fewer. The distance is called KID only on Inception-v3 features.

    torch-fidelity computes on the CPU alone. On another device `subset_distances` takes its place.
    """
    size = min(_SUBSET_SIZE, len(features) // 4, len(others) // 4)
    if features.device.type != "cpu":
        found = subset_distances(features, others, size).cpu().numpy()
        return float(found.mean()), float(found.std()), size
    computed = kid_features_to_metric(
        features, others, kid_subsets=_SUBSETS, kid_subset_size=size, verbose=False
    )
    return computed[KEY_METRIC_KID_MEAN], computed[KEY_METRIC_KID_STD], size


def subset_distances(features: Tensor, others: Tensor, size: int) -> Tensor:
    """The kernel distances of torch-fidelity's random subsets, float64 [`_SUBSETS`], on the features' device."""
    rng = np.random.RandomState(_SUBSET_SEED)
    drawn = [
        [rng.choice(len(rows), size, replace=False) for rows in (features, others)]
        for _ in range(_SUBSETS)
    ]
    index = sent(np.array(drawn), features.device)
    return torch.stack([_unbiased(features[i], others[j]) for i, j in index])


def _unbiased(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased squared kernel distance of x and y, both float64 [M, D]: a scalar."""
    m, dim = x.shape
    xx, xy, yy = ((a @ b.T / dim + 1) ** 3 for a, b in ((x, x), (x, y), (y, y)))
    within = xx.sum() - xx.trace() + yy.sum() - yy.trace()
    return within / (m * (m - 1)) - 2 * xy.mean()


def precision_recall(features: Tensor, others: Tensor) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, 3 neighbours, torch-fidelity's).

    The distances are computed on the features' device; torch-fidelity looks for the neighbours on the CPU.

    Precision is the share of `features` in the manifold of `others`. Recall is the share of `others` in the manifold of
    `features`.
    """
    computed = prc_features_to_metric(features, others, save_cpu_ram=True, verbose=False)
    return computed[KEY_METRIC_PRECISION], computed[KEY_METRIC_RECALL]


def inception_score(logits: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the Inception score over 10 splits of logits [N, K] (torch-fidelity's)."""
    computed = isc_features_to_metric(logits, splits=_SCORE_SPLITS)
    return computed[KEY_METRIC_ISC_MEAN], computed[KEY_METRIC_ISC_STD]


def random_halves(n: int, repeats: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`repeats` random splits of range(n) into two disjoint halves of n // 2 indices each."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(repeats):
        order = torch.randperm(n, generator=generator)
        yield order[: n // 2], order[n // 2 : 2 * (n // 2)]


def thumbnails(
    images: np.ndarray, device: str = "cpu", size: int = 32, part: int = 1024
) -> np.ndarray:
    """Images uint8 [N, C, H, W], averaged down to `size` x `size` pixels; smaller images stay as they are."""
    if max(images.shape[2:]) <= size:
        return images
    small = np.empty((*images.shape[:2], size, size), np.uint8)
    for first in range(0, len(images), part):
        pixels = sent(images[first : first + part], device).float()
        averaged = F.adaptive_avg_pool2d(pixels, size).round().to(torch.uint8)
        small[first : first + part] = averaged.cpu().numpy()
    return small


def nearest_distances(
    images: np.ndarray, others: np.ndarray, device: str = "cpu", part: int = 4096
) -> np.ndarray:
    """Root-mean-square pixel distance, in [0, 2], of each uint8 image [N, C, H, W] to the nearest of `others`.

    `others` are read `part` at a time, so they may be a memory map that is larger than memory.
    """
    a = unit_range(sent(images, device)).flatten(1)
    nearest = torch.full((len(a),), torch.inf, device=device)
    for first in range(0, len(others), part):
        b = unit_range(sent(others[first : first + part], device)).flatten(1)
        nearest = torch.minimum(nearest, torch.cdist(a, b).min(1).values)
    return (nearest / a.shape[1] ** 0.5).cpu().numpy()
