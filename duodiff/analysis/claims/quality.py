"""Statistics of distance: alone, at equal time, and its course over t_s and theta (no torch)."""

from dataclasses import replace

import numpy as np
import pandas as pd

from duodiff.analysis.claims.cases import (
    PAIRED,
    Case,
    Limits,
    Measure,
    NotTested,
    case_name,
    combined_distances,
    ddpm_cells,
    full_backbone,
    of_method,
    seconds_text,
    timed,
)
from duodiff.analysis.claims.sources import Source
from duodiff.paper import LARGEST_T_S

# --- distance alone


def best_distance(cells: pd.DataFrame) -> list[Case]:
    """DuoDiff's lowest distance minus AdaDiff's lowest."""
    duodiff, adadiff = (
        rows.loc[rows["distance"].idxmin()]
        for rows in (of_method(cells, "duodiff"), of_method(cells, "adadiff"))
    )
    value = duodiff["distance"] - adadiff["distance"]
    name = f"{case_name(duodiff)} against {case_name(adadiff)}"
    note = f"{duodiff['distance']:.2f} against {adadiff['distance']:.2f}"
    evidence = combined_distances(value, (1, -1), pd.DataFrame([duodiff, adadiff]))
    return [Case(name, value, note=note, **evidence)]


def kept(cells: pd.DataFrame) -> list[Case]:
    """The distance over the full backbone's minus 1, for t_s up to the paper's largest."""
    rows, full = of_method(cells, "duodiff"), full_backbone(cells)["distance"]
    rows = rows[rows["t_s"] <= LARGEST_T_S]
    if rows.empty:
        raise NotTested(f"no t_s from 1 to {LARGEST_T_S} in the grid")
    cases = []
    for i, row in rows.iterrows():
        value = row["minus_full"] / full
        evidence = combined_distances(value, [1], rows.loc[[i]], 1 / full)
        cases.append(Case(case_name(row), value, **evidence))
    return cases


# --- time at equal distance


def time_at_equal_distance(source: Source, limits: Limits) -> list[Case]:
    """The time of the fastest t_s that keeps AdaDiff's distance (its upper end within the margin), over AdaDiff's."""
    cells, column = ddpm_cells(source), source.adadiff_time
    margin = limits["quality_margin"] * full_backbone(cells)["distance"]
    switched = [row for _, row in cells[cells["t_s"].notna()].iterrows()]
    cases = []
    for _, exited in of_method(cells, "adadiff").iterrows():
        as_good = [row for row in switched if _difference(row, exited)[1] <= margin]
        perhaps = [row for row in switched if _difference(row, exited)[0] <= margin]
        note = f"distance {exited['distance']:.2f}"
        if not as_good:
            cases.append(_none_as_good(exited, perhaps, note))
            continue
        best = max(as_good, key=lambda row: row["speedup"])
        note += f" in {seconds_text(exited[column])}; "
        note += f"{case_name(best)}: {best['distance']:.2f} in {seconds_text(best['seconds'])}"
        low = exited["speedup_low"] / best["speedup_high"]
        high = exited["speedup_high"] / best["speedup_low"]
        value = exited["speedup"] / best["speedup"]
        cases.append(Case(case_name(exited), value, note=note, **timed(exited, low, high)))
    return cases


def _difference(row: pd.Series, exited: pd.Series) -> tuple[float, float]:
    """The interval of the difference of two distances, both ends the difference itself where there is none."""
    difference = row["distance"] - exited["distance"]
    evidence = combined_distances(difference, (1, -1), pd.DataFrame([row, exited]))
    return evidence.get("interval", (difference, difference))


def _none_as_good(exited: pd.Series, perhaps: list[pd.Series], note: str) -> Case:
    """No t_s is known to be as good: from the time of the fastest that may be, to infinity."""
    if not perhaps:
        return Case(case_name(exited), np.inf, note=f"{note}: no t_s is as good")
    ratio = exited["speedup"] / max(row["speedup"] for row in perhaps)
    return Case(
        name=case_name(exited),
        value=np.inf,
        interval=(ratio, np.inf),
        covers=PAIRED,
        n=int(exited["n"]),
        note=f"{note}: no t_s is known to be as good",
    )


# --- distance at equal time


def at_measured_time(source: Source, limits: Limits) -> list[Case]:
    """DuoDiff's distance minus AdaDiff's at each theta's measured time."""
    if source.published:
        raise NotTested("only interpolated times of AdaDiff are published")
    return _at_equal_time(ddpm_cells(source), "seconds")


