"""What each claim of the paper is tested by: functions of a source and the limits to cases (no torch)."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from duodiff.analysis.claims.sources import Case, Source, case_name
from duodiff.paper import LARGEST_T_S

_PAIRED = (
    "95%: 1.96 standard deviations over paired bootstrap resamples of the images;"
    " times and reference held fixed"
)

Cases = Callable[[Source, dict], list[Case]]
"""Measures a source; the dict is the configuration's `claims`. Raises NotTested."""


class NotTested(Exception):
    """A source lacks what a claim needs; the message says what."""


# --- helpers of the cases


def _ddpm(source: Source) -> pd.DataFrame:
    if source.ddpm is None:
        raise NotTested("DDPM was not run")
    return source.ddpm


def _of_method(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """The rows of "duodiff" (0 < t_s < T) or "adadiff", of which there must be some."""
    rows = table[table["method"] == method]
    if rows.empty:
        missing = {"duodiff": "no t_s between 0 and 1000", "adadiff": "no theta"}
        raise NotTested(f"{missing[method]} in the grid")
    return rows


def _full(table: pd.DataFrame) -> pd.Series:
    return table[table["t_s"] == 0].iloc[0]


def _combined(value: float, weights: Iterable[float], rows: pd.DataFrame, scale: float = 1) -> dict:
    """Interval and n of a `value` that is `scale` x the sum of weights x distances minus the full backbone's."""
    used = [(w, r) for w, r in zip(weights, rows["resampled"], strict=True) if w]
    found = {"n": int(rows["n"].iloc[0])}
    if any(r is None for _, r in used):
        return found
    deviation = abs(scale) * np.std(sum(w * np.array(r) for w, r in used), ddof=1)
    return found | {
        "interval": (value - 1.96 * deviation, value + 1.96 * deviation),
        "covers": _PAIRED,
    }


def _timed(row: pd.Series, low: float, high: float) -> dict:
    """Interval, what it covers, and n (images at a time) of a ratio of times, from the timing of one of them."""
    if pd.isna(low) or pd.isna(high):
        return {}
    about = {"covers": row["speedup_covers"], "n": int(row["speedup_n"])}
    return {"interval": (float(low), float(high))} | about


# --- exit and loss profiles


def exits(metric: str, share_of_depth: bool = False) -> Cases:
    """Cases a threshold: this record of the exit profiles under DDPM at the first sampling seed."""

    def cases(source: Source, limits: dict) -> list[Case]:
        if source.published:
            raise NotTested("exit profiles are published as a picture only")
        found = source.profiles
        found = found[found["metric"].str.startswith(("exit_", "early_exits_", "few_blocks_"))]
        found = found[found["sampler"] == "ddpm"] if len(found) else found
        if found.empty:
            raise NotTested("no theta under DDPM in the grid")
        found = found[found["sample_seed"] == found["sample_seed"].iloc[0]]
        return [
            _exit_case(profile.set_index("metric"), metric, share_of_depth, limits)
            for _, profile in found.groupby(["theta", "setting"])
        ]

    return cases


def _exit_case(profile: pd.DataFrame, metric: str, share_of_depth: bool, limits: dict) -> Case:
    value, about = profile["value"], profile.iloc[0]
    case = Case(f"theta = {about['theta']:.3g}", None, n=int(about["n"]))
    if value["exit_range"] < limits["exit_range"]:
        note = f"the mean exit layer varies by {value['exit_range']:.2f} blocks over t, which is no test"
        return replace(case, note=note)
    scale = about["parameters"]["depth"] if share_of_depth else 1
    notes = {
        "exit_step_over_ramp": "R2 of the step {exit_step_r2:.3f} at t = {exit_change:.0f},"
        " of the ramp {exit_ramp_r2:.3f}",
        "exit_width": "from t = {exit_width_from:.0f} to {exit_width_to:.0f}",
    }
    note = notes.get(metric, "").format_map(value)
    if metric in notes and value["exit_rise"] < 0:
        note += "; mirrored: early exits come last"
    return replace(
        case,
        value=value[metric] / scale,
        interval=tuple(end / scale for end in profile["interval"][metric]),
        covers=about["interval_covers"],
        note=note,
    )


def losses(metric: str) -> Cases:
    """One case: this record of the loss profiles."""

    def cases(source: Source, limits: dict) -> list[Case]:
        if source.published:
            raise NotTested("no losses are published")
        found = source.profiles[source.profiles["metric"] == metric]
        if found.empty:
            raise NotTested("no loss profile among the records")
        row = found.iloc[0]
        return [
            Case("", row["value"], tuple(row["interval"]), row["interval_covers"], int(row["n"]))
        ]

    return cases


# --- time


def speedups(table: pd.DataFrame) -> list[Case]:
    """The speed-up over the full backbone at each t_s between 0 and T."""
    return [
        Case(case_name(row), row["speedup"], **_timed(row, row["speedup_low"], row["speedup_high"]))
        for _, row in _of_method(table, "duodiff").iterrows()
    ]


def faster_than_base(source: Source, limits: dict) -> list[Case]:
    """`speedups` under DDPM."""
    return speedups(_ddpm(source))


def heads_cost(source: Source, limits: dict) -> list[Case]:
    """The time with all heads over the full backbone's; a published one a theta, from the interpolated times."""
    if not source.heads:
        raise NotTested(
            "exit layers are derived from the times"
            if source.published
            else "no theta under DDPM in the grid"
        )
    return source.heads


def faster_than_adadiff(source: Source, limits: dict) -> list[Case]:
    """The time of the fastest t_s that keeps AdaDiff's distance (its upper end within the margin), over AdaDiff's."""
    table, column = _ddpm(source), source.adadiff_time
    margin = limits["quality_margin"] * _full(table)["distance"]
    switched, found = table[table["t_s"].notna()], []
    for _, exited in _of_method(table, "adadiff").iterrows():
        rows = [row for _, row in switched.iterrows()]
        as_good = [row for row in rows if _difference(row, exited)[1] <= margin]
        perhaps = [row for row in rows if _difference(row, exited)[0] <= margin]
        note = f"distance {exited['distance']:.2f}"
        if not as_good:
            found.append(_none_as_good(exited, perhaps, note))
            continue
        best = max(as_good, key=lambda row: row["speedup"])
        note += f" in {_time(exited[column])}; "
        note += f"{case_name(best)}: {best['distance']:.2f} in {_time(best['seconds'])}"
        low = exited["speedup_low"] / best["speedup_high"]
        high = exited["speedup_high"] / best["speedup_low"]
        value = exited["speedup"] / best["speedup"]
        found.append(Case(case_name(exited), value, note=note, **_timed(exited, low, high)))
    return found


def _difference(row: pd.Series, exited: pd.Series) -> tuple[float, float]:
    """The interval of the difference of two distances, both ends the difference itself where there is none."""
    difference = row["distance"] - exited["distance"]
    rows = pd.DataFrame([row, exited])
    return _combined(difference, (1, -1), rows).get("interval", (difference, difference))


def _none_as_good(exited: pd.Series, perhaps: list[pd.Series], note: str) -> Case:
    """No t_s is known to be as good: from the fastest that may be to none at all."""
    if not perhaps:
        return Case(case_name(exited), np.inf, note=f"{note}: no t_s is as good")
    ratio = exited["speedup"] / max(row["speedup"] for row in perhaps)
    note = f"{note}: no t_s is known to be as good"
    return Case(case_name(exited), np.inf, (ratio, np.inf), _PAIRED, int(exited["n"]), note)


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def formula(source: Source, limits: dict) -> list[Case]:
    """How far the measured speed-up at each t_s > 0 is from 1 / (1 - (t_s/T)(1 - c)), relative to it."""
    table, found = _ddpm(source), []
    for _, row in table[table["t_s"] > 0].iterrows():
        low, high = (row[c] / row["ideal_speedup"] - 1 for c in ("speedup_low", "speedup_high"))
        timed = _timed(row, max(low, -high, 0), max(abs(low), abs(high)))
        value = abs(row["speedup"] / row["ideal_speedup"] - 1)
        note = f"measured {row['speedup']:.2f}, by the formula {row['ideal_speedup']:.2f}"
        found.append(Case(case_name(row), value, note=note, **timed))
    if not found:
        raise NotTested("no t_s above 0 in the grid")
    return found


def underestimated(source: Source, limits: dict) -> list[Case]:
    """AdaDiff's time with the shrinking batch over the interpolated one, by speed-ups within the same rounds."""
    if source.published:
        raise NotTested("only interpolated times are published")
    rows, heads = _of_method(_ddpm(source), "adadiff"), source.heads[0]
    found = []
    for _, row in rows.iterrows():
        share = row["mean_exit_layer"] / row["depth"]
        value = 1 / row["speedup"] / (share * heads.value)
        low = 1 / row["speedup_high"] / (share * heads.interval[1])
        high = 1 / row["speedup_low"] / (share * heads.interval[0])
        note = (
            f"measured {_time(row['seconds'])}, interpolated {_time(row['seconds_interpolated'])}"
        )
        found.append(Case(case_name(row), value, note=note, **_timed(row, low, high)))
    return found


# --- distance, and distance against time


def best_quality(source: Source, limits: dict) -> list[Case]:
    """DuoDiff's lowest distance minus AdaDiff's lowest."""
    table = _ddpm(source)
    best = [
        rows.loc[rows["distance"].idxmin()]
        for rows in (_of_method(table, "duodiff"), _of_method(table, "adadiff"))
    ]
    value = best[0]["distance"] - best[1]["distance"]
    name = f"{case_name(best[0])} against {case_name(best[1])}"
    note = f"{best[0]['distance']:.2f} against {best[1]['distance']:.2f}"
    return [Case(name, value, note=note, **_combined(value, (1, -1), pd.DataFrame(best)))]


def _equal_time(source: Source, column: str, relative: bool) -> list[Case]:
    """DuoDiff's distance minus AdaDiff's at AdaDiff's times in `column`; `relative`: 1 minus their ratio.

    Linear between neighbouring t_s, as `tables.at_equal_time`, which says what lies beyond the ends.
    """
    table, found = _ddpm(source), []
    switched = table[table["t_s"].notna()].sort_values("seconds")
    for _, exited in _of_method(table, "adadiff").sort_values(column).iterrows():
        time = exited[column]
        case = Case(case_name(exited), None, n=int(exited["n"]))
        if pd.isna(time) or time < switched["seconds"].iloc[0]:
            note = "no time" if pd.isna(time) else f"no t_s is as fast as {_time(time)}"
            found.append(replace(case, note=note))
            continue
        weights = [np.interp(time, switched["seconds"], unit) for unit in np.eye(len(switched))]
        reached = switched["distance"] @ weights
        scale = -1 / exited["distance"] if relative else 1
        value = scale * (reached - exited["distance"])
        rows = pd.concat([switched, exited.to_frame().T])
        note = f"{reached:.2f} against {exited['distance']:.2f} in {_time(time)}"
        interval = _combined(value, [*weights, -1], rows, scale)
        found.append(replace(case, value=value, note=note, **interval))
    return found


def at_measured_time(source: Source, limits: dict) -> list[Case]:
    """DuoDiff's distance minus AdaDiff's at each theta's measured time."""
    if source.published:
        raise NotTested("only interpolated times of AdaDiff are published")
    return _equal_time(source, "seconds", relative=False)


def at_interpolated_time(source: Source, limits: dict) -> list[Case]:
    """DuoDiff's distance minus AdaDiff's at each theta's interpolated time."""
    _of_method(_ddpm(source), "adadiff")
    return _equal_time(source, "seconds_interpolated", relative=False)


def improvement(source: Source, limits: dict) -> list[Case]:
    """1 minus DuoDiff's distance over AdaDiff's, at the shortest of AdaDiff's times that DuoDiff reaches."""
    found = _equal_time(source, source.adadiff_time, relative=True)
    tested = [case for case in found if case.value is not None]
    return tested[:1] or found[:1]


def quality_per_time(source: Source, limits: dict) -> list[Case]:
    """How much faster quality falls with the time saved along t_s than along theta.

    Distance in percent of the full backbone's, time saved in tenths of its: slopes of least-squares lines
    through the full backbone, over the cells in the range of time saved that both methods reach.
    """
    table = _ddpm(source)
    base = _full(table)
    parts = []
    for method, column in (("duodiff", "seconds"), ("adadiff", source.adadiff_time)):
        rows = _of_method(table, method)
        parts.append(rows.assign(saved=10 * (1 - rows[column] / base["seconds"])))
    reached = min(part["saved"].max() for part in parts)
    parts = [part[(part["saved"] > 0) & (part["saved"] <= reached)] for part in parts]
    if any(part.empty for part in parts):
        raise NotTested("no range of time saved that both methods reach")
    percent = 100 / base["distance"]
    weights = [percent * part["saved"] / (part["saved"] ** 2).sum() for part in parts]
    slopes = [(w * part["minus_full"]).sum() for w, part in zip(weights, parts, strict=True)]
    value = slopes[0] - slopes[1]
    note = (
        f"{slopes[0]:.2f}% along t_s, {slopes[1]:.2f}% along theta, up to {10 * reached:.0f}% saved"
    )
    signed = [*weights[0], *-weights[1]]
    return [Case("", value, note=note, **_combined(value, signed, pd.concat(parts)))]


def kept(table: pd.DataFrame) -> list[Case]:
    """The distance over the full backbone's minus 1, for t_s up to the paper's largest."""
    rows, base = _of_method(table, "duodiff"), _full(table)["distance"]
    rows = rows[rows["t_s"] <= LARGEST_T_S]
    if rows.empty:
        raise NotTested(f"no t_s from 1 to {LARGEST_T_S} in the grid")
    found = []
    for i, row in rows.iterrows():
        value = row["minus_full"] / base
        found.append(Case(case_name(row), value, **_combined(value, [1], rows.loc[[i]], 1 / base)))
    return found


def quality_kept(source: Source, limits: dict) -> list[Case]:
    """`kept` under DDPM."""
    return kept(_ddpm(source))


def ddim(cases: Callable[[pd.DataFrame], list[Case]]) -> Cases:
    """`cases` of the cells under DDIM."""

    def under_ddim(source: Source, limits: dict) -> list[Case]:
        if source.ddim is None:
            raise NotTested(
                "no DDIM rows are published" if source.published else "DDIM was not run"
            )
        return cases(source.ddim)

    return under_ddim


def latent(cases: Callable[[pd.DataFrame], list[Case]]) -> Cases:
    """`cases` of the cells under DDPM, in latent space only."""

    def in_latent_space(source: Source, limits: dict) -> list[Case]:
        if not source.latent:
            raise NotTested("not in latent space")
        return cases(_ddpm(source))

    return in_latent_space


def trend(column: str, sign: int) -> Cases:
    """`sign` x the rank correlation (Spearman's) of `column` with t_s, and with theta."""

    def cases(source: Source, limits: dict) -> list[Case]:
        table = _ddpm(source)
        switched, exited = table[table["t_s"].notna()], table[table["t_s"].isna()]
        if not source.published:  # whose rows are in the order of theta, which is not known of all
            exited = exited.sort_values("theta")
        adadiff_column = source.adadiff_time if column == "seconds" else column
        return [
            _rank_case("t_s", switched.sort_values("t_s"), column, sign),
            _rank_case("theta", exited, adadiff_column, sign),
        ]

    return cases


def _rank_case(name: str, rows: pd.DataFrame, column: str, sign: int) -> Case:
    if len(rows) < 3:
        return Case(name, None, note=f"{len(rows)} of three settings or more")
    value = sign * _rank_correlation(rows[column])
    case = Case(name, value, n=int(rows["n"].iloc[0]), note=f"{len(rows)} settings")
    resampled = rows["resampled"].tolist()
    if column != "distance" or any(r is None for r in resampled):
        return case
    moved = np.array(resampled) - np.mean(resampled, axis=1, keepdims=True)  # [settings, resamples]
    moved += rows["distance"].to_numpy()[:, None]
    found = [sign * _rank_correlation(pd.Series(distances)) for distances in moved.T]
    low, high = np.percentile(found, [2.5, 97.5])
    covers = "95%: percentiles over paired bootstrap resamples of the images"
    return replace(case, interval=(min(low, value), max(high, value)), covers=covers)


def _rank_correlation(values: pd.Series) -> float:
    """Spearman's, with the order the values come in."""
    ranks = values.rank().to_numpy()
    return float(np.corrcoef(np.arange(len(ranks)), ranks)[0, 1]) if np.ptp(ranks) else 0.0
