"""Every metric of every cell with its intervals, from records (pandas only)."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from duodiff.analysis.cells import distance_name
from duodiff.analysis.lost import lost_share
from duodiff.schedules import T
from duodiff.settings import text_of

COLUMNS = {
    "dataset": ("", "Dataset"),
    "sampler": ("", "Sampler"),
    "method": ("", "Method"),
    "t_s": ("", "t_s"),
    "theta": ("", "theta"),
    "schedule": ("", "Schedule"),
    "steps": ("", "Steps"),
    "n": ("", "n"),
    "metric": ("Frechet distance", "in"),
    "reference_n": ("Frechet distance", "reference n"),
    "distance": ("Frechet distance", "to the reference"),
    "standard": ("Frechet distance", "to all training images"),
    "spread": ("Standard deviation", "sampling seeds"),
    "training_spread": ("Standard deviation", "training seeds"),
    "difference": ("Minus the full backbone's", "value"),
    "difference_low": ("Minus the full backbone's", "95% from"),
    "difference_high": ("Minus the full backbone's", "to"),
    "certain_low": ("Minus the full backbone's", "certain from"),
    "certain_high": ("Minus the full backbone's", "certain to"),
    "lost_share": ("", "Lost share"),
    "infinity": ("Extrapolated to infinite n", "value"),
    "infinity_error": ("Extrapolated to infinite n", "residual error"),
    "kernel": ("Kernel distance", "value"),
    "kernel_deviation": ("Kernel distance", "sd over subsets"),
    "precision": ("", "Precision"),
    "recall": ("", "Recall"),
    "inception_score": ("", "Inception score"),
    "label_agreement": ("", "Classified as labelled"),
    "nearest_train_distance_q01": ("Nearest training image, rms", "lowest 1% below"),
    "nearest_train_distance_q05": ("Nearest training image, rms", "lowest 5% below"),
    "train_seed": ("", "Training seed"),
}
"""The table's columns: their group and heading."""

_SCALE = ["real_held_out", "noise"]
_PLAIN = (
    "precision",
    "recall",
    "inception_score",
    "label_agreement",
    "nearest_train_distance_q01",
    "nearest_train_distance_q05",
)


def all_metrics(records: pd.DataFrame, studies: dict[str, dict]) -> pd.DataFrame:
    """One row a cell of every study at its first sampling seed, then real images and noise; columns: COLUMNS.

    `records` may hold cells with fewer steps than their sampler's own. Their differences and lost shares are against
    the backbones at the sampler's own steps, as those of the other cells. The steps of a named schedule with timesteps
    of its own are their number. `studies` maps an experiment to its title. The headings say what an interval or
    deviation covers: sampling seeds, training seeds (empty where the experiment has one), a paired bootstrap, the fit
    in 1/n, or subsets.
    """
    tables = []
    for name, study in studies.items():
        mine = records[records["experiment"] == name]
        measured = mine[mine["sampler"].notna() & mine["reference_n"].notna()]
        cells = [_cell(group) for _, group in measured.groupby(_key(measured), **_ALL)]
        order = ["sampler", "t_s", "theta", "schedule", "steps", "train_seed"]
        table = pd.DataFrame(cells).sort_values(order, ignore_index=True)
        trainings = table.groupby(["sampler", "steps", "setting"], **_ALL)
        # published weights are the same in every training
        trained = trainings["checkpoints"].transform("nunique") > 1
        table["training_spread"] = trainings["distance"].transform("std").where(trained)
        parts = _parts(table, ["sampler", "train_seed"])
        table = pd.concat(map(_with_lost_share, parts)).sort_index()
        table["steps"] = table["visited"]
        scale = mine[mine["method"].isin(_SCALE)].drop_duplicates(["method", "metric"])
        rows = [_values(group, distance_name(mine)) for _, group in scale.groupby("method")]
        tables.append(pd.concat([table, pd.DataFrame(rows)]).assign(dataset=study["title"]))
    return pd.concat(tables, ignore_index=True).reindex(columns=list(COLUMNS))


_ALL: dict[str, bool] = {"sort": False, "dropna": False}
"""Of a grouping: in the rows' order, also of rows where a key is missing."""


def _parts(table: pd.DataFrame, keys: list[str]) -> Iterator[pd.DataFrame]:
    for _, part in table.groupby(keys, **_ALL):
        yield part


def _key(records: pd.DataFrame) -> list[pd.Series]:
    setting = records["parameters"].map(_setting)
    return [records["sampler"], records["steps"], setting, records["train_seed"]]


def _with_lost_share(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of one training and sampler with their lost share, missing without a cell of the shallow backbone."""
    most = cells.sort_values("steps", ascending=False).drop_duplicates("t_s").set_index("t_s")
    full, shallow = (most["distance"].get(t_s, np.nan) for t_s in (0, T))
    return cells.assign(lost_share=lost_share(cells["distance"], full, shallow))


def _setting(parameters: dict) -> str:
    """A cell's name that is the same in every training, where a quantile's theta differs."""
    return text_of(parameters)


def _cell(records: pd.DataFrame) -> dict:
    """The row of one cell, which may have several sampling seeds."""
    distance = distance_name(records)
    spread = records["metric"] == f"{distance}_spread"
    plain = records[~spread]
    first = plain[plain["sample_seed"] == plain["sample_seed"].iloc[0]]
    about = first.iloc[0]
    names = ("sampler", "steps", "train_seed")
    return (
        {name: about[name] for name in names}
        | {name: about.get(name) for name in ("t_s", "theta", "schedule")}
        | {"setting": _setting(about["parameters"])}
        | {"visited": len(about["parameters"].get("timesteps", [])) or about["steps"]}
        | {"spread": records[spread]["value"].max()}
        | {"checkpoints": str(about["checkpoint_sha256"])}
        | _values(first, distance)
    )


def _values(records: pd.DataFrame, distance: str) -> dict:
    """Metrics and intervals of the records of one set of images, by column."""
    by_name = records.set_index("metric")
    about = records.iloc[0]

    def value(metric: str | None) -> float | None:
        return by_name["value"].get(metric)

    def half_width(metric: str | None) -> float | None:
        if metric not in by_name.index:
            return None
        return by_name["interval"][metric][1] - by_name["value"][metric]

    kernel = next((m for m in by_name.index if m.startswith(("kid", "kd_"))), None)
    low, high = by_name["interval"].get(f"{distance}_difference", (None, None))
    difference = value(f"{distance}_difference")
    certain = certain_difference(value(distance), difference, value(f"{distance}_same_noise"))
    return {
        "method": about["method"],
        "n": about["n"],
        "metric": distance,
        "reference_n": about["reference_n"],
        "distance": value(distance),
        "standard": value(f"{distance}_standard"),
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "certain_low": certain[0],
        "certain_high": certain[1],
        "infinity": value(f"{distance}_infinity"),
        "infinity_error": half_width(f"{distance}_infinity"),
        "kernel": value(kernel),
        "kernel_deviation": half_width(kernel),
        **{name: value(name) for name in _PLAIN},
    }


def certain_difference(
    distance: float | None, difference: float | None, same_noise: float | None
) -> tuple[float, float]:
    """The interval that certainly holds a distance's difference to the full backbone's; (NaN, NaN) without a bound.

    The roots of the two distances differ by no more than `same_noise`. The interval is of these images: it is no
    statement about new ones.
    """
    if distance is None or difference is None or same_noise is None:
        return np.nan, np.nan
    full = distance - difference
    low, high = (max(0.0, full**0.5 + sign * same_noise) ** 2 - full for sign in (-1, 1))
    return low, high
