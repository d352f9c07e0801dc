"""Rounds of timing by made clocks: what disturbs them is found or harmless, and the intervals cover."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from duodiff.metrics import rounds
from duodiff.metrics.rounds import MOST, TURNS, Timed, Turn

LEAST = 10
COSTS = {"shallow": 0.4, "switch": 0.7, "exit": 0.6}  # seconds; the baseline takes 1
SHARES = {"switch": {"full": 0.5, "shallow": 0.5}}


class Machine:
    """A machine with a made clock. `slowed(name, round)` are the factors of wall and of processor time."""

    def __init__(self, slowed: Callable = lambda *_: (1, 1), turns: int = TURNS):
        self.slowed, self.turns, self.now, self.ran = slowed, turns, np.zeros(2), []

    def clock(self) -> np.ndarray:
        return self.now.copy()

    def work(self, name: str, i: int, seconds: float) -> None:
        self.ran.append((name, i))
        self.now += seconds * np.array(self.slowed(name, i))

    def piece(self, name: str, seconds: float, i: int):
        turn = seconds / 10 / self.turns  # a tenth of a trajectory in a round
        return [Turn(partial(self.work, name, i, turn), 10.0, lambda: None)] * self.turns

    def timed(self, costs=COSTS, shares=SHARES) -> dict[str, Timed]:
        return {
            name: Timed(
                partial(self.piece, name, cost),
                partial(self.piece, f"beside {name}", 1.0),
                shares.get(name, {}),
            )
            for name, cost in costs.items()
        }


def measured(machine: Machine, costs=COSTS, shares=SHARES, clock: int = 0):
    """The speed-ups of a machine's cells, and the number of rounds that each ran."""
    timed = machine.timed(costs, shares)
    seconds = rounds.measure(timed, LEAST, machine.clock)
    counts = {name: len(rows) for name, rows in seconds.items()}
    return rounds.speedups(timed, seconds, LEAST, clock), counts


def intervals(found) -> dict[str, list[float]]:
    return {name: estimate.interval for name, estimate in found.items()}


def right(found, costs=COSTS, within=1e-9) -> bool:
    return all(abs(found[name].value * cost - 1) <= within for name, cost in costs.items())


def test_cells_take_turns_with_their_baseline_and_stop_after_the_least_rounds():
    machine = Machine()
    found, counts = measured(machine)
    assert right(found)
    assert set(counts.values()) == {LEAST}
    assert all((e.rounds, e.disturbed) == (LEAST, False) for e in found.values())
    per_round = 2 * TURNS * len(COSTS)
    first, second = machine.ran[:per_round], machine.ran[per_round : 2 * per_round]
    assert [name for name, _ in first[:4]] == ["beside shallow", "shallow"] * 2
    assert [name for name, _ in second[:4]] == ["exit", "beside exit"] * 2  # the other way round
    assert {i for _, i in second} == {1}


def test_a_cell_of_more_turns_than_its_baseline_ends_alone():
    machine = Machine()
    long = Machine.piece(machine, "long", 2.0, 0)
    timed = Timed(lambda i: [*long, *long], partial(machine.piece, "beside long", 1.0))
    seconds = rounds.measure({"long": timed}, LEAST, machine.clock)["long"]
    assert seconds[:, :, 0] == pytest.approx(np.full((len(seconds), 2), [1.0, 4.0]))


WAITING = (4, 1)  # another program has the processor
CROWDED = (2, 2)  # another program has its caches: the work itself is slower
FASTER = (0.5, 0.5)


@pytest.mark.parametrize("how", [WAITING, CROWDED, FASTER])
@pytest.mark.parametrize("whose", ["switch", "beside switch", "exit", "beside exit"])
def test_a_slow_or_fast_moment_of_cell_or_baseline_is_found_and_measured_again(how, whose):
    def slowed(name, i):
        return how if name == whose and i in (2, 3, 7) else (1, 1)

    found, counts = measured(Machine(slowed))
    assert right(found)
    assert not any(estimate.disturbed for estimate in found.values())
    cell = whose.removeprefix("beside ")
    assert (found[cell].rounds, counts.pop(cell)) == (LEAST, LEAST + 3)
    assert set(counts.values()) == {LEAST}


def test_a_baseline_that_was_slow_in_two_of_three_rounds_makes_no_fast_method():
    machine = Machine(
        lambda name, i: CROWDED if name.startswith("beside") and i in (0, 1) else (1, 1)
    )
    timed = machine.timed()
    seconds = rounds.measure(timed, 3, machine.clock)
    assert right(rounds.speedups(timed, seconds, 3))


