"""Statistics of distance: alone, at equal distance, and its course over t_s and theta (no torch)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from duodiff.analysis.claims import equal
from duodiff.analysis.claims.cases import (
    IMAGES,
    ROUNDS,
    Case,
    Limits,
    Measure,
    NotTested,
    case_name,
    distances,
    full_backbone,
    measured,
    papers_cost,
    papers_t_s,
)
from duodiff.analysis.claims.sources import Training
from duodiff.analysis.lost import lost_share
from duodiff.paper import SEVEN_SECONDS
from duodiff.schedules import T

# --- distance alone


def best_distance(cells: pd.DataFrame) -> list[Case]:
    """DuoDiff's lowest distance minus AdaDiff's lowest, among the settings in the range of cost.

    Each resample has its own lowest distances, so the interval includes the choice.
    """
    methods = [papers_cost(cells, method) for method in ("duodiff", "adadiff")]
    found = [distances(rows) for rows in methods]
    names = [
        case_name(rows.iloc[int(d[:, 0].argmin())]) for rows, d in zip(methods, found, strict=True)
    ]
    lowest = [d.min(axis=0) for d in found]
    length = min(map(len, lowest))
    values = lowest[0][:length] - lowest[1][:length]
    note = f"{names[0]}, {lowest[0][0]:.2f}, against {names[1]}, {lowest[1][0]:.2f}"
    return [measured("", values, IMAGES, methods[0], note)]


def kept(cells: pd.DataFrame) -> list[Case]:
    """The lost share at each t_s in the paper's range; of published rows, the distance over the full backbone's - 1."""
    rows = papers_t_s(cells)
    base, scale = _scale(cells)
    cases = []
    for i, row in rows.iterrows():
        values = _shared(lost_share, distances(rows.loc[[i]])[0], base, base + scale)
        note = f"{row['minus_full']:+.2f} in distance"
        cases.append(measured(case_name(row), values, IMAGES, rows.loc[[i]], note))
    return cases


def _scale(cells: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The full backbone's distances, and what a lost share is a share of, both float64 [1 + resamples].

    It is the shallow backbone's distance minus the full one's; of published rows, which have no shallow one, the full
    backbone's distance. Raises NotTested where no share can be lost.
    """
    if "certainty" in cells:
        full = distances(cells[cells["t_s"] == 0])[0]
        return full, full
    ends = cells[cells["t_s"].isin([0, T])].sort_values("t_s")
    if len(ends) < 2:
        raise NotTested(f"no t_s = {T} in the grid, which the lost share is measured against")
    full, shallow = distances(ends)
    if shallow[0] <= full[0]:
        raise NotTested(
            "the full backbone is not better than the shallow one: no share can be lost"
        )
    return full, shallow - full


def _shared(function: Callable[..., np.ndarray], *values: np.ndarray) -> np.ndarray:
    """`function` of values with resamples; without resamples where one has none."""
    length = min(map(len, values))
    return function(*(one[:length] for one in values))


# --- cost at equal distance


def cost_at_equal_distance(axis: str) -> Measure:
    """The cost of the cheapest t_s that keeps AdaDiff's distance (its upper end within the margin), over AdaDiff's.

    Of each theta in the range, among the t_s in the range and the full backbone. Published times are interpolated.
    """

    def cases(training: Training, limits: Limits) -> list[Case]:
        interpolated = training.published and axis == equal.TIME
        cells = equal.with_costs(training, equal.INTERPOLATED if interpolated else axis)
        margin = limits["quality_margin"] * float(_scale(cells)[1][0])
        full = cells[cells["t_s"] == 0]
        switched = pd.concat([full, papers_cost(cells, "duodiff")])
        exits = papers_cost(cells, "adadiff")
        return [_cost_case(exits.loc[[i]], switched, margin) for i in exits.index]

    return cases


def _cost_case(exited: pd.DataFrame, switched: pd.DataFrame, margin: float) -> Case:
    about, own = exited.iloc[0], distances(exited)[0]
    rows = [switched.loc[[i]] for i in switched.index]
    apart = [
        measured("", _shared(np.subtract, distances(r)[0], own), IMAGES, r).ends() for r in rows
    ]
    as_good = [row for row, (_, high) in zip(rows, apart, strict=True) if high <= margin]
    perhaps = [row for row, (low, _) in zip(rows, apart, strict=True) if low <= margin]
    note = f"distance {about['distance']:.2f}"
    if not as_good:
        return _none_as_good(about, perhaps, note)
    best = min(as_good, key=lambda row: row["cost"].item())
    chosen = best.iloc[0]
    note += f"; {case_name(chosen)}: {chosen['distance']:.2f}"
    values = _shared(np.divide, chosen["cost_values"], about["cost_values"])
    case = measured(case_name(about), values, ROUNDS, exited, note)
    return replace(case, disturbed=bool(chosen["cost_disturbed"] or about["cost_disturbed"]))


def _none_as_good(exited: pd.Series, perhaps: list[pd.DataFrame], note: str) -> Case:
    """No t_s is known to be as good: from the cost of the cheapest that may be, to infinity."""
    name, n = case_name(exited), int(exited["n"])
    if not perhaps:
        return Case(name, np.inf, n=n, note=f"{note}: no t_s is as good")
    ratio = min(row["cost"].item() for row in perhaps) / exited["cost"]
    note = f"{note}: no t_s is known to be as good"
    return Case(name, np.inf, (ratio, np.inf), covers=IMAGES, n=n, note=note)