def at_interpolated_time(source: Source, limits: Limits) -> list[Case]:
    """DuoDiff's distance minus AdaDiff's at each theta's interpolated time."""
    return _at_equal_time(ddpm_cells(source), "seconds_interpolated")


def improvement(source: Source, limits: Limits) -> list[Case]:
    """1 minus DuoDiff's distance over AdaDiff's, at the shortest of AdaDiff's times that DuoDiff reaches."""
    cases = _at_equal_time(ddpm_cells(source), source.adadiff_time, relative=True)
    tested = [case for case in cases if case.value is not None]
    return tested[:1] or cases[:1]


def _at_equal_time(cells: pd.DataFrame, column: str, relative: bool = False) -> list[Case]:
    """DuoDiff's distance minus AdaDiff's at AdaDiff's times in `column`; `relative`: 1 minus their ratio.

    Linear between neighbouring t_s, as `cells.at_equal_time`, which says what lies beyond the ends.
    """
    exits = of_method(cells, "adadiff").sort_values(column)
    switched = cells[cells["t_s"].notna()].sort_values("seconds")
    cases = []
    for _, exited in exits.iterrows():
        time = exited[column]
        case = Case(case_name(exited), None, n=int(exited["n"]))
        if pd.isna(time) or time < switched["seconds"].iloc[0]:
            note = "no time" if pd.isna(time) else f"no t_s is as fast as {seconds_text(time)}"
            cases.append(replace(case, note=note))
            continue
        weights = [np.interp(time, switched["seconds"], unit) for unit in np.eye(len(switched))]
        reached = switched["distance"] @ weights
        scale = -1 / exited["distance"] if relative else 1
        value = scale * (reached - exited["distance"])
        rows = pd.concat([switched, exited.to_frame().T])
        note = f"{reached:.2f} against {exited['distance']:.2f} in {seconds_text(time)}"
        evidence = combined_distances(value, [*weights, -1], rows, scale)
        cases.append(replace(case, value=value, note=note, **evidence))
    return cases


# --- the course over t_s and theta


def decline_per_time(source: Source, limits: Limits) -> list[Case]:
    """How much faster quality falls with the time saved along t_s than along theta.

    Distance in percent of the full backbone's, time saved in tenths of its: slopes of least-squares lines
    through the full backbone, over the cells in the range of time saved that both methods reach.
    """
    cells = ddpm_cells(source)
    full = full_backbone(cells)
    methods = []
    for method, column in (("duodiff", "seconds"), ("adadiff", source.adadiff_time)):
        rows = of_method(cells, method)
        methods.append(rows.assign(saved=10 * (1 - rows[column] / full["seconds"])))
    reached = min(rows["saved"].max() for rows in methods)
    methods = [rows[(rows["saved"] > 0) & (rows["saved"] <= reached)] for rows in methods]
    if any(rows.empty for rows in methods):
        raise NotTested("no range of time saved that both methods reach")
    percent = 100 / full["distance"]
    weights = [percent * rows["saved"] / (rows["saved"] ** 2).sum() for rows in methods]
    slopes = [(w * rows["minus_full"]).sum() for w, rows in zip(weights, methods, strict=True)]
    value = slopes[0] - slopes[1]
    note = (
        f"{slopes[0]:.2f}% along t_s, {slopes[1]:.2f}% along theta, up to {10 * reached:.0f}% saved"
    )
    signed = [*weights[0], *-weights[1]]
    return [Case("", value, note=note, **combined_distances(value, signed, pd.concat(methods)))]


def trend(column: str, sign: int) -> Measure:
    """`sign` x the rank correlation (Spearman's) of `column`, distance or seconds, with t_s and with theta."""

    def cases(source: Source, limits: Limits) -> list[Case]:
        cells = ddpm_cells(source)
        switched, exited = cells[cells["t_s"].notna()], cells[cells["t_s"].isna()]
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
    correlations = [sign * _rank_correlation(pd.Series(distances)) for distances in moved.T]
    low, high = np.percentile(correlations, [2.5, 97.5])
    covers = "95%: percentiles over paired bootstrap resamples of the images"
    return replace(case, interval=(min(low, value), max(high, value)), covers=covers)


def _rank_correlation(values: pd.Series) -> float:
    """Spearman's, with the order the values come in."""
    ranks = values.rank().to_numpy()
    return float(np.corrcoef(np.arange(len(ranks)), ranks)[0, 1]) if np.ptp(ranks) else 0.0
