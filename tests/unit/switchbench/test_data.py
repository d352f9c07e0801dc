"""SwitchBench read back: its files are those of the manifest, and a page's example tests a chooser."""

import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from unit.switchbench.made_bench import by_score, training, write

from duodiff.running.files import read_json, sha256
from duodiff.switchbench import data, plan
from duodiff.switchbench.data import load
from duodiff.switchbench.page import write_page
from duodiff.switchbench.tables import steps_table, write_tables

ROOT = Path(__file__).parents[3]
PLAN = plan.read()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The fresh trainings of the plan, and one of the others, with made numbers."""
    folder = tmp_path_factory.mktemp("bench")
    for seed in (0, *PLAN.trainings["fresh"]):
        write(by_score(training(seed), noise=0.02), folder)
    return folder


def test_trainings_are_read_as_they_were_written(folder):
    found = load(folder)
    assert [one.seed for one in found] == [0, *PLAN.trainings["fresh"]]
    made = by_score(training(102), noise=0.02)
    (one,) = load(folder, [102])
    assert one.masks == made.masks
    assert (one.t == made.t).all()
    assert (one.cost == [mask.count("s") for mask in made.masks]).all()
    for name in ("full", "shallow", "between"):
        assert getattr(one, name) == pytest.approx(getattr(made, name), rel=1e-8)
    for sampler in PLAN.samplers:
        assert one.displacements[sampler] == pytest.approx(made.displacements[sampler], rel=1e-8)
        for k in (0, 1):
            for space in PLAN.spaces:
                expected = made.distance(sampler, k, space)
                assert one.distance(sampler, k, space) == pytest.approx(expected, rel=1e-8)
                assert one.ends(sampler, k, space) == (10, 20)


def test_a_training_that_is_not_there_is_named(folder):
    with pytest.raises(
        FileNotFoundError, match=r"train3: found no manifest.json; make switchbench"
    ):
        load(folder, [3])


def test_a_file_that_is_not_the_manifests_is_refused(tmp_path):
    write(by_score(training(0)), tmp_path)
    path = tmp_path / "train0/ddim_1.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("20", "21"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"ddim_1.csv: its sha256 is not the one in manifest.json"):
        load(tmp_path)


def test_reading_and_judging_import_neither_torch_nor_scipy():
    modules = "data, evaluation, masks, page, plan, scores, tables"
    check = f"import sys; from duodiff.switchbench import {modules}; print([*sys.modules])"
    command = [sys.executable, "-c", check]
    found = subprocess.run(
        command, check=True, capture_output=True, text=True, encoding="utf-8", cwd=ROOT
    ).stdout
    assert "'pandas'" in found
    assert "'torch'" not in found
    assert "'scipy'" not in found


@pytest.mark.slow
def test_tables_are_of_the_sets_that_are_whole_and_verdicts_of_the_fresh_one(folder):
    assert write_tables(PLAN, folder) == ["fresh"]
    endpoints, scores = (pd.read_csv(folder / f"{name}.csv") for name in ("endpoints", "scores"))
    assert len(endpoints) == 1 + len(PLAN.secondary)
    assert set(endpoints["trainings"]) == {5}
    assert endpoints["met"][0]
    assert set(scores["set"]) == {"fresh"}
    about = read_json(folder / "results.json")
    assert about["sets"] == {"fresh": PLAN.trainings["fresh"]}
    assert {*about["sha256"]} == {"endpoints.csv", "scores.csv", "switches.csv", "steps.csv"}
    write_page(PLAN, folder)
    page = (folder / "README.md").read_text(encoding="utf-8")
    primary = endpoints.iloc[0]
    value = f"{primary['mean']:.3f} [{primary['low']:.3f}, {primary['high']:.3f}]"
    assert f"(primary) | within | A*, ddpm, fd_digits | {value} | 0.7 |  | met |" in page
    assert page.count("\n| A* |") == len(PLAN.samplers) * len(PLAN.spaces)
    assert page.count("\n| 10") == 5  # a row a training
    assert page.count("| t_s = 300 |") == len(PLAN.samplers) * len(PLAN.spaces)


def test_the_steps_have_the_weights_of_ancestral_steps():
    from duodiff import samplers
    from duodiff.schedules import noise_schedule

    steps = samplers.ddpm(noise_schedule("linear"), PLAN.steps)
    table = steps_table(PLAN)
    assert list(table["t"]) == [step.t for step in steps]
    for step, weight in zip(steps[:-1], table["weight"], strict=False):
        assert weight == pytest.approx(step.eps_coef**2 / (2 * step.noise_coef**2))
    assert np.isnan(table["weight"].iloc[-1])


def test_the_pages_example_judges_a_chooser_in_ten_lines(folder, monkeypatch, capsys):
    page = (ROOT / "docs/switchbench.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    monkeypatch.setattr(data, "load", partial(load, folder))
    exec(compile(example, "docs/switchbench.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "within" in printed
    assert len(re.findall(r"\b(?:0|10[0-4]) +ddpm", printed)) == 6


def test_the_plans_trainings_are_those_of_two_configurations():
    def seeds(name):
        content = yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))
        assert content["experiments"].keys() == {PLAN.experiment}
        return content["experiments"][PLAN.experiment]["train_seeds"]

    assert {*PLAN.trainings["explored"]} <= {*seeds("trainings.yaml")}
    assert PLAN.trainings["fresh"] == seeds("switchbench.yaml")
    assert not {*PLAN.trainings["fresh"]} & {*seeds("trainings.yaml")}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name, of_set in {"USUAL": "explored", "FRESH": "fresh"}.items():
        seeds_of_target = re.search(rf"^{name} := (.*)", makefile, re.M)[1].split()
        assert [*map(int, seeds_of_target)] == PLAN.trainings[of_set]


def test_the_shipped_tables_and_page_are_those_of_the_shipped_files_and_plan(tmp_path):
    about = read_json(plan.SHIPPED / "results.json")
    assert about["plan_sha256"] == sha256(plan.SHIPPED / "plan.yaml")
    assert about["sets"][plan.DECIDING] == PLAN.trainings[plan.DECIDING]
    copied = tmp_path / "switchbench"
    shutil.copytree(plan.SHIPPED, copied)
    for name in about["sha256"]:
        (copied / name).unlink()
    write_tables(PLAN, copied)
    write_page(PLAN, copied)
    assert read_json(copied / "results.json")["sha256"] == about["sha256"]
    pages = [folder / "README.md" for folder in (plan.SHIPPED, copied)]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_the_docs_quote_the_shipped_results():
    endpoints, scores, switches = (
        pd.read_csv(plan.SHIPPED / f"{name}.csv") for name in ("endpoints", "scores", "switches")
    )
    of = {"set": "fresh", "sampler": "ddpm", "space": "fd_digits"}

    def text(table, **where) -> str:
        (row,) = table[(table[[*where]] == pd.Series(where)).all(axis=1)].itertuples()
        return f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]"

    quoted = [
        text(endpoints, endpoint="A* within equal cost"),
        text(endpoints, endpoint="A* chooses better than a switch"),
        text(scores, score="A*", statistic="regret", **of),
        text(scores, score="switch", statistic="regret", **of),
        text(scores, score="A*", statistic="within", **of | {"sampler": "ddim"}),
        text(scores, score="Gram", statistic="within", **of | {"sampler": "ddim"}),
        text(scores, score="Gram", statistic="regret", **of | {"sampler": "ddim"}),
        text(scores, score="switch", statistic="regret", **of | {"sampler": "ddim"}),
        text(scores, score="A*", statistic="regret", **of | {"sampler": "ddim"}),
        text(switches, rule="A* predicts", **of),
        text(switches, rule="t_s = 300", **of),
    ]
    explored = {"set": "explored", "space": "fd_digits", "statistic": "within"}
    quoted += [
        text(scores, score=score, sampler=sampler, **explored)
        for score, sampler in (("A*", "ddpm"), ("C", "ddpm"), ("A*", "ddim"), ("Gram", "ddim"))
    ]
    docs, readme, choice = (
        " ".join((ROOT / name).read_text(encoding="utf-8").split())
        for name in ("docs/switchbench.md", "README.md", "docs/choice.md")
    )
    assert [one for one in quoted if one not in docs] == []
    assert quoted[1] in readme
    ours, gram, lost_by_gram, _, lost = (one.split()[0] for one in quoted[4:9])
    agrees = f"its agreement with the distances is {gram}, that of A\\* {ours}"
    assert f"{agrees}, and its regret {lost_by_gram}, that of A\\* {lost}." in choice
    for score in "BC":
        assert text(endpoints, endpoint=f"A* over {score}") in choice
        assert text(scores, score=score, sampler="ddpm", **explored) in choice


def test_what_is_shipped_is_small_and_is_what_its_manifests_say():
    for path in plan.SHIPPED.rglob("*.csv"):
        assert path.stat().st_size < 1_000_000, path
    for one in load():
        assert one.manifest["schedule"] == PLAN.conventions["schedule"]