# --- distance at equal cost


def at_equal(axis: str) -> Measure:
    """DuoDiff's distance minus AdaDiff's at AdaDiff's cost, of each theta in the range of cost."""

    def cases(training: Training, limits: Limits) -> list[Case]:
        return equal.differences(training, axis)

    return cases


def below_fewer_steps(axis: str) -> Measure:
    """DuoDiff's distance minus that of the full backbone with fewer steps, at DuoDiff's cost."""

    def cases(training: Training, limits: Limits) -> list[Case]:
        if training.published:
            raise NotTested("one number of steps is published")
        return equal.below_fewer_steps(training, axis)

    return cases


def improvement(axis: str) -> Measure:
    """1 minus DuoDiff's distance over AdaDiff's, at SEVEN_SECONDS of the full backbone's cost."""

    def cases(training: Training, limits: Limits) -> list[Case]:
        interpolated = training.published and axis == equal.TIME
        return equal.share_lower(
            training, equal.INTERPOLATED if interpolated else axis, SEVEN_SECONDS
        )

    return cases


# --- the course over t_s and theta


def decline(axis: str) -> Measure:
    """How much faster quality falls with the cost saved along t_s than along theta, in the range of cost.

    Distance in percent of the full backbone's, cost saved in tenths of its: slopes of least-squares lines through the
    full backbone, over the cells in the range of cost saved that both methods reach.
    """

    def cases(training: Training, limits: Limits) -> list[Case]:
        interpolated = training.published and axis == equal.TIME
        cells = equal.with_costs(training, equal.INTERPOLATED if interpolated else axis)
        return [_decline_case(cells)]

    return cases


def _decline_case(cells: pd.DataFrame) -> Case:
    methods = []
    for method in ("duodiff", "adadiff"):
        rows = papers_cost(cells, method)
        methods.append(rows.assign(saved=10 * (1 - rows["cost"])))
    reached = min(rows["saved"].max() for rows in methods)
    methods = [rows[(rows["saved"] > 0) & (rows["saved"] <= reached)] for rows in methods]
    if any(rows.empty for rows in methods):
        raise NotTested("no range of cost saved that both methods reach")
    full = float(full_backbone(cells)["distance"])
    slopes = [_slope(rows, full) for rows in methods]
    note = f"{slopes[0][0]:.2f}% along t_s, {slopes[1][0]:.2f}% along theta, up to {10 * reached:.0f}% saved"
    used = pd.concat(methods)
    case = measured("", _shared(np.subtract, *slopes), IMAGES, used, note)
    return replace(case, disturbed=bool(used["cost_disturbed"].any()))


def _slope(rows: pd.DataFrame, full: float) -> np.ndarray:
    """Percent of `full` lost for each tenth of the cost saved, float64 [1 + resamples]."""
    saved = rows["saved"].to_numpy()
    return 100 / full * (saved / (saved**2).sum()) @ (distances(rows) - full)


def trend(column: str, sign: int) -> Measure:
    """`sign` x the rank correlation (Spearman's) of `column`, distance or cost, with t_s and with theta.

    Over the full backbone and the t_s in the paper's range, and over the theta in the range of cost.
    """

    def cases(training: Training, limits: Limits) -> list[Case]:
        cells = equal.with_costs(training, equal.INTERPOLATED if training.published else equal.TIME)
        switched = pd.concat([cells[cells["t_s"] == 0], papers_t_s(cells)])
        found = [_rank_case("t_s", switched, column, sign)]
        if (cells["method"] == "adadiff").any():
            exited = papers_cost(cells, "adadiff")
            if (
                not training.published
            ):  # whose rows are in the order of theta, which is not known of all
                exited = exited.sort_values("theta")
            found.append(_rank_case("theta", exited, column, sign))
        return found

    return cases


def _rank_case(name: str, rows: pd.DataFrame, column: str, sign: int) -> Case:
    if len(rows) < 3:
        return Case(name, None, note=f"{len(rows)} of three settings or more")
    if column == "cost":
        values = np.array([sign * _rank_correlation(rows["cost"])])
        case = measured(name, values, ROUNDS, rows, f"{len(rows)} settings")
        return replace(case, disturbed=bool(rows["cost_disturbed"].any()))
    values = np.array([sign * _rank_correlation(pd.Series(one)) for one in distances(rows).T])
    case = Case(name, float(values[0]), n=int(rows["n"].iloc[0]), note=f"{len(rows)} settings")
    if len(values) == 1:
        return case
    low, high = np.percentile(values[1:], [2.5, 97.5])
    interval = (min(low, case.value), max(high, case.value))
    covers = "95%: percentiles over paired resamples of the images"
    return replace(case, interval=interval, covers=covers)


def _rank_correlation(values: pd.Series) -> float:
    """Spearman's, with the order the values come in."""
    ranks = values.rank().to_numpy()
    return float(np.corrcoef(np.arange(len(ranks)), ranks)[0, 1]) if np.ptp(ranks) else 0.0
