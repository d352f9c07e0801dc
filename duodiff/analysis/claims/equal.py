"""Distances at equal cost: lines between the measured points next to it, and what such a line may add (no torch).

A cost is relative to the full backbone's: of time (measured, or AdaDiff's interpolated) or of operations. Beside the
line's value stand the measured settings within NEAR of the cost. Where there are none, the two next to it: one that is
certainly not dearer, one that is certainly not cheaper. The distance at the cost itself lies between theirs, if the
distance falls with the cost between them. How far the line's value lies from theirs is a case's slack.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from duodiff.analysis.claims.cases import (
    IMAGES,
    Case,
    NotTested,
    case_name,
    ddpm_cells,
    distances,
    is_disturbed,
    measured,
    papers_cost,
    papers_t_s,
    speeds,
)
from duodiff.analysis.claims.sources import Training
from duodiff.analysis.claims.times import of_all_heads

TIME, INTERPOLATED, OPERATIONS = "time", "interpolated time", "operations"
"""What is equal: AdaDiff's measured time, its time interpolated as in the paper, or the operations."""

NEAR = 0.02
"""A setting is at a cost, in parts of the full backbone's, where it lies no further from it."""


def with_costs(training: Training, axis: str) -> pd.DataFrame:
    """The cells under DDPM with `cost`, `cost_low`, `cost_high`, `cost_values` [1 + resamples] and `cost_disturbed`.

    Raises NotTested where `axis` was not measured or published.
    """
    cells = ddpm_cells(training)
    if axis == OPERATIONS:
        return _by_operations(cells)
    values = 1 / speeds(cells)
    exits = (cells["method"] == "adadiff").to_numpy()
    if training.published and axis == TIME:
        raise NotTested("only interpolated times of AdaDiff are published")
    if not training.published and axis == INTERPOLATED and exits.any():
        share = (cells["mean_exit_layer"] / cells["depth"].astype(float)).to_numpy()
        values[exits] = share[exits, None] * of_all_heads(training.records)[: values.shape[1]]
    half = 1.96 * values[:, 1:].std(axis=1, ddof=1) if values.shape[1] > 2 else 0.0
    return cells.assign(
        cost=values[:, 0],
        cost_low=values[:, 0] - half,
        cost_high=values[:, 0] + half,
        cost_values=pd.Series(list(values), cells.index),
        cost_disturbed=[is_disturbed(cells.loc[[i]]) for i in cells.index],
    )


def _by_operations(cells: pd.DataFrame) -> pd.DataFrame:
    if "gflops_per_trajectory" not in cells:
        raise NotTested("no operations are published or counted")
    counted = cells["gflops_per_trajectory"]
    cost = counted / counted[cells["t_s"] == 0].item()
    exact = pd.Series([np.array([c]) for c in cost], cells.index)
    same = {"cost_low": cost, "cost_high": cost, "cost_values": exact, "cost_disturbed": False}
    return cells.assign(cost=cost, **same)


@dataclass(frozen=True)
class Point:
    """A distance at a cost: on the line between measured settings, and at the two settings next to the cost.

    Each is float64 [1 + resamples]. `rows` are the cells that they come from.
    """

    line: np.ndarray
    ends: list[np.ndarray]
    rows: pd.DataFrame

    @property
    def disturbed(self) -> bool:
        """Whether a time that places the point was disturbed."""
        return bool(self.rows["cost_disturbed"].any())


def at_cost(rows: pd.DataFrame, cost: float, low: float, high: float) -> Point | None:
    """The point of `rows` (of `with_costs`) at a cost that lies between `low` and `high`; None beyond their ends.

    A cost above the dearest setting's has the dearest setting's distance, because a budget need not be spent.
    """
    rows = rows[rows["cost"].notna()].sort_values("cost")
    costs = rows["cost"].to_numpy()
    if not len(rows) or cost < costs[0] - NEAR:
        return None
    weights = np.array([np.interp(cost, costs, unit) for unit in np.eye(len(rows))])
    next_to = np.flatnonzero(np.abs(costs - cost) <= NEAR)
    if not len(next_to):
        cheaper = np.flatnonzero(rows["cost_high"].to_numpy() <= low)
        dearer = np.flatnonzero(rows["cost_low"].to_numpy() >= high)
        last = len(rows) - 1
        next_to = np.array([cheaper[-1] if len(cheaper) else 0, dearer[0] if len(dearer) else last])
    near = np.isin(np.arange(len(rows)), next_to)
    chosen = (weights > 0) | near
    values = distances(rows[chosen])
    return Point(weights[chosen] @ values, list(values[near[chosen]]), rows[chosen])


