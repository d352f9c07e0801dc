"""The paper's Tables 1 and 2 from records, its published numbers beside ours (pandas only)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.paper import PAPER_IMAGES, PAPER_TITLES
from duodiff.running.files import read_json
from duodiff.schedules import T
from duodiff.settings import Setting


def load_records(paths: Iterable[str | Path]) -> pd.DataFrame:
    """All records of `paths` as a table, one row a record; `parameters` and `seeds` also as columns."""
    rows = [row for path in paths for row in read_json(path)]
    found = pd.DataFrame([row | row["parameters"] | row["seeds"] for row in rows])
    return found if rows else pd.DataFrame(columns=["experiment", "train_seed"])


def ideal_speedup(t_s: float, cost_ratio: float) -> float:
    """1 / (1 - (t_s/T)(1 - c)): DuoDiff's speed-up if time followed FLOPs, c = F_shallow / F_full."""
    return 1 / (1 - t_s / T * (1 - cost_ratio))


def paper_table(paper: pd.DataFrame) -> pd.DataFrame:
    """A published table in common columns: dataset, method, t_s, theta, mean_exit_layer, fid, seconds_per_image,
    certainty, and over the full backbone's relative_distance and speedup.
    """
    if "t_s" not in paper:  # Table 2 names the parameter in a column
        paper = paper.assign(
            t_s=paper["value"].where(paper["parameter"] == "t_s"),
            theta=paper["value"].where(paper["parameter"] == "theta"),
        )
    columns = ["dataset", "method", "t_s", "theta", "mean_exit_layer", "fid", "seconds_per_image"]
    paper = paper.reindex(columns=[*columns, "certainty"])
    return paper.assign(
        relative_distance=over_full(paper, "fid"),
        speedup=1 / over_full(paper, "seconds_per_image"),
    )


def cells(records: pd.DataFrame, sampler: str) -> pd.DataFrame:
    """Our measurements under one sampler, one row a cell of one study at its first sampling seed.

    Columns: experiment, train_seed, method, t_s, theta, setting, depth, n, metric (the distance's
    name), distance (to the reference), distance_standard (to all training images, where the reference is
    a part of them), spread (standard deviation over `spread_seeds` sampling seeds, if repeated), minus_full
    (the distance minus the full backbone's), minus_full_95 (half its 95% interval) and resampled (the bootstrap's
    values behind that), distance_matched (at half the real images, against random halves of them),
    label_agreement, nearest_train_distance, mean_exit_layer, seconds (measured), seconds_all_heads,
    seconds_interpolated (AdaDiff, Appendix A.5), speedup over the full backbone (median of the ratios
    within one round) with speedup_low, speedup_high, speedup_covers and speedup_n, and ideal_speedup (by
    FLOPs).
    """
    studies = records.groupby(["experiment", "train_seed"])
    rows = [
        _study_cells(study, sampler) for _, study in studies if (study["sampler"] == sampler).any()
    ]
    return (
        pd.concat(rows, ignore_index=True)
        if rows
        else pd.DataFrame(columns=["experiment", "train_seed"])
    )


def distance_name(records: pd.DataFrame) -> str:
    """The name of the Frechet distance among the metrics of `records`: fid, or fd_ and its feature space."""
    names = [name for name in records["metric"] if name.startswith(("fid", "fd_"))]
    return min(names, key=len)


def _study_cells(study: pd.DataFrame, sampler: str) -> pd.DataFrame:
    mine = study[study["sampler"] == sampler].copy()
    mine["key"] = mine["parameters"].map(_key)
    distance = distance_name(study)
    plain = mine[mine["metric"] != f"{distance}_spread"]
    first = plain[plain["metric"] == distance]["sample_seed"].iloc[0]
    plain = plain[plain["sample_seed"] == first]
    wide = plain.pivot_table(index="key", columns="metric", values="value", aggfunc="first")
    names = {"matched": "distance_matched", "standard": "distance_standard"}
    names |= {"difference": "minus_full"}
    wide = wide.rename(columns={f"{distance}_{name}": column for name, column in names.items()})
    about = plain[plain["metric"] == distance].set_index("key")
    names = ["experiment", "train_seed", "method", "n", "reference_n", "nfe", "parameters"]
    table = about[names].join(wide.rename(columns={distance: "distance"}))
    table = table.rename(columns={"seconds_per_image": "seconds"}).assign(metric=distance)
    for name in ("t_s", "theta", "setting", "depth"):
        table[name] = [p.get(name) for p in table["parameters"]]
    spread = mine[mine["metric"] == f"{distance}_spread"].set_index("key")
    table["spread"] = spread["value"]
    difference = plain[plain["metric"] == f"{distance}_difference"].set_index("key")
    high = difference["interval"].map(max)
    table["minus_full_95"] = high - difference["value"]
    if "resampled" in difference:
        table["resampled"] = difference["resampled"]
    rounds = plain[plain["metric"] == "speedup"].set_index("key")
    table["speedup_low"], table["speedup_high"] = (
        rounds["interval"].map(end, na_action="ignore").astype(float) for end in (min, max)
    )
    table["speedup_covers"], table["speedup_n"] = rounds["interval_covers"], rounds["n"]
    table["spread_seeds"] = spread["seeds"].map(lambda s: len(s["sample_seed"]))
    return _timing(table, study, mine).reset_index(drop=True)


