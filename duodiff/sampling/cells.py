"""One cell of the grid: a method at one setting (`duodiff.settings`), a sampler, a seed -> images, or their timing."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from duodiff import samplers
from duodiff.autoencoder import Autoencoder
from duodiff.backbones import EarlyExit, Guided, SwitchSchedule, duodiff, one_call_late, single
from duodiff.compiled import engine
from duodiff.data.store import write_store
from duodiff.protocol import PROTOCOLS, Protocol
from duodiff.records import device_name
from duodiff.running.files import (
    atomic,
    code_sha256,
    remove_leftovers,
    require_space,
    sha256,
)
from duodiff.running.parts import Parts
from duodiff.running.shards import shard_range
from duodiff.samplers import Step
from duodiff.sampling.models import Models
from duodiff.settings import Setting
from duodiff.uvit import Denoiser

log = logging.getLogger("duodiff")

_DECIDING = (
    *(
        "sampling/models",
        "sampling/cells",
        "checkpoints",
        "samplers",
        "backbones",
        "compiled",
        "early_exit",
        "uvit",
        "autoencoder",
    ),
    *("noise", "schedules", "protocol"),
)
"""The modules that decide an image: an edit of one has all of a cell's computed again."""


@dataclass
class Cell:
    """A setting made runnable: which backbone at which t, the sampler's steps, what to record.

    `roles` names the checkpoints it uses.
    """

    method: str
    parameters: dict
    schedule: SwitchSchedule
    steps: list[Step]
    roles: tuple[str, ...]
    protocol: Protocol
    early_exit: EarlyExit | None = None


def build_cell(models: Models, sampler: dict, setting: Setting, protocol: str) -> Cell:
    """The cell of one setting under one sampler and protocol; sampler["guidance"] is the guidance scale."""
    rules = PROTOCOLS[protocol]
    steps = samplers.steps_of(models.schedule, sampler, rules)
    extra = {key: sampler[key] for key in ("eta", "guidance") if sampler.get(key) is not None}
    method, roles = setting.method, setting.networks
    if setting.exits_early:
        early_exit = models.early_exit(models.threshold(setting))
        parameters = {
            "theta": early_exit.theta,
            "setting": setting.spelled,
            "depth": models.full.net.depth,
        }
        schedule = single(early_exit)
        return Cell(method, parameters | extra, schedule, steps, roles, rules, early_exit)
    used = t_s = setting.t_s
    if rules.ddim_switch_one_call_late and sampler["name"] == "ddim":
        used = one_call_late(t_s, [step.t for step in steps])
    backbones = [models.full, models.shallow]
    if scale := sampler.get("guidance"):
        null = models.num_classes - 1
        backbones = [b and Guided(b, scale, null) for b in backbones]
    return Cell(method, {"t_s": t_s} | extra, duodiff(*backbones, used), steps, roles, rules)


def compute_batches(start: int, stop: int, batch: int) -> Iterator[tuple[int, slice]]:
    """First global index of each compute batch that covers start..stop-1, and the part of it wanted.

    Batches are cut at multiples of `batch` whatever the range, so a shard computes each image in the
    same company as a single run does.
    """
    for first in range(start - start % batch, stop, batch):
        yield first, slice(max(start - first, 0), min(stop - first, batch))


