"""Named schedules made into cells: further networks, exits, guided ones, and timesteps of their own."""

import numpy as np
import pytest
import torch
from unit.tiny_study import DDPM, DPM_SOLVER, NET, STUDY, USED, loaded, train

from duodiff import samplers
from duodiff.backbones import Autoguided, FixedExit
from duodiff.data.store import ImageStore
from duodiff.metrics import latency
from duodiff.metrics.resources import trajectory_gflops
from duodiff.metrics.rounds import TURNS
from duodiff.operations import network
from duodiff.running.files import read_json
from duodiff.sampling.cells import build_cell
from duodiff.sampling.generation import generate, sample_batch
from duodiff.sampling.samples import write_samples
from duodiff.schedules import T, timesteps
from duodiff.settings import Schedules, Setting

DDIM = {"name": "ddim", "steps": 10, "eta": 0}
HALF = {"intervals": [["shallow", 500, 999], ["full", 0, 499]]}
EVERY = {
    "intervals": [
        ["shallow", 800, 999],
        ["middle", 600, 799],
        ["early", 400, 599],
        ["guided", 200, 399],
        ["full", 0, 199],
    ],
    "networks": {
        "early": {"exit": 2},
        "guided": {"network": "full", "by": "early", "weight": 0.5},
    },
}
OFTEN = {"intervals": [["full" if i % 2 else "shallow", 100 * i, 100 * i + 99] for i in range(10)]}
SCHEDULES = Schedules(
    {
        "half": HALF,
        "every": EVERY,
        "own": EVERY | {"timesteps": [999, 700, 500, 300, 0]},
        "often": OFTEN,
        "nested": {"intervals": [["guided", 0, 999]], "networks": EVERY["networks"]},
    }
)


@pytest.fixture(scope="module")
def all_paths(paths, data, tmp_path_factory):
    middle = tmp_path_factory.mktemp("middle") / "middle/manifest.json"
    train(data, {"depth": 7}, middle)
    return paths | {"middle": middle}


@pytest.fixture(scope="module")
def models(all_paths):
    return loaded(all_paths)


def cell_of(models, name, sampler=DDPM):
    return build_cell(models, sampler, SCHEDULES.setting(f"schedule={name}", sampler["name"]))


@pytest.mark.parametrize("sampler", [DDPM, DDIM, DPM_SOLVER], ids=lambda sampler: sampler["name"])
def test_a_schedule_written_out_as_t_s_has_the_bytes_of_t_s(models, sampler):
    short = build_cell(models, sampler, Setting.parse("t_s=500"))
    found = [
        generate(models, cell, 0, 6, batch=4, seed=3)
        for cell in (short, cell_of(models, "half", sampler))
    ]
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("t_s", [1, 100, 123, 300, 500, 700, 999])
def test_t_s_is_the_short_form_of_two_intervals(models, t_s):
    intervals = [["shallow", T - t_s, T - 1], ["full", 0, T - t_s - 1]]
    long = Schedules({"long": {"intervals": intervals}}).setting("schedule=long", "ddpm")
    cells = [build_cell(models, DDPM, setting) for setting in (long, Setting.of("t_s", t_s))]
    at = [[cell.schedule.at(t) for t in range(T)] for cell in cells]
    assert at[0] == at[1]
    assert cells[0].steps == cells[1].steps


