"""Held-out denoising loss of every network and head at every timestep, and the uncertainties seen."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from duodiff.early_exit import layer_errors, uncertainty_target
from duodiff.files import write_csv, write_json
from duodiff.generation import Models
from duodiff.schedules import time_input, timesteps
from duodiff.training.backbone import noisers


@torch.inference_mode()
def write_profile(
    data: Path,
    full: Path,
    shallow: Path,
    heads: Path,
    n_timesteps: int,
    seed: int,
    device: str,
    losses: Path,
    quantiles: Path,
) -> str:
    """Profiles every held-out image at `n_timesteps` timesteps; a one-line summary.

    `losses` (CSV): one row per t and network ("full", "shallow", "head") and layer, with the mean
    squared error, and for heads the mean uncertainty u and its target u_hat. `quantiles` (JSON): the
    0, 0.001, ..., 1 quantiles of all u over images, timesteps and layers.
    """
    models = Models(full, shallow, heads, device=device)
    _, _, held_out = noisers(data, models.full.net, models.schedule.name, device)
    index, rows, observed = np.arange(len(held_out.images)), [], []
    rng = np.random.default_rng(seed)
    for t in tqdm(timesteps(n_timesteps), desc="profile", unit="t", disable=None):
        eps = rng.standard_normal((len(index), *models.shape), dtype=np.float32)
        batch = held_out.noised(index, np.full(len(index), t), eps)
        fed = time_input(models.full.time_input, batch.t)
        eps_full, u, g = models.adadiff.all_layers(batch.x_t, fed, batch.y)
        eps_shallow = models.shallow(batch.x_t, batch.t, batch.y)
        for network, eps_hat in (("full", eps_full), ("shallow", eps_shallow)):
            mse = F.mse_loss(eps_hat, batch.eps).item()
            rows.append({"t": t, "network": network, "layer": None, "mse": mse})
        errors, u_hat = layer_errors(g, batch.eps), uncertainty_target(g, batch.eps)
        for layer, (e, u_i, target) in enumerate(zip(errors, u, u_hat, strict=True)):
            rows.append(
                {
                    "t": t,
                    "network": "head",
                    "layer": layer,
                    "mse": e.mean().item(),
                    "u": u_i.mean().item(),
                    "u_hat": target.mean().item(),
                }
            )
        observed.append(u.cpu().numpy())
    levels = np.linspace(0, 1, 1001)
    values = np.quantile(np.stack(observed), levels)
    write_csv(losses, rows)
    write_json(quantiles, {"levels": levels.tolist(), "values": values.tolist()})
    return f"{len(rows)} rows, uncertainties from {values[0]:.3f} to {values[-1]:.3f}"
