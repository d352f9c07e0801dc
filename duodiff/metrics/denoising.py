"""Held-out denoising loss of every network and head at every timestep, and the uncertainties seen."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from duodiff import records
from duodiff.early_exit import layer_errors, uncertainty_target
from duodiff.metrics.bootstrap import COVERS, percentiles, resampled_means
from duodiff.running.files import write_csv, write_json
from duodiff.sampling.models import Models
from duodiff.schedules import T, time_input, timestep_weights, timesteps
from duodiff.training.backbone import noisers
from duodiff.training.batches import Batch


@torch.inference_mode()
def write_profile(
    data: Path,
    conventions: dict,
    protocol: str,
    full: Path,
    shallow: Path,
    heads: Path | None,
    n_timesteps: int,
    batch: int,
    seed: int,
    device: str,
    experiment: str,
    losses: Path,
    quantiles: Path,
    out: Path,
    precision: str = "float32",
) -> str:
    """Profiles every held-out image at `n_timesteps` timesteps; a one-line summary.

    `losses` (CSV): one row per t and network ("full", "shallow", "head") and layer, with the mean
    squared error of what the networks predict, and for heads the mean uncertainty u and its target u_hat.
    `quantiles` (JSON): the 0, 0.001, ..., 1 quantiles of all u over images, timesteps and layers (none without
    heads). `out` (JSON): the records of `loss_statistics`. Images are computed `batch` at a time, in the `precision`
    they are sampled in.
    """
    models = Models(conventions, protocol, full, shallow, heads, device=device, precision=precision)
    _, _, held_out = noisers(data, models.full, models.schedule.name, device, models.null_class)
    index, rows, observed, errors = np.arange(len(held_out)), [], [], []
    rng = np.random.default_rng(seed)
    profiled = timesteps(n_timesteps)
    for t in tqdm(profiled, desc="profile", unit="t", disable=None):
        eps = rng.standard_normal((len(index), *models.shape), dtype=np.float32)
        noised = held_out.noised(index, np.full(len(index), t), eps, rng)
        parts = [_measure(models, part) for part in noised.chunks(batch)]
        found = {key: torch.cat([part[key] for part in parts], dim=-1) for key in parts[0]}
        rows += [
            {"t": t, "network": network, "layer": None, "mse": found[network].mean().item()}
            for network in ("full", "shallow")
        ]
        errors.append([found[network].cpu().numpy() for network in ("full", "shallow")])
        if heads is not None:
            rows += _head_rows(t, found)
            observed.append(found["u"].cpu().numpy())
    write_csv(losses, rows)
    identity = {
        "n": len(index),
        "experiment": experiment,
        "protocol": protocol,
        "method": "shallow_against_full",
        "seeds": {"train_seed": seed},
        "compute_batch": batch,
        "dtype": precision,
        "device": records.device_name(device),
        "checkpoint_sha256": models.sha256(["full", "shallow"]),
        "interval_covers": COVERS,
    }
    statistics = loss_statistics(profiled, *np.array(errors).transpose(1, 0, 2))
    records.write(
        out,
        [
            records.Record(metric, float(values[0]), "1", interval=percentiles(values), **identity)
            for metric, values in statistics.items()
        ],
    )
    if heads is None:
        write_json(quantiles, {"levels": [], "values": []})
        return f"{len(rows)} rows"
    levels = np.linspace(0, 1, 1001)
    values = np.quantile(np.stack(observed), levels)
    write_json(quantiles, {"levels": levels.tolist(), "values": values.tolist()})
    return f"{len(rows)} rows, uncertainties from {values[0]:.3f} to {values[-1]:.3f}"


def loss_statistics(t: np.ndarray, full: np.ndarray, shallow: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of the squared errors [K, N] of two backbones at timesteps t [K] (descending), each float64
    [1 + RESAMPLES]: of the images, then of resamples of them.

    Large t are the first half of the T timesteps, which t_s = 500, the paper's largest, gives to the shallow
    backbone; t weigh by the timesteps they stand for. `full_loss_large_over_small_t`: ratio of the full
    backbone's mean losses. `loss_ratio_...`: geometric means over t of shallow over full.
    `loss_excess_...`: means of shallow minus full (Eq. 2's loss).
    """
    full, shallow = resampled_means(full), resampled_means(shallow)
    weights, large = timestep_weights(t), t >= T / 2

    def halves(values):
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


def _measure(models: Models, batch: Batch) -> dict[str, Tensor]:
    """Squared errors of full and shallow [B], and of every head [N, B] with u and u_hat, if there are any."""
    found = {"shallow": _error(models.shallow.predict(batch.x_t, batch.t, batch.y), batch)}
    if models.adadiff is None:
        return found | {"full": _error(models.full.predict(batch.x_t, batch.t, batch.y), batch)}
    fed = time_input(models.full.time_input, batch.t)
    with models.full.computing(batch.x_t.device):
        outputs = models.adadiff.all_layers(batch.x_t, fed, batch.y)
    output, u, g = (values.to(batch.x_t.dtype) for values in outputs)
    return found | {
        "full": _error(output, batch),
        "head": layer_errors(g, batch.target),
        "u": u,
        "u_hat": uncertainty_target(g, batch.target),
    }


def _error(output: Tensor, batch: Batch) -> Tensor:
    return layer_errors(output[None], batch.target)[0]


def _head_rows(t: int, found: dict[str, Tensor]) -> list[dict]:
    columns = {"mse": "head", "u": "u", "u_hat": "u_hat"}
    means = {name: found[key].mean(1).tolist() for name, key in columns.items()}
    return [
        {"t": t, "network": "head", "layer": layer} | {k: v[layer] for k, v in means.items()}
        for layer in range(len(found["u"]))
    ]
