"""The shipped study and `verify`: honest runs are inside, and each kind of tampering is found."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_study import MADE, QUANTILES, training, write_run

from duodiff import records
from duodiff.__main__ import ship, verify
from duodiff.analysis import shipped
from duodiff.analysis import verify as verifying
from duodiff.analysis.students import half_width
from duodiff.records import Record
from duodiff.running.files import write_csv, write_text
from duodiff.settings import text_of

ROOT = Path(__file__).parents[3]
SEEDS = range(10)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A shipped study of ten made trainings, five of them once more under other kernels."""
    folder = tmp_path_factory.mktemp("study")
    other = MADE | {"kernels": "DEFAULT"}
    usual = write_run(folder / "a/results", {seed: training(seed) for seed in SEEDS})
    again = {seed: training(seed, other, kernels=0.5) for seed in SEEDS[:5]}
    assert "10 trainings usual, 5 trainings other_kernels" in ship(
        usual, write_run(folder / "b/results", again), folder / "shipped"
    )
    return folder / "shipped"


def compared(study: Path, results: Path) -> verifying.Comparison:
    config = shipped.configuration(results)
    (folder,) = shipped.trainings(results)
    mine = shipped.read_training(folder)
    return verifying.compare(mine, shipped.read(study)["digits"], config)


def a_run(folder: Path, change=lambda record: record, seed: int = 77) -> Path:
    """The results of one further training, whose every record `change` may replace."""
    return write_run(folder / "results", {seed: [change(one) for one in training(seed)]})


def found(study: Path, results: Path) -> list[str]:
    return compared(study, results).outside()


def test_a_training_is_small_and_reads_back_as_it_was(study):
    said = shipped.read(study)["digits"]
    assert [t.train_seed for t in said.halves["usual"]] == [*SEEDS]
    assert [t.train_seed for t in said.halves["other_kernels"]] == [*SEEDS[:5]]
    one = said.halves["usual"][3]
    at_500 = one.numbers.query("metric == 'fd_digits' and setting == 't_s=500'").iloc[0]
    record = next(
        r for r in training(3) if r.metric == "fd_digits" and r.parameters == {"t_s": 500}
    )
    assert at_500["value"] == pytest.approx(record.value, rel=1e-8)
    assert (at_500["seed"], at_500["n"], at_500["sampler"]) == (0, 96, "ddpm")
    assert [*said.verdicts] == ["all", *map(str, SEEDS)]
    assert said.verdicts.index.is_unique
    assert {"holds", "not tested"} <= {*said.verdicts["3"]}
    assert (study / "digits/usual/train3.csv").stat().st_size < 10_000


def test_honest_runs_are_inside_in_nineteen_of_twenty(study):
    said = shipped.read(study)["digits"]
    ends = verifying.spread(said, verifying.named_numbers).intervals(0.05)
    alarms = 0
    for seed in range(100, 300):
        rows = pd.DataFrame([shipped.row(vars(record), seed) for record in training(seed)])
        mine = verifying.named_numbers(rows).reindex(ends.index)
        alarms += not mine.between(ends["low"], ends["high"]).all()
    assert 0 < alarms < 20  # of 200; 10 expected, a few less as the quantities are not independent


def test_the_exit_code_is_that_of_the_named_quantities(study, tmp_path, caplog):
    line = verify(a_run(tmp_path), study)
    assert line.startswith("6 of 6 named quantities inside the shipped study (a shipped training")
    worse = a_run(
        tmp_path / "b", lambda r: replace(r, value=2 * r.value) if r.metric == "speedup" else r
    )
    with caplog.at_level("INFO", "duodiff"), pytest.raises(SystemExit) as stopped:
        verify(worse, study, tmp_path / "all.csv")
    assert stopped.value.code == 1
    assert "5 of 6 named quantities inside the shipped study; outside: speed-ups" in caplog.text
    table = pd.read_csv(tmp_path / "all.csv")
    assert {"inside", "outside"} == {*table["verdict"]}
    assert set(table["quantity"].dropna()) == {*verifying.NAMED}


def test_leaving_one_training_out_raises_few_false_alarms(study):
    alarms = verifying.leave_one_out(shipped.read(study)["digits"])
    assert len(alarms) == 15
    assert sum(map(bool, alarms.values())) <= 2


# --- tampering


