"""A shipped study as a page of Markdown: its settings, claims, and how far seeds and kernels move a number (no torch).

README.md and `make reproduce` quote its lines.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.analysis.cells import distance_name
from duodiff.analysis.claims.cases import interval_text, number
from duodiff.analysis.claims.sentences import headlines
from duodiff.analysis.claims.verdicts import (
    HOLDS,
    UNTESTED,
    VERDICTS,
    of_the_paper,
    verdict_counts,
)
from duodiff.analysis.front import LIMITS, as_text, front_table, shipped_points
from duodiff.analysis.measured import measured
from duodiff.analysis.shipped import OTHER, USUAL, Shipped, read
from duodiff.analysis.students import half_width
from duodiff.analysis.trainings import seeds_text
from duodiff.analysis.verify import named_numbers, spread
from duodiff.analysis.words import between, percent, with_half
from duodiff.running.files import write_text
from duodiff.schedules import T
from duodiff.settings import Setting

_SETTINGS = ("setting", "distance", "minus full's", "lost share", "speed-up", "by operations")
_CHOSEN = ("chosen before sampling", "predicted share, 95% interval", "lost share")
_CLAIMS = (
    "claim",
    "verdict",
    "its number, 95% interval",
    "holds if",
    "single trainings that agree",
)
_FRONT = (
    "family",
    "settings",
    *(f"at {limit:.2f} times full's distance" for limit in LIMITS),
    "there, minus one switch's",
    "minus fewer steps'",
)
_SAVES = (
    "The share of the full backbone's operations that a family of settings saves, and how many trainings reach the"
    " distance ([how](../../docs/metrics.md#the-front))."
)
_MOVED = (
    "number",
    "mean",
    "sd over seeds",
    "other kernels minus usual",
    "sd of these differences",
)


def write(folder: Path) -> None:
    """Writes the page of a shipped study into its folder: README.md."""
    write_text(folder / "README.md", "\n".join(map(page, read(folder).values())))


def page(study: Shipped) -> str:
    """The page of one experiment."""
    trainings = study.halves[USUAL]
    title = study.configuration["experiment"]["title"]
    seeds = seeds_text([one.train_seed for one in trainings])
    several = f"{len(trainings)} trainings (seeds {seeds})"
    of = several if len(trainings) > 1 else f"one training (seed {seeds})"
    lines = [f"# {title}: {of}", "", *_about(study)]
    for sampler in dict.fromkeys(_cells(study)["sampler"]):
        lines += ["", f"## Settings, {sampler}", "", *table(_SETTINGS, _rows(study, sampler))]
    lines += ["", "## Operations saved, ddpm", "", _SAVES, "", *table(_FRONT, _front(study))]
    lines += ["", "![Distance against operations, and against time](front.svg)"]
    if chosen := [*_chosen(study)]:
        lines += ["", "## Chosen schedules", "", _PREDICTED, "", *table(_CHOSEN, chosen)]
    lines += ["", "## Claims", "", agreement(study), "", *table(_CLAIMS, _claims(study))]
    if study.halves.get(OTHER):
        lines += ["", "## Another seed, other kernels", "", moved(study), ""]
        lines += table(_MOVED, _moved_rows(study))
    return "\n".join(lines) + "\n"


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A table in Markdown, a line a row."""
    lines = [header, ("---",) * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _front(study: Shipped) -> Iterator[tuple[str, ...]]:
    """A row a family of settings."""
    experiment, trainings = study.configuration["experiment"], study.halves[USUAL]
    points = shipped_points(trainings, experiment)
    titles = {trainings[0].experiment: {"title": experiment["title"]}}
    for row in as_text(front_table(points, titles)).to_dict("records"):
        at = [f"{limit * 100:.0f}" for limit in LIMITS]
        saved = (f"{row[f'saved_{name}']}; {row[f'reached_{name}']}" for name in at)
        minus = (row[f"minus_{other}_{at[-1]}"] for other in ("switch", "full_fewer_steps"))
        yield row["title"], str(row["settings"]), *saved, *("" if pd.isna(m) else m for m in minus)


def _about(study: Shipped) -> list[str]:
    """What the numbers are of."""
    cells = _cells(study)
    made = study.halves[USUAL][0].made
    devices = ", ".join(dict.fromkeys(one["device"] for one in made["timing"]))
    commits = ", ".join(dict.fromkeys(str(one.get("commit"))[:7] for one in made["measurements"]))
    metric = distance_name(cells)
    n = cells[cells["metric"] == metric]["n"].iloc[0]
    protocol = study.configuration["experiment"]["protocol"]
    several = len(study.halves[USUAL]) > 1
    return [
        f"Distances are `{metric}` of {n:.0f} images a training. {protocol.capitalize()} protocol; times on"
        f" {devices}; commit {commits}.",
        "Each number is a mean over the trainings, with Student's 95% interval of that mean."
        if several
        else "The 95% intervals are of resampled images and rounds of timing. They say nothing of another training.",
    ]


# --- settings


def _cells(study: Shipped) -> pd.DataFrame:
    """The numbers of all usual trainings at the first sampling seed, with their `train_seed`."""
    tables = [one.numbers.assign(train_seed=one.train_seed) for one in study.halves[USUAL]]
    numbers = pd.concat(tables)
    return numbers[(numbers["setting"] != "") & (numbers["seed"].fillna(0) == 0)]


def _rows(study: Shipped, sampler: str) -> Iterator[tuple[str, ...]]:
    """A row a setting and number of steps."""
    for row in measured(study.halves[USUAL], sampler).to_dict("records"):
        is_full = row["method"] == "full" and not row["fewer"]
        minus = with_half(row["minus_full"], row["minus_full_95"], 2, sign="+")
        yield (
            _name(row),
            with_half(row["distance"], row["distance_95"], 2),
            "" if is_full else minus,
            percent(row["lost_share"], row["lost_share_95"]),
            with_half(row["speedup"], row["speedup_95"], 2),
            with_half(row["operations"], row["operations_95"], 2),
        )


def _name(row: dict) -> str:
    setting, steps = Setting.parse(row["setting"]), ""
    if row["fewer"]:
        steps = f", {row['steps']:.0f} steps"
    if setting.is_schedule:
        return f"schedule `{setting.spelled}`{steps}"
    if setting.exits_early:
        return f"AdaDiff, theta {row['theta']:.3f}, exits at {row['exits']:.2f}{steps}"
    names = {"full": "full backbone (`t_s` = 0)", "shallow": f"shallow backbone (`t_s` = {T})"}
    return names.get(setting.method, f"DuoDiff, `t_s` = {setting.t_s}") + steps


_PREDICTED = (
    "A training predicts the share from held-out images before it samples; the interval covers these images alone. Of"
    " several trainings its ends are means, too."
)


def _chosen(study: Shipped) -> Iterator[tuple[str, ...]]:
    """A row a chosen schedule whose share was predicted."""
    cells = _cells(study)
    predicted = cells[cells["metric"] == "predicted_share"]
    for sampler, rows in predicted.groupby("sampler", sort=False):
        shown = measured(study.halves[USUAL], str(sampler)).set_index("setting")
        for setting, mine in rows.groupby("setting", sort=False):
            share, low, high = mine[["value", "low", "high"]].mean()
            lost = shown.loc[setting]
            yield (
                f"`{Setting.parse(str(setting)).spelled}`, {sampler}",
                f"{percent(share, math.nan)} {between(low, high)}",
                percent(lost["lost_share"], lost["lost_share_95"]),
            )


# --- claims


def _claims(study: Shipped) -> Iterator[tuple[str, ...]]:
    """A row a tested claim; the last column is how many trainings give the verdict by themselves."""
    for row in study.claims[study.claims["verdict"] != UNTESTED].itertuples():
        told = study.verdicts.loc[row.claim]
        single = told.drop("all")
        interval = None if np.isnan(row.low) else (row.low, row.high)
        at = f" at {row.case}" if isinstance(row.case, str) and row.case else ""
        conditional = isinstance(row.conditional_on, str) and row.conditional_on
        yield (
            row.sentence,
            row.verdict + (f", if {row.conditional_on} holds" if conditional else ""),
            f"{number(row.value)}{interval_text(interval)}{at}",
            f"{row.unit} {row.threshold}",
            f"{(single == told['all']).sum()} of {len(single)}",
        )


def agreement(study: Shipped) -> str:
    """How many claims have which verdict, and how many verdicts of single trainings are those of all."""
    counts = verdict_counts(study.claims).iloc[0]
    told = ", ".join(f"{counts[one]} {'hold' if one == HOLDS else one}" for one in VERDICTS)
    mine = study.verdicts.loc[of_the_paper(study.claims)["claim"]]
    tested = mine[mine["all"] != UNTESTED]
    single = tested.drop(columns="all")
    if single.shape[1] == 1:
        return f"Of {len(mine)} claims of the paper in one training: {told}."
    same = single.eq(tested["all"], axis=0)
    return (
        f"Of {len(mine)} claims of the paper over {single.shape[1]} trainings: {told}. Of the {same.size} verdicts of"
        f" single trainings {same.to_numpy().sum()} are those of all trainings together."
    )


def beside(study: Shipped, verdicts: Mapping[str, str]) -> list[str]:
    """The headlines of the study, each with whether a run with these `verdicts` by claim agrees."""
    title = study.configuration["experiment"]["title"]
    lines = [f"{title}, the shipped study of {len(study.halves[USUAL])} trainings:"]
    for claim, text in headlines(study.claims).items():
        mine, shipped = verdicts.get(claim, UNTESTED), study.verdicts.loc[claim, "all"]
        lines.append(f"{text} This run {'agrees' if mine == shipped else f'differs: {mine}'}.")
    return lines


# --- seeds and kernels


def moved(study: Shipped) -> str:
    """How far other kernels move the named numbers, beside how far another seed does."""
    moves = _moves(study)
    share = (moves["difference"].abs() / moves["sd"]).median()
    found = (moves["difference"].abs() > moves["half"]).sum()
    return (
        f"{len(study.halves[OTHER])} trainings were made once more with other kernels of the processor, as another"
        f" machine would have. In the mean over them half of the {len(moves)} numbers moved by less than {share:.2f}"
        f" standard deviations over seeds. {found} moved by more than Student's 95% interval"
        f" (by chance {0.05 * len(moves):.0f} would)."
    )


def _moves(study: Shipped) -> pd.DataFrame:
    """A row a named number but speed-ups: mean and sd over seeds; mean, sd and half interval of paired differences."""
    found = spread(study, named_numbers)
    pairs = (found.other - found.usual)[found.other.columns]
    moves = pd.DataFrame(
        {
            "mean": found.usual.mean(axis=1),
            "sd": found.usual.std(axis=1),
            "difference": pairs.mean(axis=1),
            "sd_of_differences": pairs.std(axis=1),
            "half": [half_width(row) for row in pairs.to_numpy()],
        }
    )
    return moves[moves.index.get_level_values(0) != "times"].dropna()


def _moved_rows(study: Shipped) -> Iterator[tuple[str, ...]]:
    for (_, name), row in _moves(study).iterrows():
        numbers = (row["mean"], row["sd"], row["difference"], row["sd_of_differences"])
        yield (name, *(f"{value:.3g}" for value in numbers))
