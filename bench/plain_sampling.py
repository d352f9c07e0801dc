"""The baseline of `make bench` for a cell of the grid: a plain eager loop, in a process of its own.

    python bench/plain_sampling.py STUDY SAMPLER SETTING IMAGES OUT

STUDY is the folder of a study's checkpoints, and SAMPLER is JSON. The loop calls randn once a step. The network
computes as the public code does. AdaDiff computes every layer and selects one, as its public code does. Memory is
handled by the C library's defaults.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from duodiff import samplers, uvit
from duodiff.sampling.cells import build_cell
from duodiff.sampling.models import Models
from duodiff.settings import Setting

BATCH = 128
"""No batch is faster: with 256 the grid took the same time (docs/benchmarks.md)."""


def compute_plainly() -> None:
    """Makes networks use PyTorch's own layers, and its fused attention for any number of tokens."""
    uvit.FUSED_ATTENTION_FROM = 0
    uvit.Linear.forward = nn.Linear.forward
    uvit.add = torch.add


@torch.no_grad()
def sample(calls: list[tuple], shape: tuple[int, int, int], y: Tensor) -> Tensor:
    """Images [B, C, H, W] of the classes y [B]. `calls` are the (backbone, step) of every network call."""
    x = torch.randn(len(y), *shape)
    for net, step in calls:
        t = torch.full((len(y),), step.t)
        x = step.x_coef * x + step.eps_coef * net(x, t, y)
        if step.noise_coef:
            x = x + step.noise_coef * torch.randn_like(x)
    return x


def main(study: str, sampler: str, setting: str, images: str, out: str) -> None:
    paths = {role: Path(study) / f"{role}/manifest.json" for role in ("full", "shallow", "heads")}
    conventions = {"schedule": "linear", "time_input": "t", "class_order": None}
    quantiles = Path(study) / "profile/quantiles.json"
    models = Models(conventions, "corrected", **paths, quantiles=quantiles)
    cell = build_cell(models, json.loads(sampler), Setting.parse(setting))
    calls = [(cell.schedule.at(step.t), step) for step in cell.steps]
    if cell.early_exit is not None:
        adadiff = models.early_exit(cell.early_exit.theta, simulate=True)
        calls = [(adadiff, step) for step in cell.steps]
    y = torch.arange(BATCH) % 10
    batches = [sample(calls, models.shape, y) for _ in range(int(images) // BATCH)]
    np.save(out, samplers.to_uint8(torch.cat(batches)).numpy())


if __name__ == "__main__":
    compute_plainly()
    main(*sys.argv[1:])
