"""A run as text: its trainings and cells, the headline comparison, the claims; from records and loss curves."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import pandas as pd

from duodiff.analysis.cells import at_equal_time, cells, distance_name, load_records
from duodiff.analysis.claims.sentences import headlines, paragraph, warning
from duodiff.analysis.claims.verdicts import HOLDS, VERDICTS, of_the_paper, verdict_counts
from duodiff.analysis.metrics import certain_difference
from duodiff.analysis.trainings import over_trainings
from duodiff.paper import LARGEST_T_S
from duodiff.schedules import T

_WHERE = """\
Results: results/tables, results/figures, results/<experiment>; trainings: tensorboard --logdir logs
How each was made: results/report.html
The page: xdg-open results/index.html (macOS: open results/index.html)
"""


def summary(
    records: list[Path],
    curves: list[Path],
    studies: dict,
    claims: pd.DataFrame,
    scores: Sequence[Path] = (),
) -> str:
    """What a run shows: whether its studies can say anything, and for each study its claims, trainings and settings.

    `claims` is the `claims.verdicts.claims_table`. Every sentence on the paper's claims comes from it. `scores` are the
    records of chosen schedules.
    """
    table, scored = load_records(records), load_records(scores)
    first, lines = [], []
    for name, study in table.groupby("experiment"):
        rows = claims[claims["experiment"] == name]
        if said := warning(rows):
            first.append(f"{studies[name]['title']}: {said}")
        mine = [c for c in curves if Path(c).parts[-4] == name]
        lines += _of_study(studies[name]["title"], study, mine, rows)
        lines += ["  " + line for line in predictions(scored[scored["experiment"] == name], study)]
    return "\n".join(first + lines + _claims(claims)) + "\n" + _WHERE


def _of_study(
    title: str, records: pd.DataFrame, curves: list[Path], claims: pd.DataFrame
) -> list[str]:
    """The lines of one study: its claims, its trainings, its settings."""
    about = claims.iloc[0]
    measured = records[records["sampler"].notna()]
    devices = ", ".join(map(str, measured["device"].drop_duplicates()))
    named = f"{measured['protocol'].iloc[0]} protocol, {about['scale']} scale, {about['rests_on']}"
    floors = records[records["method"] == "real_halves"]
    decoding = records[records["metric"] == "decode_seconds_per_image"]["value"]
    sentences = [*headlines(claims).values(), paragraph(claims)]
    lines = [part for sentence in sentences for part in wrap(sentence, 116, subsequent_indent="  ")]
    lines += _ran(measured, curves)
    lines += _settings(cells(records, "ddpm"), floors)
    if len(decoding):
        lines.append(f"decoding takes {1e3 * decoding.mean():.2f} ms an image more")
    return [f"{title} ({named}; {devices})", *("  " + line for line in lines)]


def _claims(table: pd.DataFrame) -> list[str]:
    """How many of the paper's claims have which verdict on each source, and the names of those that are not held."""
    lines = ["Claims of the paper (results/tables/claims.html):"]
    for source, counts in verdict_counts(table).iterrows():
        told = ", ".join(f"{counts[one]} {'hold' if one == HOLDS else one}" for one in VERDICTS)
        lines.append(f"  {source}: {told}")
        mine = of_the_paper(table[table["source"] == source])
        for verdict in VERDICTS[1:-1]:
            names = mine[mine["verdict"] == verdict]["claim"]
            lines += [f"    {verdict}: {', '.join(names)}"] if len(names) else []
    return lines


def _ran(study: pd.DataFrame, curves: list[Path]) -> list[str]:
    """The trainings of a study, and how many cells were measured."""
    trained = [(Path(path).parent.name, pd.read_csv(path)) for path in curves]
    steps = dict.fromkeys(f"{role} for {one['step'].iloc[-1]} steps" for role, one in trained)
    distances = study[study["metric"] == distance_name(study)]
    lines = [f"trained: {', '.join(steps) or 'nothing'}; sampled: {len(distances)} cells"]
    return lines + _converged([curve for role, curve in trained if role == "heads"])