def test_a_drift_or_a_burst_that_slows_both_sides_alike_is_harmless():
    machine = Machine()
    machine.slowed = lambda *_: 2 * (1 + machine.now[0] / 5,)  # three times as slow in the end
    found, counts = measured(machine)
    assert machine.slowed()[0] > 2
    assert right(found, within=2e-3)
    assert set(counts.values()) == {LEAST}
    found, counts = measured(Machine(lambda name, i: (3, 3) if i % 3 else (1, 1)))
    assert right(found)
    assert set(counts.values()) == {LEAST}


@pytest.mark.parametrize("slower", [(1.3, 1.3), (0.7, 0.7)])
def test_a_switch_schedule_that_departs_from_its_networks_in_every_round_stays_disturbed(slower):
    machine = Machine(lambda name, i: slower if name == "switch" else (1, 1))
    found, counts = measured(machine)
    assert (found["switch"].rounds, found["switch"].disturbed) == (0, True)
    assert counts == {"shallow": LEAST, "switch": MOST * LEAST, "exit": LEAST}
    # its own rounds alone would not tell
    found, _ = measured(Machine(machine.slowed), shares={})
    assert not found["switch"].disturbed


def test_a_machine_that_is_never_quiet_says_so_and_its_processor_time_is_right():
    generator = np.random.default_rng(0)
    machine = Machine(lambda name, i: (generator.uniform(1.3, 3), 1))
    found, counts = measured(machine)
    assert set(counts.values()) == {MOST * LEAST}
    assert all(estimate.disturbed and estimate.rounds == 0 for estimate in found.values())
    assert all(low < 1 / COSTS[name] < high for name, (low, high) in intervals(found).items())
    found, _ = measured(Machine(machine.slowed), clock=1)
    assert right(found)
    assert not any(estimate.disturbed for estimate in found.values())


def test_too_few_undisturbed_rounds_do_not_stand_for_all():
    """One round that happened to pass would have no interval at all."""
    generator = np.random.default_rng(1)

    def slowed(name, i):
        return (1.05, 1.05) if i == 17 and name == "exit" else (generator.uniform(1.3, 2), 1)

    found, counts = measured(Machine(slowed), {"exit": 0.6}, {})
    assert (found["exit"].disturbed, counts["exit"]) == (True, MOST * LEAST)
    low, high = found["exit"].interval
    assert high - low > 0.01


def test_several_threads_have_the_processor_if_they_have_what_their_best_round_had():
    quiet = np.full((6, 2, 2), 1.0)
    quiet[..., 1] = 1.7  # of two threads
    assert rounds.given(quiet).all()
    quiet[2:4, 1, 0] = 1.5
    assert rounds.given(quiet).tolist() == [True, True, False, False, True, True]
    assert rounds.given(quiet[..., :1]).all()  # no processor time


def test_rounds_go_on_until_the_interval_is_narrow_or_there_are_too_many():
    generator = np.random.default_rng(0)

    def noisy(deviation):
        factor = lambda: float(np.exp(generator.normal(0, deviation * TURNS**0.5)))  # noqa: E731
        _, counts = measured(Machine(lambda *_: 2 * (factor(),)), {"exit": 0.6}, {})
        return counts["exit"]

    assert noisy(0.005) == LEAST
    assert LEAST < noisy(0.025) < MOST * LEAST
    assert noisy(0.1) == MOST * LEAST


def test_seconds_are_the_baselines_over_the_speed_up():
    machine = Machine(lambda name, i: CROWDED if name == "beside exit" and i == 4 else (1, 1))
    timed = machine.timed()
    seconds = rounds.measure(timed, LEAST, machine.clock)
    baseline = rounds.baseline_seconds(timed, seconds, LEAST)
    assert (baseline.value, baseline.disturbed) == (pytest.approx(1), False)
    cell = rounds.seconds_of(baseline, rounds.speedups(timed, seconds, LEAST)["switch"])
    assert cell.value == pytest.approx(COSTS["switch"])
    assert cell.interval[0] <= cell.value <= cell.interval[1]


@pytest.mark.slow
def test_intervals_of_speed_ups_cover_with_the_rule_that_stops():
    """2,000 made studies, each a process of its own with small or large noise; the noise of every other is uneven."""
    held = []
    for study in range(2000):
        generator = np.random.default_rng(study)
        deviation = generator.choice([0.005, 0.01, 0.02, 0.03, 0.04])
        uneven = 0.05 * (study % 2)
        of_process = np.exp(generator.normal(0, rounds.BETWEEN))

        def slowed(name, i, generator=generator, deviation=deviation, uneven=uneven):
            scale = 4 if generator.random() < uneven else 1
            return 2 * (np.exp(generator.normal(0, scale * deviation)),)

        found, _ = measured(Machine(slowed, turns=1), {"exit": 0.6 * of_process}, {})
        low, high = found["exit"].interval
        held.append(low <= 1 / 0.6 <= high)
    assert 0.93 <= np.mean(held) <= 0.97
