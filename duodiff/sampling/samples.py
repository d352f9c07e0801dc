"""The sample store of a cell: its images, labels and blocks run, and a manifest that says what they are."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duodiff.autoencoder import Autoencoder
from duodiff.compiled import engine
from duodiff.data.store import write_store
from duodiff.identity import code_digest, digest
from duodiff.running import provenance
from duodiff.running.files import (
    atomic,
    remove_leftovers,
    require_space,
    sha256,
)
from duodiff.running.parts import Parts
from duodiff.running.shards import shard_range
from duodiff.sampling.cells import build_cell
from duodiff.sampling.generation import generate, nan_count
from duodiff.sampling.models import Models
from duodiff.settings import Setting

log = logging.getLogger("duodiff")


def write_samples(
    out: Path,
    models: Models,
    *,
    sampler: Mapping[str, Any],
    setting: Setting,
    images: int,
    batch: int,
    seed: int,
    experiment: str,
    train_seed: int,
    classes: list[int] | None = None,
    autoencoder: Autoencoder | None = None,
    shard: int = 0,
    shards: int = 1,
) -> dict[str, Any]:
    """The manifest of a cell's sample store. It is written to `out`, and blocks_run.npy beside it.

    The store holds all `images` of the cell, or those of one `shard` (0-based) of `shards`, cut between compute batches
    of `batch` images. The labels are `classes` in turn, if they are given. The manifest holds everything that a record
    says of its samples. It says nothing of networks that the cell does not use, or of earlier cells of these models. An
    interrupted run is continued after its last compute batch.
    """
    cell = build_cell(models, sampler, setting)
    nans_before = nan_count(models, cell)
    first, end = shard_range(images, batch, shard, shards)
    description: dict[str, Any] = {
        "experiment": experiment,
        "protocol": models.protocol.name,
        "train_seed": train_seed,
        **models.conventions,
        "num_classes": models.num_classes,
        "method": cell.method,
        "parameters": cell.parameters,
        "sampler": sampler,
        "nfe": len(cell.steps),
        "timesteps": [step.t for step in cell.steps],
        "indices": [first, end],
        "seed": seed,
        "dtype": models.precision,
        "compiled": models.compiled and (cell.early_exit is None or cell.early_exit.compiled),
        "compute_batch": batch,
        "checkpoint_sha256": models.sha256(cell.roles),
        "departures": [text for text in models.departures if text.partition(":")[0] in cell.roles],
    }
    if classes is not None:
        description["classes"] = classes
    if autoencoder is not None:
        description["autoencoder"] = autoencoder.source | {"batch": autoencoder.batch}
    objects = (Models, Autoencoder) if autoencoder else (Models,)  # whose methods do the work
    code = digest([code_digest(work, description) for work in (write_samples, *objects)])
    identity = description | {"torch": torch.__version__, "code": code}
    identity["device"] = provenance.device_name(models.device)  # a store's images are of one device
    libraries = ["diffusers"] if autoencoder else []
    if description["compiled"]:
        identity["engine"] = engine(models.device, models.precision)
        libraries.append(identity["engine"].partition(" ")[0])
    parts = Parts(out, identity)
    remove_leftovers(out.parent)
    size = autoencoder.image_shape(models.shape) if autoencoder else models.shape
    # twice: as parts, and as the whole
    require_space(out.parent, 2 * (end - first) * (math.prod(size) + len(cell.steps)), "sampling")
    pixels, labels, blocks = generate(
        models,
        cell,
        first,
        end,
        batch=batch,
        seed=seed,
        classes=classes,
        autoencoder=autoencoder,
        parts=parts,
    )
    with atomic(out.parent / "blocks_run.npy") as file:
        np.save(file, blocks)
    description["blocks_run_sha256"] = sha256(out.parent / "blocks_run.npy")
    if cell.early_exit is not None:
        description["nan_uncertainties"] = nans = nan_count(models, cell) - nans_before
        if nans:
            log.warning("%s: %d uncertainties were NaN and did not exit", setting, nans)
    trained = models.made(cell.roles)
    description["made"] = provenance.made(code, models.device, libraries=libraries, of=trained)
    manifest = write_store(out, pixels, labels, description)
    parts.clear()
    return manifest