def at(setting: str, metric: str):
    def check(record) -> bool:
        named = record.parameters.get("setting") or f"t_s={record.parameters.get('t_s')}"
        return record.metric == metric and named == setting

    return check


def test_an_exchanged_store_is_found(study, tmp_path):
    """The samples of t_s = 500 are those of the shallow backbone."""
    shallow = next(r.value for r in training(77) if at("t_s=1000", "fd_digits")(r))
    change = lambda r: replace(r, value=shallow) if at("t_s=500", "fd_digits")(r) else r  # noqa: E731
    assert found(study, a_run(tmp_path, change)) == ["duodiff"]


@pytest.mark.parametrize("setting", ["t_s=300", "t_s=500", "t_s=700", "t_s=1000", *QUANTILES])
def test_a_doubled_time_is_found(study, tmp_path, setting):
    def change(record):
        doubled = at(setting, "speedup")(record)
        return replace(record, value=record.value / 2) if doubled else record

    assert found(study, a_run(tmp_path, change)) == ["times"]


@pytest.mark.parametrize("setting", QUANTILES)
def test_a_moved_theta_is_found(study, tmp_path, setting):
    def change(record):
        if record.parameters.get("setting") != setting:
            return record
        return replace(
            record, parameters=record.parameters | {"theta": 1.5 * record.parameters["theta"]}
        )

    assert found(study, a_run(tmp_path, change)) == ["exits"]


def test_a_training_of_a_tenth_of_the_steps_is_found(study, tmp_path):
    """Its distances are several times as large, and the deeper network is no better than the shallow one."""
    distances = ("fd_digits",)
    change = lambda r: replace(r, value=40.0) if r.metric in distances else r  # noqa: E731
    comparison = compared(study, a_run(tmp_path, change))
    assert comparison.outside() == ["full", "shallow", "duodiff", "adadiff"]
    assert {line.verdict for line in comparison.lines if line.quantity == "duodiff"} == {
        "not measured"
    }


def test_a_missing_cell_is_named(study, tmp_path):
    results = tmp_path / "results"
    write_run(results, {77: [r for r in training(77) if not at("t_s=500", "fd_digits")(r)]})
    comparison = compared(study, results)
    assert comparison.outside() == ["duodiff"]
    (line,) = (one for one in comparison.lines if one.quantity and one.verdict == "not measured")
    assert line.number == "ddpm t_s=500, lost share"


# --- why


def test_a_disturbed_time_and_one_of_another_machine_decide_nothing(study, tmp_path):
    def doubled(record, **more):
        times = record.metric == "speedup" and record.method != "full"
        return replace(record, value=record.value / 2, **more) if times else record

    assert found(study, a_run(tmp_path / "a", doubled)) == ["times"]
    disturbed = compared(study, a_run(tmp_path / "c", lambda r: doubled(r, disturbed=True)))
    assert (disturbed.outside(), disturbed.undecided()) == ([], ["times"])
    assert {one.why for one in disturbed.lines if one.quantity == "times"} == {"disturbed"}
    elsewhere = a_run(
        tmp_path / "b", lambda r: replace(doubled(r), made=MADE | {"device": "Another"})
    )
    comparison = compared(study, elsewhere)
    assert comparison.outside() == []
    assert comparison.undecided() == ["times"]
    lines = [line for line in comparison.lines if line.quantity == "times"]
    assert {(line.verdict, line.why) for line in lines} == {("outside", "machine")}
    assert (
        "machine: Another, AVX512 (shipped: A processor, AVX512; A processor, DEFAULT)"
        in " ".join(comparison.differences)
    )


def test_what_is_otherwise_is_said_and_compared_all_the_same(study, tmp_path):
    other = MADE | {"code": "d", "libraries": {"torch": "2.2"}}
    results = a_run(tmp_path, lambda r: replace(r, made=other))
    text = (results / "run/configuration.yaml").read_text(encoding="utf-8")
    edited = text.replace("steps: 2600", "steps: 260")
    assert edited != text
    (results / "run/configuration.yaml").write_text(edited, encoding="utf-8")
    comparison = compared(study, results)
    assert comparison.differences == [
        "configuration: backbone_training.steps 2600 is 260",
        "code: measurements, timing",
        "versions: torch 2.2 (shipped: 2.1)",
    ]
    assert comparison.outside() == []
    outside = [line for line in comparison.lines if line.verdict == "outside"]
    assert all(line.why == "configuration, code, versions" for line in outside)


