"""Times measured in rounds: when a round is disturbed, when there are enough rounds, and the ratio they give (numpy).

A cell is compared with its baseline, the full backbone. In a round the two take turns, step by step, so the two sides
of a ratio are neighbours and equally often measured. The clock is an argument: tests use made ones.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from duodiff.metrics.bootstrap import RESAMPLES

Name = TypeVar("Name", bound=Hashable)

Clock = Callable[[], np.ndarray]
"""Reads the seconds of each clock, [clocks]: wall time and, on a CPU, processor time."""


class Turn(NamedTuple):
    """What runs in a turn, how often its time counts in that of an image, and what runs before, without the clock."""

    run: Callable[[], object]
    counts: float
    prepare: Callable[[], object]


Piece = Callable[[int], Sequence[Turn]]
"""The turns of a round, by its index."""

TURNS = 4
"""Turns of a cell in a round."""

SHARE = 0.9
"""A round is disturbed if cell or baseline has less than this share of the processor time it could have."""

DEPARTURE = 0.1
"""A round is disturbed if its ratio departs by more than this from the expected one, up or down (in logarithms)."""

_SCATTER = 4  # and by this many standard deviations: what is usual in a cell's rounds disturbs none of them

NARROW = 0.03
"""The rounds suffice when half of the ratio's interval is this part of the ratio, or less."""

BETWEEN = 0.0065
"""Standard deviation of a ratio's logarithm between processes, beyond what their rounds say (docs/benchmarks.md).

The rounds of one process share its memory's layout and the machine's state, so they cannot tell.
"""

MOST = 3
"""A cell has at most this many times the least number of rounds."""

COVERS = "95%: resampled rounds, and the scatter between processes"
"""The text of a record's `interval_covers`."""

# The interval decides when to stop. That makes it cover too little: this factor brings it back to 95%, by the made
# studies of tests/unit/metrics/test_rounds.py.
_STOPPING = 1.07


@dataclass(frozen=True)
class Timed:
    """A cell to be timed: its turns, its baseline's, and its time as shares of the times of other cells.

    A switch schedule's time is that of its networks' steps: `shares` has the share of each cell that runs one network
    alone. Without `shares` nothing but the cell's other rounds says what to expect.
    """

    piece: Piece
    baseline: Piece
    shares: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """A ratio or a time by one clock: geometric mean of the undisturbed rounds, whose number is `rounds`.

    `disturbed` says that they are too few; then the value is of all rounds. `resampled` are RESAMPLES values
    behind the 95% `interval`.
    """

    value: float
    interval: list[float]
    resampled: list[float]
    rounds: int
    disturbed: bool


def turn_steps(device: str) -> int:
    """The steps of a turn: one on a CPU, more on a GPU, so that waiting for it takes little of a turn."""
    return 1 if device == "cpu" else 5


def measure(timed: Mapping[Name, Timed], least: int, clock: Clock) -> dict[Name, np.ndarray]:
    """Seconds of an image in each round of each cell: [rounds, 2, clocks], of the baseline and of the cell.

    After `least` rounds a cell goes on while fewer of its rounds are undisturbed, or while its ratio is not narrow:
    so disturbed rounds are measured again. It stops at `MOST` times `least` rounds.
    """
    seconds: dict[Name, np.ndarray] = {}
    with tqdm(total=least * len(timed), desc="latency", unit="round", disable=None) as bar:
        for i in range(MOST * least):
            names = list(timed) if i < least else _unsettled(timed, seconds, least)
            for name in reversed(names) if i % 2 else names:
                measured = _round(timed[name], i, clock)[None]
                seconds[name] = np.concatenate([seconds.get(name, measured[:0]), measured])
                bar.update()
    return seconds


def _round(timed: Timed, i: int, clock: Clock) -> np.ndarray:
    """One round: seconds of an image, [2, clocks]. Odd rounds begin with the cell, so a drift cancels."""
    sides = timed.baseline(i), timed.piece(i)
    seconds: np.ndarray = np.zeros((2, len(clock())))
    for turns in zip_longest(
        *sides
    ):  # a cell of more networks than the baseline has steps goes on alone
        for side in (1, 0) if i % 2 else (0, 1):
            if (turn := turns[side]) is None:
                continue
            turn.prepare()
            before = clock()
            turn.run()
            seconds[side] += turn.counts * (clock() - before)
    return seconds


def _unsettled(
    timed: Mapping[Name, Timed], seconds: Mapping[Name, np.ndarray], least: int
) -> list[Name]:
    """The cells that need more rounds."""
    found = speedups(timed, seconds, least)
    return [name for name, ratio in found.items() if ratio.disturbed or not _narrow(ratio)]


def _narrow(ratio: Estimate) -> bool:
    low, high = ratio.interval
    return (high - low) / 2 <= NARROW * ratio.value


def speedups(
    timed: Mapping[Name, Timed], seconds: Mapping[Name, np.ndarray], least: int, clock: int = 0
) -> dict[Name, Estimate]:
    """The baseline's time over each cell's, by one clock: 0 is wall time, 1 processor time."""
    found = {}
    for i, name in enumerate(timed):
        good = undisturbed(timed, seconds, name, clock)
        found[name] = _estimate(_logs(seconds[name], clock), good, least, i)
    return found


