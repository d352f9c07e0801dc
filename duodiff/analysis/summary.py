"""A run as text: its trainings and cells, the headline comparison, the claims; from records and loss curves."""

from pathlib import Path

import pandas as pd

from duodiff.analysis.cells import at_equal_time, cells, distance_name, load_records
from duodiff.analysis.claims.verdicts import FAILS, HOLDS, UNTESTED
from duodiff.schedules import T

_WHERE = """\
Results: results/tables, results/figures, results/<experiment>; trainings: tensorboard --logdir logs
Report: xdg-open results/report.html (macOS: open results/report.html)
"""


def summary(records: list[Path], curves: list[Path], studies: dict, claims: pd.DataFrame) -> str:
    """For each study its trainings, headline, and every setting's quality and time; then the claims and where to look.

    `claims` is the `claims.verdicts.claims_table`.
    """
    table = load_records(records)
    lines = []
    for (name, seed), study in table.groupby(["experiment", "train_seed"]):
        floors = table[(table["experiment"] == name) & (table["method"] == "real_halves")]
        protocol, device = study["protocol"].iloc[0], study["device"].iloc[0]
        lines += [
            f"{studies[name]['title']} ({protocol} protocol, training seed {seed:.0f}; {device})"
        ]
        mine = [c for c in curves if Path(c).parts[-4:-2] == (name, f"train{seed:.0f}")]
        lines += ["  " + line for line in _ran(study, mine)]
        lines += ["  " + line for line in _study(cells(study, "ddpm"), floors)]
        decoding = study[study["metric"] == "decode_seconds_per_image"]
        lines += [f"  decoding takes {1e3 * s:.2f} ms an image more" for s in decoding["value"]]
    return "\n".join(lines + _claims(claims)) + "\n" + _WHERE


def _claims(table: pd.DataFrame) -> list[str]:
    """How many of the paper's claims hold on each source, and the names of those that do not."""
    lines = ["Claims of the paper (results/tables/claims.html):"]
    for source, rows in table.groupby("source", sort=False):
        counts = {v: (rows["verdict"] == v).sum() for v in (HOLDS, FAILS, UNTESTED)}
        lines.append(
            f"  {source}: {counts[HOLDS]} hold, {counts[FAILS]} do not, {counts[UNTESTED]} not tested"
        )
        failed = rows[rows["verdict"] == FAILS].set_index("claim")["contradicted"] == "yes"
        for kind, names in ((FAILS, failed.index[failed]), ("undecided", failed.index[~failed])):
            lines += [f"    {kind}: {', '.join(names)}"] if len(names) else []
    return lines


def _ran(study: pd.DataFrame, curves: list[Path]) -> list[str]:
    """The trainings of a study, and how many cells were measured."""
    trained = {Path(path).parent.name: pd.read_csv(path) for path in curves}
    steps = [f"{role} for {curve['step'].iloc[-1]} steps" for role, curve in trained.items()]
    distances = study[(study["metric"] == distance_name(study)) & study["sampler"].notna()]
    lines = [f"trained: {', '.join(steps) or 'nothing'}; sampled: {len(distances)} cells"]
    if "heads" in trained:
        lines += _converged(trained["heads"])
    return lines


def _study(table: pd.DataFrame, floors: pd.DataFrame) -> list[str]:
    first = table.iloc[0]
    settings = table.sort_values(["t_s", "theta"])
    at_same_time = at_equal_time(settings, "seconds")
    lines = _headline(settings, at_same_time)
    lines += [f"{first['metric']} of {first.n} images, DDPM, {first.nfe:.0f} network calls:"]
    lines += [_row(row, at_same_time[row.Index]) for row in settings.itertuples()]
    lines += _spreads(settings)
    full = table[table["t_s"] == 0].iloc[0]
    if table["theta"].notna().any():
        ratio = full.seconds_all_heads / full.seconds
        lines.append(f"computing all of AdaDiff's heads costs {ratio:.2f}x the plain full backbone")
    shallow = table[table["t_s"] == T]
    if len(shallow) and pd.notna(full.spread):
        gap = shallow.iloc[0].distance - full.distance
        lines.append(f"full is {gap:.2f} below shallow: {gap / full.spread:.1f} seed spreads")
    if len(floors):
        lines += _above_the_floor(table, floors.iloc[0])
    return lines