def test_the_run_of_a_shipped_seed_equals_it(study, tmp_path):
    comparison = compared(study, a_run(tmp_path, seed=3))
    assert comparison.equal == comparison.comparable > 20
    text = "\n".join(verifying.listed(comparison, 10))
    assert f"{comparison.equal} of {comparison.comparable} numbers but times" in text
    assert "    ddpm t_s=500, lost share: " in text


def test_a_verdict_is_inside_where_a_shipped_training_has_it(study):
    told = pd.DataFrame({"all": ["holds", "holds"], "0": ["holds", "holds"]}, index=["a", "b"])
    told["1"] = ["undecided", "holds"]
    said = replace(shipped.read(study)["digits"], verdicts=told)
    mine = pd.Series({"a": "undecided", "b": "contradicted", "c": "holds"})
    assert [*verifying.listed_verdicts(mine, said)] == [
        "a: undecided, inside (all trainings: holds; single ones: holds in 1, undecided in 1)",
        "b: contradicted, outside (all trainings: holds; single ones: holds in 2)",
        "c: holds (shipped: not measured)",
    ]


def test_the_verdicts_of_the_runs_claims_table_are_listed(study, tmp_path, caplog):
    results = a_run(tmp_path)
    rows = [("quality_kept", "holds", "digits"), ("quality_kept", "undecided", "")]  # the paper's
    table = pd.DataFrame(rows, columns=["claim", "verdict", "experiment"])
    write_csv(results / "tables/claims.csv", table)
    with caplog.at_level("INFO", "duodiff"):
        verify(results, study)
    assert (
        "digits, verdicts of claims\n  quality_kept: holds, inside (all trainings: " in caplog.text
    )
    assert caplog.text.count("quality_kept") == 1


def test_a_brief_comparison_says_what_the_study_says_and_whether_the_run_agrees(
    study, tmp_path, caplog
):
    results = a_run(tmp_path)
    told = {"quality_kept": "holds", "faster_than_base": "undecided"}
    rows = [
        {"claim": claim, "verdict": word, "experiment": "digits"} for claim, word in told.items()
    ]
    write_csv(results / "tables/claims.csv", pd.DataFrame(rows))
    with caplog.at_level("INFO", "duodiff"):
        line = verify(results, study, brief=True)
    assert line.startswith("6 of 6 named quantities inside")
    first, *sentences = caplog.text.splitlines()
    assert "the shipped study of 10 trainings:" in first
    (kept,) = (text for text in sentences if "image quality is maintained" in text)
    assert "Holds: " in kept
    assert kept.endswith(" This run agrees.")
    (faster,) = (text for text in sentences if "faster than the full backbone" in text)
    assert faster.endswith(" This run differs: undecided.")
    assert "mean exit layer" not in caplog.text


def test_the_page_of_a_study_has_means_over_trainings_and_counts_verdicts(study):
    page = (study / "README.md").read_text(encoding="utf-8")
    assert "![Distance against operations, and against time](front.svg)" in page
    assert "mean of 10 trainings" in (study / "front.svg").read_text(encoding="utf-8")
    said = shipped.read(study)["digits"]
    at_500 = [
        rows.query("metric == 'fd_digits' and setting == 't_s=500'")["value"].item()
        for rows in (one.numbers for one in said.halves["usual"])
    ]
    row = next(line for line in page.splitlines() if line.startswith("| DuoDiff, `t_s` = 500 "))
    assert f"| {np.mean(at_500):.2f} ± {half_width(at_500):.2f} | +" in row
    assert "| 1.40" in row
    counts = said.verdicts.loc["quality_kept"].value_counts()["holds"] - 1
    kept = next(line for line in page.splitlines() if "image quality is maintained" in line)
    assert "| holds | 0.0" in kept
    assert kept.endswith(f"| share < 0.1 | {counts} of 10 |")
    assert "5 trainings were made once more with other kernels" in page
    assert "| ddpm theta=q0.4, threshold | 0.17" in page


def test_a_study_of_one_training_compares_nothing(tmp_path):
    usual = write_run(tmp_path / "a/results", {0: training(0)})
    ship(usual, None, tmp_path / "shipped")
    with pytest.raises(
        ValueError, match="digits: found one shipped training; accepted: two or more"
    ):
        verify(usual, tmp_path / "shipped")


