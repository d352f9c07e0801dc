"""Images of many masks of one sampler. Masks that begin alike share their first steps."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from duodiff import noise
from duodiff.backbones import single
from duodiff.samplers import Step, integrate
from duodiff.sampling.models import Models
from duodiff.switchbench.masks import NETWORKS


@torch.inference_mode()
def sample_masks(
    models: Models,
    steps: Sequence[Step],
    masks: Iterable[str],
    *,
    first: int,
    batch: int,
    seed: int,
) -> dict[str, Tensor]:
    """Images by mask, float32 [batch, C, H, W] and unclipped, of one compute batch from the global index `first`.

    They are the images of `samplers.sample` on the schedule that a mask describes, bit for bit. The sampler must look
    at one step only, as DDPM and DDIM do. Each step of the tree of masks is computed once.
    """
    y = models.labels(seed, first, batch, models.protocol)
    y = None if y is None else y.to(models.device)
    streams = [noise.INITIAL, *(step.t for step in steps if step.noise_coef)]
    drawn = noise.Drawn(seed, streams, first, batch, models.shape, device=models.device)
    noises = {stream: drawn(stream) for stream in streams}
    schedules = {letter: single(models.backbone(role)) for letter, role in NETWORKS.items()}
    beginnings = {mask[:length] for mask in masks for length in range(len(steps) + 1)}

    def grown(mask: str, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The masks that begin with `mask`, whose images so far are x."""
        if len(mask) == len(steps):
            yield mask, x
            return
        step = [steps[len(mask)]]
        for letter, schedule in schedules.items():
            if mask + letter in beginnings:
                after = integrate(schedule, step, x, y, noises.__getitem__)
                yield from grown(mask + letter, after)

    return dict(grown("", noises[noise.INITIAL]))
