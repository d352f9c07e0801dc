"""Our measurements as a table with one row a cell, and published rows beside them (pandas only)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.analysis.lost import lost_share
from duodiff.running.files import read_json
from duodiff.schedules import T
from duodiff.settings import text_of

_ABOUT = ["experiment", "train_seed", "method", "n", "reference_n", "steps", "nfe", "parameters"]
_DISTANCES = {
    "matched": "distance_matched",
    "standard": "distance_standard",
    "difference": "minus_full",
}
_OF_ROUNDS = {
    "covers": "interval_covers",
    "n": "n",
    "rounds": "rounds",
    "resampled": "resampled",
    "disturbed": "disturbed",
}
_PUBLISHED = ["dataset", "method", "t_s", "theta", "mean_exit_layer", "fid", "seconds_per_image"]


def load_records(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The records of `paths`, one row a record; parameters, seeds and the measuring device also as columns.

    Records of cells with fewer steps than their sampler's own are left out (`load_fewer_steps`).
    """
    records = _load(paths)
    return records[~_fewer_steps(records)]


def load_fewer_steps(paths: Iterable[str | Path]) -> pd.DataFrame:
    """As `load_records`, the records of cells with fewer steps than their sampler's own alone."""
    records = _load(paths)
    return records[_fewer_steps(records)]


def _fewer_steps(records: pd.DataFrame) -> pd.Series:
    """Whether each record is of fewer steps than the most of its experiment and sampler."""
    if records.empty:
        return pd.Series(False, index=records.index)
    steps = pd.to_numeric(records["steps"])
    most = steps.groupby([records["experiment"], records["sampler"]]).transform("max")
    return steps < most  # False where a record has no steps


def _load(paths: Iterable[str | Path]) -> pd.DataFrame:
    records = [record for path in paths for record in read_json(path)]
    if not records:
        return pd.DataFrame(columns=["experiment", "train_seed"])
    return pd.DataFrame(
        [
            record
            | {"device": record["made"].get("device")}
            | record["parameters"]
            | record["seeds"]
            for record in records
        ]
    )


def distance_name(records: pd.DataFrame) -> str:
    """The name of the Frechet distance among the metrics of `records`: fid, or fd_ and its feature space."""
    names = [name for name in records["metric"] if name.startswith(("fid", "fd_"))]
    return min(names, key=len)


def cells(records: pd.DataFrame, sampler: str) -> pd.DataFrame:
    """Our measurements under one sampler, one row a cell of one study at its first sampling seed.

    What a cell is: experiment, train_seed, method, t_s, theta, setting, depth, schedule (its name), steps (of the
    sampler), nfe, n (images), reference_n, and cell, its setting as text, which is the same in every training.
    Quality:
    - metric: the name of the distance; distance: to the reference; distance_standard: to all training images, where
      the reference is a part of them; distance_matched: at half the real images, against random halves of them
    - spread: standard deviation over `spread_seeds` sampling seeds, if repeated
    - minus_full: the distance minus the full backbone's; minus_full_95: half its 95% interval; resampled: the
      bootstrap's values behind the interval
    - lost_share: of the distance, NaN without a cell of the shallow backbone (`lost.lost_share`)
    - label_agreement, nearest_train_distance_q01, nearest_train_distance_q05
    Time:
    - mean_exit_layer, seconds (an image, measured), seconds_all_heads, seconds_interpolated (AdaDiff, Appendix A.5)
    - speedup over the full backbone, as measured, with speedup_low, speedup_high, speedup_covers, speedup_n,
      speedup_rounds, speedup_resampled, and whether it is speedup_disturbed; speedup_processor: by processor time
    - ideal_speedup: by FLOPs, for DuoDiff and named schedules; all_heads_cost: full's speed-up over that with all
      heads computed
    """
    studies = [study for _, study in records.groupby(["experiment", "train_seed"])]
    tables = [
        _study_cells(study, sampler) for study in studies if (study["sampler"] == sampler).any()
    ]
    if not tables:
        return pd.DataFrame(columns=["experiment", "train_seed"])
    return pd.concat(tables, ignore_index=True)


