"""What samples are measured against: features and their Gaussian of real images, computed once.

Files lie in a folder of their own and are named by what they were computed from: the images' hash, which of
them, the extractor (weights, transform, code, libraries, device). An image store under another path or name has the
same; another resize, or other weights, has its own.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from duodiff.data.store import ImageStore
from duodiff.metrics import classifier, features
from duodiff.metrics.distances import Gaussian, gaussian
from duodiff.metrics.features import Extractor
from duodiff.records import library_versions
from duodiff.running.files import atomic, read_json, require_space, sha256, write_json
from duodiff.running.parts import Parts

_PART = 1024  # images whose features are in memory at once
_SAVED = 16  # parts after which the sums of a Gaussian are kept: 33 MB of Inception's, and seconds of a GPU
_MOST_FEATURES = 10_000
"""Features kept where the reference is all training images: enough for KID, precision and recall."""

# an edit of these, or another version, computes features again
_LIBRARIES = ("torch", "torch-fidelity", "timm")
_CODE = [sha256(module.__file__) for module in (features, classifier)]


@dataclass(frozen=True)
class Reference:
    """Real images in a feature space.

    `all_train` is fitted to all training images; `features` (float64 [N, D]) are those of random ones;
    `held_out` (float64 [M, D]) those of the images never trained on. `fitted` is
    what the main distance is to: the chosen images where the configuration says how many, else all.
    """

    all_train: Gaussian
    features: Tensor
    held_out: Tensor
    fitted: Gaussian
    extractor: str
    sha256: dict[str, str]


def compute_reference(
    data: Path, extract: Extractor, count: int | None, folder: Path, receipt: Path
) -> dict:
    """The receipt of a reference: names of its files in `folder`, each computed unless it is there.

    `data` is the manifest of the packed images, `count` the number of random training images to measure
    against (None: all). Memory does not grow with the number of images. An interrupted run is continued by the
    next. Raises ValueError if there are fewer, or no more than features.
    """
    store = ImageStore(data)
    (train, _), (held_out, _) = store.split("train"), store.split("held_out")
    if len(train) <= extract.features:
        raise ValueError(
            f"metric.name: {extract.name} has {extract.features} features; accepted: a dataset of more"
            f" training images than that (found {len(train)}; see its subset)"
        )
    keep = min(_MOST_FEATURES, len(train)) if count is None else count
    chosen = _random(len(train), keep)
    kept_bytes = 8 * extract.features**2 + 4 * extract.features * (keep + len(held_out))
    require_space(folder, 2 * kept_bytes, "statistics")  # twice: as parts, and as the whole

    def identity(what: dict) -> dict:
        return {
            "images_sha256": store.manifest["images_sha256"],
            "extractor": extract.name,
            "transform": extract.transform,
            "code": _CODE,
            "libraries": {name: library_versions().get(name) for name in _LIBRARIES},
            "device": extract.device,
            **what,
        }

    splits = store.manifest["splits"]
    files = {
        "all_train": _stored(
            folder,
            identity({"gaussian": splits["train"]}),
            lambda parts: _gaussian_of(train, extract, parts),
        ),
        "features": _stored(
            folder,
            identity({"random": keep, "of": splits["train"]}),
            lambda parts: _chosen(train, extract, chosen, parts),
        ),
        "held_out": _stored(
            folder,
            identity({"features": splits["held_out"]}),
            lambda parts: {
                "features": _features_of(held_out, extract, np.arange(len(held_out)), parts)
            },
        ),
    }
    found = {"count": count, "extractor": extract.name, "folder": str(folder), "files": files}
    found["sha256"] = {name: sha256(folder / file) for name, file in files.items()}
    write_json(receipt, found)
    return found


def load_reference(receipt: Path, extractor: str) -> Reference:
    """The reference of a receipt. Raises ValueError for another extractor's, FileNotFoundError if its files
    are gone.
    """
    found = read_json(receipt)
    if found["extractor"] != extractor:
        raise ValueError(f"{receipt}: extractor is {found['extractor']}, expected {extractor}")
    arrays = {}
    for name, file in found["files"].items():
        path = Path(found["folder"]) / file
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing; remove {receipt} to have it computed again"
            )
        if sha256(path) != found["sha256"][name]:
            raise ValueError(f"{path} is not what {receipt} describes; remove both")
        arrays[name] = np.load(path)
    features, held_out = (
        torch.from_numpy(arrays[name]["features"]).double() for name in ("features", "held_out")
    )
    fitted = arrays["all_train"]
    all_train = Gaussian(fitted["mu"], fitted["sigma"], int(fitted["n"]))
    chosen = all_train if found["count"] is None else gaussian(features)
    return Reference(all_train, features, held_out, chosen, extractor, found["sha256"])


def _stored(folder: Path, identity: dict, compute: Callable[[Parts], dict[str, np.ndarray]]) -> str:
    """Name of the file in `folder` with the arrays that `identity` describes, computed if absent."""
    text = json.dumps(identity, sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"
    if not path.exists():
        parts = Parts(path, identity)
        arrays = compute(parts)
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, identity=text, **arrays)
        parts.clear()
    return path.name


def _features_of(
    images: np.ndarray, extract: Extractor, chosen: np.ndarray, parts: Parts
) -> np.ndarray:
    """float32 [N, D] of the chosen ones of uint8 images."""
    found = []
    for first, indices in _ranges(chosen):
        part = parts.load(str(first))
        if part is None:
            part = {"features": extract(images[indices])[0].float().numpy()}
            parts.save(str(first), part)
        found.append(part["features"])
    return np.concatenate(found)


def _chosen(
    images: np.ndarray, extract: Extractor, chosen: np.ndarray, parts: Parts
) -> dict[str, np.ndarray]:
    """Features of the chosen images, and their Gaussian for other tools."""
    features = _features_of(images, extract, chosen, parts)
    fitted = gaussian(torch.from_numpy(features).double())
    return {"features": features, "n": np.array(fitted.n), "mu": fitted.mu, "sigma": fitted.sigma}


def _gaussian_of(images: np.ndarray, extract: Extractor, parts: Parts) -> dict[str, np.ndarray]:
    """n, mu and sigma of the features of all images, merged part by part (Chan et al. 1979)."""
    n, mu, scatter = 0, 0.0, 0.0
    if (kept := parts.load("sums")) is not None:
        n, mu, scatter = int(kept["n"]), torch.tensor(kept["mu"]), torch.tensor(kept["scatter"])
    for first, indices in _ranges(np.arange(len(images)), n):
        if first and first % (_SAVED * _PART) == 0:
            sums = {"n": np.array(n), "mu": mu.numpy(), "scatter": scatter.numpy()}
            parts.save("sums", sums)
        features = extract(images[indices])[0]
        m, mean = len(features), features.mean(0)
        centred, shift = features - mean, mean - mu
        scatter = scatter + centred.T @ centred + torch.outer(shift, shift) * (n * m / (n + m))
        mu, n = mu + shift * (m / (n + m)), n + m
    return {"n": np.array(n), "mu": mu.numpy(), "sigma": (scatter / (n - 1)).numpy()}


def _ranges(chosen: np.ndarray, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """The chosen indices from number `start` on, `_PART` at a time, each with the number of its first."""
    with tqdm(desc="features", total=len(chosen), initial=start, unit="image", disable=None) as bar:
        for first in range(start, len(chosen), _PART):
            indices = chosen[first : first + _PART]
            yield first, indices
            bar.update(len(indices))


def _random(n: int, count: int) -> np.ndarray:
    """`count` random indices below n, in rising order, the same each time."""
    if count > n:
        raise ValueError(
            f"metric.reference: found {count}; accepted: up to the {n} training images"
        )
    return np.sort(np.random.default_rng(0).permutation(n)[:count])
