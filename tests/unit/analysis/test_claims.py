"""Claims on made records whose statistics can be worked out by hand, and on the published tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from duodiff import records
from duodiff.analysis.cells import at_equal_time, load_records
from duodiff.analysis.claims import verdicts
from duodiff.analysis.claims.pages import write_claims
from duodiff.analysis.claims.sources import our_sources, published_sources
from duodiff.analysis.claims.statements import CLAIMS
from duodiff.analysis.claims.verdicts import FAILS, HOLDS, UNTESTED, claims_table, verdict_counts
from duodiff.records import Record
from duodiff.study.config import complete

ROOT = Path(__file__).parents[3]
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
LIMITS = DEFAULT["claims"]
STUDIES = {"digits": {"title": "Digits", "paper_dataset": None}}


# --- verdicts on made records

THETAS = (0.1, 0.2, 0.3)
# (distance, seconds) by t_s and by theta; the full backbone makes 10 in 2 s, the shallow one costs 0.4 of it
SWITCHED = {0: (10.0, 2.0), 300: (10.1, 1.64), 500: (10.2, 1.4), 1000: (20.0, 0.8)}
EXITED = {0.1: (11.0, 1.7), 0.2: (30.0, 1.2), 0.3: (60.0, 1.1)}
MEAN_EXIT = {0.1: 6.0, 0.2: 4.0, 0.3: 3.9}
ALL_HEADS = 2.2
EXITS = {
    "exit_range": 5.0,
    "exit_spread": 0.4,
    "exit_step_r2": 0.9,
    "exit_ramp_r2": 0.75,
    "exit_step_over_ramp": 0.15,
    "exit_change": 600.0,
    "exit_rise": 5.0,
    "exit_width": 100.0,
    "exit_width_from": 650.0,
    "exit_width_to": 550.0,
    "early_exits_at_large_t": 0.99,
    "few_blocks_at_large_t": 0.8,
}
LOSSES = {
    "full_loss_large_over_small_t": 0.1,
    "loss_ratio_large_t": 1.05,
    "loss_ratio_small_over_large_t": 1.3,
    "loss_excess_small_minus_large_t": 0.02,
}
# value of the deciding case where every claim holds
EXPECTED = {
    "early_exits_first": 0.99,
    "step_like": 0.15,
    "sudden_switch": 100.0,
    "few_blocks": 0.8,
    "exits_vary_little": 0.4 / 8,
    "easier_at_large_t": 0.1,
    "losses_agree": 1.05,
    "losses_part_relative": 1.3,
    "losses_part_absolute": 0.02,
    "faster_than_base": 2 / 1.64,
    "heads_cost": 1.1,
    "faster_than_adadiff": 1.4 / 1.7,  # t_s = 500 is within a tenth of 10 of theta = 0.1's 11
    "best_quality": 10.1 - 11,
    # at 1.7 s, a sixth of the way from t_s = 300 to the full backbone
    "lower_at_equal_time": 10.1 - 0.1 * 0.06 / 0.36 - 11,
    # theta = 0.1 interpolated: 2.2 s x 6/8 = 1.65 s
    "lower_at_equal_interpolated_time": 10.1 - 0.1 * 0.01 / 0.36 - 11,
    "forty_percent": 1 - 15.1 / 60,  # at 1.1 s, half way from t_s = 1000 to 500
    # 1% at 18% saved and 2% at 30%, against 10% at 15% saved; theta = 0.2 saves more than any t_s
    "slower_decline": (1.8 * 1 + 3 * 2) / (1.8**2 + 3**2) - 10 / 1.5,
    "quality_kept": 0.02,
    "ddim_faster": 2 / 1.64,
    "ddim_quality_kept": 0.02,
    "latent_faster": 2 / 1.64,
    "latent_quality_kept": 0.02,
    "quality_declines": 1.0,
    "time_declines": 1.0,
    "speedup_formula": 0.0,
    "shrinking_batch_is_slower": 1.1 / (2.2 * 3.9 / 8),
}


class Study:
    """Made records, to be changed before they are written."""

    def __init__(self):
        self.switched, self.exited = dict(SWITCHED), dict(EXITED)
        self.exits = {theta: dict(EXITS) for theta in THETAS}
        self.losses, self.all_heads, self.samplers = dict(LOSSES), ALL_HEADS, ("ddpm", "ddim")
        self.latent, self.width, self.resampled, self.train_seed = True, None, {}, 0

    def record(self, metric, value, method, parameters, sampler, interval=None, **more) -> Record:
        seeds = {"train_seed": self.train_seed, "sample_seed": 0}
        return Record(
            metric, value, "1", 96, "digits", "corrected", method, parameters, sampler,
            nfe=50, seeds=seeds, interval=interval, interval_covers="made", **more,
        )  # fmt: skip

    def cell(self, sampler, method, parameters, distance, seconds) -> list[Record]:
        about = {"method": method, "parameters": parameters, "sampler": sampler}
        speedup = self.switched[0][1] / seconds
        rounds = self.width and [speedup * (1 - self.width), speedup * (1 + self.width)]
        found = [
            self.record("fd_digits", distance, **about),
            self.record("seconds_per_image", seconds, **about),
            self.record("speedup", speedup, interval=rounds, **about),
        ]
        setting = parameters.get("t_s", parameters.get("theta"))
        if setting in self.resampled:
            change, resampled = distance - self.switched[0][0], self.resampled[setting]
            more = {"interval": [change - 1, change + 1], "resampled": resampled}
            found.append(self.record("fd_digits_difference", change, **about, **more))
        return found

    def records(self) -> list[Record]:
        found = []
        for sampler in self.samplers:
            for t_s, numbers in self.switched.items():
                method = {0: "full", 1000: "shallow"}.get(t_s, "duodiff")
                found += self.cell(sampler, method, {"t_s": t_s}, *numbers)
        for theta, numbers in self.exited.items():
            about = {"theta": theta, "setting": f"q{theta}", "depth": 8}
            found += self.cell("ddpm", "adadiff", about, *numbers)
            exit_layer = self.record("mean_exit_layer", MEAN_EXIT[theta], "adadiff", about, "ddpm")
            profile = [
                self.record(metric, value, "adadiff", about, "ddpm", [value, value])
                for metric, value in self.exits[theta].items()
            ]
            found += [exit_layer, *profile]
        if self.exited:
            speedup = self.switched[0][1] / self.all_heads
            rounds = [speedup / (1 + (self.width or 0)), speedup * (1 + (self.width or 0))]
            about = ("adadiff_all_heads", {}, "ddpm")
            found.append(self.record("seconds_per_image", self.all_heads, *about))
            found.append(self.record("speedup", speedup, *about, rounds))
        for method, cost in (("full", 10.0), ("shallow", 4.0)):
            found.append(self.record("gflops_per_call", cost, method, {}, None))
        for metric, value in self.losses.items():
            found.append(
                self.record(metric, value, "shallow_against_full", {}, None, [value, value])
            )
        if self.latent:
            found.append(self.record("decode_seconds_per_image", 0.1, "decode", {}, None))
        return found

    def table(self, tmp_path) -> pd.DataFrame:
        records.write(tmp_path / "records.json", self.records())
        sources = our_sources(load_records([tmp_path / "records.json"]), STUDIES)
        return claims_table(sources, LIMITS).set_index("claim")


def test_every_claim_holds_on_a_study_made_for_it(tmp_path):
    table = Study().table(tmp_path)
    assert list(table.index) == [claim.id for claim in CLAIMS] == list(EXPECTED)
    assert set(table["verdict"]) == {HOLDS}
    assert table["value"].to_dict() == pytest.approx(EXPECTED, abs=1e-12)
    assert set(table["rests_on"]) == {"one training (seed 0)"}
    counts = verdict_counts(table.reset_index())
    assert counts.loc["Digits"].tolist() == [len(CLAIMS), 0, 0, 0]


def test_sources_that_lack_the_same_are_listed_by_their_titles(tmp_path):
    about = {"claim": "c", "sentence": "s", "where": "w", "statistic": "s", "threshold": "< 1"}
    titles = ["a; Paper, b", "Paper; c", "Paper, CIFAR-10", "Paper, CelebA 64x64"]
    rows = [about | {"source": title, "verdict": UNTESTED, "note": "none"} for title in titles]
    write_claims(pd.DataFrame(rows), [tmp_path / "claims.md"])
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert "| a; Paper, b; Paper; c, CIFAR-10, CelebA 64x64 |" in text


def exits(metric, value):
    return lambda study: study.exits[0.2].update({metric: value})


def losses(metric, value):
    return lambda study: study.losses.update({metric: value})


def switched(t_s, distance, seconds):
    return lambda study: study.switched.update({t_s: (distance, seconds)})


def exited(theta, distance, seconds):
    return lambda study: study.exited.update({theta: (distance, seconds)})


@pytest.mark.parametrize(
    ("claim", "change", "value", "held"),
    [
        ("early_exits_first", exits("early_exits_at_large_t", 0.9), 0.9, "2 of 3"),
        ("step_like", exits("exit_step_over_ramp", -0.1), -0.1, "2 of 3"),
        ("sudden_switch", exits("exit_width", 300.0), 300, "2 of 3"),
        ("few_blocks", exits("few_blocks_at_large_t", 0.4), 0.4, "2 of 3"),
        ("exits_vary_little", exits("exit_spread", 1.2), 1.2 / 8, "2 of 3"),
        ("easier_at_large_t", losses("full_loss_large_over_small_t", 3.0), 3, "0 of 1"),
        ("losses_agree", losses("loss_ratio_large_t", 1.2), 1.2, "0 of 1"),
        ("losses_part_relative", losses("loss_ratio_small_over_large_t", 0.9), 0.9, "0 of 1"),
        ("losses_part_absolute", losses("loss_excess_small_minus_large_t", -0.1), -0.1, "0 of 1"),
        ("faster_than_base", switched(300, 10.1, 2.1), 2 / 2.1, "1 of 2"),
        ("heads_cost", lambda study: vars(study).update(all_heads=1.9), 0.95, "0 of 1"),
        # faster than the shallow backbone; better than the full one
        ("faster_than_adadiff", exited(0.3, 60.0, 0.7), 0.8 / 0.7, "2 of 3"),
        ("faster_than_adadiff", exited(0.1, 8.0, 1.7), np.inf, "2 of 3"),
        ("best_quality", exited(0.1, 9.0, 1.7), 10.1 - 9, "0 of 1"),
        ("lower_at_equal_time", exited(0.1, 9.0, 2.5), 10 - 9, "2 of 3"),
        ("lower_at_equal_interpolated_time", exited(0.1, 9.0, 1.7), 10.1 - 1 / 360 - 9, "2 of 3"),
        ("forty_percent", exited(0.3, 20.0, 1.1), 1 - 15.1 / 20, "0 of 1"),
        ("slower_decline", exited(0.1, 10.0, 1.7), 7.8 / 12.24, "0 of 1"),
        ("quality_kept", switched(500, 12.0, 1.4), 0.2, "1 of 2"),
        ("ddim_faster", switched(300, 10.1, 2.1), 2 / 2.1, "1 of 2"),
        ("ddim_quality_kept", switched(500, 12.0, 1.4), 0.2, "1 of 2"),
        ("latent_faster", switched(300, 10.1, 2.1), 2 / 2.1, "1 of 2"),
        ("latent_quality_kept", switched(500, 12.0, 1.4), 0.2, "1 of 2"),
        ("quality_declines", exited(0.1, 50.0, 1.7), 0.5, "1 of 2"),
        ("time_declines", exited(0.1, 11.0, 1.15), 0.5, "1 of 2"),
        ("speedup_formula", switched(500, 10.2, 1.75), 1 - 1.4 / 1.75, "2 of 3"),
        ("shrinking_batch_is_slower", exited(0.3, 60.0, 1.0), 1 / 1.0725, "2 of 3"),
    ],
)  # fmt: skip
def test_a_claim_fails_where_one_case_does(tmp_path, monkeypatch, claim, change, value, held):
    monkeypatch.setattr(verdicts, "CLAIMS", [one for one in CLAIMS if one.id == claim])
    study = Study()
    change(study)
    row = study.table(tmp_path).loc[claim]
    assert (row["verdict"], row["contradicted"], row["held"]) == (FAILS, "yes", held)
    assert row["value"] == pytest.approx(value)


def test_every_claim_can_fail():
    cases = test_a_claim_fails_where_one_case_does.pytestmark[0].args[1]
    assert {case[0] for case in cases} == {claim.id for claim in CLAIMS}


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (
            {"exited": {}, "exits": {}},
            {
                "step_like": "no theta under DDPM in the grid",
                "lower_at_equal_time": "no theta in the grid",
                "heads_cost": "no theta under DDPM in the grid",
            },
        ),
        ({"samplers": ("ddpm",)}, {"ddim_faster": "DDIM was not run"}),
        ({"latent": False}, {"latent_quality_kept": "not in latent space"}),
        ({"losses": {}}, {"losses_agree": "no loss profile among the records"}),
        (
            {"switched": {0: (10.0, 2.0)}},
            {
                "faster_than_base": "no t_s between 0 and 1000 in the grid",
                "speedup_formula": "no t_s above 0 in the grid",
                "forty_percent": "no t_s is as fast as 1.1 s",
            },
        ),
        ({"switched": SWITCHED | {300: (10.0, 2.1), 500: (10.0, 2.1)}},
            {"slower_decline": "no range of time saved that both methods reach"}),
        (
            {"exits": {theta: {"exit_range": 0.0, "exit_spread": 0.0} for theta in THETAS}},
            {"step_like": "the mean exit layer varies by 0.00 blocks over t, which is no test"},
        ),
    ],
)  # fmt: skip
def test_a_claim_is_not_tested_where_something_is_missing(tmp_path, change, reasons):
    study = Study()
    vars(study).update(change)
    table = study.table(tmp_path)
    for claim, reason in reasons.items():
        assert table.loc[claim, "verdict"] == UNTESTED
        assert reason in table.loc[claim, "note"]
        assert np.isnan(table.loc[claim, "value"])


@pytest.mark.parametrize(("deviation", "contradicted"), [(0.05, "yes"), (20.0, "no")])
def test_no_t_s_known_to_be_as_good_contradicts_only_where_none_can_be(
    tmp_path, deviation, contradicted
):
    """theta = 0.1 is 2 below the full backbone; with a wide interval of that, some t_s may be as good."""
    study = Study()
    exited(0.1, 8.0, 1.7)(study)
    resamples = np.random.default_rng(0).normal(0, deviation, (4, 100)).tolist()
    study.resampled = dict(zip([300, 500, 1000, 0.1], resamples, strict=True))
    study.exited = {0.1: study.exited[0.1]}
    row = study.table(tmp_path).loc["faster_than_adadiff"]
    assert (row["verdict"], row["value"], row["contradicted"]) == (FAILS, np.inf, contradicted)


def test_a_flat_profile_is_left_out_and_said_so(tmp_path):
    study = Study()
    study.exits[0.1] = {"exit_range": 0.5, "exit_spread": 3.0}
    row = study.table(tmp_path).loc["exits_vary_little"]
    assert (row["verdict"], row["held"]) == (HOLDS, "2 of 2")
    assert "theta = 0.1: not tested (the mean exit layer varies by 0.50 blocks" in row["cases"]


def test_the_interval_decides(tmp_path):
    """Speed-ups of 1.22 and 1.43: rounds that scatter by 3% decide both, those that scatter by 25% the second."""
    study = Study()
    study.width = 0.03
    row = study.table(tmp_path).loc["faster_than_base"]
    assert (row["verdict"], row["low"]) == (HOLDS, pytest.approx(2 / 1.64 * 0.97))
    assert row["covers"] == "made"
    study.width = 0.25
    table = study.table(tmp_path)
    row = table.loc["faster_than_base"]
    assert (row["verdict"], row["contradicted"], row["held"]) == (FAILS, "no", "1 of 2")
    assert row["note"] == "the interval includes the limit"
    formula = table.loc["speedup_formula"]
    assert (formula["low"], formula["high"]) == pytest.approx((0, 0.25))


def test_differences_between_cells_are_paired(tmp_path):
    """Equal resamples cancel: DuoDiff at t_s = 300 and theta = 0.1 vary, their difference does not."""
    rng, study = np.random.default_rng(0), Study()
    shared, other = rng.normal(size=(2, 100)).tolist()
    study.resampled = dict.fromkeys([300, 500, 1000, 0.1], shared) | {0.2: other, 0.3: other}
    table = study.table(tmp_path)
    best = table.loc["best_quality"]
    assert (best["low"], best["high"]) == pytest.approx((best["value"], best["value"]))
    # at theta = 0.1's time DuoDiff is 1/6 the full backbone (which minus itself is 0) and 5/6 t_s = 300
    equal = table.loc["lower_at_equal_time"]
    half = 1.96 * np.std(shared, ddof=1) / 6
    assert (equal["low"], equal["high"]) == pytest.approx(
        (equal["value"] - half, equal["value"] + half)
    )
    kept = table.loc["quality_kept"]
    assert kept["high"] - kept["value"] == pytest.approx(1.96 * np.std(shared, ddof=1) / 10)
    # theta = 0.3 is not paired with t_s = 500 and 1000, which it lies half way between
    apart = table.loc["forty_percent"]
    deviation = np.std(np.subtract(shared, other), ddof=1)
    assert apart["high"] - apart["value"] == pytest.approx(1.96 * deviation / 60)


def test_the_value_at_equal_time_is_the_tables(tmp_path):
    records.write(tmp_path / "records.json", Study().records())
    (source,) = our_sources(load_records([tmp_path / "records.json"]), STUDIES)
    rows = source.ddpm[source.ddpm["method"] == "adadiff"]
    expected = at_equal_time(source.ddpm, "seconds").dropna() - rows["distance"]
    claim = next(c for c in CLAIMS if c.id == "lower_at_equal_time")
    values = [case.value for case in claim.measure(source, LIMITS)]
    assert sorted(values) == pytest.approx(sorted(expected))


def test_every_training_is_a_source_of_its_own(tmp_path):
    one, other = Study(), Study()
    other.train_seed = 1
    other.switched[300] = (10.1, 2.1)
    records.write(tmp_path / "records.json", one.records() + other.records())
    sources = our_sources(load_records([tmp_path / "records.json"]), STUDIES)
    table = claims_table(sources, LIMITS)
    rows = table[table["claim"] == "faster_than_base"].set_index("source")["verdict"]
    assert rows.to_dict() == {
        "Digits, training seed 0": HOLDS,
        "Digits, training seed 1": FAILS,
    }


# --- the paper's own tables


def published() -> pd.DataFrame:
    tables = [pd.read_csv(ROOT / f"report/paper/table{n}.csv") for n in (1, 2)]
    return claims_table(published_sources(*tables), LIMITS)


@pytest.mark.parametrize(
    ("dataset", "holding", "failing"),
    [
        (
            "CIFAR-10",
            "faster_than_base faster_than_adadiff slower_decline quality_kept time_declines"
            " speedup_formula",
            {
                "best_quality": 17.81 - 17.55,
                "lower_at_equal_interpolated_time": 17.81 + 0.08 * 0.18 / 0.43 - 17.55,
                "forty_percent": 1 - (17.95 - 0.14 * 0.02 / 0.15) / 24.60,
                "quality_declines": 0.5,
            },
        ),
        (
            "CelebA 64x64",
            "faster_than_base heads_cost faster_than_adadiff lower_at_equal_interpolated_time"
            " forty_percent slower_decline quality_declines time_declines speedup_formula",
            {"best_quality": 10.08 - 9.99, "quality_kept": 12.18 / 9.98 - 1},
        ),
        (
            "ImageNet 64x64",
            "faster_than_base heads_cost faster_than_adadiff forty_percent slower_decline"
            " quality_declines time_declines speedup_formula",
            {
                "best_quality": 21.49 - 19.19,
                "lower_at_equal_interpolated_time": 0,  # theta = 0.05 never exits
                "quality_kept": 31.26 / 19.19 - 1,
            },
        ),
        (
            "ImageNet 256x256",
            "faster_than_base heads_cost faster_than_adadiff best_quality"
            " lower_at_equal_interpolated_time forty_percent slower_decline ddim_faster"
            " latent_faster quality_declines time_declines speedup_formula",
            {
                "quality_kept": 43.43 / 25.38 - 1,
                "ddim_quality_kept": 34.36 / 27.82 - 1,
                "latent_quality_kept": 43.43 / 25.38 - 1,
            },
        ),
    ],
)
def test_the_published_tables_do_not_support_every_sentence(dataset, holding, failing):
    table = published()
    rows = table[table["source"] == f"Paper, {dataset}"].set_index("claim")
    assert set(rows.index[rows["verdict"] == HOLDS]) == set(holding.split())
    failed = rows[rows["verdict"] == FAILS]
    assert failed["value"].to_dict() == pytest.approx(failing)
    assert set(failed["contradicted"]) == {"yes"}
    assert rows[["low", "high"]].isna().all(axis=None)
    assert set(rows["rests_on"]) == {"published numbers, no interval"}


# --- as files


def test_the_files_say_the_same_and_are_the_same_twice(tmp_path):
    study = Study()
    study.width = 0.3
    study.losses["loss_ratio_large_t"] = 1.2
    ours = study.table(tmp_path).reset_index()
    table = pd.concat([ours, published()], ignore_index=True)
    texts = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        paths = [folder / f"claims{suffix}" for suffix in (".csv", ".md", ".tex", ".html")]
        assert "not tested" in write_claims(table, paths)
        texts.append([path.read_text(encoding="utf-8") for path in paths])
    assert texts[0] == texts[1]
    csv, md, tex, html = texts[0]
    assert csv.count("\n") == 1 + 5 * len(CLAIMS)
    assert html.count("<section") == len(CLAIMS)
    for text in (md, tex, html):
        assert "does not hold (undecided)" in text
        assert "exit profiles are published as a picture only" in text
    # what verdicts look like does not rest on colour, and the page fits a phone
    assert html.count("✗ does not hold") == (table["verdict"] == FAILS).sum()
    assert html.count("✓ holds") == (table["verdict"] == HOLDS).sum()
    assert "width=device-width" in html
    rows = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert {len(line.replace(r"\&", "").split("&")) for line in rows} == {6}


def test_the_limits_are_the_schemas_and_a_wrong_one_is_refused():
    without = {key: value for key, value in DEFAULT.items() if key != "claims"}
    assert complete(without)["claims"] == LIMITS
    named = {claim.holds.split()[1] for claim in CLAIMS} | {"exit_range"}
    assert {name for name in named if name in LIMITS} == set(LIMITS)
    assert complete(DEFAULT | {"claims": {"trend": 0.5}})["claims"]["trend"] == 0.5
    with pytest.raises(ValueError, match=r"claims: unknown key 'trends' \(did you mean 'trend'"):
        complete(DEFAULT | {"claims": {"trends": 0.5}})
    with pytest.raises(ValueError, match=r"claims.trend: found 2; accepted: a number from 0 to 1"):
        complete(json.loads(json.dumps(DEFAULT)) | {"claims": {"trend": 2}})
