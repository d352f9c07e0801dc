"""The headline comparison of a run, as text, from its records and loss curves."""

import re
from pathlib import Path

import pandas as pd

from duodiff.analysis.claims import FAILS, HOLDS, UNTESTED
from duodiff.analysis.tables import at_equal_time, cells, load_records
from duodiff.schedules import T


def summary(records: list[Path], curves: list[Path], studies: dict, claims: Path) -> str:
    """A few lines a study: quality, speed, AdaDiff at equal time, exits, the paper's claims, and where to look.

    `claims` is the table of `claims.claims_table` as CSV.
    """
    table = load_records(records)
    lines = []
    for (name, seed), study in table.groupby(["experiment", "train_seed"]):
        scale = table[(table["experiment"] == name) & (table["method"] == "real_halves")]
        protocol, device = study["protocol"].iloc[0], study["device"].iloc[0]
        lines += [
            f"{studies[name]['title']} ({protocol} protocol, training seed {seed:.0f}, {device})"
        ]
        lines += ["  " + line for line in _study(cells(study, "ddpm"), scale)]
        decoding = study[study["metric"] == "decode_seconds_per_image"]
        lines += [f"    decoding takes {1e3 * s:.2f} ms an image more" for s in decoding["value"]]
        mine = [c for c in curves if Path(c).parts[-4:-1] == (name, f"train{seed:.0f}", "heads")]
        lines += ["  " + _converged(path) for path in mine]
    lines += _claims(pd.read_csv(claims, keep_default_na=False))
    lines += ["Tables: results/tables  Figures: results/figures  Report: results/report.html"]
    return "\n".join(lines) + "\n"


def _claims(table: pd.DataFrame) -> list[str]:
    """How many claims of the paper hold on each source, and which do not."""
    lines = ["Claims of the paper (results/tables/claims.html):"]
    for source, rows in table.groupby("source", sort=False):
        found = rows["verdict"].value_counts()
        lines.append(
            f"  {source}: {found.get(HOLDS, 0)} hold, {found.get(FAILS, 0)} do not, {found.get(UNTESTED, 0)} not tested"
        )
        failed = rows[rows["verdict"] == FAILS]
        contradicted = failed["contradicted"] == "yes"
        for kind, names in (
            ("does not hold", failed[contradicted]["claim"]),
            ("undecided", failed[~contradicted]["claim"]),
        ):
            if len(names):
                lines.append(f"    {kind}: {', '.join(names)}")
    return lines


def _study(table: pd.DataFrame, floors: pd.DataFrame) -> list[str]:
    metric, n = table["metric"].iloc[0], table["n"].iloc[0]
    full = table[table["t_s"] == 0].iloc[0]
    lines = [f"{metric}, n = {n}:"]
    for row in table[table["t_s"].notna()].sort_values("t_s").itertuples():
        spread = (
            ""
            if pd.isna(row.spread)
            else f" (sd {row.spread:.2f} over {row.spread_seeds:.0f} seeds)"
        )
        lines.append(
            f"  {row.method:8s} t_s = {row.t_s:4.0f}  {row.distance:7.2f}{spread}{_change(row)}"
            f"  {1e3 * row.seconds:6.2f} ms  {row.speedup:.2f}x (by FLOPs {row.ideal_speedup:.2f}x)"
        )
    if table["theta"].notna().any():
        lines += _adadiff(table, full)
    shallow = table[table["t_s"] == T]
    if len(shallow) and pd.notna(full.spread):
        gap = shallow.iloc[0].distance - full.distance
        lines.append(f"  full is {gap:.2f} below shallow: {gap / full.spread:.1f} seed spreads")
    if len(floors):
        lines += _above_the_floor(table, floors.iloc[0])
    return lines


def _above_the_floor(table: pd.DataFrame, floor: pd.Series) -> list[str]:
    """How far the full and the shallow backbone lie above what real images score."""
    lines = [f"  real images against real images: {floor.value:.2f} (n = {floor.n})"]
    ends = table[table["t_s"].isin([0, T])].sort_values("t_s")
    if len(ends) == 2 and "distance_matched" in ends and ends["distance_matched"].notna().all():
        full, shallow = ends["distance_matched"] - floor.value
        lines.append(
            f"  at n = {floor.n} full lies {full:.2f} above the real floor, shallow {shallow:.2f}:"
            f" {100 * (1 - full / shallow):.0f}% nearer"
        )
    return lines


def _change(row) -> str:
    """The difference to the full backbone with its bootstrap interval, where there is one."""
    if pd.isna(row.minus_full_95):
        return ""
    return f"  {row.minus_full:+.2f} ± {row.minus_full_95:.2f} from full"


def _adadiff(table: pd.DataFrame, full: pd.Series) -> list[str]:
    interpolated = at_equal_time(table, "seconds_interpolated")
    measured = at_equal_time(table, "seconds")
    lines = []
    for i, row in table[table["theta"].notna()].sort_values("theta").iterrows():
        lines.append(
            f"  adadiff  theta = {row.theta:.3f}  {row.distance:7.2f}"
            f"  exits at {row.mean_exit_layer:.2f} of {row.depth:.0f}"
            f"  {1e3 * row.seconds_interpolated:.2f} ms interpolated (DuoDiff there {_value(interpolated[i])}),"
            f" {1e3 * row.seconds:.2f} ms measured (DuoDiff there {_value(measured[i])})"
        )
    ratio = full.seconds_all_heads / full.seconds
    return [
        *lines,
        f"  computing all of AdaDiff's heads costs {ratio:.2f}x the plain full backbone",
    ]


def _value(distance: float) -> str:
    """A distance, or that DuoDiff has none at a time below the shallow backbone's."""
    return "is no t_s" if pd.isna(distance) else f"{distance:.2f}"


def _converged(path: Path) -> str:
    """How much the last fifth of the heads' training lowered their held-out loss."""
    curve = pd.read_csv(path)
    then = curve[curve["step"] <= 0.8 * curve["step"].iloc[-1]]["held_out_loss"].iloc[-1]
    change = 100 * (curve["held_out_loss"].iloc[-1] / then - 1)
    seed = re.search(r"train(\d+)", str(path)).group(1)
    return f"AdaDiff heads (training seed {seed}): last fifth of the steps changed the held-out loss by {change:+.2f}%"
