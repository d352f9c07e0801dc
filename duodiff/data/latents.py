"""Encodes an image store, once, into a store of latents (`duodiff.data.store.LatentStore`).

The images are cut into shards. Each shard is encoded by a job of its own, and `gather` joins them. A shard ends where a
batch ends, so the bytes do not depend on the number of shards.
"""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from duodiff.autoencoder import Autoencoder, load
from duodiff.data.store import ImageStore
from duodiff.identity import code_digest
from duodiff.running import provenance
from duodiff.running.files import (
    atomic,
    naming_full_disk,
    read_json,
    remove_leftovers,
    require_space,
    sha256,
    write_json,
)
from duodiff.running.shards import require_whole, shard_range
from duodiff.transfer import sent


def encode_shard(
    images: Path, autoencoder: dict, data: Path, device: str, out: Path, *, shard: int, shards: int
) -> dict:
    """Description of the latents of shard number `shard` (0-based) of the image store `images`.

    The description is written to `out`, the moments beside it (the same name, `.npy`). `autoencoder` is a section of
    the configuration: the keys of `duodiff.autoencoder.load`, and `flips`, whether to encode the mirrored images too.
    Memory does not grow with the number of images. Finished batches are kept in a hidden file beside `out`; the next
    run with the same arguments continues there. Raises ValueError if the images do not fit the autoencoder, or if
    moments are not finite in float16.
    """
    store, codec = ImageStore(images), load(autoencoder, data, device)
    channels, *size = codec.latent_shape(store.shape)
    flips = autoencoder["flips"]
    first, end = shard_range(len(store), codec.batch, shard, shards)
    description = {
        "images_sha256": store.manifest["images_sha256"],
        "range": [first, end],
        "shape": [channels, *size],
        "autoencoder": codec.source,
        "scale": codec.scale,
        "flips": flips,
    }
    code = code_digest(encode_shard)
    run = [description, codec.batch, device, torch.__version__, code]
    partial = out.with_name(f".{out.stem}.{_digest(run)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    for other in set(out.parent.glob(f".{out.stem}.*")) - {partial}:
        other.unlink()
    shape = (end - first, 1 + flips, 2 * channels, *size)
    there = partial.stat().st_size if partial.exists() else 0
    require_space(out.parent, _size(shape) - there, "encoding")
    with naming_full_disk(partial):
        _append_moments(partial, shape, store.images[first:end], codec, first)
    os.replace(partial, out.with_suffix(".npy"))
    description["made"] = provenance.made(code, device, libraries=["diffusers"])
    write_json(out, description)
    return description


def gather(images: Path, shards: list[Path], manifest: Path) -> dict:
    """Manifest of the latents of the image store `images`, joined from all its `shards` in their order.

    It is the image store's manifest, with the latents' shape, hash, scale and autoencoder. It is written after the
    arrays beside it. Memory does not grow with the number of images. Raises ValueError for shards of other images, for
    shards not encoded alike, and if one is missing.
    """
    store, folder = ImageStore(images), manifest.parent
    descriptions = [read_json(shard) for shard in shards]
    require_whole([description.pop("range") for description in descriptions], len(store))
    makings = [description.pop("made", {}) for description in descriptions]
    encoded, codes = descriptions[0], {made.get("code") for made in makings}
    if any(description != encoded for description in descriptions) or len(codes) > 1:
        raise ValueError("shards: they were not encoded alike; encode them again")
    if encoded["images_sha256"] != store.manifest["images_sha256"]:
        raise ValueError(f"shards: they are not of the images of {images}; encode them again")
    channels, *size = encoded["shape"]
    shape = (len(store), 1 + encoded["flips"], 2 * channels, *size)
    remove_leftovers(folder)
    require_space(folder, _size(shape), "joining the shards")
    with atomic(folder / "moments.npy") as path:
        _join(path, shape, [shard.with_suffix(".npy") for shard in shards])
    with atomic(folder / "labels.npy") as labels:
        shutil.copyfile(store.folder / "labels.npy", labels)
    joined = store.manifest | encoded | {"moments_sha256": sha256(folder / "moments.npy")}
    joined["made"] = provenance.joined(makings)
    write_json(manifest, joined)
    for interrupted in shards[0].parent.glob(".*"):  # of a run with another number of shards
        interrupted.unlink()
    return joined


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _append_moments(
    path: Path, shape: tuple[int, ...], images: np.ndarray, codec: Autoencoder, offset: int
) -> None:
    """Completes `path`, a `.npy` file of moments of `shape`. The whole batches that it has already are kept.

    `offset` is the index of the first image in its store, for error messages.
    """
    path.touch()
    batch = codec.batch
    size, record = path.stat().st_size, _size(shape[1:])
    with open(path, "r+b") as file:
        _write_header(file, shape)
        done = max(0, size - file.tell()) // (record * batch) * batch
        file.seek(done * record, os.SEEK_CUR)
        file.truncate()
        bar = tqdm(desc="encode", total=shape[0], initial=done, unit="image", disable=None)
        with bar:
            for first in range(done, shape[0], batch):
                moments = _moments(images[first : first + batch], codec, mirrored=shape[1] == 2)
                if not np.isfinite(moments).all():
                    raise ValueError(
                        f"moments of images from {offset + first} on are not finite in float16"
                    )
                file.write(moments.tobytes())
                bar.update(len(moments))
        file.flush()
        os.fsync(file.fileno())


def _size(shape: tuple[int, ...]) -> int:
    """Bytes of float16 moments of `shape`."""
    return math.prod(shape) * np.dtype(np.float16).itemsize


def _join(path: Path, shape: tuple[int, ...], shards: list[Path]) -> None:
    """Writes `path`, a `.npy` file of moments of `shape`, with the contents of the `shards` one after the other."""
    with open(path, "wb") as file:
        _write_header(file, shape)
        for shard in shards:
            with open(shard, "rb") as moments:
                np.lib.format.read_magic(moments)
                np.lib.format.read_array_header_1_0(moments)
                shutil.copyfileobj(moments, file)


def _write_header(file, shape: tuple[int, ...]) -> None:
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _moments(images: np.ndarray, codec: Autoencoder, mirrored: bool) -> np.ndarray:
    """Moments, float16 [B, F, 2C, h, w], of the images, uint8 [B, K, H, W]. F is 2 if `mirrored`, else 1."""
    pixels = sent(images, codec.device)
    views = [pixels, pixels.flip(-1)] if mirrored else [pixels]
    return torch.stack([codec.encode(view) for view in views], dim=1).half().cpu().numpy()
