"""Statistics of exit and loss profiles (Figures 1 and 2), from the records of a training (no torch)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from duodiff.analysis.claims.cases import (
    Case,
    Limits,
    Measure,
    NotTested,
    case_name,
    papers_cost,
    papers_t_s,
)
from duodiff.analysis.claims.sources import Training
from duodiff.study.grid import samplers

_STARTS = ("exit_", "early_exits_", "few_blocks_")
_NOTES = {
    "exit_step_r2": "R2 of the step {exit_step_r2:.3f} at t = {exit_change:.0f}, of the ramp {exit_ramp_r2:.3f}",
    "exit_width": "from t = {exit_width_from:.0f} to {exit_width_to:.0f}",
}

Ends = np.ndarray
"""A record as [value, low, high]."""

OfProfile = Callable[[Callable[[str], Ends], float, Limits], Ends]
"""A statistic of the records of one profile (by metric), the depth, and the limits."""


def exits(metric: str) -> Measure:
    """A case for each theta in the range of cost: the record `metric` of the exit profiles."""
    return _profiles(metric, lambda record, depth, limits: record(metric))


def exits_over_depth(metric: str) -> Measure:
    """As `exits`, divided by the number of blocks."""
    return _profiles(metric, lambda record, depth, limits: record(metric) / depth)


def step() -> Measure:
    """How far the R2 of the best two-level step lies above `step_r2` and above a ramp's R2: the smaller of the two."""

    def smaller(record: Callable[[str], Ends], depth: float, limits: Limits) -> Ends:
        return np.minimum(record("exit_step_r2") - limits["step_r2"], record("exit_step_over_ramp"))

    return _profiles("exit_step_r2", smaller)


def _profiles(metric: str, statistic: OfProfile) -> Measure:
    """A case for each theta in the range of cost, of the profiles under DDPM at the first sampling seed."""

    def cases(training: Training, limits: Limits) -> list[Case]:
        if training.published:
            raise NotTested("exit profiles are published as a picture only")
        records = training.records
        profiles = records[
            records["metric"].str.startswith(_STARTS) & (records["sampler"] == "ddpm")
        ]
        if profiles.empty or training.ddpm is None:
            raise NotTested("no theta under DDPM in the grid")
        profiles = profiles[profiles["sample_seed"] == profiles["sample_seed"].iloc[0]]
        in_range = papers_cost(training.ddpm, "adadiff").sort_values("theta")
        return [
            _case(row, profiles[profiles["setting"] == row["setting"]], metric, statistic, limits)
            for _, row in in_range.iterrows()
        ]

    return cases


def _case(
    row: pd.Series, profile: pd.DataFrame, metric: str, statistic: OfProfile, limits: Limits
) -> Case:
    """The case of one theta; `profile` are its records."""
    if profile.empty:
        return Case(case_name(row), None, note="no exit profile among the records")
    by_name, about = profile.set_index("metric"), profile.iloc[0]
    values = by_name["value"]
    case = Case(case_name(row), None, n=int(about["n"]))
    if values["exit_range"] < limits["exit_range"]:
        note = f"the mean exit layer varies by {values['exit_range']:.2f} blocks over t, which is no test"
        return replace(case, note=note)

    def record(name: str) -> Ends:
        return np.array([values[name], *by_name["interval"][name]])

    note = _NOTES.get(metric, "").format_map(values)
    if metric in _NOTES and values["exit_rise"] < 0:
        note += "; mirrored: early exits come last"
    value, low, high = (float(end) for end in statistic(record, float(row["depth"]), limits))
    covers = by_name["interval_covers"][metric]
    return replace(case, value=value, interval=(low, high), covers=covers, note=note)


def gaps(sampler: str) -> Measure:
    """A case for each t_s of the paper's tables: what the best assignment gains over the switch, by the score."""

    def cases(training: Training, limits: Limits) -> list[Case]:
        if training.published:
            raise NotTested("no losses are published")
        records = training.records
        found = records[(records["metric"] == "switch_gap") & (records["sampler"] == sampler)]
        if found.empty:
            raise NotTested(f"no schedules were scored under {samplers()[sampler]['title']}")
        return [
            Case(
                case_name(row),
                row["value"],
                tuple(row["interval"]),
                row["interval_covers"],
                int(row["n"]),
            )
            for _, row in papers_t_s(found).iterrows()
        ]

    return cases


def losses(metric: str) -> Measure:
    """One case: the record `metric` of the loss profiles."""

    def cases(training: Training, limits: Limits) -> list[Case]:
        if training.published:
            raise NotTested("no losses are published")
        records = training.records[training.records["metric"] == metric]
        if records.empty:
            raise NotTested("no loss profile among the records")
        row = records.iloc[0]
        low, high = row["interval"]
        return [Case("", row["value"], (low, high), row["interval_covers"], int(row["n"]))]

    return cases