def _settings(table: pd.DataFrame, floors: pd.DataFrame) -> list[str]:
    """Distance and time of every setting, as means over the trainings, and the scale of the distances."""
    each = [
        one.assign(duodiff_there=at_equal_time(one, "seconds"))
        for _, one in table.groupby("train_seed")
    ]
    table = over_trainings(pd.concat(each))
    first, distance = table.iloc[0], table["metric"].iloc[0]
    same_noise = f"{distance}_same_noise"
    if same_noise not in table:
        table[same_noise] = None
    rows = table.rename(columns={same_noise: "same_noise"}).sort_values(
        ["t_s", "theta", "schedule"]
    )
    lines = [f"{distance} of {first.n} images, DDPM, {first.nfe:.0f} network calls:"]
    lines += [_row(row) for row in rows.itertuples()]
    lines += _spreads(rows)
    return lines + (_above_the_floor(table, floors.iloc[0]) if len(floors) else [])


def predictions(scores: pd.DataFrame, measured: pd.DataFrame) -> list[str]:
    """A line for each chosen schedule of a study: its predicted share, and the lost share that was measured.

    `scores` are the records of its choice. Both shares are means over the trainings.
    """
    found = scores[scores["metric"] == "predicted_share"] if len(scores) else scores
    lines = []
    for (sampler, name), rows in found.groupby(["sampler", "schedule"]) if len(found) else ():
        table, first = cells(measured, sampler), rows.iloc[0]
        lost = table.loc[table["schedule"] == name, "lost_share"].mean()
        low, high = (rows["interval"].map(end).mean() for end in (min, max))
        after = "not measured" if pd.isna(lost) else f"measured {lost:.3f}"
        lines.append(
            f"{name} ({sampler}), chosen before sampling: predicted share {rows['value'].mean():.3f}"
            f" [{low:.3f}, {high:.3f}] by {first['score']}; {after} of {distance_name(measured)}"
        )
    return lines


def _row(row) -> str:
    """A setting: distance, its difference to the full backbone's, time, speed-up."""
    line = f"  {row.method:8s} {_setting(row):13s} {row.distance:7.2f}  {_change(row):15s}"
    line += f" {1e3 * row.seconds:8.2f} ms  {row.speedup:.2f}x"
    if row.method != "adadiff":
        return line + f"  (by FLOPs {row.ideal_speedup:.2f}x)" + _certain(row)
    there = "is no t_s" if pd.isna(row.duodiff_there) else f"{row.duodiff_there:.2f}"
    return line + f"  exits {row.mean_exit_layer:.2f}/{row.depth:.0f}, DuoDiff there {there}"


def _certain(row) -> str:
    """What the same noise alone allows as the difference to the full backbone's distance, for small t_s."""
    if not 0 < row.t_s <= LARGEST_T_S or pd.isna(row.same_noise):
        return ""
    low, high = certain_difference(row.distance, row.minus_full, row.same_noise)
    return f"  certainly {low:+.2f} to {high:+.2f}"


def _setting(row) -> str:
    if row.method == "schedule":
        return row.schedule
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


def _converged(curves: list[pd.DataFrame]) -> list[str]:
    """How much the last fifth of the heads' trainings lowered their held-out loss, where it was evaluated before."""
    changes = []
    for curve in curves:
        before = curve[curve["step"] <= 0.8 * curve["step"].iloc[-1]]["held_out_loss"]
        if len(before):
            changes.append(100 * (curve["held_out_loss"].iloc[-1] / before.iloc[-1] - 1))
    if not changes:
        return []
    ends = dict.fromkeys(f"{change:+.2f}%" for change in (min(changes), max(changes)))
    return [f"heads: the last fifth of the steps changed the held-out loss by {' to '.join(ends)}"]
