"""Held-out denoising loss of every network and head at every timestep, and the observed uncertainties."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from duodiff import records
from duodiff.checkpoints import BackboneManifest
from duodiff.early_exit import layer_errors, uncertainty_target
from duodiff.identity import code_digest, digest
from duodiff.metrics.bootstrap import COVERS, percentiles, resampled_means
from duodiff.metrics.losses import Losses
from duodiff.running import provenance
from duodiff.running.files import write_csv, write_json
from duodiff.sampling.models import Models
from duodiff.schedules import (
    T,
    prediction_coefficients,
    time_input,
    timestep_weights,
    timesteps,
)
from duodiff.training.backbone import noisers
from duodiff.training.batches import Batch

_BACKBONES = ("full", "shallow")


@torch.inference_mode()
def write_profile(
    data: Path,
    models: Models,
    *,
    n_timesteps: int,
    also: Sequence[int] = (),
    networks: Mapping[str, Mapping[str, int]] | None = None,
    batch: int,
    seed: int,
    experiment: str,
    losses: Path,
    errors: Path,
    quantiles: Path,
    out: Path,
) -> str:
    """Profiles every held-out image at `n_timesteps` timesteps; a one-line summary.

    `losses` (CSV) has a row for each t and network ("full", "shallow", or "head" with its layer): the mean squared
    error of the prediction, and for heads the mean uncertainty u and its target u_hat.
    `errors` holds the squared errors of every image in the noise (`losses.Losses`), at the timesteps `also` too: what
    schedules are chosen by. Its networks are the full and the shallow backbone and those of `networks`, by name: with a
    `depth` a backbone of the models, with an `exit` AdaDiff's head before this block.
    `quantiles` (JSON) holds the 0, 0.001, ..., 1 quantiles of all u over images, timesteps and layers; without heads
    it is empty.
    `out` (JSON) holds the records of `loss_statistics`.

    `seed` is the training seed. Images are computed `batch` at a time, in the precision of the models.
    """
    _, _, held_out = noisers(
        data, models.full, models.schedule.name, models.device, models.null_class
    )
    rows: list[dict[str, Any]] = []
    compared, uncertainties, kept = [], [], []
    further, profiled = dict(networks or {}), timesteps(n_timesteps)
    every = np.array(sorted({*profiled.tolist(), *also}, reverse=True))
    on_device = [
        measure(models, held_out.at_timestep(seed, int(t)), batch, further)
        for t in tqdm(every, desc="profile", unit="t", disable=None)
    ]
    for t, one in zip(every, on_device, strict=True):
        measured = {key: value.cpu() for key, value in one.items()}
        kept.append([measured[key].numpy() for key in ("errors", "disagreements")])
        if t not in profiled:
            continue
        backbones = measured["errors"][: len(_BACKBONES)]
        rows += [
            {"t": t, "network": network, "layer": None, "mse": one.mean().item()}
            for network, one in zip(_BACKBONES, backbones, strict=True)
        ]
        compared.append(backbones.numpy())
        if models.has_heads:
            rows += _head_rows(t, measured)
            uncertainties.append(measured["u"].numpy())
    write_csv(losses, rows)
    _losses(models, further, every, np.array(kept)).write(errors)
    parameters = [models.conventions, models.protocol.name]
    code = digest([code_digest(work, parameters) for work in (write_profile, Models)])
    full, shallow = np.array(compared).transpose(1, 0, 2)
    common = {
        "n": len(held_out),
        "experiment": experiment,
        "protocol": models.protocol.name,
        "method": "shallow_against_full",
        "seeds": {"train_seed": seed},
        "compute_batch": batch,
        "dtype": models.precision,
        "checkpoint_sha256": models.sha256(_BACKBONES),
        "made": provenance.made(code, models.device, of=models.made(_BACKBONES)),
    }
    records.write(out, _records(loss_statistics(profiled, full, shallow), common))
    if not models.has_heads:
        write_json(quantiles, {"levels": [], "values": []})
        return f"{len(rows)} rows"
    levels = np.linspace(0, 1, 1001)
    values = np.quantile(np.stack(uncertainties), levels)
    write_json(quantiles, {"levels": levels.tolist(), "values": values.tolist()})
    return f"{len(rows)} rows, uncertainties from {values[0]:.3f} to {values[-1]:.3f}"


def _records(statistics: dict[str, np.ndarray], common: dict[str, Any]) -> list[records.Record]:
    """The records of `loss_statistics`, with the fields that they have in `common`."""
    return [
        records.Record(
            metric,
            float(values[0]),
            "1",
            interval=percentiles(values),
            interval_covers=COVERS,
            **common,
        )
        for metric, values in statistics.items()
    ]


def loss_statistics(t: np.ndarray, full: np.ndarray, shallow: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of the squared errors [K, N] of two backbones on N images at timesteps t [K] (descending).

    Each statistic is float64 [1 + RESAMPLES]: of the images first, then of resamples of the images.

    The first half of the T timesteps is called large: t >= T/2. The shallow backbone runs there at the paper's
    largest t_s, 500. Every t weighs as much as the timesteps that it stands for.

    - `full_loss_large_over_small_t`: ratio of the full backbone's mean losses.
    - `loss_ratio_...`: geometric means over t of the shallow backbone's loss over the full one's.
    - `loss_excess_...`: means over t of the shallow backbone's loss minus the full one's (the loss of Eq. 2).
    """
    full, shallow = resampled_means(full), resampled_means(shallow)
    weights, large = timestep_weights(t), t >= T / 2

    def halves(values: np.ndarray) -> list[np.ndarray]:
        return [
            np.average(values[:, half], axis=1, weights=weights[half]) for half in (large, ~large)
        ]

    losses, excess = halves(full), halves(shallow - full)
    ratios = np.exp(halves(np.log(shallow / full)))
    return {
        "full_loss_large_over_small_t": losses[0] / losses[1],
        "loss_ratio_large_t": ratios[0],
        "loss_ratio_small_t": ratios[1],
        "loss_ratio_small_over_large_t": ratios[1] / ratios[0],
        "loss_excess_large_t": excess[0],
        "loss_excess_small_t": excess[1],
        "loss_excess_small_minus_large_t": excess[1] - excess[0],
    }


