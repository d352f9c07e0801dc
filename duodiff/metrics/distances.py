"""Distances between sets of images: Frechet in a feature space, nearest neighbour in pixels."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)

from duodiff.data.store import to_unit_range


def frechet_distance(features_1: Tensor, features_2: Tensor) -> float:
    """Frechet distance between Gaussians fitted to features float64 [N, D] (torch-fidelity's).

    To be called FID only on Inception-v3 features. Raises ValueError for fewer than D + 1 samples,
    whose covariance is singular.
    """
    for features in (features_1, features_2):
        samples, dim = features.shape
        if samples <= dim:
            raise ValueError(f"Frechet distance: {samples} samples for {dim} features are too few")
    statistics = (fid_features_to_statistics(f) for f in (features_1, features_2))
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


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