def baseline_seconds(
    timed: Mapping[Name, Timed], seconds: Mapping[Name, np.ndarray], least: int, clock: int = 0
) -> Estimate:
    """The time of a baseline that all the cells share, by one clock: in each round the mean beside its cells."""
    taken = np.full((max(len(seconds[name]) for name in timed), len(timed)), np.nan)
    good: np.ndarray = np.zeros(taken.shape, bool)
    for i, name in enumerate(timed):
        count = len(seconds[name])
        taken[:count, i] = seconds[name][:, 0, clock]
        good[:count, i] = undisturbed(timed, seconds, name, clock)
    some = np.asarray(good.any(1))
    taken[some[:, None] & ~good] = np.nan  # where no cell is undisturbed, all count
    return _estimate(np.log(np.nanmean(taken, axis=1)), some, least, len(timed))


def seconds_of(baseline: Estimate, speedup: Estimate) -> Estimate:
    """The time of a cell: its baseline's, which is held fixed, over its speed-up."""
    return replace(
        speedup,
        value=baseline.value / speedup.value,
        interval=[baseline.value / end for end in reversed(speedup.interval)],
        resampled=[baseline.value / ratio for ratio in speedup.resampled],
    )


def undisturbed(
    timed: Mapping[Name, Timed], seconds: Mapping[Name, np.ndarray], name: Name, clock: int = 0
) -> np.ndarray:
    """The rounds of a cell that count, bool [rounds]. Processor time needs no processor to itself."""
    expected = as_expected(timed, seconds, name, clock)
    return expected if clock else expected & given(seconds[name])


def given(seconds: np.ndarray) -> np.ndarray:
    """The rounds, bool [rounds], in which baseline and cell had the processor: by processor time over wall time.

    One thread has the processor whole at 1. Several threads never reach their number: there the best round says how
    much can be had. Without a clock of processor time all rounds count.
    """
    if seconds.shape[-1] == 1:
        return np.ones(len(seconds), bool)
    share = seconds[..., 1] / seconds[..., 0]
    return (share >= SHARE * np.maximum(share.max(0), 1)).all(1)


def as_expected(
    timed: Mapping[Name, Timed], seconds: Mapping[Name, np.ndarray], name: Name, clock: int = 0
) -> np.ndarray:
    """The rounds of a cell, bool [rounds], whose ratio is the expected one, within `DEPARTURE` or the usual scatter.

    A switch schedule is expected to take what its networks take: the baseline in the same round, the other network at
    its median ratio to the baseline. Any other cell is expected at its own median ratio.
    """
    logs = _logs(seconds[name], clock)
    expected = np.median(logs)
    if shares := timed[name].shares:
        usual = {
            other: np.median(_logs(seconds[other], clock)) if other in seconds else 0.0
            for other in shares
        }
        expected = -np.log(sum(share * np.exp(-usual[other]) for other, share in shares.items()))
    usual_scatter = (
        np.median(np.abs(logs - np.median(logs))) * 1.4826
    )  # of normal rounds the standard deviation
    return np.abs(logs - expected) <= max(DEPARTURE, _SCATTER * usual_scatter)


def _logs(seconds: np.ndarray, clock: int) -> np.ndarray:
    """Logarithms of the rounds' ratios, [rounds]."""
    return np.log(seconds[:, 0, clock] / seconds[:, 1, clock])


def _estimate(logs: np.ndarray, good: np.ndarray, least: int, seed: int) -> Estimate:
    """The estimate of rounds with the logarithms `logs`, of which `good` are undisturbed."""
    disturbed = bool(good.sum() < least)
    mean, resampled = mean_of_rounds(logs if disturbed else logs[good], seed)
    return Estimate(
        value=float(np.exp(mean)),
        interval=[float(np.exp(end)) for end in np.percentile(resampled, [2.5, 97.5])],
        resampled=np.exp(resampled).tolist(),
        rounds=int(good.sum()),
        disturbed=disturbed,
    )


def mean_of_rounds(values: np.ndarray, seed: int) -> tuple[float, np.ndarray]:
    """The mean of `values` [rounds], and means of resampled rounds [RESAMPLES], whose central 95% is its interval.

    Resamples of few rounds scatter too little. They are widened as Student's t is wider than a normal distribution.
    Each resample also stands for another process.
    """
    n, mean = len(values), values.mean()
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, n, (RESAMPLES, n))
    between = generator.normal(0, BETWEEN, RESAMPLES)
    return float(mean), mean + _widening(n) * (values[drawn].mean(1) - mean) + between


def _widening(n: int) -> float:
    """How much wider than the scatter of resampled means of n rounds their interval is."""
    if n < 2:
        return 1.0
    z, freedom = 1.959964, n - 1
    # Student's t in powers of 1 / freedom (Abramowitz and Stegun, 26.7.5)
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return _STOPPING * t / z * (n / freedom) ** 0.5