def _losses(
    models: Models, further: dict[str, Mapping[str, int]], t: np.ndarray, kept: np.ndarray
) -> Losses:
    """What schedules are chosen by, from errors and disagreements [P, 2, K, N] of the networks' outputs at `t` [P].

    eps = c output + d x_t, so an error in the noise is c times that of the output.
    """
    coefficients = prediction_coefficients(models.full.prediction, models.schedule)[2][t] ** 2
    depths = {role: {"depth": models.backbone(role).net.depth} for role in _BACKBONES}
    in_noise = kept.transpose(1, 2, 0, 3) * coefficients[:, None] * prod(models.shape)
    errors, disagreements = in_noise.astype(np.float32)
    about = {
        "architecture": cast(BackboneManifest, models.manifests["full"]).architecture,
        "networks": depths | further,
        "schedule": models.schedule.name,
    }
    return Losses((*_BACKBONES, *further), t, errors, disagreements, about)


def measure(
    models: Models, noised: Batch, batch: int, further: Mapping[str, Mapping[str, int]]
) -> dict[str, Tensor]:
    """`_measure` of all images, `batch` at a time, on their device. Nothing here waits for it."""
    chunks = [_measure(models, chunk, further) for chunk in noised.chunks(batch)]
    return {key: torch.cat([chunk[key] for chunk in chunks], dim=-1) for key in chunks[0]}


def _measure(
    models: Models, batch: Batch, further: Mapping[str, Mapping[str, int]]
) -> dict[str, Tensor]:
    """Of the full, the shallow and the `further` networks "errors" and "disagreements" with the full one [K, B].

    They are mean squares over an image. With heads also the errors of each "head", "u" and "u_hat" [N, B].
    """
    shallow = models.shallow.predict(batch.x_t, batch.t, batch.y)
    if models.has_heads:
        full, u, g = _all_layers(models, batch)
        target = batch.target
        heads = {"head": layer_errors(g, target), "u": u, "u_hat": uncertainty_target(g, target)}
    else:
        full, g, heads = models.full.predict(batch.x_t, batch.t, batch.y), None, {}
    outputs = [full, shallow]
    for name, network in further.items():
        if "exit" in network:
            assert g is not None  # a configuration with an exit trains the heads
            outputs.append(g[network["exit"]])
        else:
            outputs.append(models.backbone(name).predict(batch.x_t, batch.t, batch.y))
    stacked = torch.stack(outputs)
    errors, disagreements = layer_errors(stacked, batch.target), layer_errors(stacked, full)
    return {"errors": errors, "disagreements": disagreements} | heads


def _all_layers(models: Models, batch: Batch) -> tuple[Tensor, ...]:
    """The full backbone's output [B, C, H, W], uncertainties [N, B] and head outputs [N, B, C, H, W]."""
    full = models.full
    fed = time_input(full.time_input, batch.t)
    with full.computing(batch.x_t.device):
        outputs = models.adadiff.all_layers(batch.x_t, fed, batch.y)
    return tuple(values.to(batch.x_t.dtype) for values in outputs)


def _head_rows(t: int, measured: dict[str, Tensor]) -> list[dict[str, Any]]:
    columns = {"mse": "head", "u": "u", "u_hat": "u_hat"}
    means = {name: measured[key].mean(1).tolist() for name, key in columns.items()}
    return [
        {"t": t, "network": "head", "layer": layer} | {k: v[layer] for k, v in means.items()}
        for layer in range(len(measured["u"]))
    ]
