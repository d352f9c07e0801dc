"""The sample stores of a cell's shards, joined into the store that one job would have written (no torch)."""

from pathlib import Path
from typing import Any

import numpy as np

from duodiff.data.store import ImageStore, write_store
from duodiff.running.files import atomic, remove_leftovers, require_space, sha256
from duodiff.running.provenance import joined
from duodiff.running.shards import require_whole

_ARRAYS = ("images", "labels", "blocks_run")
_COUNTED = {"count", "images_sha256", "labels_sha256", "shape"}  # keys that write_store adds
# keys whose values may differ between shards
_OWN = {"indices", "blocks_run_sha256", "nan_uncertainties", "made"}


def gather_samples(shards: list[Path], images: int, out: Path) -> dict[str, Any]:
    """The manifest of a cell's store of `images` samples, joined from its `shards` in order. It is written to `out`.

    The manifest and the arrays beside it are the same bytes as those of a cell that one job sampled. Only `made`
    differs, where the shards were made by different machines or commits: it lists them. Raises ValueError if a file is
    not the one of its manifest, if the shards were sampled differently, or if one is missing.
    """
    stores = [ImageStore(shard) for shard in shards]
    require_whole([store.manifest["indices"] for store in stores], images)
    described = [_without(store.manifest, _COUNTED) for store in stores]
    makings = [manifest.get("made", {}) for manifest in described]
    shared = [_without(manifest, _OWN) for manifest in described]
    codes = [made.get("code") for made in makings]
    if any(other != shared[0] for other in shared) or len(set(codes)) > 1:
        raise ValueError("shards: they were not sampled alike; sample them again")
    arrays = {name: [_verified(store, name) for store in stores] for name in _ARRAYS}
    remove_leftovers(out.parent)
    size = sum(array.nbytes for name in _ARRAYS for array in arrays[name])
    require_space(out.parent, size, "joining the shards")
    with atomic(out.parent / "blocks_run.npy") as file:
        np.save(file, np.concatenate(arrays["blocks_run"], axis=1))
    own = {
        "indices": [0, images],
        "blocks_run_sha256": sha256(out.parent / "blocks_run.npy"),
        "nan_uncertainties": sum(shard.get("nan_uncertainties", 0) for shard in described),
        "made": joined(makings),
    }
    description = {key: own.get(key, value) for key, value in described[0].items()}
    pixels, labels = (np.concatenate(arrays[name]) for name in ("images", "labels"))
    return write_store(out, pixels, labels, description)


def _without(manifest: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key not in keys}


def _verified(store: ImageStore, name: str) -> np.ndarray:
    """An array of a shard. Raises ValueError if its sha256 is not the one in the manifest."""
    path = store.folder / f"{name}.npy"
    if sha256(path) != store.manifest[f"{name}_sha256"]:
        raise ValueError(f"{path}: its sha256 is not the one in its manifest; sample it again")
    return np.load(path, mmap_mode="r")
