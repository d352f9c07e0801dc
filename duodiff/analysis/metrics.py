"""Every metric of every cell with its intervals, from records (pandas only)."""

import numpy as np
import pandas as pd

from duodiff.analysis.cells import distance_name

COLUMNS = {
    "dataset": ("", "Dataset"),
    "sampler": ("", "Sampler"),
    "method": ("", "Method"),
    "t_s": ("", "t_s"),
    "theta": ("", "theta"),
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

    `studies` maps an experiment to its title. The headings say what an interval or deviation covers: sampling seeds,
    training seeds (empty where the experiment has one), a paired bootstrap, the fit in 1/n, or subsets.
    """
    tables = []
    for name, study in studies.items():
        mine = records[records["experiment"] == name]
        measured = mine[mine["sampler"].notna() & mine["reference_n"].notna()]
        cells = [_cell(group) for _, group in measured.groupby(_key(measured), sort=False)]
        table = pd.DataFrame(cells).sort_values(["sampler", "t_s", "theta", "train_seed"])
        seeds = table.groupby(["sampler", "setting"])["distance"]
        # published weights are the same in every training
        trained = table.groupby(["sampler", "setting"])["checkpoints"].transform("nunique") > 1
        table["training_spread"] = seeds.transform("std").where(trained)
        scale = mine[mine["method"].isin(_SCALE)].drop_duplicates(["method", "metric"])
        rows = [_values(group, distance_name(mine)) for _, group in scale.groupby("method")]
        tables.append(pd.concat([table, pd.DataFrame(rows)]).assign(dataset=study["title"]))
    return pd.concat(tables, ignore_index=True).reindex(columns=list(COLUMNS))


def _key(records: pd.DataFrame) -> list[pd.Series]:
    return [records["sampler"], records["parameters"].map(_setting), records["train_seed"]]


def _setting(parameters: dict) -> str:
    """A cell's name that is the same in every training, where a quantile's theta differs."""
    return str(parameters.get("setting", parameters.get("t_s")))


def _cell(records: pd.DataFrame) -> dict:
    """The row of one cell, which may have several sampling seeds."""
    distance = distance_name(records)
    spread = records["metric"] == f"{distance}_spread"
    plain = records[~spread]
    first = plain[plain["sample_seed"] == plain["sample_seed"].iloc[0]]
    about = first.iloc[0]
    names = ("sampler", "train_seed")
    return (
        {name: about[name] for name in names}
        | {"t_s": about.get("t_s"), "theta": about.get("theta")}
        | {"setting": _setting(about["parameters"])}
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
