"""One training loop for backbones and for early-exit heads."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from duodiff.training.batches import Batch, Noiser

Watch = Callable[[list[dict], nn.Module], None]


@dataclass(frozen=True)
class TrainingConfig:
    """Hyperparameters of one training (the paper's Table 4); keys as in config/README.md."""

    steps: int
    batch: int
    lr: float
    lr_schedule: str
    betas: tuple[float, float]
    weight_decay: float
    warmup_steps: int
    grad_clip: float
    ema: float
    precision: str


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of the 0-based `step`: linear warm-up, then constant or cosine decay to 0 at the last step."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def fit(
    model: nn.Module,
    parameters: list[nn.Parameter],
    loss: Callable[[nn.Module, Batch], Tensor],
    train: Noiser,
    held_out: Batch,
    config: TrainingConfig,
    seed: int,
    evaluations: int = 20,
    name: str = "train",
    watch: Watch | None = None,
) -> tuple[nn.Module, list[dict]]:
    """The exponential moving average of `model` after training `parameters`, and the loss curve.

    `loss(model, batch)` is a scalar. The curve holds, `evaluations` times, the step, the mean
    training loss since the last entry, the held-out loss of the average and the learning rate. `watch` is
    called with the curve so far and the average after each entry.
    """
    optimizer = torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    average = copy.deepcopy(model)
    averaged = _counterparts(model, parameters, average)
    every = max(1, config.steps // evaluations)
    curve, total, since = [], 0.0, 0
    progress = tqdm(range(config.steps), desc=name, unit="step", disable=None, mininterval=1)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        batch = train.at_step(seed, step, config.batch)
        with _autocast(config.precision, batch.x_t.device):
            value = loss(model, batch)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        # a short history at first, so that the average does not remember the initial weights
        decay = min(config.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(averaged, [p.detach() for p in parameters], 1 - decay)
        total, since = total + value.detach(), since + 1
        if (step + 1) % every == 0 or step + 1 == config.steps:
            validation = _mean_loss(average, loss, held_out, config.batch)
            curve.append(
                {
                    "step": step + 1,
                    "train_loss": float(total) / since,
                    "held_out_loss": validation,
                    "lr": learning_rate(config, step),
                }
            )
            total, since = 0.0, 0
            progress.set_postfix(loss=f"{validation:.4f}")
            if watch is not None:
                watch(curve, average)
    return average, curve


def _autocast(precision: str, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@torch.inference_mode()
def _mean_loss(model: nn.Module, loss: Callable, held_out: Batch, batch: int) -> float:
    """Loss over the held-out images in parts of the training batch's size, float32."""
    parts = [(len(part), float(loss(model, part))) for part in held_out.chunks(batch)]
    return sum(n * value for n, value in parts) / len(held_out)


def _counterparts(model: nn.Module, parameters: list, other: nn.Module) -> list[Tensor]:
    """The tensors of `other` at the places of `parameters` in `model`, detached."""
    wanted = {id(p) for p in parameters}
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return [theirs.detach() for ours, theirs in pairs if id(ours) in wanted]
