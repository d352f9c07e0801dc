"""One training loop for backbones and for early-exit heads."""

import copy
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from duodiff.training import devices
from duodiff.training.batches import Batch, Noiser
from duodiff.training.guard import LOOK_EVERY, MOST_SKIPPED, Counts, Guard
from duodiff.training.state import Saves, State, optimizer_state, restore_optimizer

log = logging.getLogger("duodiff")

M = TypeVar("M", bound=nn.Module)

Watch = Callable[[list[dict], Any], None]
"""Called with the loss curve so far and the averaged model."""


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
    deterministic: bool = False
    accumulate: int = 1


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of the 0-based `step`: linear warm-up, then constant or cosine decay to 0 at the last step."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def fit(
    model: M,
    parameters: list[nn.Parameter],
    loss: Callable[[M, Batch], Tensor],
    train: Noiser,
    held_out: Batch,
    *,
    config: TrainingConfig,
    seed: int,
    evaluations: int = 20,
    name: str = "train",
    watch: Watch | None = None,
    saves: Saves | None = None,
) -> tuple[M, list[dict]]:
    """The exponential moving average of `model` after training `parameters`, and the loss curve.

    `loss(model, batch)` is a scalar. The curve holds, `evaluations` times, the step, the mean
    training loss since the last entry, the held-out loss of the average, the learning rate and the number of
    steps skipped so far, because loss or gradient was not finite. `watch` is called with the curve so far and the
    average after each entry. With `saves` an interrupted training is continued, to the same bits where the device
    repeats itself (a CPU; a GPU with config.deterministic). Under torchrun each process computes its rows of the
    batch (`duodiff.training.devices`), in config.accumulate parts. Raises ValueError after `MOST_SKIPPED` skipped
    steps in a row.

    The host waits for the device at entries of the curve, at saved states and every `LOOK_EVERY` steps.
    """
    parts = devices.parts(config.batch, config.accumulate)
    run = _Run(model, parameters, config, saves)
    every = max(1, config.steps // evaluations)
    with _deterministic(config.deterministic), saves.on_stop() if saves else nullcontext():
        progress = tqdm(
            range(run.step, config.steps),
            desc=name,
            initial=run.step,
            total=config.steps,
            unit="step",
            disable=None if devices.is_first() else True,
            mininterval=1,
        )
        for step in progress:
            made = (train.at_step(seed, step, config.batch, rows) for rows in parts)
            values = [_add_gradients(model, loss, part, config) for part in made]
            run.update(torch.stack(values).sum())
            if run.step % every == 0 or run.step == config.steps:
                validation = _mean_loss(run.average, loss, held_out, config.batch)
                run.add_to_curve(validation)
                progress.set_postfix(loss=f"{validation:.4f}")
                if watch is not None and devices.is_first():
                    watch(run.curve, run.average)
            elif run.step % LOOK_EVERY == 0:
                run.look()
            if saves:
                saves.after_step(run.state)
    return run.average, run.curve


def _add_gradients(model: nn.Module, loss: Callable, part: Batch, config: TrainingConfig) -> Tensor:
    """Adds the gradients of one part of a batch; its loss / accumulate, a detached scalar."""
    with _autocast(config.precision, part.x_t.device):
        value = loss(model, part) / config.accumulate
    value.backward()
    return value.detach()


class _Run(Generic[M]):
    """The state of a training after `step` steps: optimizer, averaged weights, counters, curve.

    It starts from the last saved state, or from the beginning.
    """

    def __init__(
        self,
        model: M,
        parameters: list[nn.Parameter],
        config: TrainingConfig,
        saves: Saves | None,
    ):
        self.parameters, self.config, self.saves = parameters, config, saves
        self.optimizer = torch.optim.AdamW(
            parameters,
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.average = copy.deepcopy(model)
        self.averaged = _counterparts(model, parameters, self.average)
        self.step, self.noted = 0, 0
        self.guard = Guard(parameters[0].device)
        self.curve: list[dict] = []
        self.sums: list[tuple[float, int]] = []
        if saves:
            size = sum(p.nbytes for p in parameters)
            # a state: parameters, their average and two moments; in the end the average of the whole model
            saves.require_space(4 * size, sum(p.nbytes for p in model.parameters()))
            with devices.first_goes_first():  # it removes what is damaged
                self._restore(saves.restore())

    def update(self, loss: Tensor) -> None:
        """Updates weights and average by the gradients, unless loss or gradients are not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        loss = devices.average_gradients(self.parameters, loss)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
        good = self.guard.accepts(self.step + 1, loss, norm)
        # how a fused optimizer is told, on the device, to leave a step out: made for the scaling of losses
        self.optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad()
        # a short history at first, so that the average does not remember the initial weights
        decay = min(self.config.ema, (self.step + 1) / (self.step + 10))
        change = torch._foreach_sub([p.detach() for p in self.parameters], self.averaged)
        torch._foreach_mul_(change, good * (1 - decay))
        torch._foreach_add_(self.averaged, change)
        self.step += 1

    def look(self) -> Counts:
        """The counts of the device. Names steps that were skipped. Raises ValueError if there are too many in a row."""
        counts = self.guard.look()
        if counts.skipped > self.noted:
            found = self._described(counts)
            log.warning("%s: skipped, %d in all so far", found, counts.skipped)
            self.noted = counts.skipped
        if counts.in_a_row == MOST_SKIPPED:
            last = self.saves.save(self._state(counts)) if self.saves else None
            raise ValueError(
                f"{self._described(counts)}, not finite for {MOST_SKIPPED} steps in a row; a smaller lr, a smaller"
                f" grad_clip or a longer warm-up may help"
                + (f"; the last good state is {last}" if last else "")
            )
        return counts

    def _described(self, counts: Counts) -> str:
        """The last skipped step."""
        where = f"step {counts.step} of {self.config.steps}"
        lr = learning_rate(self.config, counts.step - 1)
        found = f"loss {counts.loss:.4g}, norm of the gradient {counts.norm:.4g}"
        return f"{where}, learning rate {lr:.3g}: {found}"

    def add_to_curve(self, held_out_loss: float) -> None:
        """Adds an entry to the curve, and starts the next mean of the training loss."""
        counts = self.look()
        total, counted = self.sums[-1] if self.sums else (0.0, 0)
        since = counts.counted - counted
        self.sums.append((counts.total, counts.counted))
        self.curve.append(
            {
                "step": self.step,
                "train_loss": (counts.total - total) / since if since else None,
                "held_out_loss": held_out_loss,
                "lr": learning_rate(self.config, self.step - 1),
                "skipped_steps": counts.skipped,
            }
        )

    def state(self) -> State:
        """Everything that decides the rest of the training, after the last step that counted."""
        return self._state(
            self.guard.look()
        )  # `look` may raise, and is to in all processes at once

    def _state(self, counts: Counts) -> State:
        tensors: dict[str, Tensor] = {f"parameter.{i}": p for i, p in enumerate(self.parameters)}
        tensors |= {f"average.{i}": p for i, p in enumerate(self.averaged)}
        tensors |= optimizer_state(self.optimizer)
        # the steps skipped last changed nothing: they are done again
        step = counts.step - counts.in_a_row if counts.in_a_row else self.step
        entries = sum(entry["step"] <= step for entry in self.curve)
        good = replace(counts, skipped=counts.skipped - counts.in_a_row, in_a_row=0)
        values = {"step": step, "counts": vars(good)}
        values |= {"curve": self.curve[:entries], "sums": self.sums[:entries]}
        return tensors, values

    def _restore(self, state: State | None) -> None:
        if state is None:
            return
        tensors, values = state
        for i, (p, average) in enumerate(zip(self.parameters, self.averaged, strict=True)):
            p.detach().copy_(tensors[f"parameter.{i}"])
            average.copy_(tensors[f"average.{i}"])
        restore_optimizer(self.optimizer, tensors)
        counts = Counts(**values["counts"])
        self.guard, self.noted = Guard(self.parameters[0].device, counts), counts.skipped
        self.step, self.curve, self.sums = values["step"], values["curve"], values["sums"]


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Inside the block a GPU repeats itself bit for bit, for some of its speed."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read with the first product
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _autocast(precision: str, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@torch.inference_mode()
def _mean_loss(model: nn.Module, loss: Callable, held_out: Batch, batch: int) -> float:
    """Loss over the held-out images in parts of the training batch's size, float32."""
    parts = [len(part) * loss(model, part).double() for part in held_out.chunks(batch)]
    return torch.stack(parts).sum().item() / len(held_out)


def _counterparts(model: nn.Module, parameters: list, other: nn.Module) -> list[Tensor]:
    """The tensors of `other` at the places of `parameters` in `model`, detached."""
    wanted = {id(p) for p in parameters}
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return [theirs.detach() for ours, theirs in pairs if id(ours) in wanted]
