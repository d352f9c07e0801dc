"""The results of SwitchBench as tables: the plan's verdicts, and all that is listed beside them (no torch)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from duodiff.choice.scores import step_weights
from duodiff.identity import code_digest
from duodiff.running import provenance
from duodiff.running.files import sha256, write_csv, write_json
from duodiff.schedules import noise_schedule, timesteps
from duodiff.switchbench.data import Training, load
from duodiff.switchbench.evaluation import ceiling, interval, statistics, verdicts
from duodiff.switchbench.masks import switched
from duodiff.switchbench.plan import DECIDING, STATISTICS, Plan
from duodiff.switchbench.scores import NAMES, chooser, predicted, rules

_DIGITS = 6  # significant digits of the files' numbers


def write_tables(plan: Plan, folder: Path) -> list[str]:
    """The names of the sets of trainings that are whole in `folder`; their tables are written there.

    `endpoints.csv` has the plan's verdicts, on the fresh trainings alone. `scores.csv` and `switches.csv` list all else
    for each set. `steps.csv` says what the steps are, `results.json` which plan was followed, by its sha256.
    """
    whole = {
        name: load(folder, seeds)
        for name, seeds in plan.trainings.items()
        if all((folder / f"train{seed}/manifest.json").exists() for seed in seeds)
    }
    tables = {"steps.csv": steps_table(plan)}
    for name, of_set in {"scores.csv": scores_table, "switches.csv": switches_table}.items():
        sets = [of_set(plan, of).assign(set=which) for which, of in whole.items()]
        if sets:
            tables[name] = pd.concat(sets, ignore_index=True)
    if DECIDING in whole:
        tables["endpoints.csv"] = endpoints_table(plan, whole[DECIDING])
    for name, table in tables.items():
        write_csv(folder / name, rounded(table))
    code = code_digest(write_tables)
    about = {
        "plan_sha256": sha256(folder / "plan.yaml"),
        "sets": {name: plan.trainings[name] for name in whole},
        "sha256": {name: sha256(folder / name) for name in tables},
        "made": provenance.made(code),
    }
    write_json(folder / "results.json", about)
    return list(whole)


def steps_table(plan: Plan) -> pd.DataFrame:
    """A row a step: its t, alpha-bar there, and the weight w of its loss; the last step has none."""
    schedule, t = noise_schedule(plan.conventions["schedule"]), timesteps(plan.steps)
    weights = [*step_weights(schedule, t), math.nan]
    return pd.DataFrame({"t": t, "alpha_bar": schedule.alphas_cumprod[t], "weight": weights})


def endpoints_table(plan: Plan, trainings: Sequence[Training]) -> pd.DataFrame:
    """A row an endpoint: the mean over the trainings, its interval, the corrected p-value and the verdict."""
    rows: list[dict[str, Any]] = []
    for i, found in enumerate(verdicts(plan, trainings)):
        one = found.endpoint
        rows.append(
            {
                "endpoint": one.name,
                "kind": "secondary" if i else "primary",
                "statistic": one.statistic,
                "sampler": one.sampler,
                "space": one.space,
                "score": one.score if one.minus is None else f"{one.score} - {one.minus}",
                "above": one.above,
                **_summed(found.values),
                "p_holm": found.p,
                "met": found.met,
            }
        )
    return pd.DataFrame(rows)


def scores_table(plan: Plan, trainings: Sequence[Training]) -> pd.DataFrame:
    """A row for each sampler, space, score and statistic, and for each ceiling: the mean over the trainings."""
    rows: list[dict[str, Any]] = []
    for sampler in plan.samplers:
        for space in plan.spaces:
            where = {"sampler": sampler, "space": space}
            for name in NAMES:
                each = [statistics(chooser(name), one, sampler, space) for one in trainings]
                for statistic in STATISTICS:
                    of = [one[statistic] for one in each]
                    rows.append(where | {"score": name, "statistic": statistic} | _summed(of))
            of = [ceiling(one, sampler, space) for one in trainings]
            rows.append(where | {"score": "ceiling", "statistic": "within"} | _summed(of))
    return pd.DataFrame(rows)


def switches_table(plan: Plan, trainings: Sequence[Training]) -> pd.DataFrame:
    """A row for each sampler, space and rule that chooses t_s: its shallow calls and its lost share.

    The rule by A* takes as many shallow calls as it can while it predicts at most the plan's `tolerance`.
    """
    rows: list[dict[str, Any]] = []
    for sampler in plan.samplers:
        for space in plan.spaces:
            calls = [
                rules(one) | {"A* predicts": predicted(one, sampler, "A*", plan.tolerance)}
                for one in trainings
            ]
            for rule in calls[0]:
                made = [of[rule] for of in calls]
                lost = [
                    _lost(one, sampler, space, n) for one, n in zip(trainings, made, strict=True)
                ]
                row = {"sampler": sampler, "space": space, "rule": rule}
                rows.append({**row, "shallow_calls": float(np.mean(made)), **_summed(lost)})
    return pd.DataFrame(rows)


def _lost(training: Training, sampler: str, space: str, calls: int) -> float:
    """The lost share of a switch after so many calls: the mean over the two sampling seeds."""
    at = training.masks.index(switched(len(training.t), calls))
    shares = []
    for seed in training.sample_seeds:
        full, shallow = training.ends(sampler, seed, space)
        shares.append((training.distance(sampler, seed, space)[at] - full) / (shallow - full))
    return float(np.mean(shares))


def _summed(values: Sequence[float]) -> dict[str, float]:
    low, high = interval(values)
    return {"trainings": len(values), "mean": float(np.mean(values)), "low": low, "high": high}


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its floats rounded to six significant digits."""
    floats = table.select_dtypes("float").columns
    return table.assign(
        **{name: [float(f"{v:.{_DIGITS}g}") for v in table[name]] for name in floats}
    )
