"""Statistics of exit and loss profiles (Figures 1 and 2), from the records of a study (no torch)."""

from dataclasses import replace

import pandas as pd

from duodiff.analysis.claims.cases import Case, Limits, Measure, NotTested
from duodiff.analysis.claims.sources import Source

_NOTES = {
    "exit_step_over_ramp": "R2 of the step {exit_step_r2:.3f} at t = {exit_change:.0f},"
    " of the ramp {exit_ramp_r2:.3f}",
    "exit_width": "from t = {exit_width_from:.0f} to {exit_width_to:.0f}",
}


def exits(metric: str, share_of_depth: bool = False) -> Measure:
    """A case for each theta: the record `metric` of the exit profiles under DDPM at the first sampling seed.

    `share_of_depth` divides it by the number of blocks.
    """

    def cases(source: Source, limits: Limits) -> list[Case]:
        if source.published:
            raise NotTested("exit profiles are published as a picture only")
        profiles = _exit_profiles(source.records)
        return [
            _exit_case(profile.set_index("metric"), metric, share_of_depth, limits)
            for _, profile in profiles.groupby(["theta", "setting"])
        ]

    return cases


def _exit_profiles(records: pd.DataFrame) -> pd.DataFrame:
    """The records of exit profiles under DDPM at the first sampling seed. Raises NotTested where there are none."""
    profiles = records[records["metric"].str.startswith(("exit_", "early_exits_", "few_blocks_"))]
    profiles = profiles[profiles["sampler"] == "ddpm"]
    if profiles.empty:
        raise NotTested("no theta under DDPM in the grid")
    return profiles[profiles["sample_seed"] == profiles["sample_seed"].iloc[0]]


def _exit_case(profile: pd.DataFrame, metric: str, share_of_depth: bool, limits: Limits) -> Case:
    """The case of one theta; `profile` are its records by metric."""
    value, about = profile["value"], profile.iloc[0]
    case = Case(f"theta = {about['theta']:.3g}", None, n=int(about["n"]))
    if value["exit_range"] < limits["exit_range"]:
        note = f"the mean exit layer varies by {value['exit_range']:.2f} blocks over t, which is no test"
        return replace(case, note=note)
    scale = about["parameters"]["depth"] if share_of_depth else 1
    note = _NOTES.get(metric, "").format_map(value)
    if metric in _NOTES and value["exit_rise"] < 0:
        note += "; mirrored: early exits come last"
    low, high = profile["interval"][metric]
    return replace(
        case,
        value=value[metric] / scale,
        interval=(low / scale, high / scale),
        covers=about["interval_covers"],
        note=note,
    )


def losses(metric: str) -> Measure:
    """One case: the record `metric` of the loss profiles."""

    def cases(source: Source, limits: Limits) -> list[Case]:
        if source.published:
            raise NotTested("no losses are published")
        records = source.records[source.records["metric"] == metric]
        if records.empty:
            raise NotTested("no loss profile among the records")
        row = records.iloc[0]
        low, high = row["interval"]
        return [Case("", row["value"], (low, high), row["interval_covers"], int(row["n"]))]

    return cases
