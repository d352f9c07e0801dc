"""The training objectives: Eq. 2 for a backbone, Eq. 8 for AdaDiff's heads."""

import torch
import torch.nn.functional as F
from torch import Tensor

from duodiff.backbones import Denoiser
from duodiff.early_exit import (
    AdaDiff,
    layer_errors,
    layerwise_loss,
    uncertainty_loss,
    uncertainty_target,
)
from duodiff.protocol import Protocol
from duodiff.schedules import time_input
from duodiff.training.batches import Batch


def denoising_loss(model: Denoiser, batch: Batch) -> Tensor:
    """Mean squared error of the predicted noise (Eq. 2)."""
    return F.mse_loss(model(batch.x_t, batch.t, batch.y), batch.eps)


def adadiff_heads_loss(
    model: AdaDiff, batch: Batch, time_convention: str, protocol: Protocol
) -> Tensor:
    """lambda L_u + beta L_UAL with lambda = beta = 1 (Eq. 8); the frozen backbone has no L_simple."""
    with torch.no_grad():
        layers, time_emb = model.layer_inputs(
            batch.x_t, time_input(time_convention, batch.t), batch.y
        )
    u, g = model.evaluate_heads(layers, time_emb)
    u_hat, errors = uncertainty_target(g, batch.eps), layer_errors(g, batch.eps)
    return uncertainty_loss(
        u,
        u_hat,
        detach=protocol.detach_uncertainty_target,
        sum_batch=protocol.sum_uncertainty_loss_over_batch,
    ) + layerwise_loss(errors, u, u_hat, weight=protocol.layer_loss_weight)
