"""The results of SwitchBench as a page of Markdown, from its tables (no torch)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.analysis.claims.cases import number
from duodiff.analysis.shipped_page import table
from duodiff.analysis.trainings import seeds_text
from duodiff.running.files import read_json, write_text
from duodiff.switchbench.data import Training, load
from duodiff.switchbench.evaluation import ceiling, statistics
from duodiff.switchbench.plan import DECIDING, Plan
from duodiff.switchbench.scores import chooser

_FIRST = ("ddpm", "fd_digits")  # the sampler and space of the primary endpoint
_ENDPOINTS = (
    "endpoint",
    "statistic",
    "of",
    "mean, 95% interval",
    "met above",
    "Holm's p",
    "verdict",
)
_SCORES = ("score", "within", "overall", "regret")
_TRAININGS = ("training", "full's distance", "shallow's", "A*", "B", "C", "switch", "ceiling")
_RULES = ("rule", "shallow calls of 10", "lost share")


def write_page(plan: Plan, folder: Path) -> None:
    """Writes README.md of the results in `folder`, which `tables.write_tables` wrote."""
    sets = read_json(folder / "results.json")["sets"]
    lines = ["# SwitchBench: results", "", *_about(plan, folder, sets)]
    if DECIDING in sets:
        lines += ["", "## Endpoints", "", *table(_ENDPOINTS, _endpoints(folder))]
    scores, rules = (pd.read_csv(folder / f"{name}.csv") for name in ("scores", "switches"))
    for name, seeds in sets.items():
        lines += ["", f"## Trainings {seeds_text(seeds)} ({name})", ""]
        lines += [f"Distances, and `within` of scores: {_FIRST[0].upper()}, {_FIRST[1]}.", ""]
        lines += table(_TRAININGS, map(_training, load(folder, seeds)))
        lines += ["", f"![Agreement and regret of each score, {name} trainings](scores_{name}.svg)"]
        for sampler in plan.samplers:
            for space in plan.spaces:
                head = f"{sampler.upper()}, {space}, trainings {seeds_text(seeds)} ({name})"
                where = {"set": name, "sampler": sampler, "space": space}
                lines += ["", f"## {head}", "", *table(_SCORES, _scores(_of(scores, where)))]
                lines += ["", *table(_RULES, _rules(_of(rules, where)))]
    write_text(folder / "README.md", "\n".join(lines) + "\n")


def _about(plan: Plan, folder: Path, sets: dict[str, list[int]]) -> list[str]:
    """What the numbers are of."""
    (first, *_) = next(iter(sets.values()))
    made = read_json(folder / f"train{first}/manifest.json")["made"]
    return [
        f"Each mask has {plan.images} images of each of two sampling seeds, from {plan.steps} steps in float32 on"
        f" {made['device']}. A number is a mean over trainings, with Student's 95% interval of that mean.",
        "[docs/switchbench.md](../../docs/switchbench.md) says what the columns are, and [plan.yaml](plan.yaml) what"
        " was fixed before the run.",
    ]


def _of(rows: pd.DataFrame, where: dict[str, str]) -> pd.DataFrame:
    return rows[(rows[list(where)] == pd.Series(where)).all(axis=1)]


def _training(one: Training) -> tuple[str, ...]:
    """A training by itself: where one differs from the others, a mean over them says little."""
    ends = np.mean([one.ends(_FIRST[0], seed, _FIRST[1]) for seed in one.sample_seeds], axis=0)
    found = [statistics(chooser(name), one, *_FIRST)["within"] for name in _TRAININGS[3:-1]]
    numbers = (f"{value:.2f}" for value in (*found, ceiling(one, *_FIRST)))
    return str(one.seed), *(f"{end:.1f}" for end in ends), *numbers


def _endpoints(folder: Path) -> Iterator[tuple[str, ...]]:
    for row in pd.read_csv(folder / "endpoints.csv").itertuples():
        primary = row.kind == "primary"
        yield (
            f"**{row.endpoint}** (primary)" if primary else row.endpoint,
            row.statistic,
            f"{row.score}, {row.sampler}, {row.space}",
            _interval(row),
            f"{row.above:g}",
            "" if primary else number(row.p_holm),
            "met" if row.met else "not met",
        )


def _scores(rows: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """A row a score; the ceiling has `within` alone."""
    for score, own in rows.groupby("score", sort=False):
        by = {row.statistic: _interval(row) for row in own.itertuples()}
        yield (score, *(by.get(name, "") for name in _SCORES[1:]))


def _rules(rows: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    for row in rows.itertuples():
        yield row.rule, f"{row.shallow_calls:.1f}", _interval(row)


def _interval(row) -> str:
    return f"{row.mean:.3f} [{row.low:.3f}, {row.high:.3f}]"