def _timing(table: pd.DataFrame, study: pd.DataFrame, mine: pd.DataFrame) -> pd.DataFrame:
    heads = mine[(mine["method"] == "adadiff_all_heads") & (mine["metric"] == "seconds_per_image")]
    if len(heads):
        table["seconds_all_heads"] = heads["value"].iloc[0]
        share = table["mean_exit_layer"] / table["depth"].astype(float)
        table["seconds_interpolated"] = table["seconds_all_heads"] * share
    flops = study[study["metric"] == "gflops_per_call"].set_index("method")["value"]
    ratio = flops["shallow"] / flops["full"]
    table["ideal_speedup"] = [
        np.nan if pd.isna(t_s) else ideal_speedup(t_s, ratio) for t_s in table["t_s"]
    ]
    return table


def _key(parameters: dict) -> str:
    """A cell's setting as text; empty where all heads are computed and none is taken."""
    return str(Setting.of_record(parameters)) if parameters.keys() & {"t_s", "setting"} else ""


def at_equal_time(table: pd.DataFrame, column: str) -> pd.Series:
    """DuoDiff's distance interpolated to the time in `column` of each AdaDiff row of one study's cells.

    Linear between neighbouring t_s. Above the full backbone's time it is the full backbone's (a budget
    need not be spent); below the shallow backbone's time there is none (NaN).
    """
    duodiff = table[table["t_s"].notna()].sort_values("seconds")
    times = table[column].where(table["method"] == "adadiff")
    found = np.interp(times, duodiff["seconds"], duodiff["distance"], left=np.nan)
    return pd.Series(found, index=table.index).where(times.notna())


def comparison(
    records: pd.DataFrame, paper: pd.DataFrame, sampler: str, studies: dict[str, dict]
) -> pd.DataFrame:
    """Paper and ours side by side: our studies, real images and noise on the same scale, and then the
    published datasets we did not run.

    `studies` maps an experiment to its title and paper_dataset. Distances are compared only where the dataset,
    the metric and the numbers of images are the paper's. Speed-ups and relative distances are against the full
    backbone of the same source, so they compare across datasets: a study on none of the paper's has the
    median over them beside it (`compared_with` says so).
    """
    ours = cells(records, sampler)
    paper = paper_table(paper)
    tables = []
    for (name, train_seed), group in ours.groupby(["experiment", "train_seed"]):
        study = group.copy()
        study["relative_distance"] = over_full(study, "distance")
        for column in ("seconds", "seconds_interpolated"):
            if column in study:
                study[f"duodiff_at_{column}"] = at_equal_time(study, column)
        merged = _side_by_side(study, paper, studies[name]["paper_dataset"])
        title = studies[name]["title"]
        tables.append(merged.assign(dataset=title, train_seed=train_seed))
    for name, study in studies.items():
        tables.append(_scale(records[records["experiment"] == name]).assign(dataset=study["title"]))
    shown = {study["paper_dataset"] for study in studies.values()}
    rest = paper[~paper["dataset"].isin(shown)]
    rest = rest.assign(dataset=rest["dataset"].map(PAPER_TITLES)).rename(columns=_PAPER)
    return pd.concat([*tables, rest], ignore_index=True).reindex(columns=list(COLUMNS))


def _scale(records: pd.DataFrame) -> pd.DataFrame:
    """Rows for held-out real images, halves of the real images, and noise."""
    scale = records[records["method"].isin(["real_held_out", "real_halves", "noise"])]
    wide = scale.pivot_table(index=["method", "n"], columns="metric", values="value")
    distance = distance_name(records)
    names = {distance: "distance", f"{distance}_matched": "distance_matched"}
    return wide.rename(columns=names).reset_index().assign(metric=distance)


