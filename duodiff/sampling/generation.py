"""The images of a cell, computed in batches whose limits depend on the global image index alone."""

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from duodiff import noise, samplers
from duodiff.autoencoder import Autoencoder
from duodiff.graphs import StepGraphs
from duodiff.running.parts import Parts
from duodiff.sampling.cells import Cell, blocks
from duodiff.sampling.models import Models

log = logging.getLogger("duodiff")


def compute_batches(start: int, stop: int, batch: int) -> Iterator[tuple[int, slice]]:
    """The compute batches that cover the images start..stop-1: first global index, and the rows that are wanted.

    Batches are cut at multiples of `batch`, whatever the range. So every image is computed in the same batch, in a
    single run and in any shard.
    """
    for first in range(start - start % batch, stop, batch):
        yield first, slice(max(start - first, 0), min(stop - first, batch))


def captured(models: Models) -> StepGraphs | None:
    """What samples by captured steps in place of `samplers.sample`: made once for the models. None if nothing does."""
    if models.captures and models.graphs is None:
        models.graphs = StepGraphs(models.device)
    return models.graphs


def sample_batch(
    models: Models,
    cell: Cell,
    first: int,
    batch: int,
    seed: int,
    *,
    classes: list[int] | None = None,
    on_step: Callable[[int], object] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One compute batch of a cell, from the global index `first`. `classes` are its labels in turn, in place of all.

    Images or latents (float32 [batch, C, H, W], unclipped), labels (int64 [batch], -1 without classes) and
    blocks run (int8 [steps, batch]).
    """
    y = models.labels(seed, first, batch, cell.protocol)
    if classes is not None:
        y = noise.labels_in_turn(classes, first, batch)
    if cell.early_exit is not None:
        cell.early_exit.begin()
    eager = partial(samplers.sample, device=models.device)
    graphs = captured(models)
    sample = graphs.sample if graphs else eager
    x = sample(
        cell.schedule,
        cell.steps,
        models.shape,
        first,
        batch,
        seed=seed,
        y=y,
        on_step=on_step,
    )
    return x, torch.full((batch,), -1) if y is None else y, _blocks_run(cell, batch)


def generate(
    models: Models,
    cell: Cell,
    start: int,
    stop: int,
    *,
    batch: int,
    seed: int,
    classes: list[int] | None = None,
    autoencoder: Autoencoder | None = None,
    parts: Parts | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [n, C, H, W], labels int64 [n] (-1 without classes) and blocks run int8 [steps, n].

    n = stop - start. `start` and `stop` are global image indices. The blocks that an image ran in a step are AdaDiff's
    exit layer, or those of the network at t (`cells.blocks`). The labels are `classes` in turn, if they are given.

    `autoencoder` decodes latents, a whole compute batch at a time, so its batches do not depend on the range either.
    Compute batches that `parts` holds are taken from there; the others are saved there. Raises ValueError if an image
    is not finite.
    """
    finished, seconds = [], []
    batches = list(compute_batches(start, stop, batch))
    total = len(batches) * batch * len(cell.steps)
    with tqdm(total=total, desc=_title(cell), unit="img-step", disable=None, mininterval=1) as bar:
        for first, wanted in batches:
            arrays = parts.load(str(first)) if parts else None
            if arrays is None:
                began = time.perf_counter()
                arrays = _finished_batch(
                    models,
                    cell,
                    first,
                    batch,
                    seed,
                    classes=classes,
                    autoencoder=autoencoder,
                    bar=bar,
                )
                if parts:
                    parts.save(str(first), arrays)
                seconds.append(time.perf_counter() - began)
            else:
                bar.update(batch * len(cell.steps))
                if cell.early_exit is not None:
                    models.adadiff.nan_count += int(arrays["nans"])
            finished.append(
                (arrays["images"][wanted], arrays["labels"][wanted], arrays["blocks"][:, wanted])
            )
    if seconds:
        _log_speed(seconds, batch, len(cell.steps), filling=len(batches) * batch - (stop - start))
    images, labels, blocks = zip(*finished, strict=True)
    return np.concatenate(images), np.concatenate(labels), np.concatenate(blocks, axis=1)


def _title(cell: Cell) -> str:
    found = cell.parameters
    numbers = [f"{key} {found[key]:.4g}" for key in ("t_s", "theta") if key in found]
    return " ".join([cell.method, *numbers, found.get("schedule", "")]).strip()


def _log_speed(seconds: list[float], batch: int, calls: int, filling: int) -> None:
    """Logs the time of a computed image from the `seconds` of each batch, without the first, which warms up.

    `filling` is the number of computed images that nobody asked for, which fill batches up.
    """
    warm = seconds[1:] or seconds
    said = f", of which {filling} images only fill batches up" if filling else ""
    said += "" if len(seconds) > 1 else ", warming up included"
    each = 1e3 * sum(warm) / len(warm) / batch
    log.info("%d network calls, %.2f ms an image in batches of %d%s", calls, each, batch, said)


def _finished_batch(
    models: Models,
    cell: Cell,
    first: int,
    batch: int,
    seed: int,
    *,
    classes: list[int] | None,
    autoencoder: Autoencoder | None,
    bar: tqdm,
) -> dict[str, np.ndarray]:
    """The arrays of `generate` for one compute batch, and the number of uncertainties that were NaN.

    The host waits for a schedule's images once, when they are copied to it.
    """
    before = nan_count(models, cell)
    x, y, ran = sample_batch(
        models, cell, first, batch, seed, classes=classes, on_step=lambda t: bar.update(batch)
    )
    x = x if autoencoder is None else autoencoder.decode(x)
    copied = to_host(x, truncate=not cell.protocol.round_pixels)
    if not copied[:, -1].all():
        raise ValueError(f"images {first} to {first + batch - 1} are not finite")
    return {
        "images": copied[:, :-1].reshape(x.shape).numpy(),
        "labels": y.numpy(),
        "blocks": ran.numpy(),
        "nans": np.array(nan_count(models, cell) - before),
    }


def to_host(x: torch.Tensor, truncate: bool) -> torch.Tensor:
    """Quantised images with whether each is finite, uint8 [B, C H W + 1] on the host: one copy, and one wait."""
    finite = x.isfinite().flatten(1).all(dim=1, keepdim=True)
    pixels = samplers.to_uint8(x, truncate)
    return torch.cat([pixels.flatten(1), finite.to(torch.uint8)], dim=1).cpu()


def nan_count(models: Models, cell: Cell) -> int:
    """Uncertainties of AdaDiff that were NaN until now; 0 for DuoDiff."""
    return 0 if cell.early_exit is None else int(models.adadiff.nan_count)


def _blocks_run(cell: Cell, batch: int) -> torch.Tensor:
    """Blocks each image of the last compute batch ran in each step, int8 [steps, batch]."""
    if cell.early_exit is None:
        depths = [blocks(cell.schedule.at(step.t)) for step in cell.steps]
        return torch.tensor(depths)[:, None].expand(-1, batch).to(torch.int8)
    exits = torch.stack(cell.early_exit.exits)
    cell.early_exit.exits.clear()
    return exits.to(torch.int8).cpu()
