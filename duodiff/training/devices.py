"""Several processes, started by torchrun, that train one model: each computes its rows of every batch.

All processes hold the same weights and make the same decisions; only the first one writes files. Without torchrun
there is one process, and the functions here change nothing.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Inside the block this process is one of those that torchrun started, on a GPU of its own if `device` is cuda.

    Raises ValueError if there are fewer GPUs than processes.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    if device == "cuda":
        number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= there:
            found = os.environ["LOCAL_WORLD_SIZE"]
            raise ValueError(f"gpus: found {found}; accepted: up to the {there} that this job sees")
        torch.cuda.set_device(number)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def parts(batch: int, accumulate: int = 1) -> list[slice]:
    """This process's rows of a batch of `batch` images, in `accumulate` parts of one size.

    Raises ValueError if all parts of all processes cannot have equally many.
    """
    equal = count() * accumulate
    if batch % equal:
        raise ValueError(
            f"training.batch: found {batch}; accepted: a multiple of {equal}, processes (gpus) x accumulate"
        )
    size, rank = batch // equal, dist.get_rank() if dist.is_initialized() else 0
    starts = range(rank * accumulate * size, (rank + 1) * accumulate * size, size)
    return [slice(start, start + size) for start in starts]


def average_gradients(parameters: list[nn.Parameter], loss: Tensor) -> Tensor:
    """The mean of `loss`, a scalar, over the processes; the gradients become their means, the same bits in all of them.

    If a value is not finite in one process, its mean is not finite in all of them.
    """
    if count() == 1:
        return loss
    gradients = [p.grad for p in parameters if p.grad is not None]
    parts = [gradient.flatten() for gradient in gradients]
    flat = torch.cat([*parts, loss.reshape(1).to(parts[0])])
    dist.all_reduce(flat)
    flat /= count()
    *means, mean = flat.split([*map(len, parts), 1])
    views = [part.view_as(gradient) for part, gradient in zip(means, gradients, strict=True)]
    torch._foreach_copy_(gradients, views)
    return mean[0]


def asked_to_stop(name: str | None) -> str | None:
    """The name of a signal that asks any process to stop, or None; `name` is the signal this process got, or None.

    A process whose torchrun was killed counts as asked to stop.
    """
    if count() == 1:
        return name
    left_behind = os.getppid() != _PARENT
    number = signal.Signals[name] if name else left_behind * signal.SIGHUP
    found = torch.tensor(int(number))
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return signal.Signals(int(found)).name if found else None


_PARENT = os.getppid()


def wait() -> None:
    """Returns when all processes are here."""
    if count() > 1:
        dist.all_reduce(torch.zeros(()))


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The others enter the block once the first process has left it."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()