def sample_batch(
    models: Models,
    cell: Cell,
    first: int,
    batch: int,
    seed: int,
    on_step: Callable[[int], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One compute batch of a cell, from the global index `first`.

    Images or latents (float32 [batch, C, H, W], unclipped), labels (int64 [batch], -1 without classes) and
    blocks run (int8 [steps, batch]).
    """
    y = models.labels(seed, first, batch, cell.protocol)
    x = samplers.sample(
        cell.schedule,
        cell.steps,
        models.shape,
        first,
        batch,
        seed=seed,
        y=y,
        device=models.device,
        on_step=on_step,
    )
    return x, torch.full((batch,), -1) if y is None else y, _blocks_run(cell, batch)


def generate(
    models: Models,
    cell: Cell,
    start: int,
    stop: int,
    batch: int,
    seed: int,
    autoencoder: Autoencoder | None = None,
    parts: Parts | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [n, C, H, W], labels int64 [n] (-1 without classes), blocks run int8 [steps, n].

    n = stop - start global image indices; the blocks an image ran in each step are AdaDiff's exit layer,
    or the depth of the backbone at work. Latents are decoded by `autoencoder`, a whole compute batch at a
    time, so that what its batches are made of does not depend on the range either. Compute batches that are
    among `parts` are taken from there, others put there. Raises ValueError if an image is not finite.
    """
    found, seconds = [], []
    batches = list(compute_batches(start, stop, batch))
    total = len(batches) * batch * len(cell.steps)
    setting = (f"{k} {cell.parameters[k]:.4g}" for k in ("t_s", "theta") if k in cell.parameters)
    name = " ".join([cell.method, *setting])
    with tqdm(total=total, desc=name, unit="img-step", disable=None, mininterval=1) as bar:
        for first, wanted in batches:
            kept = parts.load(str(first)) if parts else None
            if kept is None:
                began = time.perf_counter()
                kept = _finished_batch(models, cell, first, batch, seed, autoencoder, bar)
                if parts:
                    parts.save(str(first), kept)
                seconds.append(time.perf_counter() - began)
            else:
                bar.update(batch * len(cell.steps))
                if cell.early_exit is not None:
                    models.adadiff.nan_count += int(kept["nans"])
            found.append(
                (kept["images"][wanted], kept["labels"][wanted], kept["blocks"][:, wanted])
            )
    if seconds:
        warm = seconds[1:] or seconds  # the first one warms up every backbone
        log.info(
            "%d network calls, %.2f ms an image in batches of %d%s",
            len(cell.steps),
            1e3 * sum(warm) / len(warm) / batch,
            batch,
            "" if len(seconds) > 1 else ", warming up included",
        )
    images, labels, blocks = zip(*found, strict=True)
    return np.concatenate(images), np.concatenate(labels), np.concatenate(blocks, axis=1)


def _finished_batch(
    models: Models,
    cell: Cell,
    first: int,
    batch: int,
    seed: int,
    autoencoder: Autoencoder | None,
    bar: tqdm,
) -> dict[str, np.ndarray]:
    """What `generate` gives of one compute batch, and the number of uncertainties that were NaN."""
    nans = 0 if cell.early_exit is None else int(models.adadiff.nan_count)
    x, y, ran = sample_batch(models, cell, first, batch, seed, on_step=lambda t: bar.update(batch))
    x = x if autoencoder is None else autoencoder.decode(x)
    if not torch.isfinite(x).all():
        raise ValueError(f"images {first} to {first + batch - 1} are not finite")
    pixels = samplers.to_uint8(x, truncate=not cell.protocol.round_pixels)
    nans = 0 if cell.early_exit is None else int(models.adadiff.nan_count) - nans
    return {
        "images": pixels.cpu().numpy(),
        "labels": y.numpy(),
        "blocks": ran.numpy(),
        "nans": np.array(nans),
    }


def _blocks_run(cell: Cell, batch: int) -> torch.Tensor:
    """Blocks each image of the last compute batch ran in each step, int8 [steps, batch]."""
    if cell.early_exit is None:
        depths = torch.tensor([_depth(cell.schedule.at(step.t)) for step in cell.steps])
        return depths[:, None].expand(-1, batch).to(torch.int8)
    exits = torch.stack(cell.early_exit.exits)
    cell.early_exit.exits.clear()
    return exits.to(torch.int8).cpu()


def _depth(backbone: Denoiser | Guided) -> int:
    return (backbone.backbone if isinstance(backbone, Guided) else backbone).net.depth


def write_samples(
    out: Path,
    paths: dict[str, Path | None],
    conventions: dict,
    sampler: dict,
    setting: Setting,
    images: int,
    batch: int,
    seed: int,
    device: str,
    context: dict,
    autoencoder: Autoencoder | None = None,
    shard: int = 0,
    shards: int = 1,
    precision: str = "float32",
    compiled: bool = False,
) -> dict:
    """Manifest of one cell's sample store, written to `out`, with blocks_run.npy beside it.

    It holds all `images` of the cell, or those of one `shard` (0-based) of `shards`, cut between compute batches.

    `paths`, `conventions`, `precision` and `compiled` are the arguments of `Models`; `context` (experiment, protocol,
    train_seed) goes into the manifest, which holds everything a record says of its samples. An interrupted run is
    continued after its last compute batch.
    """
    options = {"device": device, "precision": precision, "compiled": compiled}
    models = Models(conventions, context["protocol"], **paths, **options)
    cell = build_cell(models, sampler, setting, context["protocol"])
    first, end = shard_range(images, batch, shard, shards)
    description = {
        **context,
        **conventions,
        "num_classes": models.num_classes,
        "method": cell.method,
        "parameters": cell.parameters,
        "sampler": sampler,
        "nfe": len(cell.steps),
        "timesteps": [step.t for step in cell.steps],
        "indices": [first, end],
        "seed": seed,
        "dtype": precision,
        "compiled": compiled and cell.early_exit is None,
        "compute_batch": batch,
        "device": device_name(device),
        "checkpoint_sha256": models.sha256(cell.roles),
        "departures": models.departures,
    }
    if autoencoder is not None:
        description["autoencoder"] = autoencoder.source | {"batch": autoencoder.batch}
    identity = description | {"torch": torch.__version__, "code": code_sha256(*_DECIDING)}
    if description["compiled"]:
        identity["engine"] = engine(device, precision)
    parts = Parts(out, identity)
    remove_leftovers(out.parent)
    size = autoencoder.image_shape(models.shape) if autoencoder else models.shape
    # twice: as parts, and as the whole
    require_space(out.parent, 2 * (end - first) * (math.prod(size) + len(cell.steps)), "sampling")
    pixels, labels, blocks = generate(models, cell, first, end, batch, seed, autoencoder, parts)
    with atomic(out.parent / "blocks_run.npy") as file:
        np.save(file, blocks)
    description["blocks_run_sha256"] = sha256(out.parent / "blocks_run.npy")
    if cell.early_exit is not None:
        description["nan_uncertainties"] = nans = int(models.adadiff.nan_count)
        if nans:
            log.warning("%s: %d uncertainties were NaN and did not exit", setting, nans)
    manifest = write_store(out, pixels, labels, description)
    parts.clear()
    return manifest
