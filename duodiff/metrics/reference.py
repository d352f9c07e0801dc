"""The reference of samples: features of real images and the Gaussian fitted to them, computed once.

The files lie in a folder of their own. A file's name is a hash of everything it was computed from: the images' hash,
the indices of the images, and the extractor (weights, transform, code, libraries, device). So a copy of an image store
uses the same files, and other weights or another resize have files of their own.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from duodiff.data.store import ImageStore
from duodiff.identity import code_digest, digest
from duodiff.metrics.distances import Gaussian, gaussian
from duodiff.metrics.features import Extractor
from duodiff.running import provenance
from duodiff.running.files import atomic, read_json, require_space, sha256, write_json
from duodiff.running.parts import Parts
from duodiff.transfer import sent

_PART = 1024  # images whose features are in memory at once
_SAVED = 16  # parts after which the sums of a Gaussian are saved; Inception's are 33 MB
_MOST_FEATURES = 10_000
"""Features that are stored if the reference is all training images: enough for KID, precision and recall."""

# another version of a library computes features again
_LIBRARIES = ("torch", "torch-fidelity", "timm")


@dataclass(frozen=True)
class Reference:
    """Real images in a feature space.

    `all_train` is fitted to all training images. `features` (float64 [N, D]) are those of random training images,
    `held_out` (float64 [M, D]) those of images never trained on. The main distance is to `fitted`: fitted to the random
    training images if the configuration gives their number, else to all training images.
    """

    all_train: Gaussian
    features: Tensor
    held_out: Tensor
    fitted: Gaussian
    extractor: str
    sha256: dict[str, str]

    def on(self, device: str) -> "Reference":
        """The same reference, its features on the device."""
        features, held_out = self.features.to(device), self.held_out.to(device)
        return replace(self, features=features, held_out=held_out)


def compute_reference(
    data: Path, extract: Extractor, count: int | None, folder: Path, receipt: Path
) -> dict[str, Any]:
    """The receipt of a reference, also written to `receipt`: the names of its files in `folder`.

    A file is computed unless it is there. `data` is the manifest of the packed images, `count` the number of random
    training images to measure against (None: all). Memory does not grow with the number of images. An interrupted run
    is continued by the next. Raises ValueError if there are fewer than `count` training images, or no more of them than
    features.
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

    works = (compute_reference, Extractor)
    code = digest([code_digest(work, extract.name) for work in works])
    versions = provenance.library_versions()

    def identity(what: dict[str, Any]) -> dict[str, Any]:
        return {
            "images_sha256": store.manifest["images_sha256"],
            "extractor": extract.name,
            "transform": extract.transform,
            "code": code,
            "libraries": {name: versions.get(name) for name in _LIBRARIES},
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
    content: dict[str, Any] = {"count": count, "extractor": extract.name}
    content |= {"folder": str(folder), "files": files}
    content["sha256"] = {name: sha256(folder / file) for name, file in files.items()}
    content["made"] = provenance.made(code, extract.device, libraries=extract.libraries)
    write_json(receipt, content)
    return content


def load_reference(receipt: Path, extractor: str) -> Reference:
    """The reference of a receipt.

    Raises ValueError if it is another extractor's or a file has changed, FileNotFoundError if a file is missing.
    """
    content = read_json(receipt)
    if content["extractor"] != extractor:
        raise ValueError(f"{receipt}: extractor is {content['extractor']}, expected {extractor}")
    arrays = {}
    for name, file in content["files"].items():
        path = Path(content["folder"]) / file
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing; remove {receipt} to have it computed again"
            )
        if sha256(path) != content["sha256"][name]:
            raise ValueError(f"{path} is not what {receipt} describes; remove both")
        arrays[name] = np.load(path)
    features, held_out = (
        torch.from_numpy(arrays[name]["features"]).double() for name in ("features", "held_out")
    )
    stored = arrays["all_train"]
    all_train = Gaussian(stored["mu"], stored["sigma"], int(stored["n"]))
    return Reference(
        all_train=all_train,
        features=features,
        held_out=held_out,
        fitted=all_train if content["count"] is None else gaussian(features),
        extractor=extractor,
        sha256=content["sha256"],
    )


def _stored(
    folder: Path, identity: dict[str, Any], compute: Callable[[Parts], dict[str, np.ndarray]]
) -> str:
    """The name of the file in `folder` that holds the arrays of `identity`; computed if the file is absent."""
    text = json.dumps(identity, sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"
    if not path.exists():
        parts = Parts(path, identity)
        arrays = compute(parts)
        with atomic(path) as temporary, open(temporary, "wb") as file:
            savez: Callable[..., None] = np.savez  # its own types take no arrays by name
            savez(file, identity=text, **arrays)
        parts.clear()
    return path.name


def _features_of(
    images: np.ndarray, extract: Extractor, chosen: np.ndarray, parts: Parts
) -> np.ndarray:
    """Features float32 [N, D] of the `chosen` ones of uint8 images."""
    computed = []
    for first, indices in _ranges(chosen):
        part = parts.load(str(first))
        if part is None:
            part = {"features": extract(images[indices])[0].float().cpu().numpy()}
            parts.save(str(first), part)
        computed.append(part["features"])
    return np.concatenate(computed)


def _chosen(
    images: np.ndarray, extract: Extractor, chosen: np.ndarray, parts: Parts
) -> dict[str, np.ndarray]:
    """Features of the `chosen` images, and their Gaussian, which other tools can read."""
    features = _features_of(images, extract, chosen, parts)
    fitted = gaussian(torch.from_numpy(features).double())
    return {"features": features, "n": np.array(fitted.n), "mu": fitted.mu, "sigma": fitted.sigma}


def _gaussian_of(images: np.ndarray, extract: Extractor, parts: Parts) -> dict[str, np.ndarray]:
    """n, mu and sigma of the features of all images, merged part by part on their device (Chan et al. 1979)."""
    n, mu, scatter = 0, *torch.zeros(2, device=extract.device)
    if (saved := parts.load("sums")) is not None:
        n = int(saved["n"])
        mu, scatter = (sent(saved[name], extract.device) for name in ("mu", "scatter"))
    for first, indices in _ranges(np.arange(len(images)), n):
        if first and first % (_SAVED * _PART) == 0:
            sums = {"n": np.array(n), "mu": mu.cpu().numpy(), "scatter": scatter.cpu().numpy()}
            parts.save("sums", sums)
        features = extract(images[indices])[0]
        m, mean = len(features), features.mean(0)
        centred, shift = features - mean, mean - mu
        scatter = scatter + centred.T @ centred + torch.outer(shift, shift) * (n * m / (n + m))
        mu, n = mu + shift * (m / (n + m)), n + m
    sigma = scatter / (n - 1)
    return {"n": np.array(n), "mu": mu.cpu().numpy(), "sigma": sigma.cpu().numpy()}


def _ranges(chosen: np.ndarray, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """The `chosen` indices from position `start` on, `_PART` at a time, with the position of the first."""
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
