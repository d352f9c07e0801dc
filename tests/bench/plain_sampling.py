"""The baseline of `make bench` for a cell of the grid: a plain eager loop, in a process of its own.

    python tests/bench/plain_sampling.py FULL SHALLOW T_S IMAGES STEPS OUT

FULL and SHALLOW are checkpoints' manifests. One randn a step, and memory as the C library handles it by default.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from duodiff import samplers
from duodiff.schedules import T, noise_schedule
from duodiff.training.checkpoints import load_backbone

BATCH = 128


@torch.no_grad()
def sample(calls: list[tuple], shape: tuple[int, int, int], y: Tensor) -> Tensor:
    """Images [B, C, H, W] of the classes y [B], by the backbone and the step of each call."""
    x = torch.randn(len(y), *shape)
    for net, step in calls:
        t = torch.full((len(y),), step.t)
        x = step.x_coef * x + step.eps_coef * net(x, t, y)
        x = x + step.noise_coef * torch.randn_like(x)
    return x


def main(full: str, shallow: str, t_s: str, images: str, steps: str, out: str) -> None:
    nets = [load_backbone(Path(path))[0] for path in (full, shallow)]
    steps = samplers.ddpm(noise_schedule("linear"), int(steps))
    calls = [(nets[step.t >= T - int(t_s)], step) for step in steps]
    y = torch.arange(BATCH) % 10
    found = [sample(calls, (1, 8, 8), y) for _ in range(int(images) // BATCH)]
    np.save(out, samplers.to_uint8(torch.cat(found)).numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