def differences(training: Training, axis: str) -> list[Case]:
    """DuoDiff's distance minus AdaDiff's at AdaDiff's cost, of each theta in the range."""
    cells = with_costs(training, axis)
    exited = papers_cost(cells, "adadiff").sort_values("cost")
    absent = f"no t_s is as cheap: {{:.2f}} of the full backbone's {axis}"
    return [
        _beside(cells, i, cells[cells["t_s"].notna()], axis, absent=absent, sign=-1)
        for i in exited.index
    ]


def below_fewer_steps(training: Training, axis: str) -> list[Case]:
    """DuoDiff's distance minus that of the full backbone with fewer steps at DuoDiff's cost, of each t_s in the range.

    With fewer steps the full backbone's cost, of time or operations, is its share of the calls at all steps.
    """
    if training.fewer is None:
        raise NotTested("no fewer_steps in the grid")
    cells = with_costs(training, axis)
    full, fewer = cells[cells["t_s"] == 0], training.fewer[training.fewer["t_s"] == 0]
    cost = fewer["nfe"] / full["nfe"].item()
    exact = {"cost_low": cost, "cost_high": cost, "cost_disturbed": False}
    line = pd.concat([full, fewer.assign(cost=cost, **exact)])
    absent = f"no steps are as few: {{:.2f}} of the full backbone's {axis}"
    return [_beside(cells, i, line, axis, absent=absent, sign=1) for i in papers_t_s(cells).index]


def _beside(
    cells: pd.DataFrame, i: Hashable, line: pd.DataFrame, axis: str, *, absent: str, sign: int
) -> Case:
    """The case of cell `i`: its distance minus that of the `line` at its cost, or with sign -1 the other way round."""
    one = cells.loc[i]
    name, point = case_name(one), at_cost(line, *one[["cost", "cost_low", "cost_high"]])
    if point is None:
        return Case(name, None, note=absent.format(one["cost"]))
    own = distances(cells.loc[[i]])[0]

    def minus(there: np.ndarray) -> np.ndarray:
        return _minus(own, there) if sign > 0 else _minus(there, own)

    pair = (own[0], point.line[0])[::sign]
    note = f"{pair[0]:.2f} against {pair[1]:.2f} at {one['cost']:.3f} of the full backbone's {axis}"
    case = measured(name, minus(point.line), IMAGES, cells.loc[[i]], note)
    disturbed = point.disturbed or bool(one["cost_disturbed"])
    return _with_slack(case, [minus(end) for end in point.ends], disturbed)


def share_lower(training: Training, axis: str, cost: float) -> list[Case]:
    """1 minus DuoDiff's distance over AdaDiff's, both at `cost` of the full backbone's."""
    cells = with_costs(training, axis)
    exits = cells[(cells["method"] == "adadiff") | (cells["t_s"] == 0)]
    if not (exits["method"] == "adadiff").any():
        raise NotTested("no theta in the grid")
    duodiff = at_cost(cells[cells["t_s"].notna()], cost, cost, cost)
    adadiff = at_cost(exits, cost, cost, cost)
    if duodiff is None or adadiff is None:
        name = "t_s" if duodiff is None else "theta"
        raise NotTested(f"no {name} is as cheap as {cost} of the full backbone's {axis}")
    note = f"{duodiff.line[0]:.2f} against {adadiff.line[0]:.2f}"
    case = measured("", _share(duodiff.line, adadiff.line), IMAGES, adadiff.rows, note)
    others = [_share(one, other) for one in duodiff.ends for other in adadiff.ends]
    return [_with_slack(case, others, duodiff.disturbed or adadiff.disturbed)]


def _minus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one - other if len(one) == len(other) else one[:1] - other[:1]


def _share(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return 1 - one / other if len(one) == len(other) else 1 - one[:1] / other[:1]


def _with_slack(case: Case, others: list[np.ndarray], disturbed: bool) -> Case:
    """The case, its interval as wide as that of the least certain of `others`, which are its value at other points."""
    low, high = case.interval or (0.0, 0.0)
    values, middle = [float(other[0]) for other in others], (low + high) / 2
    value = middle if case.interval else case.ends()[0]
    slack = (max(0.0, value - min(values)), max(0.0, max(values) - value))
    case = replace(case, slack=slack, disturbed=disturbed)
    if case.interval is None:
        return case
    half = max((high - low) / 2, *(1.96 * float(other[1:].std(ddof=1)) for other in others))
    return replace(case, interval=(value - half, value + half))