def test_folders_without_a_run_or_a_study_are_named(study, tmp_path):
    with pytest.raises(FileNotFoundError, match="accepted: the results of a run"):
        verify(tmp_path, study)
    with pytest.raises(FileNotFoundError, match="accepted: a folder that ship wrote"):
        verify(tmp_path, tmp_path)


def test_verify_imports_no_torch(study, tmp_path):
    results = a_run(tmp_path)
    check = (
        "import sys, runpy; sys.argv = ['duodiff', 'verify', *sys.argv[1:]]\n"
        "runpy.run_module('duodiff', run_name='__main__')\n"
        "print(sorted({'torch', 'scipy', 'matplotlib'} & {*sys.modules}))"
    )
    command = [sys.executable, "-c", check, str(results), "--study", str(study)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert done.stdout == "[]\n"
    assert "verify: 6 of 6 named quantities inside" in done.stderr


def test_results_that_are_not_json_are_named(study, tmp_path):
    results = a_run(tmp_path)
    damaged = results / "digits/train77/records/evaluate_samples.json"
    damaged.write_text(json.dumps([])[:1], encoding="utf-8")
    with pytest.raises(ValueError, match=r"evaluate_samples.json: damaged"):
        verify(results, study)


def test_a_cell_that_the_shipped_study_lacks_changes_no_verdict(study, tmp_path):
    results = a_run(tmp_path)
    before = compared(study, results)
    schedule = {"schedule": "thrifty", "intervals": [["full", 0, 999]]}
    about = {"sampler": "ddpm", "steps": 50, "seeds": {"train_seed": 77}, "made": MADE}
    share = Record(
        "predicted_share", 0.01, "share", 9, "digits", "corrected", "schedule", schedule, **about
    )
    records.write(results / "digits/train77/records/choose_schedules.json", [share])
    known = shipped.read(study)["digits"]
    shipped_keys = known.configuration["experiment"]
    del shipped_keys["budgets"], shipped_keys["grid"]["ddpm"]["schedules"]
    (folder,) = shipped.trainings(results)
    config = shipped.configuration(results)
    after = verifying.compare(shipped.read_training(folder), known, config)
    assert after.lines == before.lines
    assert after.differences == before.differences
    assert (before.further, after.further) == ([], ["ddpm schedule=thrifty"])
    said = verifying.listed(after, 10)
    assert "  not in the shipped study: ddpm schedule=thrifty" in said


def test_a_study_of_records_alone_has_no_networks_but_the_schedules_it_chose(study, tmp_path):
    results = a_run(tmp_path)
    chosen = results / "digits/train77/profile/chosen.json"
    write_text(chosen, '{"ddpm": {}}')
    ship(results, out=tmp_path / "shipped", records=True)
    names = {path.name for path in (tmp_path / "shipped/digits").rglob("*")}
    assert names == {
        "study.json",
        "usual",
        "train77.csv",
        "chosen77.json",
        "claims.csv",
        "verdicts.csv",
    }
    copied = tmp_path / "shipped/digits/usual/chosen77.json"
    assert copied.read_bytes() == chosen.read_bytes()


def test_the_page_sets_the_lost_share_beside_the_predicted_one(tmp_path):
    trainings = {seed: training(seed) for seed in range(3)}
    schedule = {"schedule": "thrifty", "intervals": [["shallow", 500, 999], ["full", 0, 499]]}
    for seed, found in trainings.items():
        distances = {
            text_of(r.parameters): r for r in found if r.metric == "fd_digits" and r.parameters
        }
        full, shallow = (distances[text].value for text in ("t_s=0", "t_s=1000"))
        about = {"method": "schedule", "parameters": schedule}
        cell = replace(distances["t_s=500"], value=full + 0.05 * (shallow - full), **about)
        share = replace(
            cell, metric="predicted_share", value=0.01 * seed, seeds={"train_seed": seed}
        )
        found += [cell, replace(share, interval=[0.01 * seed - 0.01, 0.01 * seed + 0.03])]
    results = write_run(tmp_path / "results", trainings)
    ship(results, out=tmp_path / "shipped", records=True)
    page = (tmp_path / "shipped/README.md").read_text(encoding="utf-8")
    section = page.split("## Chosen schedules")[1].split("\n## ")[0]
    assert "| `thrifty`, ddpm | 1.0% [0.0%, 4.0%] | 5.0% |" in section
    assert "| schedule `thrifty` |" in page
