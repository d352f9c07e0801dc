"""Settings made into cells: which backbone runs at which t, and what a manifest says of it."""

import numpy as np
import pytest
import torch
from unit.tiny_study import DDPM, DPM_SOLVER, loaded, train

from duodiff import samplers
from duodiff.backbones import EarlyExit
from duodiff.metrics.resources import trajectory_gflops
from duodiff.sampling.cells import build_cell
from duodiff.sampling.generation import generate, sample_batch
from duodiff.settings import Setting


@pytest.mark.parametrize(
    ("setting", "method", "parameters"),
    [
        ("t_s=0", "full", {"t_s": 0}),
        ("t_s=400", "duodiff", {"t_s": 400}),
        ("t_s=1000", "shallow", {"t_s": 1000}),
        ("theta=0.3", "adadiff", {"theta": 0.3, "setting": "0.3", "depth": 5}),
        ("theta=q0.5", "adadiff", {"theta": 0.4, "setting": "q0.5", "depth": 5}),
    ],
)
def test_settings_become_cells(paths, setting, method, parameters):
    cell = build_cell(loaded(paths), DDPM, Setting.parse(setting))
    assert (cell.method, cell.parameters) == (method, pytest.approx(parameters))
    assert isinstance(cell.early_exit, EarlyExit) == (method == "adadiff")


def test_dpm_solver_is_the_same_in_both_protocols_and_under_early_exit(paths):
    both = [loaded(paths, protocol) for protocol in ("corrected", "paper")]
    cells = [build_cell(models, DPM_SOLVER, Setting.parse("t_s=300")) for models in both]
    models = both[0]
    assert cells[0].steps == cells[1].steps == samplers.dpm_solver_pp(models.schedule, 10)
    for own, cell in zip(both, cells, strict=True):
        assert [cell.schedule.at(s.t) is own.shallow for s in cell.steps] == [
            s.t >= 700 for s in cell.steps
        ]
    exits = build_cell(models, DPM_SOLVER, Setting.parse("theta=0"))
    full = build_cell(models, DPM_SOLVER, Setting.parse("t_s=0"))
    found = [generate(models, cell, 0, 4, batch=4, seed=0)[0] for cell in (exits, full)]
    assert np.array_equal(*found)  # theta = 0 is full depth


def test_the_papers_protocol_changes_ddim_by_its_named_options(paths):
    ddim = {"name": "ddim", "steps": 50, "eta": 0}
    calls, shallow = [], []
    for protocol in ("corrected", "paper"):
        models = loaded(paths, protocol)
        cell = build_cell(models, ddim, Setting.parse("t_s=300"))
        calls.append(len(cell.steps))
        shallow.append(sum(cell.schedule.at(s.t) is models.shallow for s in cell.steps))
    assert calls == [50, 49]
    assert shallow == [15, 16]


def test_guided_cells_are_guided_and_cost_the_same_number_of_steps(data, tmp_path):
    out = tmp_path / "m.json"
    train(data, {"depth": 3, "num_classes": 11}, out, null_class=True)
    models = loaded({"full": out})
    plain, guided = (
        build_cell(models, DDPM | extra, Setting.parse("t_s=0"))
        for extra in ({}, {"guidance": 0.4})
    )
    assert guided.parameters == {"t_s": 0, "guidance": 0.4}
    # as floats: a barely trained network's pixels are all saturated
    a, b = (sample_batch(models, cell, 0, 4, seed=0) for cell in (plain, guided))
    assert not torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert b[2].tolist() == [[3] * 4] * 10
    operations, twice = (
        trajectory_gflops(models, c, r) for c, (*_, r) in ((plain, a), (guided, b))
    )
    assert twice == 2 * operations > 0