def test_each_network_runs_in_its_interval_and_is_made_once(models):
    cell = cell_of(models, "every")
    shallow, middle, early, guided, full = (cell.schedule.at(t) for t in (900, 700, 500, 300, 100))
    assert (shallow, middle) == (models.shallow, models.backbone("middle"))
    assert full is models.full
    assert isinstance(early, FixedExit)
    assert isinstance(guided, Autoguided)
    assert guided.network is full
    assert all(cell.schedule.at(t) is early for t in (400, 450, 599))
    assert cell.roles == ("full", "shallow", "heads", "middle")
    _, _, ran = sample_batch(models, cell, 0, 4, seed=0)
    depths = {999: 3, 888: 3, 777: 7, 666: 7, 555: 2, 444: 2, 333: 5 + 2, 222: 7, 111: 5, 0: 5}
    assert ran[:, 0].tolist() == [depths[step.t] for step in cell.steps]


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    return torch.randn(3, 1, 8, 8), torch.full((3,), 700), torch.tensor([0, 4, 9])


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_an_exit_is_the_head_of_its_layer_for_all_images(models, inputs, layer):
    with torch.inference_mode():
        g = models.adadiff.all_layers(*inputs)[2][layer]
        assert torch.equal(models.fixed_exit(layer)(*inputs), models.full.to_eps(g, *inputs[:2]))
        if layer == 0:
            assert torch.equal(models.fixed_exit(0)(*inputs), models.early_exit(1.0)(*inputs))


def test_a_layer_without_a_head_is_refused(models):
    with pytest.raises(ValueError, match="exit: found 5; accepted: 0 to 4"):
        models.fixed_exit(5)


def test_guidance_by_a_worse_network_adds_its_weight_times_their_difference(models, inputs):
    with torch.inference_mode():
        full, shallow = models.full(*inputs), models.shallow(*inputs)
        guided = Autoguided(models.full, models.shallow, 0.5)(*inputs)
    torch.testing.assert_close(guided, 1.5 * full - 0.5 * shallow)
    assert not torch.equal(guided, full)


@pytest.mark.parametrize("sampler", [DDPM, DDIM, DPM_SOLVER], ids=lambda sampler: sampler["name"])
def test_timesteps_of_its_own_are_visited_in_place_of_the_samplers(models, sampler):
    cell = cell_of(models, "own", sampler)
    assert [step.t for step in cell.steps] == [999, 700, 500, 300, 0]
    same = {"name": sampler["name"], "steps": 10, "eta": 0}
    listed = same | {"timesteps": timesteps(10).tolist()}
    both = [samplers.steps_of(models.schedule, s, models.protocol) for s in (same, listed)]
    assert both[0] == both[1]


@pytest.mark.parametrize("visited", [[999, 500], [800, 0], [999, 0, 0], [0, 999], [999]])
def test_other_timesteps_are_refused(models, visited):
    with pytest.raises(
        ValueError, match=r"timesteps: found .*; accepted: numbers that fall from 999"
    ):
        samplers.ddpm(models.schedule, visited)


def test_a_store_says_which_networks_ran_when_and_gives_the_setting_back(models, tmp_path):
    setting = SCHEDULES.setting("schedule=own", "ddpm")
    described = STUDY | {"sampler": DDPM, "images": 4, "batch": 4, "seed": 0}
    manifest = write_samples(tmp_path / "1/m.json", models, setting=setting, **described)
    assert manifest["method"] == "schedule"
    assert manifest["parameters"] == {
        "schedule": "own",
        "intervals": EVERY["intervals"],
        "timesteps": [999, 700, 500, 300, 0],
        "networks": EVERY["networks"],
    }
    assert (manifest["nfe"], manifest["timesteps"]) == (5, [999, 700, 500, 300, 0])
    assert set(manifest["checkpoint_sha256"]) == {"full", "shallow", "heads", "middle"}
    read = Setting.of_record(read_json(tmp_path / "1/m.json")["parameters"])
    write_samples(tmp_path / "2/m.json", models, setting=read, **described)
    assert np.array_equal(*(ImageStore(tmp_path / f"{i}/m.json").images for i in (1, 2)))


def test_an_exit_and_a_guided_network_are_not_guided_by_the_class(models):
    for name in ("early", "guided"):
        made = {"intervals": [[name, 0, 999]], "networks": EVERY["networks"]}
        setting = Schedules({"one": made}).setting("schedule=one", "ddpm")
        with pytest.raises(ValueError, match=f"guidance: found 0.4 with the network {name}"):
            build_cell(models, DDPM | {"guidance": 0.4}, setting)


