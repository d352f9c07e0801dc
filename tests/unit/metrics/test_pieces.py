"""Pieces of trajectories: which steps a round runs, and that their times count for the whole."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from unit.tiny_study import DDPM, DPM_SOLVER, loaded

from duodiff.backbones import EarlyExit
from duodiff.graphs import StepGraphs
from duodiff.metrics import pieces as module
from duodiff.metrics.flops import exit_gflops
from duodiff.metrics.pieces import Pieces, expected_times, spread
from duodiff.metrics.rounds import TURNS
from duodiff.noise import Drawn
from duodiff.sampling.cells import build_cell
from duodiff.sampling.generation import sample_batch
from duodiff.settings import Setting

LONG = {"name": "ddpm", "steps": 50}
BATCH, SEED = 4, 3


@pytest.fixture
def models(paths):
    return loaded(paths)


@pytest.fixture
def pieces(models):
    return Pieces(models, BATCH, SEED)


def cell_of(models, setting, sampler=LONG):
    return build_cell(models, sampler, Setting.parse(setting))


def watched(pieces, monkeypatch) -> list:
    """The steps, and the x, of each call of `advance`."""
    calls, advance = [], pieces.advance

    def counted(cell, steps, x):
        calls.append(([step.t for step in steps], x))
        return advance(cell, steps, x)

    monkeypatch.setattr(pieces, "advance", counted)
    return calls


@pytest.mark.parametrize(
    ("t_s", "shallow"), [(0, 0), (5, 1), (300, 1), (500, 2), (700, 4), (999, 4), (1000, 5)]
)
def test_a_piece_switches_and_each_network_counts_for_its_own_steps(
    t_s, shallow, models, pieces, monkeypatch
):
    cell = cell_of(models, f"t_s={t_s}")
    calls = watched(pieces, monkeypatch)
    turns = pieces.switching(cell)(0)
    assert len(turns) == TURNS
    for turn in turns:
        turn.run()
    ran = [t for steps, _ in calls for t in steps]
    index = [step.t for step in cell.steps].index(ran[0])
    assert ran == [step.t for step in cell.steps][index : index + TURNS]  # one after another
    assert abs(sum(t >= 1000 - t_s for t in ran) - shallow) <= 1
    counted = Counter()
    for t, turn in zip(ran, turns, strict=True):
        counted[t >= 1000 - t_s] += turn.counts * BATCH
    whole = Counter(step.t >= 1000 - t_s for step in cell.steps)
    assert counted == pytest.approx(whole)
    # each turn goes on from the images of the last
    assert all(after is not before for (_, before), (_, after) in pairwise(calls))


def test_a_turn_on_a_gpu_has_several_steps(models, pieces, monkeypatch):
    pieces.steps = 5
    calls = watched(pieces, monkeypatch)
    for sampler, parts in ((LONG, [5] * TURNS), (DDPM, [2, 3, 2, 3])):
        calls.clear()
        turns = pieces.switching(cell_of(models, "t_s=0", sampler))(0)
        for turn in turns:
            turn.run()
        assert [len(steps) for steps, _ in calls] == parts
        counted = sum(
            turn.counts * len(steps) for (steps, _), turn in zip(calls, turns, strict=True)
        )
        assert counted * BATCH == pytest.approx(sampler["steps"])


@pytest.mark.parametrize("sampler", [LONG, DDPM, DPM_SOLVER | {"steps": 50}])
def test_an_early_exit_runs_other_steps_in_each_round_from_the_states_of_its_trajectory(
    sampler, models, pieces, monkeypatch
):
    cell = cell_of(models, "theta=q0.5", sampler)
    states = {}
    backbone = cell.schedule.at(0)
    run_network = backbone.run

    def remembered(x, t, y, theta):
        states.setdefault(float(t[0]), x)
        return run_network(x, t, y, theta)

    monkeypatch.setattr(backbone, "run", remembered)
    x_0, _, ran = sample_batch(models, cell, 0, BATCH, SEED)
    piece, found, found_ran = pieces.exiting(cell, 10)
    assert torch.equal(found, x_0)
    assert torch.equal(found_ran, ran)
    calls = watched(pieces, monkeypatch)
    for i in range(10):
        for turn in piece(i):
            turn.run()
    every = [t for steps, _ in calls for t in steps]
    rounds = min(10, sampler["steps"] // TURNS)
    assert set(Counter(every).values()) == {10 // rounds}
    indices = [[step.t for step in cell.steps].index(t) for t in sorted(set(every), reverse=True)]
    assert len(indices) == TURNS * rounds
    assert max(np.diff(indices)) <= 2  # all over the trajectory
    assert all(torch.equal(x, states[steps[0]]) for steps, x in calls)
    assert not cell.early_exit.exits


def test_the_time_of_an_exit_counts_for_the_trajectory_by_what_its_steps_should_take(
    models, pieces, monkeypatch
):
    told = []

    def expected(operations, seconds):
        assert operations.shape == seconds.shape == (50,)
        assert (seconds > 0).all()
        told.append(operations + 1)
        return told[0]

    monkeypatch.setattr(module, "expected_times", expected)
    cell = cell_of(models, "theta=q0.5")
    piece, _, ran = pieces.exiting(cell, 10)
    by_layer = torch.tensor(exit_gflops(models.adadiff), dtype=torch.float64)
    assert np.allclose(told[0] - 1, by_layer[ran.long()].mean(1))
    starts = np.array(spread(50, 10 * TURNS))
    for i in range(10):
        ((counts),) = {turn.counts for turn in piece(i)}
        # what goes as expected is the trajectory's time, whatever the round
        assert counts * BATCH * told[0][starts[i::10]].sum() == pytest.approx(told[0].sum())


def test_a_step_is_expected_to_take_what_its_operations_take_and_something_besides():
    operations = np.array([0.0, 1, 3, 3, 7])
    assert np.allclose(expected_times(operations, 2 + 4 * operations), operations + 0.5)
    assert np.allclose(expected_times(operations, 4 * operations - 1), operations)  # never below
    # where more operations take no more time, every step is alike
    assert expected_times(operations, 9 - operations).tolist() == [1.0] * 5
    assert expected_times(np.full(3, 2.0), np.array([1.0, 5, 2])).tolist() == [1.0] * 3


def test_a_few_images_run_a_step_before_a_turn_and_change_nothing(models, pieces, monkeypatch):
    calls = watched(pieces, monkeypatch)
    monkeypatch.setattr(module, "_FEW", 2)
    for setting in ("t_s=400", "theta=q0.5"):
        cell = cell_of(models, setting)
        piece = pieces.exiting(cell, 10)[0] if cell.early_exit else pieces.switching(cell)
        for turn in piece(0):
            calls.clear()
            turn.prepare()
            turn.run()
            (few, x_few), (steps, x) = calls
            assert few == steps
            assert torch.equal(x_few, x[:2])
            assert len(x) == BATCH
    models.device = "cuda"  # there a turn has more steps
    calls.clear()
    pieces.switching(cell_of(models, "t_s=400"))(0)[0].prepare()
    assert not calls


def test_on_a_gpu_a_turn_of_an_early_exit_goes_on_from_a_step_before(models, pieces, monkeypatch):
    monkeypatch.setattr(EarlyExit, "ahead_on", ("cpu",))
    early_exit = (cell := cell_of(models, "theta=1")).early_exit
    turn = pieces.exiting(cell, 10)[0](0)[0]
    monkeypatch.setattr(
        pieces, "_noise", lambda streams, count: Drawn(SEED, streams, 0, count, models.shape)
    )
    models.device = "cuda"
    calls = watched(pieces, monkeypatch)
    turn.prepare()
    computed = [early_exit.ahead.blocks_computed]
    turn.run()
    computed.append(early_exit.ahead.blocks_computed)
    (before, x), (steps, same) = calls
    assert before == steps[:1]
    assert x is same
    # a trajectory begins with full batches, and goes on with those that the step before needed
    assert computed == [models.full.net.depth, 0]


def test_a_multistep_sampler_runs_a_piece_without_a_history(models, pieces):
    cell = cell_of(models, "t_s=400", DPM_SOLVER)
    assert any(step.change_coef for step in cell.steps)
    for turn in pieces.switching(cell)(0):
        turn.run()


@pytest.mark.parametrize("sampler", [LONG, DPM_SOLVER], ids=lambda sampler: sampler["name"])
def test_captured_steps_are_timed_where_they_sample(sampler, models, monkeypatch):
    cell, x = cell_of(models, "t_s=500", sampler), Pieces(models, BATCH, SEED).x
    steps = cell.steps[3:7]
    plain = Pieces(models, BATCH, SEED).advance(cell, steps, x)
    calls = []
    models.graphs = StepGraphs("cpu")
    monkeypatch.setattr(module.samplers, "integrate", lambda *given: calls.append(given))
    found = Pieces(models, BATCH, SEED).advance(cell, steps, x)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
    assert not calls
    assert x.data_ptr() != found.data_ptr()
