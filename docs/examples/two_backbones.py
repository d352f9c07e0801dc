"""Two backbones on a switch schedule: first two formulas without a network, then the two networks of a run.

    python docs/examples/two_backbones.py results/digits/train0 two_backbones.png

The picture has rows of ten images: one row for each backbone alone and, between them, one for both at t_s = 500.
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits

from duodiff import samplers
from duodiff.backbones import duodiff
from duodiff.checkpoints import load_backbone
from duodiff.data.pictures import grid, write_png
from duodiff.schedules import T, noise_schedule

SCHEDULE = noise_schedule("linear")
STEPS = samplers.ddpm(SCHEDULE, 50)
DIGITS = torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1  # [1797, 64] in [-1, 1]
MEAN, COVARIANCE = DIGITS.mean(0), torch.cov(DIGITS.T)


def levels(t: torch.Tensor) -> tuple[float, float]:
    """Signal and noise of x_t = signal x_0 + noise eps; t is the same throughout a batch."""
    alpha_bar = SCHEDULE.alphas_cumprod[t[0]]
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5


def exact(x_t, t, y):
    """The expected noise in x_t if x_0 is one of the digits. It is slow, and reproduces its training images."""
    (signal, noise), x = levels(t), x_t.flatten(1)
    weights = torch.softmax(-0.5 * (torch.cdist(x, signal * DIGITS) / noise) ** 2, dim=1)
    return ((x - signal * weights @ DIGITS) / noise).view_as(x_t)


def gaussian(x_t, t, y):
    """The same if x_0 is normal with the digits' mean and covariance. It is fast, and accurate at high noise."""
    (signal, noise), x = levels(t), x_t.flatten(1)
    covariance = signal**2 * COVARIANCE + noise**2 * torch.eye(64)
    return (noise * torch.linalg.solve(covariance, (x - signal * MEAN).T).T).view_as(x_t)


def rows(full, shallow):
    """Ten images a row of the full backbone, of both at t_s = 500 and of the shallow one, from the same noise."""
    for t_s in (0, 500, T):
        yield samplers.sample(
            duodiff(full, shallow, t_s), STEPS, (1, 8, 8), 0, 10, seed=0, y=torch.arange(10)
        )


if __name__ == "__main__":
    study, out = sys.argv[1:]
    trained = [load_backbone(Path(study, role, "manifest.json"))[0] for role in ("full", "shallow")]
    images = torch.cat([*rows(exact, gaussian), *rows(*trained)])
    write_png(out, grid(samplers.to_uint8(images).numpy(), columns=10))
    print(f"{out}: rows of exact, both, gaussian; then of full, DuoDiff, shallow")
