"""The counts of a training, kept on its device, so that no step waits for the host to look at its loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_SKIPPED = 10
"""Steps in a row whose loss or gradient is not finite: a training that has as many is stopped."""

LOOK_EVERY = 100
"""Steps after which the host looks at the counts, if nothing else made it look."""


@dataclass
class Counts:
    """What the host reads of a `Guard`.

    `total` is the sum of the losses of the `counted` good steps. `skipped` steps changed nothing, `in_a_row` of them
    were the last ones. `step` (1-based), `loss` and `norm` are those of the last skipped step.
    """

    total: float = 0.0
    counted: int = 0
    skipped: int = 0
    in_a_row: int = 0
    step: int = 0
    loss: float = 0.0
    norm: float = 0.0


class Guard:
    """Decides on the device whether a step counts: a step whose loss or gradient is not finite is to change nothing.

    After `MOST_SKIPPED` such steps in a row no later step counts either. So whenever the host looks, the weights are
    those after the last good step.
    """

    def __init__(self, device: torch.device, counts: Counts | None = None):
        values = list(vars(counts or Counts()).values())
        self._counts = torch.tensor(values, dtype=torch.float64, device=device)

    def accepts(self, step: int, loss: Tensor, norm: Tensor) -> Tensor:
        """Whether the step (1-based) of this loss and norm of the gradient, both scalars, counts: a bool scalar."""
        total, counted, skipped, in_a_row, *last = self._counts.unbind()
        going = in_a_row < MOST_SKIPPED
        finite = loss.isfinite() & norm.isfinite()
        good, bad = finite & going, ~finite & going
        this = (torch.full_like(total, step), loss, norm)
        self._counts = torch.stack(
            [
                torch.where(good, total + loss, total),
                counted + good,
                skipped + bad,
                torch.where(good, 0.0, in_a_row + bad),
                *(torch.where(bad, new, old) for new, old in zip(this, last, strict=True)),
            ]
        )
        return good

    def look(self) -> Counts:
        """The counts. The host waits for the device here, and nowhere else."""
        found = dict(zip(vars(Counts()), self._counts.tolist(), strict=True))
        whole = {name: int(found[name]) for name in ("counted", "skipped", "in_a_row", "step")}
        return Counts(**found | whole)
