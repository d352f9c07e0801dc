"""Short pieces of a cell's trajectory, to be timed in turns with the full backbone's."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor

from duodiff import noise, samplers
from duodiff.backbones import Backbone, single
from duodiff.metrics.flops import exit_gflops
from duodiff.metrics.rounds import TURNS, Piece, turn_steps
from duodiff.samplers import Step
from duodiff.sampling.cells import Cell
from duodiff.sampling.generation import sample_batch
from duodiff.sampling.models import Models


class Pieces:
    """Makes pieces of the trajectories of a study's cells, of one batch of images.

    A piece's steps are those of sampling, with their noise. Where a piece begins, a multistep sampler has no history:
    it leaves out one addition there.
    """

    def __init__(self, models: Models, batch: int, seed: int):
        self.models, self.batch, self.seed = models, batch, seed
        self.steps = turn_steps(models.device)
        y = models.labels(seed, 0, batch, models.protocol)
        self.y = None if y is None else y.to(models.device)
        self.x = self.noise(noise.INITIAL)

    def noise(self, stream: int) -> Tensor:
        """Noise of the batch, as sampling draws it."""
        drawn = noise.image_noise(self.seed, stream, 0, self.batch, self.models.shape)
        return drawn.to(self.models.device)

    @torch.inference_mode()
    def advance(self, cell: Cell, steps: Sequence[Step], x: Tensor) -> Tensor:
        """x after some of a cell's steps."""
        first = replace(steps[0], change_coef=0.0)
        x = samplers.integrate(cell.schedule, [first, *steps[1:]], x, self.y, self.noise)
        if cell.early_exit is not None:
            cell.early_exit.exits.clear()
        return x

    def switching(self, cell: Cell, turns: int = TURNS) -> Piece:
        """A piece around the switch: each network runs as many of the turns as it has of the steps, but one at least.

        So the steps before and after the switch follow each other, as in the trajectory. What a network's turns take
        counts for all of its steps. With one network every turn is alike.
        """
        parts = self._parts(cell, min(turns, len(cell.steps)))

        def piece(i: int) -> list[tuple[Callable[[], object], float]]:
            state = [self.x]

            def run(steps: Sequence[Step]) -> None:
                state.append(self.advance(cell, steps, state.pop()))

            return [(partial(run, steps), counts) for steps, counts in parts]

        return piece

    def _parts(self, cell: Cell, turns: int) -> list[tuple[list[Step], float]]:
        """The steps of each turn, and how often they count."""
        groups = [
            list(group) for _, group in groupby(cell.steps, lambda s: id(cell.schedule.at(s.t)))
        ]
        parts = []
        for i, (group, own) in enumerate(zip(groups, _split(turns, groups), strict=True)):
            count = min(len(group), own * self.steps)
            chosen = group[len(group) - count :] if i == 0 else group[:count]
            limits = np.linspace(0, count, own + 1).astype(int)
            parts += [
                (chosen[low:high], len(group) / count / self.batch)
                for low, high in pairwise(limits)
            ]
        return parts

    def exiting(self, cell: Cell, least: int) -> tuple[Piece, Tensor, Tensor]:
        """A piece of an early exit, and what its whole trajectory gave: x_0, and the blocks run [steps, batch].

        Exits depend on t and on the images. So a whole trajectory is sampled first, and its states are kept at
        some of the steps. The turns of a round run steps that are spread over the trajectory, from these states. In
        `least` rounds they come to other steps each time. The time counts for the trajectory by the operations of
        the steps that ran.
        """
        rounds = max(1, min(least, len(cell.steps) // TURNS))
        turns = min(TURNS, len(cell.steps))
        starts = _spread(len(cell.steps) - min(self.steps, len(cell.steps)) + 1, turns * rounds)
        states, x_0, ran = self._states(cell, starts)
        by_layer = torch.tensor(exit_gflops(self.models.adadiff), dtype=torch.float64)
        operations = by_layer[ran.long()].mean(1).numpy()  # [steps]

        def piece(i: int) -> list[tuple[Callable[[], object], float]]:
            chosen = [slice(start, start + self.steps) for start in starts[i % rounds :: rounds]]
            ran_here = sum(operations[steps].sum() for steps in chosen)
            counts = operations.sum() / ran_here / self.batch
            return [
                (partial(self.advance, cell, cell.steps[steps], states[steps.start]), counts)
                for steps in chosen
            ]

        return piece, x_0, ran

    def _states(
        self, cell: Cell, starts: Sequence[int]
    ) -> tuple[dict[int, Tensor], Tensor, Tensor]:
        """x_t before the steps `starts` of a whole trajectory, its x_0, and the blocks that it ran."""
        index = {step.t: i for i, step in enumerate(cell.steps)}
        states: dict[int, Tensor] = {}

        def recorded(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
            if (i := index[int(t[0])]) in wanted:
                states[i] = x
            return backbone(x, t, y)

        wanted = set(starts)
        backbone: Backbone = cell.schedule.at(cell.steps[0].t)
        recording = replace(cell, schedule=single(recorded))
        x_0, _, ran = sample_batch(self.models, recording, 0, self.batch, self.seed)
        return states, x_0, ran


def _split(turns: int, groups: Sequence[Sequence[Step]]) -> list[int]:
    """The turns of each group, by their numbers of steps: one at least, and `turns` together if there are so many."""
    total = sum(map(len, groups))
    ends = np.cumsum([len(group) for group in groups]) * turns / total
    split = np.diff(np.round(ends), prepend=0).astype(int)
    while (split == 0).any() and split.max() > 1:
        split[split.argmax()] -= 1
        split[split.argmin()] += 1
    return np.maximum(split, 1).tolist()


def _spread(count: int, points: int) -> list[int]:
    """`points` of the numbers 0 to count - 1, evenly spread."""
    return [int((i + 0.5) * count / points) for i in range(points)]