def operations() -> dict[str, float]:
    """GFLOPs of a call of each network, in closed form."""
    defaults = {"mlp_ratio": 4, "qkv_bias": False, "mlp_time_embed": False, "conv": True}
    nets = {
        name: network(NET | defaults | {"depth": depth})
        for name, depth in (("full", 5), ("shallow", 3), ("middle", 7))
    }
    found = {name: net.forward / 1e9 for name, net in nets.items()}
    found["early"] = nets["full"].fixed_exit(2) / 1e9
    return found | {"guided": found["full"] + found["early"]}


def test_a_network_is_guided_by_an_exit_that_has_no_interval(models, inputs):
    cell = cell_of(models, "nested")
    full, early = models.full(*inputs), models.fixed_exit(2)(*inputs)
    torch.testing.assert_close(cell.schedule.at(500)(*inputs), 1.5 * full - 0.5 * early)
    assert cell.roles == ("full", "heads")
    assert trajectory_gflops(models, cell, None) == pytest.approx(10 * operations()["guided"])


@pytest.mark.parametrize(("name", "calls"), [("every", 2), ("own", 1)])
def test_a_schedule_costs_the_calls_of_its_networks(models, name, calls):
    found = trajectory_gflops(models, cell_of(models, name), None)
    assert found == pytest.approx(calls * sum(operations().values()), rel=1e-9)


TIMED = STUDY | {"protocol": "corrected", "batch": 4, "threads": 1, "seed": 0, "device": "cpu"}


def test_schedules_are_timed_as_cells_beside_the_full_backbone(all_paths, monkeypatch):
    timed = {}
    measure = latency.rounds.measure
    monkeypatch.setattr(
        latency.rounds, "measure", lambda cells, *rest: timed.update(cells) or measure(cells, *rest)
    )
    names = ["schedule=own", "schedule=every", "schedule=often"]
    records = latency.measure_cells(
        all_paths, USED, [[DDPM, ["t_s=0", *names]]], **TIMED, repeats=1, schedules=SCHEDULES
    )
    cells = {r.parameters.get("schedule"): r for r in records if r.metric == "speedup"}
    assert set(cells) == {None, "own", "every", "often"}
    assert {r.method for r in cells.values()} == {"full", "schedule"}
    needed = {"gflops_per_trajectory", "peak_memory_mb", "resident_parameters", "load_seconds"}
    assert needed <= {r.metric for r in records if r.parameters.get("schedule") == "own"}
    # one call of each of five networks, of the baseline's ten
    shares = timed["ddpm", SCHEDULES.setting("schedule=own", "ddpm")].shares
    alone = ["middle", "early", "guided"]
    assert {key: value for (_, key), value in shares.items()} == pytest.approx(
        dict.fromkeys(
            [Setting.parse("t_s=0"), Setting.parse("t_s=1000"), *(f"network {n}" for n in alone)],
            0.1,
        )
    )
    assert {("ddpm", key) for key in [f"network {name}" for name in alone]} <= timed.keys()
    assert {r.method for r in records if r.metric == "parameters"} == {"full", "shallow", "middle"}


def test_memory_is_measured_over_steps_of_every_network(models):
    for name, most in (("every", 7), ("own", 5), ("often", 7)):
        cell = cell_of(models, name)
        few = latency._few_steps(cell)
        ran = [{id(c.schedule.at(step.t)) for step in c.steps} for c in (few, cell)]
        assert ran[0] == ran[1]
        assert few.steps[-1] == cell.steps[-1]
        assert len(few.steps) <= most


def test_a_schedule_that_often_switches_is_timed_by_its_networks(models):
    pieces = latency.Pieces(models, 4, 0)
    often, every = (pieces.switching(cell_of(models, name))(0) for name in ("often", "every"))
    assert len(often) == TURNS
    assert sum(turn.counts for turn in often) * 4 == pytest.approx(10)
    assert len(every) == 5
    assert sum(turn.counts for turn in every) * 4 == pytest.approx(10)
