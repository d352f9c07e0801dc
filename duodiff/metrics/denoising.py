"""Held-out denoising loss of every network and head at every timestep, and the uncertainties seen."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from duodiff.early_exit import layer_errors, uncertainty_target
from duodiff.files import write_csv, write_json
from duodiff.generation import Models
from duodiff.schedules import time_input, timesteps
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
    losses: Path,
    quantiles: Path,
) -> str:
    """Profiles every held-out image at `n_timesteps` timesteps; a one-line summary.

    `losses` (CSV): one row per t and network ("full", "shallow", "head") and layer, with the mean
    squared error of what the networks predict, and for heads the mean uncertainty u and its target u_hat.
    `quantiles` (JSON): the 0, 0.001, ..., 1 quantiles of all u over images, timesteps and layers (none without
    heads). Images are computed `batch` at a time.
    """
    models = Models(conventions, protocol, full, shallow, heads, device=device)
    _, _, held_out = noisers(data, models.full, models.schedule.name, device, models.null_class)
    index, rows, observed = np.arange(len(held_out)), [], []
    rng = np.random.default_rng(seed)
    for t in tqdm(timesteps(n_timesteps), desc="profile", unit="t", disable=None):
        eps = rng.standard_normal((len(index), *models.shape), dtype=np.float32)
        noised = held_out.noised(index, np.full(len(index), t), eps, rng)
        parts = [_measure(models, part) for part in noised.chunks(batch)]
        found = {key: torch.cat([part[key] for part in parts], dim=-1) for key in parts[0]}
        rows += [
            {"t": t, "network": network, "layer": None, "mse": found[network].mean().item()}
            for network in ("full", "shallow")
        ]
        if heads is not None:
            rows += _head_rows(t, found)
            observed.append(found["u"].cpu().numpy())
    write_csv(losses, rows)
    if heads is None:
        write_json(quantiles, {"levels": [], "values": []})
        return f"{len(rows)} rows"
    levels = np.linspace(0, 1, 1001)
    values = np.quantile(np.stack(observed), levels)
    write_json(quantiles, {"levels": levels.tolist(), "values": values.tolist()})
    return f"{len(rows)} rows, uncertainties from {values[0]:.3f} to {values[-1]:.3f}"


def _measure(models: Models, batch: Batch) -> dict[str, Tensor]:
    """Squared errors of full and shallow [B], and of every head [N, B] with u and u_hat, if there are any."""
    found = {"shallow": _error(models.shallow.predict(batch.x_t, batch.t, batch.y), batch)}
    if models.adadiff is None:
        return found | {"full": _error(models.full.predict(batch.x_t, batch.t, batch.y), batch)}
    fed = time_input(models.full.time_input, batch.t)
    output, u, g = models.adadiff.all_layers(batch.x_t, fed, batch.y)
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
