"""The paper's Tables 1 and 2, its published numbers beside ours (pandas only)."""

import numpy as np
import pandas as pd

from duodiff.analysis.cells import at_equal_time, cells, distance_name, over_full, published_rows
from duodiff.analysis.fewer import fewer_step_cells
from duodiff.analysis.trainings import over_trainings
from duodiff.paper import PAPER_IMAGES, PAPER_TITLES

_PUBLISHED = {
    "fid": "fid_paper",
    "seconds_per_image": "seconds_paper",
    "mean_exit_layer": "mean_exit_paper",
    "relative_distance": "relative_paper",
    "speedup": "speedup_paper",
}

COLUMNS = {
    "dataset": ("", "Dataset"),
    "method": ("", "Method"),
    "t_s": ("", "t_s"),
    "theta": ("", "theta"),
    "schedule": ("", "Schedule"),
    "nfe": ("", "Network calls"),
    "mean_exit_paper": ("Mean exit layer", "paper"),
    "mean_exit_layer": ("Mean exit layer", "ours"),
    "mean_exit_layer_sd": ("Mean exit layer", "sd over trainings"),
    "mean_exit_difference": ("Mean exit layer", "difference"),
    "fid_paper": ("Distance", "paper (FID)"),
    "distance": ("Distance", "ours"),
    "distance_sd": ("Distance", "sd over trainings"),
    "distance_standard": ("Distance", "to all training images"),
    "spread": ("Distance", "sd over seeds"),
    "minus_full": ("Distance", "minus full's"),
    "minus_full_95": ("Distance", "± (95%)"),
    "lost_share": ("Distance", "lost share"),
    "lost_share_sd": ("Distance", "lost share, sd over trainings"),
    "distance_matched": ("Distance", "at the floor's n"),
    "metric": ("Distance", "our metric"),
    "difference": ("Distance", "difference"),
    "relative_paper": ("Distance / full's", "paper"),
    "relative_distance": ("Distance / full's", "ours"),
    "relative_95": ("Distance / full's", "± (95%)"),
    "relative_distance_sd": ("Distance / full's", "sd over trainings"),
    "relative_difference": ("Distance / full's", "difference"),
    "label_agreement": ("", "Classified as labelled"),
    "nearest_train_distance_q01": ("Nearest training image, rms", "lowest 1% below"),
    "nearest_train_distance_q05": ("Nearest training image, rms", "lowest 5% below"),
    "seconds_paper": ("Time per image", "paper"),
    "seconds": ("Time per image", "ours, measured"),
    "seconds_interpolated": ("Time per image", "ours, interpolated"),
    "seconds_all_heads": ("Time per image", "all heads"),
    "speedup_paper": ("Speed-up over full", "paper"),
    "speedup": ("Speed-up over full", "ours"),
    "speedup_95": ("Speed-up over full", "± (95%)"),
    "speedup_sd": ("Speed-up over full", "sd over trainings"),
    "speedup_processor": ("Speed-up over full", "by processor time"),
    "speedup_disturbed": ("Speed-up over full", "disturbed"),
    "speedup_difference": ("Speed-up over full", "difference"),
    "ideal_speedup": ("Speed-up over full", "ideal (FLOPs)"),
    "duodiff_at_seconds_interpolated": ("DuoDiff's distance at AdaDiff's time", "interpolated"),
    "duodiff_at_seconds": ("DuoDiff's distance at AdaDiff's time", "measured"),
    "n": ("", "n"),
    "reference_n": ("", "Reference n"),
    "trainings": ("", "Trainings"),
    "train_seed": ("", "Training seed"),
    "compared_with": ("", "Compared with the paper's"),
    "certainty": ("", "Certainty of the paper's"),
}
"""The tables' columns: their group and heading."""

