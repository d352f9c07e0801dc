"""The sample stores of a cell's shards, joined into the one that a single job would have written (no torch)."""

from pathlib import Path

import numpy as np

from duodiff.data.store import ImageStore, write_store
from duodiff.running.files import atomic, remove_leftovers, require_space, sha256
from duodiff.running.shards import require_whole

_ARRAYS = ("images", "labels", "blocks_run")
_COUNTED = {"count", "images_sha256", "labels_sha256", "shape"}  # by write_store
_OWN = {"indices", "blocks_run_sha256", "nan_uncertainties"}  # of one shard alone


def gather_samples(shards: list[Path], images: int, out: Path) -> dict:
    """Manifest, written to `out`, of a cell's store of `images` samples, joined from all of its `shards` in order.

    It and the arrays beside it are the bytes that the cell sampled in one would have. Raises ValueError for shards
    that are not what their manifests say, not sampled alike, or do not make up the whole.
    """
    stores = [ImageStore(shard) for shard in shards]
    require_whole([store.manifest["indices"] for store in stores], images)
    described = [_without(store.manifest, _COUNTED) for store in stores]
    if any(_without(other, _OWN) != _without(described[0], _OWN) for other in described):
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
    }
    description = {key: own.get(key, value) for key, value in described[0].items()}
    pixels, labels = (np.concatenate(arrays[name]) for name in ("images", "labels"))
    return write_store(out, pixels, labels, description)


def _without(manifest: dict, keys: set[str]) -> dict:
    return {key: value for key, value in manifest.items() if key not in keys}


def _verified(store: ImageStore, name: str) -> np.ndarray:
    """An array of a shard. Raises ValueError if it is not the one its manifest pins."""
    path = store.folder / f"{name}.npy"
    if sha256(path) != store.manifest[f"{name}_sha256"]:
        raise ValueError(f"{path}: its sha256 is not the one in its manifest; sample it again")
    return np.load(path, mmap_mode="r")
