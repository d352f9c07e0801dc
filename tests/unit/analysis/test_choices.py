"""The schedules of a study's budgets, and what `choose` prints, of made profiles."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from snakemake.utils import update_config
from unit.analysis.test_analysis import written
from unit.analysis.test_schedules_shown import scheduled

from duodiff.__main__ import choose
from duodiff.analysis.cells import load_records
from duodiff.analysis.choices import (
    GAPS_AT,
    Profile,
    chosen,
    costs,
    gap_records,
    prediction_records,
)
from duodiff.analysis.cost import works
from duodiff.analysis.summary import predictions
from duodiff.backbones import FixedExit
from duodiff.early_exit import AdaDiff
from duodiff.metrics.flops import gflops
from duodiff.metrics.grams import Gram
from duodiff.metrics.losses import Losses
from duodiff.operations import network
from duodiff.running.files import write_json
from duodiff.schedules import timesteps
from duodiff.settings import Setting
from duodiff.study.config import ConfigError, complete
from duodiff.study.grid import further_timesteps, scored_samplers
from duodiff.uvit import Denoiser, UViT

ROOT = Path(__file__).parents[3]
CONFIG = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
DDPM, DDIM = {"name": "ddpm", "steps": 20}, {"name": "ddim", "steps": 20, "eta": 0}
ABOUT = {
    "experiment": "digits",
    "protocol": "corrected",
    "seeds": {"train_seed": 0},
    "dtype": "float32",
    "compute_batch": 64,
    "checkpoint_sha256": {},
    "made": {"of": {}},
}


@pytest.fixture
def study(tmp_path) -> Path:
    """A folder with the profile of three networks, at 20 timesteps."""
    folder = tmp_path / "results/digits/train0"
    t, rng = timesteps(20), np.random.default_rng(0)
    base = rng.exponential(0.02 + 0.9 * (1 - t / 999)[:, None] ** 3, (20, 60))
    worse = np.array([0, 0.4, 0.15])[:, None, None] * (1 - t / 1100)[:, None]
    errors = (64 * base * (1 + worse)).astype("f4")
    architecture = CONFIG["experiments"]["digits"]["backbone"]
    networks = {"full": {"depth": 7}, "shallow": {"depth": 3}, "early": {"exit": 4}}
    about = {"architecture": architecture, "networks": networks, "schedule": "linear"}
    Losses(tuple(networks), t, errors, errors - errors[:1], about).write(
        folder / "profile/losses.npz"
    )
    rows = rng.normal(size=(40, 12, 5)) + np.linspace(1, 2, 40)[:, None, None]
    products = np.einsum("and,bnd->nab", rows, rows).astype("f4")
    gram = Gram(("shallow", "early"), DDIM, t, products)
    gram.write(folder / "profile/displacements.npz")
    return folder


def profile(study: Path) -> Profile:
    return Profile(study / "profile/losses.npz", study / "profile/displacements.npz")


def test_costs_are_the_operations_of_a_call(study):
    """As torch counts them; an exit runs the blocks before it, and its head."""
    found = costs(profile(study).losses)
    full, shallow = (
        UViT(**CONFIG["experiments"]["digits"]["backbone"] | {"depth": depth}) for depth in (7, 3)
    )
    early = FixedExit(AdaDiff(full), 4, Denoiser(full))
    counted = {"full": gflops(full), "shallow": gflops(shallow)}
    counted["early"] = gflops(full, lambda x, t, y: early.compute(x, t, y))
    assert found == pytest.approx({name: 1e9 * count for name, count in counted.items()})


BUDGETS = {
    "thrifty": {"operations": 0.7, "choose": "networks"},
    "plain": {"operations": 0.8, "choose": "switch"},
}


def test_the_schedules_of_budgets_by_sampler_and_name(study):
    samplers = {
        "ddpm": {"options": DDPM, "budgets": BUDGETS},
        "ddim": {"options": DDIM, "budgets": {"plain": BUDGETS["plain"]}},
    }
    found = chosen(profile(study), samplers)
    assert {sampler: [*named] for sampler, named in found.items()} == {
        "ddpm": ["thrifty", "plain"],
        "ddim": ["plain"],
    }
    assert found == json.loads(json.dumps(chosen(profile(study), samplers)))
    for named in found.values():
        for name, one in named.items():
            assert one["operations"] <= BUDGETS[name]["operations"]
            low, high = one["interval"]
            assert low <= one["predicted_share"] <= high
            covered = [t for _, low, high in one["intervals"] for t in range(low, high + 1)]
            assert sorted(covered) == [*range(1000)]
            assert one["score"] == "A*"
            assert one["held_out"] == 60
    assert found["ddim"]["plain"] == found["ddpm"]["plain"]  # the steps are the same


def test_predictions_are_records_that_name_their_file(study):
    samplers = {"ddpm": {"options": DDPM, "budgets": BUDGETS}}
    samplers |= {"ddim": {"options": DDIM, "budgets": {"plain": BUDGETS["plain"]}}}
    found = chosen(profile(study), samplers)
    records = prediction_records(found, samplers, ABOUT, "ab12")
    about = [(r.sampler, str(Setting.of_record(r.parameters)), r.n, r.steps) for r in records]
    assert about == [
        ("ddpm", "schedule=thrifty", 60, 20),
        ("ddpm", "schedule=plain", 60, 20),
        ("ddim", "schedule=plain", 60, 20),
    ]
    for record in records:
        one = found[record.sampler][record.parameters["schedule"]]
        assert (record.value, record.interval) == (one["predicted_share"], one["interval"])
        assert record.parameters["prediction_sha256"] == "ab12"
    found["ddim"]["plain"]["predicted_share"] = None
    assert len(prediction_records(found, samplers, ABOUT, "ab12")) == 2


def test_the_summary_sets_what_was_predicted_beside_what_was_measured(tmp_path):
    """Of the named schedules of test_named_schedules.py, three lost a tenth of what the shallow backbone loses."""
    measured = load_records(written(tmp_path, scheduled()))
    about = {"metric": "predicted_share", "sampler": "ddpm", "score": "A*"}
    scores = pd.DataFrame(
        [
            about | {"schedule": "three", "value": 0.08, "interval": [0.06, 0.12]},
            about | {"schedule": "three", "value": 0.12, "interval": [0.10, 0.14]},
            about | {"schedule": "other", "value": 0.5, "interval": [0.4, 0.6]},
        ]
    )
    other, three = predictions(scores, measured)
    assert three == (
        "three (ddpm), chosen before sampling: predicted share 0.100 [0.080, 0.130] by A*; measured 0.100 of fd_digits"
    )
    assert "other (ddpm)" in other
    assert other.endswith("not measured of fd_digits")
    assert predictions(scores[:0], measured) == []


def test_a_budget_that_nothing_fits_is_named(study):
    samplers = {
        "ddpm": {"options": DDPM, "budgets": {"tiny": {"operations": 0.1, "choose": "switch"}}}
    }
    with pytest.raises(
        ValueError, match=r"budgets.tiny under ddpm: operations: found 0.1; accepted"
    ):
        chosen(profile(study), samplers)


def test_records_of_the_gap_are_of_the_papers_switches(study):
    samplers = {
        "ddpm": {"options": DDPM, "budgets": {}},
        "ddim": {"options": DDIM, "budgets": {}},
    }
    found = gap_records(profile(study), samplers, ABOUT)
    about = [(r.sampler, r.parameters["t_s"], r.n, r.nfe) for r in found]
    of_ddim = [("ddim", t_s, 12, 20) for t_s in GAPS_AT]
    assert about == [("ddpm", t_s, 60, 20) for t_s in GAPS_AT] + of_ddim
    for record in found:
        assert (record.metric, record.unit, record.method) == ("switch_gap", "share", "duodiff")
        assert record.interval[0] <= record.value <= record.interval[1]


def test_a_file_of_another_sampler_is_refused(study):
    with pytest.raises(ValueError, match=r"accepted: \{.*'steps': 20\}, that of .*displacements"):
        profile(study).scored(DDIM | {"steps": 10}, "Gram")
    with pytest.raises(ValueError, match=r"score: found 'Gram'; accepted: A\*, A, B, C, N$"):
        profile(study).scored(DDPM, "Gram")
    with pytest.raises(ValueError, match="displacements: found no file; the score Gram needs one"):
        Profile(study / "profile/losses.npz", None).scored(DDIM, "Gram")
    with pytest.raises(ValueError, match="accepted: ddpm, or ddim with eta 0"):
        profile(study).scored(DDIM | {"eta": 0.5})


# --- the command


def printed(capsys, *arguments, **options) -> str:
    choose(*arguments, **options)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        {"budget": 0.7},
        {"budget": 0.7, "by": "switch"},
        {"budget": 0.6, "by": "steps"},
        {"loss": 0.05},
        {"budget": 0.7, "score": "B"},
        {"budget": 0.8, "sampler": "ddim"},
        {"budget": 0.8, "sampler": "ddim", "score": "Gram"},
    ],
    ids=str,
)
def test_the_printed_lines_are_a_configuration_that_is_accepted(study, capsys, options):
    """They follow config.yaml as a second configuration file does."""
    text = printed(capsys, study, steps=20, **options)
    config, lines = json.loads(json.dumps(CONFIG)), yaml.safe_load(text)
    sampler = options.get("sampler", "ddpm")
    assert lines["experiments"]["digits"]["grid"] == {sampler: {"schedules": ["chosen"]}}
    update_config(config, lines)
    complete(config)
    comments = [line for line in text.splitlines() if line.startswith("# ")]
    assert "of the full backbone's operations" in comments[1]
    assert "95%" in comments[2]
    images = "12 trajectories" if options.get("score") == "Gram" else "60 held-out images"
    assert f"score {options.get('score', 'A*')}, {images})" in comments[2]
    share = float(comments[2].split("predicted: ")[1].split(" ")[0])
    assert share <= options.get("loss", 1) + 1e-4


def sampled(study: Path, sampler: dict, *settings: str) -> None:
    """Leaves cells of these settings in the study, as far as `choose` looks at them."""
    for setting in settings:
        path = study / f"samples/{sampler['name']}/{setting}/seed0/manifest.json"
        options = {key: value for key, value in sampler.items() if key != "name"}
        write_json(path, {"sampler": options})


def test_the_lines_keep_the_steps_and_the_schedules_that_were_sampled(study, capsys):
    sampled(study, DDPM, "duodiff/t_s=0", "schedule/schedule=thrifty")
    text = printed(capsys, study, budget=0.7)
    digits = yaml.safe_load(text)["experiments"]["digits"]
    assert digits["grid"] == {"ddpm": {"schedules": ["thrifty", "chosen"]}}
    assert "timesteps" not in digits["schedules"]["chosen"]  # they are the sampler's own
    assert text.startswith(f"# {study}, ddpm: steps 20\n")
    assert "nothing is sampled" not in text


@pytest.mark.parametrize(
    ("sampler", "steps"), [(DDPM, 10), (DDIM, None)], ids=["other steps", "none sampled"]
)
def test_the_lines_name_the_timesteps_where_the_samplers_own_may_be_others(
    study, capsys, sampler, steps
):
    sampled(study, DDPM, "duodiff/t_s=0")
    text = printed(capsys, study, budget=0.7, sampler=sampler["name"], steps=steps)
    (schedule,) = yaml.safe_load(text)["experiments"]["digits"]["schedules"].values()
    assert schedule["timesteps"] == timesteps(steps or 50).tolist()
    assert ("needs a grid.ddim" in text) == (sampler == DDIM)


def test_what_is_asked_has_to_be_one_thing(study):
    for wrong in ({}, {"budget": 0.7, "loss": 0.1}):
        with pytest.raises(ValueError, match="accepted: one of --budget and --loss"):
            choose(study, **wrong)
    with pytest.raises(ValueError, match="budget: found 70; accepted: 0 to 1"):
        choose(study, budget=70)
    with pytest.raises(ValueError, match=r"operations: found 0.1; accepted"):
        choose(study, budget=0.1)
    with pytest.raises(ValueError, match=r"score: found 'Z'; accepted: A\*"):
        choose(study, budget=0.7, score="Z")
    with pytest.raises(ValueError, match="by: found steps; accepted for ddim: switch, networks"):
        choose(study, budget=0.7, by="steps", sampler="ddim")
    with pytest.raises(FileNotFoundError, match=r"losses.npz: found no such file"):
        choose(study.parent / "train1", budget=0.7)
    with pytest.raises(ValueError, match=r"folder: found .*digits; accepted: results/<e"):
        choose(study.parent, budget=0.7)


def test_it_imports_neither_torch_nor_pandas(study):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['x', 'choose', {str(study)!r}, '--budget', '0.7']\n"
        "runpy.run_module('duodiff', run_name='__main__')\n"
        "print({'torch', 'pandas', 'scipy'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


# --- what the configuration asks of profiles


def completed(**changes) -> dict:
    config = json.loads(json.dumps(CONFIG))
    digits = config["experiments"]["digits"]
    digits["budgets"] = BUDGETS | {"few": {"operations": 0.5, "choose": "steps"}}
    for key, value in changes.items():
        digits["grid"]["ddpm" if key != "ddim" else "ddim"]["schedules"] = value
    return complete(config)["experiments"]["digits"]


def test_ddim_is_scored_where_a_budget_is_listed_there():
    assert [*scored_samplers(completed())] == ["ddpm"]
    found = scored_samplers(completed(ddpm=["few"], ddim=["thrifty"]))
    assert found["ddpm"]["budgets"] == {"few": {"operations": 0.5, "choose": "steps"}}
    assert found["ddim"]["options"] == {"name": "ddim", "steps": 50, "eta": 0}


def test_the_steps_of_ddpm_are_profiled_where_it_has_a_budget():
    chosen_of = completed(ddpm=["few"])
    assert further_timesteps(chosen_of) == []  # 50 steps, as the profile
    chosen_of["profile"]["timesteps"] = 10
    assert {*further_timesteps(chosen_of)} | {*timesteps(10)} == {*timesteps(50)} | {*timesteps(10)}
    chosen_of["grid"]["ddpm"]["steps"] = 1000
    assert further_timesteps(chosen_of) == []
    without = completed(ddpm=[])
    without["profile"]["timesteps"] = 10
    assert further_timesteps(without) == []


@pytest.mark.parametrize(
    ("sampler", "changes", "message"),
    [
        (
            "ddim",
            {"eta": 0.5},
            "grid.ddim.schedules: found the budget 'few' with eta 0.5; accepted",
        ),
        ("ddim", {}, "the budget 'few' with choose: steps; accepted for ddim: switch, networks"),
        ("dpm_solver_pp", {"eta": None}, "accepted: names of schedules; budgets are for ddpm and"),
    ],
)
def test_budgets_for_which_nothing_can_be_chosen_are_refused(sampler, changes, message):
    config = json.loads(json.dumps(CONFIG))
    digits = config["experiments"]["digits"]
    digits["budgets"] = {"few": {"operations": 0.5, "choose": "steps"}}
    grid = digits["grid"]["ddim"] | {"schedules": ["few"]} | changes
    digits["grid"][sampler] = {k: v for k, v in grid.items() if v is not None}
    with pytest.raises(ConfigError) as refused:
        complete(config)
    assert message in str(refused.value)


@pytest.mark.parametrize("by", ["switch", "networks"])
def test_a_budget_that_nothing_meets_is_refused_before_anything_runs(study, by):
    """The least one is what choosing itself says."""
    config = json.loads(json.dumps(CONFIG))
    digits = config["experiments"]["digits"]
    digits["networks"] = {"early": {"exit": 4}} if by == "networks" else {}
    digits["grid"]["ddpm"] |= {"steps": 20, "fewer_steps": [], "schedules": ["few"]}
    digits["budgets"] = {"few": {"operations": 0.1, "choose": by}}
    with pytest.raises(ConfigError) as refused:
        complete(config)
    where = (
        r"budgets.few.operations: found 0.1; accepted with choose: \w+ and 20 steps of ddpm: from "
    )
    least = float(re.search(where + r"(\S+)", str(refused.value))[1])
    with pytest.raises(ValueError, match=f"found 0.1; accepted by {by}: {least:g} to 1"):
        choose(study, budget=0.1, by=by, steps=20)
    digits["budgets"]["few"]["operations"] = least
    complete(config)


def test_guided_samples_have_no_budget():
    config = json.loads(json.dumps(CONFIG))
    digits = config["experiments"]["digits"]
    digits["budgets"], digits["grid"]["ddpm"]["schedules"] = BUDGETS, ["plain"]
    digits["grid"]["ddpm"]["theta"] = digits["grid"]["ddpm"]["spread"]["theta"] = []
    digits["sampling"]["guidance"], digits["null_class"] = 0.5, True
    digits["backbone"]["num_classes"] = 11
    with pytest.raises(ConfigError) as refused:
        complete(config)
    assert "found the budget 'plain' with sampling.guidance 0.5; accepted: guidance 0" in str(
        refused.value
    )
    digits["grid"]["ddpm"]["schedules"] = []
    assert scored_samplers(complete(config)["experiments"]["digits"]) == {}


def test_the_cost_of_a_configuration_has_the_displacements():
    """Of S steps, a full call for each trajectory and each change before, and a call of the other network at each."""
    config = json.loads(json.dumps(CONFIG)) | {"only": ["digits"]}
    digits = config["experiments"]["digits"]
    digits["budgets"], digits["grid"]["ddim"]["schedules"] = BUDGETS, ["plain"]
    full, shallow = (network(digits["backbone"] | {"depth": d}).forward for d in (7, 3))
    expected = 64 * ((50 + 50 * 49 / 2) * full + 50 * shallow)
    found = [work.operations for work in works(complete(config))["digits"]]
    assert any(one == pytest.approx(expected) for one in found)
    digits["grid"]["ddim"]["schedules"] = []
    without = [work.operations for work in works(complete(config))["digits"]]
    assert not any(one == pytest.approx(expected) for one in without)
