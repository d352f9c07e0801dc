"""Cells with fewer steps than their sampler's own, beside those at its own steps (pandas only).

They are not timed. A call of a network is the same work whatever the number of steps. So a cell's time is its calls,
each at the time that a call of the same network took in the same run. That time follows from the cell of the same t_s
at the sampler's own steps, whose time was measured against the full backbone's.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from duodiff.analysis.cells import distance_name
from duodiff.analysis.lost import lost_share
from duodiff.protocol import PROTOCOLS
from duodiff.schedules import T, shallow_calls, timesteps

_ABOUT = ["experiment", "train_seed", "method", "t_s", "steps", "nfe", "n", "reference_n"]


class Calls(NamedTuple):
    """The network calls for an image of one cell, by backbone."""

    shallow: int
    full: int


def calls(record: pd.Series) -> Calls:
    """The network calls of the DuoDiff cell (or single backbone) that a record's fields describe."""
    late = record["sampler"] == "ddim" and PROTOCOLS[record["protocol"]].ddim_switch_one_call_late
    visited = timesteps(int(record["steps"]))[: int(record["nfe"])]
    shallow = shallow_calls(visited, int(record["t_s"]), late)
    return Calls(shallow, len(visited) - shallow)


def speedup_by_calls(speedup: ArrayLike, own: Calls, fewer: Calls) -> np.ndarray:
    """The speed-up of `fewer` calls over the full backbone at the sampler's own steps.

    `speedup` is that of the same t_s at the own steps, with the calls `own`: one value, or an array of resampled ones.
    In units of a full call, a shallow call takes r; 1 / speedup = (full + r shallow) / (full + shallow) gives r.
    """
    relative, total = 1 / np.asarray(speedup, float), own.shallow + own.full
    r = (relative * total - own.full) / own.shallow if own.shallow else np.zeros_like(relative)
    return total / (fewer.full + fewer.shallow * r)


def fewer_step_cells(records: pd.DataFrame, own: pd.DataFrame, sampler: str) -> pd.DataFrame:
    """Cells with fewer steps under one sampler, as rows with columns of `cells.cells`, and `steps`.

    `records` are those of `cells.load_fewer_steps`, `own` the cells at the sampler's own steps. A cell is of a training
    and of its first sampling seed. `minus_full`, its
    `resampled` values and `lost_share` compare with the backbones at the own steps. `seconds`
    and `speedup` are by calls (see above). `speedup_low`, `speedup_high` and `speedup_resampled` are the same of the
    measured interval and its resampled values. A time that rests on a disturbed one is disturbed. Operations
    (`gflops_per_trajectory`) are by calls too.
    """
    mine = records[records["sampler"] == sampler] if len(records) else records
    keys = ["experiment", "train_seed"]
    rows = [
        row
        for study, cells in (own.groupby(keys) if len(mine) else ())
        for row in _rows(mine[(mine[keys] == list(study)).all(axis=1)], cells)
    ]
    return pd.DataFrame(rows)


def _rows(records: pd.DataFrame, own: pd.DataFrame) -> Iterator[dict]:
    """The rows of one training."""
    if records.empty:
        return
    first = records[records["sample_seed"] == records["sample_seed"].iloc[0]]
    by_t_s = own[own["t_s"].notna()].set_index("t_s")
    for (_, t_s), cell in first.groupby(["steps", "t_s"], sort=False):
        yield _row(cell, distance_name(records), by_t_s, t_s)


def _row(cell: pd.DataFrame, distance: str, own: pd.DataFrame, t_s: float) -> dict:
    values, about = cell.set_index("metric")["value"], cell.iloc[0]
    interval = cell.set_index("metric")["interval"].get(f"{distance}_difference")
    difference = values.get(f"{distance}_difference", np.nan)
    full, same = own.loc[0], own.loc[t_s]
    shallow = own["distance"].get(T, np.nan)
    row = {name: about[name] for name in _ABOUT}
    row |= {
        "cell": f"t_s={t_s:.0f}",
        "metric": distance,
        "distance": values[distance],
        "distance_standard": values.get(f"{distance}_standard", np.nan),
        "distance_matched": values.get(f"{distance}_matched", np.nan),
        "minus_full": difference,
        "minus_full_95": np.nan if interval is None else interval[1] - difference,
        "resampled": cell.set_index("metric")["resampled"].get(f"{distance}_difference"),
        "lost_share": float(lost_share(values[distance], full["distance"], shallow)),
        "relative_distance": values[distance] / full["distance"],
        "label_agreement": values.get("label_agreement", np.nan),
    }
    return row | _costs(about, same, full)


def _costs(about: pd.Series, same: pd.Series, full: pd.Series) -> dict:
    """The times and operations of a cell by its calls.

    `same` is the cell of the same t_s at the sampler's own steps, `full` the full backbone there.
    """
    of_own = about.to_dict() | {"steps": same["steps"], "nfe": same["nfe"]}
    own, fewer = calls(pd.Series(of_own)), calls(about)
    found = {
        name: float(speedup_by_calls(same[name], own, fewer))
        for name in ("speedup", "speedup_low", "speedup_high")
    }
    resampled = same["speedup_resampled"]
    if isinstance(resampled, list):
        found["speedup_resampled"] = speedup_by_calls(resampled, own, fewer).tolist()
    if "gflops_per_trajectory" in same:
        whole = full["gflops_per_trajectory"]
        saved = speedup_by_calls(whole / same["gflops_per_trajectory"], own, fewer)
        found["gflops_per_trajectory"] = whole / float(saved)
    return found | {
        "seconds": full["seconds"] / found["speedup"],
        "speedup_95": (found["speedup_high"] - found["speedup_low"]) / 2,
        "speedup_disturbed": float(same["speedup_disturbed"] or 0),
    }
