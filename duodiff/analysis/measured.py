"""The settings of a run or of a shipped study, a row each: means over its trainings, with 95% intervals (no torch)."""

import numpy as np
import pandas as pd

from duodiff.analysis.cells import distance_name
from duodiff.analysis.lost import lost_share
from duodiff.analysis.shipped import Training
from duodiff.analysis.students import half_width
from duodiff.schedules import T
from duodiff.settings import FULL, Setting

MEASURED = ("distance", "minus_full", "lost_share", "ms", "speedup", "operations")
"""What is measured of a setting: `ms` is milliseconds an image, `operations` is the speed-up by operations."""

_BACKBONES = {"full": "Full backbone", "shallow": "Shallow backbone"}
_KINDS = ("t_s", "theta", "schedule")
_OPERATIONS = "gflops_per_trajectory"


def measured(trainings: list[Training], sampler: str) -> pd.DataFrame:
    """One row a setting and number of steps; no row without cells under this sampler.

    The order: DuoDiff by t_s, AdaDiff by theta, named schedules, then the same with fewer steps.

    - what it is: setting (as text), method, theta, exits (the mean exit layer), steps, fewer (than the sampler's own)
    - name: in words; metric: the name of the distance; n: images a training; trainings: their number
    - each of MEASURED, and half its 95% interval as <name>_95: Student's over several trainings, that of the record for
      one training, NaN where there is none. What the full backbone and `lost_share` compare with is of the same
      training. Times and operations with fewer steps are those of the sampler's own steps, by the number of steps.
    """
    found = [table for one in trainings if len(table := of_training(one, sampler))]
    if not found:
        return pd.DataFrame()
    groups = pd.concat(found).groupby(["steps", "setting"], sort=False)
    rows = sorted((_row(group) for _, group in groups), key=_order)
    return pd.DataFrame(rows).assign(trainings=len(found))


def _order(row: dict) -> tuple:
    return -row["steps"], *by_kind(Setting.parse(row["setting"]))


def by_kind(setting: Setting) -> tuple:
    """The key that sorts settings: t_s by number, then theta by number, then named schedules by name."""
    return _KINDS.index(setting.parameter), setting.order


def _row(group: pd.DataFrame) -> dict:
    """One setting of all trainings."""
    first = group.iloc[0].to_dict()
    several = len(group) > 1
    row = first | {name: group[name].mean() for name in ("theta", "exits", *MEASURED)}
    if several:
        row |= {f"{name}_95": half_width(group[name].to_numpy()) for name in MEASURED}
    fewer = row["steps"] if row["fewer"] else None
    return row | {"name": words(Setting.parse(row["setting"]), row["theta"], fewer)}


def words(setting: Setting, theta: float | None, fewer: float | None = None) -> str:
    """A setting in words, with its `theta` where it exits early, and its number of steps where it has `fewer`."""
    if setting.exits_early:
        named = f"AdaDiff, θ = {theta:.3f}"
    elif setting.is_schedule:
        named = f"Schedule {setting.spelled}"
    else:
        named = _BACKBONES.get(setting.method, f"DuoDiff, t_s = {setting.t_s}")
    return named + ("" if fewer is None else f", {fewer:.0f} steps")


def of_training(training: Training, sampler: str) -> pd.DataFrame:
    """The settings of one training at its first sampling seed."""
    numbers = training.numbers
    cells = numbers[(numbers["setting"] != "") & (numbers["sampler"] == sampler)]
    if cells.empty:
        return pd.DataFrame()
    first = cells["seed"].min()
    cells = cells[cells["seed"].fillna(first) == first]
    keys = ["steps", "setting"]
    wide = cells.pivot_table(index=keys, columns="metric", values="value")
    metric, most = distance_name(cells), wide.index.get_level_values("steps").max()
    wide = wide.reindex(columns=[*dict.fromkeys([*wide, *_NEEDED])]).dropna(subset=metric)
    halves = (cells["high"] - cells["low"]) / 2
    halves = cells.assign(half=halves).pivot_table(index=keys, columns="metric", values="half")
    own = [(most, setting) for _, setting in wide.index]
    table = _compared(wide, metric, most) | {
        "theta": cells.dropna(subset="theta").groupby(keys)["theta"].first(),
        "n": cells[cells["metric"] == metric].groupby(keys)["n"].first(),
        **_halves(halves, wide, own, metric),
    }
    found = pd.DataFrame(table, index=wide.index).reset_index()
    settings = found["setting"].map(Setting.parse)
    about = {"metric": metric, "fewer": found["steps"] < most}
    return found.assign(method=[one.method for one in settings], **about)


_NEEDED = ("seconds_per_image", "speedup", "mean_exit_layer", _OPERATIONS)


def _compared(wide: pd.DataFrame, metric: str, most: float) -> dict[str, pd.Series]:
    """The columns MEASURED, and exits; `wide` has a row a number of steps and setting, a column a metric."""
    own = wide.reindex([(most, setting) for _, setting in wide.index]).set_axis(wide.index)
    full = wide.loc[most, str(FULL)]
    shallow = wide[metric].get((most, _SHALLOW), np.nan)
    less = most / wide.index.get_level_values("steps")
    share = lost_share(wide[metric], full[metric], shallow)
    return {
        "distance": wide[metric],
        "minus_full": wide[metric] - full[metric],
        "lost_share": pd.Series(share, wide.index),
        "ms": 1e3 * own["seconds_per_image"] / less,
        "speedup": less * own["speedup"],
        "operations": less * full[_OPERATIONS] / own[_OPERATIONS],
        "exits": wide["mean_exit_layer"],
    }


_SHALLOW = str(Setting("t_s", str(T)))


def _halves(
    halves: pd.DataFrame, wide: pd.DataFrame, own: list[tuple], metric: str
) -> dict[str, pd.Series]:
    """Half the intervals of one training's records, as columns."""
    index = wide.index
    halves = halves.reindex(columns=[f"{metric}_difference", "speedup"])
    difference = halves[f"{metric}_difference"].reindex(index)
    speedup = halves["speedup"].reindex(own).set_axis(index)
    most = index.get_level_values("steps").max()
    whole = wide[metric].get((most, _SHALLOW), np.nan) - wide[metric][most, str(FULL)]
    ends = index.isin([(most, str(FULL)), (most, _SHALLOW)])  # their shares are 0 and 1
    less = most / index.get_level_values("steps")
    none = pd.Series(np.nan, index)
    times = wide["seconds_per_image"].reindex(own).set_axis(index) / less
    return {
        "distance_95": none,
        "minus_full_95": difference,
        "lost_share_95": (difference / whole).mask(ends),
        "ms_95": 1e3 * times * speedup / wide["speedup"].reindex(own).set_axis(index),
        "speedup_95": less * speedup,
        "operations_95": none,
    }