def _study_cells(study: pd.DataFrame, sampler: str) -> pd.DataFrame:
    mine = study[study["sampler"] == sampler].copy()
    mine["key"] = mine["parameters"].map(text_of)
    distance = distance_name(study)
    repeated = mine["metric"] == f"{distance}_spread"
    spread, plain = mine[repeated].set_index("key"), mine[~repeated]
    first = plain[plain["metric"] == distance]["sample_seed"].iloc[0]
    plain = plain[plain["sample_seed"] == first]
    wide = plain.pivot_table(index="key", columns="metric", values="value", aggfunc="first")
    names = {f"{distance}_{name}": column for name, column in _DISTANCES.items()}
    wide = wide.rename(columns=names | {distance: "distance", "seconds_per_image": "seconds"})
    about = plain[plain["metric"] == distance].set_index("key")
    table = about[_ABOUT].join(wide).assign(metric=distance)
    for name in ("t_s", "theta", "setting", "depth", "schedule"):
        table[name] = [parameters.get(name) for parameters in table["parameters"]]
    table["spread"] = spread["value"]
    difference = plain[plain["metric"] == f"{distance}_difference"].set_index("key")
    table["minus_full_95"] = difference["interval"].map(max) - difference["value"]
    if "resampled" in difference:
        table["resampled"] = difference["resampled"]
    rounds = plain[(plain["metric"] == "speedup") & (plain["key"] != "")].set_index("key")
    for name, end in (("speedup_low", min), ("speedup_high", max)):
        table[name] = rounds["interval"].map(end, na_action="ignore").astype(float)
    for name, column in _OF_ROUNDS.items():
        table[f"speedup_{name}"] = rounds.get(column)
    table["spread_seeds"] = spread["seeds"].map(lambda seeds: len(seeds["sample_seed"]))
    table["cell"] = table.index
    table["lost_share"] = _lost_shares(table)
    return _with_derived_times(table, study, mine).reset_index(drop=True)


def _lost_shares(table: pd.DataFrame) -> np.ndarray:
    """The lost share of each cell of one study and sampler."""
    full, shallow = (table.loc[table["t_s"] == t_s, "distance"] for t_s in (0, T))
    if full.empty or shallow.empty:
        return np.full(len(table), np.nan)
    return lost_share(table["distance"], full.iloc[0], shallow.iloc[0])


def _with_derived_times(
    table: pd.DataFrame, study: pd.DataFrame, mine: pd.DataFrame
) -> pd.DataFrame:
    """The cells with AdaDiff's interpolated time and the speed-up by FLOPs; `mine`: one sampler's records."""
    heads = mine[mine["method"] == "adadiff_all_heads"].set_index("metric")["value"]
    if len(heads):
        table["seconds_all_heads"] = heads["seconds_per_image"]
        table["all_heads_cost"] = 1 / heads["speedup"]
        share = table["mean_exit_layer"] / table["depth"].astype(float)
        table["seconds_interpolated"] = table["seconds_all_heads"] * share
    flops = study[study["metric"] == "gflops_per_call"].set_index("method")["value"]
    ratio = flops["shallow"] / flops["full"]
    table["ideal_speedup"] = [
        np.nan if pd.isna(t_s) else ideal_speedup(t_s, ratio) for t_s in table["t_s"]
    ]
    if "gflops_per_trajectory" in table:
        operations, named = table["gflops_per_trajectory"], table["schedule"].notna()
        full = operations[table["t_s"] == 0].max()
        table.loc[named, "ideal_speedup"] = full / operations[named]
    return table


def published_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 or 2 in common columns: dataset, method, t_s, theta, mean_exit_layer, fid,
    seconds_per_image, certainty, and over the full backbone's relative_distance and speedup.
    """
    if "t_s" not in table:  # Table 2 names the parameter in a column
        table = table.assign(
            t_s=table["value"].where(table["parameter"] == "t_s"),
            theta=table["value"].where(table["parameter"] == "theta"),
        )
    table = table.reindex(columns=[*_PUBLISHED, "certainty"])
    return table.assign(
        relative_distance=over_full(table, "fid"),
        speedup=1 / over_full(table, "seconds_per_image"),
    )


def over_full(table: pd.DataFrame, column: str) -> pd.Series:
    """`column` over its value in the row of the same dataset whose t_s is 0."""
    keys = table["dataset"] if "dataset" in table else pd.Series(0, index=table.index)
    base = table[table["t_s"] == 0]
    return table[column] / keys.map(base[column].set_axis(keys[base.index]))


def ideal_speedup(t_s: float, cost_ratio: float) -> float:
    """1 / (1 - (t_s/T)(1 - c)): DuoDiff's speed-up if time followed FLOPs, c = F_shallow / F_full."""
    return 1 / (1 - t_s / T * (1 - cost_ratio))


def at_equal_time(table: pd.DataFrame, column: str) -> pd.Series:
    """DuoDiff's distance interpolated to the time in `column` of each AdaDiff row of one study's cells.

    Linear between neighbouring t_s. A longer time than the full backbone's has the full backbone's distance, because
    a budget need not be spent. A shorter time than the shallow backbone's has none (NaN).
    """
    duodiff = table[table["t_s"].notna()].sort_values("seconds")
    times = table[column].where(table["method"] == "adadiff")
    distances = np.interp(times, duodiff["seconds"], duodiff["distance"], left=np.nan)
    return pd.Series(distances, index=table.index).where(times.notna())
