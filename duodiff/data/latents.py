"""Encoding an image store into a store of latents, once (`duodiff.data.store.LatentStore`)."""

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
from duodiff.files import atomic, sha256, write_json


def encode_store(
    images: Path, autoencoder: dict, data: Path, batch: int, device: str, manifest: Path
) -> dict:
    """Manifest of the latents of the image store `images`, written to `manifest` after the arrays beside it.

    It is the image store's, with the latents' shape, hash, scale and autoencoder. `autoencoder` is that
    section of the configuration: the keys of `duodiff.autoencoder.load` and `flips`, whether to encode
    the mirrored images too. Memory does not grow with the number of images. What is encoded is kept in a
    hidden file beside `manifest`, so that an interrupted run is continued by the next with the same
    arguments. Raises ValueError if the images or their moments do not fit.
    """
    store, codec = ImageStore(images), load(autoencoder, data, device)
    channels, *size = codec.latent_shape(store.shape)
    flips, folder = autoencoder.get("flips", False), manifest.parent
    shape = (len(store), 1 + flips, 2 * channels, *size)
    run = [store.manifest["images_sha256"], codec.source, flips, batch, device]
    partial = folder / f".moments.{hashlib.sha256(json.dumps(run).encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    for other in set(folder.glob(".moments.*")) - {partial}:
        other.unlink()
    _append_moments(partial, shape, store.images, codec, batch)
    os.replace(partial, folder / "moments.npy")
    with atomic(folder / "labels.npy") as labels:
        shutil.copyfile(store.folder / "labels.npy", labels)
    description = {
        **store.manifest,
        "shape": [channels, *size],
        "moments_sha256": sha256(folder / "moments.npy"),
        "autoencoder": codec.source,
        "scale": codec.scale,
        "flips": flips,
    }
    write_json(manifest, description)
    return description


def _append_moments(
    path: Path, shape: tuple[int, ...], images: np.ndarray, codec: Autoencoder, batch: int
) -> None:
    """Completes the `.npy` file `path` of moments of `shape`, keeping the whole batches it holds."""
    path.touch()
    size, record = path.stat().st_size, math.prod(shape[1:]) * np.dtype(np.float16).itemsize
    with open(path, "r+b") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        done = max(0, size - file.tell()) // (record * batch) * batch
        file.seek(done * record, os.SEEK_CUR)
        file.truncate()
        bar = tqdm(desc="encode", total=shape[0], initial=done, unit="image", disable=None)
        with bar:
            for first in range(done, shape[0], batch):
                moments = _moments(images[first : first + batch], codec, mirrored=shape[1] == 2)
                if not np.isfinite(moments).all():
                    raise ValueError(f"moments of images from {first} on are not finite in float16")
                file.write(moments.tobytes())
                bar.update(len(moments))


def _moments(images: np.ndarray, codec: Autoencoder, mirrored: bool) -> np.ndarray:
    """float16 [B, F, 2C, h, w] of uint8 [B, 3, H, W]."""
    pixels = torch.from_numpy(np.array(images))
    views = [pixels, pixels.flip(-1)] if mirrored else [pixels]
    return torch.stack([codec.encode(view) for view in views], dim=1).half().cpu().numpy()