GLANCE = {
    "dataset": ("", "Dataset"),
    "setting": ("", "Setting"),
    "distance": ("Distance", "ours"),
    "fid_paper": ("Distance", "paper (FID)"),
    "relative_distance": ("Distance / full's", "ours, ± 95%"),
    "relative_paper": ("Distance / full's", "paper"),
    "speedup": ("Speed-up over full", "ours, ± 95%"),
    "speedup_paper": ("Speed-up over full", "paper"),
}
"""The columns of the table at a glance: their group and heading."""

_METHODS = {
    "full": "full backbone",
    "shallow": "shallow backbone",
    "duodiff": "DuoDiff",
    "adadiff": "AdaDiff",
    "real_held_out": "held-out images",
    "real_halves": "halves of the real images",
}

ASIDE = (
    "relative_95",
    "distance_standard",
    "label_agreement",
    "nearest_train_distance_q01",
    "nearest_train_distance_q05",
    "seconds_all_heads",
    "speedup_processor",
    "reference_n",
    "certainty",
)
"""Columns that are in the CSV file alone."""


def comparison(
    records: pd.DataFrame,
    published: pd.DataFrame,
    sampler: str,
    studies: dict[str, dict],
    fewer_steps: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Paper and ours side by side, columns COLUMNS.

    The rows: our studies, real images and noise, then the published datasets we did not run. `published` is the
    paper's Table 1 or 2, `studies` maps an experiment to its title and paper_dataset. An experiment with several
    trainings has one row a cell: means over the trainings, with standard deviations. Cells of `fewer_steps` (the
    records of `load_fewer_steps`) follow those of their study, without a published row beside them. Distances are
    compared only where the dataset, the metric and the numbers of images are the paper's. Speed-ups and relative
    distances are against the full backbone of the same source, so they compare across datasets. A study on none of the
    paper's datasets has the median over them beside it; `compared_with` says so.
    """
    ours, published = cells(records, sampler), published_rows(published)
    tables = []
    for name, group in ours.groupby("experiment"):
        trainings = [_with_relative(study) for _, study in group.groupby("train_seed")]
        study = _as_one(pd.concat(trainings, ignore_index=True))
        merged = _side_by_side(study, published, studies[name]["paper_dataset"])
        seeds, count = study["train_seed"].iloc[0], study["trainings"].iloc[0]
        about = {"dataset": studies[name]["title"], "train_seed": seeds, "trainings": count}
        tables.append(merged.assign(**about))
        fewer = pd.DataFrame()
        if fewer_steps is not None:
            fewer = fewer_step_cells(fewer_steps, group, sampler)
        if len(fewer):
            fewer = fewer.assign(relative_95=_relative_95(fewer))
            tables.append(_as_one(fewer).assign(**about))
    for name, study in studies.items():
        tables.append(_scale(records[records["experiment"] == name]).assign(dataset=study["title"]))
    shown = {study["paper_dataset"] for study in studies.values()}
    rest = published[~published["dataset"].isin(shown)]
    rest = rest.assign(dataset=rest["dataset"].map(PAPER_TITLES)).rename(columns=_PUBLISHED)
    return pd.concat([*tables, rest], ignore_index=True).reindex(columns=list(COLUMNS))


def at_a_glance(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a `comparison` in the columns GLANCE: their setting as text, and intervals beside their values."""
    most = table.groupby("dataset")["nfe"].transform("max")
    settings = map(_setting, *(table[c] for c in ("method", "t_s", "theta", "nfe")), most)
    relative = _with_interval(table, "relative_distance", "relative_95")
    speedup = _with_interval(table, "speedup", "speedup_95")
    shown = table.assign(setting=list(settings), relative_distance=relative, speedup=speedup)
    return shown[list(GLANCE)]


def _setting(method: str, t_s: float, theta: float, nfe: float, most: float) -> str:
    """A row's setting as text, with its network calls where they are fewer than the dataset's `most`."""
    text = _METHODS.get(method, method)
    if method == "duodiff":
        text += f", t_s = {t_s:.0f}"
    if method == "adadiff":
        text += ", theta not published" if np.isnan(theta) else f", theta = {theta:.3f}"
    return f"{text}, {nfe:.0f} calls" if nfe < most else text


def _with_interval(table: pd.DataFrame, value: str, half: str) -> list[str | float]:
    """Numbers with half their 95% interval, as text, where it is known and not 0."""
    pairs = zip(table[value].astype(float), table[half].astype(float), strict=True)
    return [f"{number:.2f} ± {within:.2f}" if within > 0 else number for number, within in pairs]


def _as_one(trainings: pd.DataFrame) -> pd.DataFrame:
    """The cells of all trainings as one row a cell. A time is disturbed ("yes") where one training's is."""
    study = over_trainings(trainings)
    return study.assign(speedup_disturbed=study["speedup_disturbed"].gt(0).map({True: "yes"}))


def _with_relative(study: pd.DataFrame) -> pd.DataFrame:
    """The cells of one training with their distance over the full backbone's, and DuoDiff's at AdaDiff's times.

    `speedup_95` is half the interval of their speed-up, `relative_95` half that of their distance over the full
    backbone's.
    """
    relative = over_full(study, "distance")
    table = study.assign(
        relative_distance=relative,
        relative_95=_relative_95(study.assign(relative_distance=relative)),
        speedup_95=(study["speedup_high"] - study["speedup_low"]) / 2,
        speedup_disturbed=study["speedup_disturbed"].astype(float),
    )
    for column in ("seconds", "seconds_interpolated"):
        if column in table:
            table[f"duodiff_at_{column}"] = at_equal_time(table, column)
    return table


def _relative_95(cells: pd.DataFrame) -> pd.Series:
    """Half the 95% interval of the difference to the full backbone's distance, over that distance."""
    return cells["relative_distance"] * cells["minus_full_95"] / cells["distance"]


def _scale(records: pd.DataFrame) -> pd.DataFrame:
    """Rows for held-out real images, halves of the real images, and noise."""
    scale = records[records["method"].isin(["real_held_out", "real_halves", "noise"])]
    wide = scale.pivot_table(index=["method", "n"], columns="metric", values="value")
    distance = distance_name(records)
    names = {distance: "distance", f"{distance}_matched": "distance_matched"}
    return wide.rename(columns=names).reset_index().assign(metric=distance)


def _side_by_side(ours: pd.DataFrame, published: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    """One study's cells with the published rows of `dataset`, or with the median over all datasets for None."""
    keys = ["method", "t_s", "theta"]
    ours = ours.astype({"t_s": float, "theta": float})
    if dataset is None:
        merged = ours.merge(_typical(published).rename(columns=_PUBLISHED), on=keys, how="left")
    else:
        rows = published[published["dataset"] == dataset].drop(columns="dataset")
        rows = rows.assign(compared_with=PAPER_TITLES[dataset])
        merged = ours.merge(rows.rename(columns=_PUBLISHED), on=keys, how="outer")
        sizes = (merged["n"] == PAPER_IMAGES) & (merged["reference_n"] == PAPER_IMAGES)
        comparable = (merged["metric"] == "fid") & sizes
        merged["difference"] = (merged["distance"] - merged["fid_paper"]).where(comparable)
        if "mean_exit_layer" in merged:
            exits = merged["mean_exit_layer"] - merged["mean_exit_paper"]
            merged["mean_exit_difference"] = exits
    merged["relative_difference"] = merged["relative_distance"] - merged["relative_paper"]
    merged["speedup_difference"] = merged["speedup"] - merged["speedup_paper"]
    return merged


def _typical(published: pd.DataFrame) -> pd.DataFrame:
    """Median over the published datasets of what compares across them, a row a t_s."""
    switched = published[published["t_s"].notna()].groupby(["method", "t_s"], as_index=False)
    typical = switched[["relative_distance", "speedup"]].median()
    counts = switched["dataset"].nunique()["dataset"]
    titles = [PAPER_TITLES[name] for name in switched["dataset"].first()["dataset"]]
    compared_with = [
        f"median of {count} datasets" if count > 1 else title
        for count, title in zip(counts, titles, strict=True)
    ]
    return typical.assign(theta=np.nan, compared_with=compared_with)