def _headline(settings: pd.DataFrame, at_same_time: pd.Series) -> list[str]:
    """Up to which t_s DuoDiff costs no distance, and how often it is below AdaDiff at AdaDiff's own time."""
    lines = []
    tested = settings[(settings["method"] == "duodiff") & settings["minus_full_95"].notna()]
    if len(tested):
        lines.append(_kept(tested))
    if at_same_time.notna().any():
        lower = (at_same_time < settings["distance"])[at_same_time.notna()]
        lines.append(
            f"at AdaDiff's own time DuoDiff's is lower at {lower.sum()} of {len(lower)} thetas"
        )
    return lines


def _kept(duodiff: pd.DataFrame) -> str:
    """The largest t_s up to which no distance is above the full backbone's, by its 95% interval over the images."""
    kept = duodiff[(duodiff["minus_full"] <= duodiff["minus_full_95"]).cummin()]
    if kept.empty:
        return (
            f"DuoDiff's distance is above full's from t_s = {duodiff['t_s'].iloc[0]:.0f} on (95%)"
        )
    best = kept.iloc[-1]
    return (
        f"DuoDiff shows no loss against full up to t_s = {best.t_s:.0f} (95%, {best.n} images):"
        f" {_change(best)} at {best.speedup:.2f}x the speed"
    )


def _row(row, duodiff_distance: float) -> str:
    """A setting: distance, its difference to the full backbone's, time, speed-up.

    `duodiff_distance` is DuoDiff's at the same time as an AdaDiff setting, NaN where there is none.
    """
    line = f"  {row.method:8s} {_setting(row):13s} {row.distance:7.2f}  {_change(row):15s}"
    line += f" {1e3 * row.seconds:8.2f} ms  {row.speedup:.2f}x"
    if pd.notna(row.t_s):
        return line + f"  (by FLOPs {row.ideal_speedup:.2f}x)"
    there = "is no t_s" if pd.isna(duodiff_distance) else f"{duodiff_distance:.2f}"
    return line + f"  exits {row.mean_exit_layer:.2f}/{row.depth:.0f}, DuoDiff there {there}"


def _setting(row) -> str:
    return f"t_s = {row.t_s:.0f}" if pd.notna(row.t_s) else f"theta = {row.theta:.3f}"


def _spreads(settings: pd.DataFrame) -> list[str]:
    repeated = settings[settings["spread"].notna()]
    if repeated.empty:
        return []
    spreads = [f"{row.spread:.2f} at {_setting(row)}" for row in repeated.itertuples()]
    return [f"sd over {repeated['spread_seeds'].iloc[0]:.0f} sampling seeds: {', '.join(spreads)}"]


def _above_the_floor(table: pd.DataFrame, floor: pd.Series) -> list[str]:
    """How far the full and the shallow backbone lie above the distance of real images from real images."""
    lines = [f"real images against real images: {floor.value:.2f} (n = {floor.n})"]
    ends = table[table["t_s"].isin([0, T])].sort_values("t_s")
    if len(ends) == 2 and "distance_matched" in ends and ends["distance_matched"].notna().all():
        full, shallow = ends["distance_matched"] - floor.value
        lines.append(
            f"at n = {floor.n} full lies {full:.2f} above the real floor, shallow {shallow:.2f}:"
            f" {100 * (1 - full / shallow):.0f}% nearer"
        )
    return lines


def _change(row) -> str:
    """The difference to the full backbone with its bootstrap interval, where there is one."""
    if pd.isna(row.minus_full_95):
        return ""
    return f"{row.minus_full:+.2f} ± {row.minus_full_95:.2f}"


def _converged(curve: pd.DataFrame) -> list[str]:
    """How much the last fifth of the heads' training lowered their held-out loss, if it was evaluated before."""
    before = curve[curve["step"] <= 0.8 * curve["step"].iloc[-1]]["held_out_loss"]
    if before.empty:
        return []
    change = 100 * (curve["held_out_loss"].iloc[-1] / before.iloc[-1] - 1)
    return [f"heads: the last fifth of the steps changed the held-out loss by {change:+.2f}%"]
