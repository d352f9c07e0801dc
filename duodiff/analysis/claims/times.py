"""Statistics of times and operations alone: speed-ups, the cost of AdaDiff's heads, the formula (no torch)."""

from dataclasses import replace

import numpy as np
import pandas as pd

from duodiff.analysis.claims.cases import (
    ROUNDS,
    Case,
    Limits,
    Measure,
    NotTested,
    case_name,
    ddpm_cells,
    measured,
    papers_cost,
    papers_t_s,
    speeds,
)
from duodiff.analysis.claims.sources import Training
from duodiff.paper import PAPER_IMAGES

ALL_HEADS, NONE_EXITS = "adadiff_all_heads", "adadiff_none_exit"
"""The methods of records that time the simulated exit, and the shrinking batch where no image exits."""

_DERIVED = "exit layer derived"  # from the published time, so that nothing follows from the two


def speedups(cells: pd.DataFrame) -> list[Case]:
    """The speed-up over the full backbone at each t_s in the paper's range."""
    rows = papers_t_s(cells)
    return [
        measured(case_name(row), values, ROUNDS, rows.loc[[i]])
        for (i, row), values in zip(rows.iterrows(), speeds(rows), strict=True)
    ]


def cost_of(method: str) -> Measure:
    """The time of AdaDiff's `method` over the full backbone's, under DDPM."""

    def cases(training: Training, limits: Limits) -> list[Case]:
        if training.published and method == ALL_HEADS:
            return _published_heads(ddpm_cells(training))
        if training.published:
            raise NotTested("only interpolated times of AdaDiff are published")
        return [_over_full(training.records, method)]

    return cases


def operations_where_none_exits(training: Training, limits: Limits) -> list[Case]:
    """The operations of AdaDiff where no image exits over the full backbone's, under DDPM."""
    if training.published:
        raise NotTested("no operations are published")
    mine = training.records[training.records["metric"] == "gflops_per_trajectory"]
    mine = mine[mine["sampler"] == "ddpm"].set_index("method")["value"]
    if NONE_EXITS not in mine or "full" not in mine:
        raise NotTested("not counted")
    return [Case("none exits", float(mine[NONE_EXITS] / mine["full"]))]


def of_all_heads(records: pd.DataFrame) -> np.ndarray:
    """The time with all heads computed over the full backbone's, float64 [1 + resamples]. Raises NotTested."""
    return 1 / speeds(_timed(records, ALL_HEADS))[0]


def _over_full(records: pd.DataFrame, method: str) -> Case:
    """The case of the time of `method` over the full backbone's."""
    rows = _timed(records, method)
    name = {ALL_HEADS: "all heads", NONE_EXITS: "none exits"}[method]
    return measured(name, 1 / speeds(rows)[0], ROUNDS, rows)


def _timed(records: pd.DataFrame, method: str) -> pd.DataFrame:
    """One row with the speed-up of `method`, which no setting names, in the columns of cells."""
    mine = records[(records["method"] == method) & (records["metric"] == "speedup")]
    mine = mine[mine["sampler"] == "ddpm"].iloc[:1]
    if mine.empty:
        raise NotTested(f"{method} was not timed under DDPM")
    rows = mine.assign(speedup=mine["value"], speedup_resampled=_lists(mine, "resampled"))
    return rows.assign(speedup_disturbed=mine.get("disturbed", False))


def _lists(rows: pd.DataFrame, column: str) -> pd.Series:
    values = rows.get(column, pd.Series(None, rows.index, dtype=object))
    return values.map(lambda value: value if isinstance(value, list) else None)


def _published_heads(cells: pd.DataFrame) -> list[Case]:
    """Interpolated times taken back to the full depth, where the exit layer was published by itself."""
    derived = cells["certainty"].str.contains(_DERIVED)
    rows = cells[(cells["method"] == "adadiff") & ~derived]
    if rows.empty:
        raise NotTested("exit layers are derived from the times")
    values = cells["depth"] / cells["mean_exit_layer"] / cells["speedup"]
    return [Case(case_name(row), values[i], n=PAPER_IMAGES) for i, row in rows.iterrows()]


def formula(cells: pd.DataFrame) -> list[Case]:
    """How far the measured speed-up is from 1 / (1 - (t_s/T)(1 - c)), relative to it, in the paper's range of t_s."""
    rows = papers_t_s(cells)
    return [
        _deviation(row, values / row["ideal_speedup"] - 1, rows.loc[[i]])
        for (i, row), values in zip(rows.iterrows(), speeds(rows), strict=True)
    ]


def _deviation(row: pd.Series, values: np.ndarray, rows: pd.DataFrame) -> Case:
    """The case of |values|; the interval of `values` may include 0."""
    note = f"measured {row['speedup']:.2f}, by the formula {row['ideal_speedup']:.2f}"
    signed = measured(case_name(row), values, ROUNDS, rows, note)
    low, high = signed.ends()
    interval = (max(low, -high, 0.0), max(abs(low), abs(high))) if signed.interval else None
    return replace(signed, value=abs(float(values[0])), interval=interval)


def underestimated(training: Training, limits: Limits) -> list[Case]:
    """AdaDiff's time with the shrinking batch over the interpolated one, at each theta in the range."""
    if training.published:
        raise NotTested("only interpolated times are published")
    rows = papers_cost(ddpm_cells(training), "adadiff")
    heads = of_all_heads(training.records)
    cases = []
    for (i, row), values in zip(rows.iterrows(), speeds(rows), strict=True):
        interpolated = heads * row["mean_exit_layer"] / row["depth"]
        note = (
            f"{1 / row['speedup']:.3f} of the full backbone's, interpolated {interpolated[0]:.3f}"
        )
        found = 1 / values / interpolated
        cases.append(measured(case_name(row), found, ROUNDS, rows.loc[[i]], note))
    return cases