_PAPER = {
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
    "mean_exit_paper": ("Mean exit layer", "paper"),
    "mean_exit_layer": ("Mean exit layer", "ours"),
    "mean_exit_difference": ("Mean exit layer", "difference"),
    "fid_paper": ("Distance", "paper (FID)"),
    "distance": ("Distance", "ours"),
    "distance_standard": ("Distance", "to all training images"),
    "spread": ("Distance", "sd over seeds"),
    "minus_full": ("Distance", "minus full's"),
    "minus_full_95": ("Distance", "± (95%)"),
    "distance_matched": ("Distance", "at the floor's n"),
    "metric": ("Distance", "our metric"),
    "difference": ("Distance", "difference"),
    "relative_paper": ("Distance / full's", "paper"),
    "relative_distance": ("Distance / full's", "ours"),
    "relative_difference": ("Distance / full's", "difference"),
    "label_agreement": ("", "Classified as labelled"),
    "nearest_train_distance": ("", "Nearest training image, rms"),
    "seconds_paper": ("Seconds per image", "paper"),
    "seconds": ("Seconds per image", "ours, measured"),
    "seconds_interpolated": ("Seconds per image", "ours, interpolated"),
    "seconds_all_heads": ("Seconds per image", "all heads"),
    "speedup_paper": ("Speed-up over full", "paper"),
    "speedup": ("Speed-up over full", "ours"),
    "speedup_difference": ("Speed-up over full", "difference"),
    "ideal_speedup": ("Speed-up over full", "ideal (FLOPs)"),
    "duodiff_at_seconds_interpolated": ("DuoDiff's distance at AdaDiff's time", "interpolated"),
    "duodiff_at_seconds": ("DuoDiff's distance at AdaDiff's time", "measured"),
    "n": ("", "n"),
    "reference_n": ("", "Reference n"),
    "nfe": ("", "NFE"),
    "train_seed": ("", "Training seed"),
    "compared_with": ("", "Compared with the paper's"),
    "certainty": ("", "Certainty of the paper's"),
}
"""The tables' columns: their group and heading."""

ASIDE = (
    "distance_standard",
    "label_agreement",
    "nearest_train_distance",
    "seconds_all_heads",
    "reference_n",
    "nfe",
    "certainty",
)
"""Columns that are in the CSV file alone."""


def over_full(table: pd.DataFrame, column: str) -> pd.Series:
    """`column` over its value in the row of the same dataset whose t_s is 0."""
    keys = table["dataset"] if "dataset" in table else pd.Series(0, index=table.index)
    base = table[table["t_s"] == 0]
    return table[column] / keys.map(base[column].set_axis(keys[base.index]))


def _side_by_side(ours: pd.DataFrame, paper: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    keys = ["method", "t_s", "theta"]
    ours = ours.astype({"t_s": float, "theta": float})
    if dataset is None:
        merged = ours.merge(_typical(paper).rename(columns=_PAPER), on=keys, how="left")
    else:
        published = paper[paper["dataset"] == dataset].drop(columns="dataset")
        published = published.assign(compared_with=PAPER_TITLES[dataset])
        merged = ours.merge(published.rename(columns=_PAPER), on=keys, how="outer")
        sizes = (merged["n"] == PAPER_IMAGES) & (merged["reference_n"] == PAPER_IMAGES)
        comparable = (merged["metric"] == "fid") & sizes
        merged["difference"] = (merged["distance"] - merged["fid_paper"]).where(comparable)
        if "mean_exit_layer" in merged:
            exits = merged["mean_exit_layer"] - merged["mean_exit_paper"]
            merged["mean_exit_difference"] = exits
    merged["relative_difference"] = merged["relative_distance"] - merged["relative_paper"]
    merged["speedup_difference"] = merged["speedup"] - merged["speedup_paper"]
    return merged


def _typical(paper: pd.DataFrame) -> pd.DataFrame:
    """Median over the published datasets of what compares across them, a row a t_s."""
    switched = paper[paper["t_s"].notna()].groupby(["method", "t_s"], as_index=False)
    typical = switched[["relative_distance", "speedup"]].median()
    number = switched["dataset"].nunique()["dataset"]
    sources = [PAPER_TITLES[name] for name in switched["dataset"].first()["dataset"]]
    named = [
        f"median of {n} datasets" if n > 1 else s for n, s in zip(number, sources, strict=True)
    ]
    return typical.assign(theta=np.nan, compared_with=named)
