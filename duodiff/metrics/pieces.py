"""Short pieces of a cell's trajectory, to be timed in turns with the full backbone's."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from duodiff import noise, samplers
from duodiff.backbones import Backbone, single
from duodiff.metrics.flops import exit_gflops
from duodiff.metrics.resources import synchronise
from duodiff.metrics.rounds import TURNS, Piece, Turn, turn_steps
from duodiff.samplers import Step
from duodiff.sampling.cells import Cell
from duodiff.sampling.generation import captured, sample_batch
from duodiff.sampling.models import Models

_FEW = 8  # images of the step before a turn


class Pieces:
    """Makes pieces of the trajectories of a study's cells, of one batch of images.

    A piece's steps are those of sampling, with their noise. In a trajectory a network follows itself and finds its
    weights in the processor's caches. So a step of a few images goes before each turn, without the clock. (On a GPU
    a turn has more steps. There a step goes before a turn of an early exit, whose batches follow from the calls
    before.) Where a piece begins, a multistep sampler has no history: it leaves out one addition.
    """

    def __init__(self, models: Models, batch: int, seed: int):
        self.models, self.batch, self.seed = models, batch, seed
        self.steps = turn_steps(models.device)
        y = models.labels(seed, 0, batch, models.protocol)
        self.y = None if y is None else y.to(models.device)
        self.x = self._noise([noise.INITIAL], batch)(noise.INITIAL)

    def _noise(self, streams: Sequence[int], count: int) -> noise.Drawn:
        """Noise of the first `count` images, as sampling draws it."""
        shape, device = self.models.shape, self.models.device
        return noise.Drawn(self.seed, streams, 0, count, shape, device=device)

    @torch.inference_mode()
    def advance(self, cell: Cell, steps: Sequence[Step], x: Tensor) -> Tensor:
        """x of the first images after some of a cell's steps."""
        first, count = replace(steps[0], change_coef=0.0), len(x)
        y = None if self.y is None else self.y[:count]
        own, graphs = [first, *steps[1:]], captured(self.models)
        if graphs is not None:
            x = graphs.integrate(cell.schedule, own, x, y, start=0, seed=self.seed)
        else:
            step_noise = self._noise([step.t for step in steps if step.noise_coef], count)
            x = samplers.integrate(cell.schedule, own, x, y, step_noise)
        if cell.early_exit is not None:
            cell.early_exit.exits.clear()
        return x

    def _turn(self, cell: Cell, steps: Sequence[Step], state: list[Tensor], counts: float) -> Turn:
        """The turn of some steps, whose time counts so often for the batch. `state` is [x], before and after it."""

        def prepare() -> None:
            if self.models.device == "cpu":
                self.advance(cell, steps[:1], state[0][:_FEW])
            elif cell.early_exit is not None:
                cell.early_exit.begin()
                self.advance(cell, steps[:1], state[0])

        def run() -> None:
            state[0] = self.advance(cell, steps, state[0])

        return Turn(run, counts / self.batch, prepare)

    def switching(self, cell: Cell, turns: int = TURNS) -> Piece:
        """A piece around the switch: each network runs as many of the turns as it has of the steps, but one at least.

        So the steps before and after the switch follow each other, as in the trajectory. What a network's turns take
        counts for all of its steps. With one network every turn is alike. A schedule that changes its network more
        often than there are turns has the steps of each network together.
        """
        parts = self._parts(cell, min(turns, len(cell.steps)))

        def piece(i: int) -> list[Turn]:
            state = [self.x]
            return [self._turn(cell, steps, state, counts) for steps, counts in parts]

        return piece

    def _parts(self, cell: Cell, turns: int) -> list[tuple[list[Step], float]]:
        """The steps of each turn, and how often they count."""
        by_network: dict[int, list[Step]] = {}
        groups = []
        for network, steps in groupby(cell.steps, lambda s: id(cell.schedule.at(s.t))):
            groups.append(list(steps))
            by_network.setdefault(network, []).extend(groups[-1])
        if len(groups) > turns:
            groups = list(by_network.values())
        parts = []
        for i, (group, own) in enumerate(zip(groups, _split(turns, groups), strict=True)):
            count = min(len(group), own * self.steps)
            chosen = group[len(group) - count :] if i == 0 else group[:count]
            limits = np.linspace(0, count, own + 1).astype(int)
            parts += [(chosen[low:high], len(group) / count) for low, high in pairwise(limits)]
        return parts

    def exiting(self, cell: Cell, least: int) -> tuple[Piece, Tensor, Tensor]:
        """A piece of an early exit, and what its whole trajectory gave: x_0, and the blocks run [steps, batch].

        Exits depend on t and on the images. So a whole trajectory is sampled first, and its states are kept at
        some of the steps. The turns of a round run steps that are spread over the trajectory, from these states. In
        `least` rounds they come to other steps each time. Their time counts for the trajectory by what their operations
        are expected to take.
        """
        rounds = max(1, min(least, len(cell.steps) // TURNS))
        turns = min(TURNS, len(cell.steps))
        starts = spread(len(cell.steps) - min(self.steps, len(cell.steps)) + 1, turns * rounds)
        trajectory = self._trajectory(cell, starts)
        by_layer = torch.tensor(exit_gflops(self.models.adadiff), dtype=torch.float64)
        operations = by_layer[trajectory.ran.long()].mean(1).numpy()  # [steps]
        expected = expected_times(operations, trajectory.seconds)

        def piece(i: int) -> list[Turn]:
            chosen = [slice(start, start + self.steps) for start in starts[i % rounds :: rounds]]
            counts = expected.sum() / sum(expected[steps].sum() for steps in chosen)
            states = [trajectory.states[steps.start] for steps in chosen]
            return [
                self._turn(cell, cell.steps[steps], [state], counts)
                for steps, state in zip(chosen, states, strict=True)
            ]

        return piece, trajectory.x_0, trajectory.ran

    def _trajectory(self, cell: Cell, starts: Sequence[int]) -> "_Trajectory":
        """A whole trajectory of an early exit, with x_t before the steps `starts`."""
        index = {step.t: i for i, step in enumerate(cell.steps)}
        states: dict[int, Tensor] = {}
        wanted, moments = set(starts), []
        clock = time.process_time if self.models.device == "cpu" else time.perf_counter
        backbone: Backbone = cell.schedule.at(cell.steps[0].t)

        def recorded(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
            synchronise(self.models.device)
            moments.append(clock())
            if (i := index[int(t[0])]) in wanted:
                states[i] = x
            return backbone(x, t, y)

        recording = replace(cell, schedule=single(recorded))
        x_0, _, ran = sample_batch(self.models, recording, 0, self.batch, self.seed)
        synchronise(self.models.device)
        return _Trajectory(states, np.diff([*moments, clock()]), x_0, ran)


class _Trajectory(NamedTuple):
    """x_t before some steps, by index; the seconds of each step; x_0, and the blocks run [steps, batch]."""

    states: dict[int, Tensor]
    seconds: np.ndarray
    x_0: Tensor
    ran: Tensor


def expected_times(operations: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """What each step is expected to take, by its operations, in any unit: the line through steps timed once.

    Neither a step without operations nor an operation takes less than nothing.
    """
    slope, start = np.polyfit(operations, seconds, 1) if np.ptp(operations) else (0.0, 1.0)
    if slope <= 0:
        return np.ones(len(operations))
    return operations + max(start / slope, 0)


def _split(turns: int, groups: Sequence[Sequence[Step]]) -> list[int]:
    """The turns of each group, by their numbers of steps: one at least, and `turns` together if there are so many."""
    total = sum(map(len, groups))
    ends = np.cumsum([len(group) for group in groups]) * turns / total
    split = np.diff(np.round(ends), prepend=0).astype(int)
    while (split == 0).any() and split.max() > 1:
        split[split.argmax()] -= 1
        split[split.argmin()] += 1
    return np.maximum(split, 1).tolist()


def spread(count: int, points: int) -> list[int]:
    """`points` of the numbers 0 to count - 1, evenly spread."""
    return [int((i + 0.5) * count / points) for i in range(points)]
