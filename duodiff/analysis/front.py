"""The front: the distance of every measured setting under DDPM against its cost, by families of settings (no torch).

A family is a way to be cheaper than the full backbone. Its lower front are those of its settings that none of its
settings beats in both operations and distance, with lines between neighbours. All is relative to the full backbone of
the same training: its distance, operations and time are 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from duodiff.analysis.cells import cells, load_fewer_steps, load_records
from duodiff.analysis.claims.cases import Case, distances, over_trainings
from duodiff.analysis.fewer import fewer_step_cells
from duodiff.analysis.figures import titles
from duodiff.analysis.measured import of_training
from duodiff.analysis.shipped import Training
from duodiff.analysis.students import half_width
from duodiff.analysis.trainings import seeds_text
from duodiff.settings import FULL, Setting

FAMILIES = {
    "switch": "One switch (t_s)",
    "chosen": "Networks chosen without sampling",
    "chosen_steps": "Steps and networks chosen together",
    "named": "Schedules with a name",
    "guided": "Guided by another network",
    "full_fewer_steps": "Full backbone, fewer steps",
    "duodiff_fewer_steps": "One switch, fewer steps",
    "adadiff": "AdaDiff (theta)",
}
"""The families and their titles, in the order of the table."""

LIMITS = (1.0, 1.05)
"""Of a distance over the full backbone's, at which the operations saved are given."""

BASELINES = {"switch": "one switch's", "full_fewer_steps": "fewer steps'"}
"""The families that each other one is compared with, training by training, and what the table calls them."""

_ABOUT = {
    "dataset": ("", "Dataset"),
    "title": ("", "Family"),
    "settings": ("", "Settings"),
    "n": ("", "n"),
    "trainings": ("", "Trainings"),
    "train_seed": ("", "Training seed"),
}
_AT_A_LIMIT = (
    {"saved": "operations saved"}
    | {f"minus_{name}": f"minus {text}" for name, text in BASELINES.items()}
    | {"reached": "trainings that reach it", "setting": "cheapest setting that does, by the mean"}
)
_NUMBERS = ("saved", *(f"minus_{name}" for name in BASELINES))


def _suffix(limit: float) -> str:
    return f"_{100 * limit:.0f}"


COLUMNS = _ABOUT | {
    name + _suffix(limit): (f"At {limit:.2f} times full's distance", heading)
    for limit in LIMITS
    for name, heading in _AT_A_LIMIT.items()
}
"""The columns of the table as it is read: their group and heading. `front_table` has further ones for the intervals."""

_KEYS = ["experiment", "train_seed"]
_POINT = [*_KEYS, "family", "setting", "metric", "n", "distance", "relative_distance"]
_POINT += ["relative_95", "operations", "time", "resampled"]


def family(parameters: Mapping[str, Any]) -> str:
    """The family of a setting at its sampler's own number of steps, by the `parameters` of its records."""
    if "schedule" not in parameters:
        return "adadiff" if "theta" in parameters else "switch"
    if any("by" in made for made in parameters.get("networks", {}).values()):
        return "guided"
    if "prediction_sha256" not in parameters:
        return "named"
    return "chosen_steps" if "timesteps" in parameters else "chosen"


def front_points(records: list[Path]) -> pd.DataFrame:
    """One row a setting of one training, at its first sampling seed.

    Columns: experiment, train_seed, family, setting (its text, with the number of steps where they are fewer), metric,
    n, distance, relative_distance and half its interval relative_95, operations, time (each over the full backbone's)
    and resampled. The full backbone is the first setting of `switch`, and of `full_fewer_steps` if there are fewer.
    """
    own = cells(load_records(records), "ddpm")
    fewer = fewer_step_cells(load_fewer_steps(records), own, "ddpm")
    tables = [pd.DataFrame(columns=_POINT)]
    for key, training in own.groupby(_KEYS):
        mine = fewer[(fewer[_KEYS] == list(key)).all(axis=1)] if len(fewer) else fewer
        tables.append(_of_training(training, mine))
    points = pd.concat(tables[1:] or tables, ignore_index=True)
    points["family"] = _by_setting(points)
    return points


def shipped_points(trainings: list[Training], experiment: Mapping[str, Any]) -> pd.DataFrame:
    """As `front_points`, of the numbers of a shipped study's trainings, which have no resamples.

    `experiment` is the configuration of their experiment, which says what its named schedules are.
    """
    tables = [pd.DataFrame(columns=_POINT)]
    for training in trainings:
        table = of_training(training, "ddpm")
        if len(table):
            about = {"experiment": training.experiment, "train_seed": training.train_seed}
            tables.append(_of_numbers(table, experiment).assign(**about)[_POINT])
    return pd.concat(tables[1:] or tables, ignore_index=True)


def _of_numbers(table: pd.DataFrame, experiment: Mapping[str, Any]) -> pd.DataFrame:
    """The points of one training, from its table of `measured.of_training`."""
    own = (table["setting"] == str(FULL)) & ~table["fewer"]
    settings = table["setting"].map(Setting.parse)
    families = pd.Series([configured_family(one, experiment) for one in settings], table.index)
    steps, alone = table["steps"].map("{:.0f} steps".format), table["setting"] == str(FULL)
    less = pd.Series(np.where(alone, "full_fewer_steps", "duodiff_fewer_steps"), table.index)
    named = steps.where(alone, table["setting"] + ", " + steps)
    whole = table.loc[own, "distance"].item()
    found = table.assign(
        family=families.mask(table["fewer"], less),
        setting=table["setting"].mask(table["fewer"], named),
        relative_distance=table["distance"] / whole,
        relative_95=table["minus_full_95"] / whole,
        operations=1 / table["operations"],
        time=1 / table["speedup"],
        resampled=None,
    )
    base = found[own].assign(family="full_fewer_steps")
    return pd.concat([found, base], ignore_index=True) if table["fewer"].any() else found


def configured_family(setting: Setting, experiment: Mapping[str, Any]) -> str:
    """The family of a setting at its sampler's own number of steps, by the configuration of its experiment."""
    if not setting.is_schedule:
        return "adadiff" if setting.exits_early else "switch"
    name = setting.spelled
    if name in experiment["budgets"]:
        return "chosen_steps" if experiment["budgets"][name]["choose"] == "steps" else "chosen"
    used = [one["network"] for one in experiment["schedules"][name]["intervals"]]
    guided = any("by" in experiment["networks"].get(network, {}) for network in used)
    return "guided" if guided else "named"


def _by_setting(points: pd.DataFrame) -> pd.Series:
    """The families, the same in every training: a budget of steps may choose the sampler's own in one of them."""
    of_steps = points["family"] == "chosen_steps"
    found = of_steps.groupby([points["experiment"], points["setting"]]).transform("any")
    return points["family"].mask((points["family"] == "chosen") & found, "chosen_steps")


def _of_training(own: pd.DataFrame, fewer: pd.DataFrame) -> pd.DataFrame:
    """The points of one training, from its cells at the sampler's own steps and with fewer."""
    parts = [own.assign(family=own["parameters"].map(family), setting=own["cell"])]
    full = own["t_s"] == 0
    base = parts[0][full].iloc[0]
    if len(fewer):
        alone, steps = fewer["t_s"] == 0, fewer["steps"].map("{:.0f} steps".format)
        families = np.where(alone, "full_fewer_steps", "duodiff_fewer_steps")
        named = steps.where(alone, fewer["cell"] + ", " + steps)
        parts += [fewer.assign(family=families, setting=named)]
        parts += [parts[0][full].assign(family="full_fewer_steps")]
    table = pd.concat(parts, ignore_index=True)
    needed = [*_POINT, "minus_full", "gflops_per_trajectory"]
    table = table.reindex(columns=[*dict.fromkeys([*table, *needed])])
    whole = base["distance"]
    return table.assign(
        relative_distance=table["distance"] / whole,
        relative_95=table["minus_full_95"] / whole,
        operations=table["gflops_per_trajectory"] / base.get("gflops_per_trajectory", np.nan),
        time=1 / table["speedup"],
        resampled=_with_fulls(table),
    )[_POINT]


def _with_fulls(table: pd.DataFrame) -> pd.Series:
    """The resamples of the cells of one training; the full backbone minus itself has some that do not vary."""
    found = [r if isinstance(r, list) and r else None for r in table["resampled"]]
    lengths = {len(r) for r in found if r}
    full = (table["t_s"] == 0) & table["minus_full"].isna()
    if len(lengths) == 1:
        zeros = [0.0] * lengths.pop()
        found = [zeros if f and r is None else r for f, r in zip(full, found, strict=True)]
    return pd.Series(found, table.index, dtype=object)


def over_settings(points: pd.DataFrame) -> pd.DataFrame:
    """One row a setting: the means over its trainings, in the columns of `front_points`.

    `relative_95` is then half of Student's interval, one relative distance a training. `trainings` is their number,
    `train_seed` their seeds as text.
    `front` says whether the setting is on its family's lower front in operations, `front_time` in time.
    """
    groups = points.groupby(["experiment", "family", "setting"], sort=False)
    found = pd.DataFrame([_mean(group) for _, group in groups], columns=[*_POINT, "trainings"])
    found = found.drop(columns=["resampled", "distance"])
    for name, cost in (("front", "operations"), ("front_time", "time")):
        found[name] = False
        for _, rows in found.groupby(["experiment", "family"]):
            known = rows[rows[cost].notna()]
            on = lower_front(known[cost].to_numpy(), known["relative_distance"].to_numpy())
            found.loc[known.index[on], name] = True
    return found


def plotted(records: list[Path], studies: dict[str, dict]) -> pd.DataFrame:
    """The settings of the figure: `over_settings`, with the title of each experiment."""
    points = front_points(records)
    found = over_settings(points)
    return found.assign(title=found["experiment"].map(_titles(points, studies)))


def _titles(points: pd.DataFrame, studies: dict[str, dict]) -> dict[str, str]:
    return titles(zip(points["experiment"], points["train_seed"], strict=True), studies)


def _mean(group: pd.DataFrame) -> dict[str, Any]:
    row = dict(group.iloc[0]) | {"trainings": len(group)}
    row |= {"train_seed": seeds_text(group["train_seed"])}
    row |= {name: group[name].mean() for name in ("relative_distance", "operations", "time")}
    if len(group) > 1:
        row["relative_95"] = half_width(group["relative_distance"].to_numpy(float))
    return row


# --- what a family saves


def lower_front(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The indices of the lower front, the cheapest first: each is better than all that cost no more."""
    order = np.lexsort((values, costs))
    best = np.minimum.accumulate(np.concatenate([[np.inf], values[order]]))
    return order[values[order] < best[:-1]]


@dataclass(frozen=True)
class Saving:
    """The share of the full backbone's operations that a family saves at a distance.

    `value` is that of the front's line. `least` is that of the cheapest measured setting within the distance, `most`
    that of the next cheaper one, which is beyond it: what a setting between them saves lies between theirs, if the
    distance falls with the cost. Where the full backbone is no dearer, it is taken, and nothing is saved.
    """

    value: float
    least: float
    most: float


def saving(costs: np.ndarray, values: np.ndarray, limit: float) -> Saving | None:
    """What settings of these costs and relative distances save at `limit`; None where none of them is within it."""
    on = lower_front(costs, values)
    costs, values = costs[on], values[on]
    within = np.flatnonzero(values <= limit)
    if not len(within):
        return None
    first = int(within[0])
    next_to = max(first - 1, 0)
    share = 1.0
    if first:
        share = (values[next_to] - limit) / (values[next_to] - values[first])
    cost = costs[next_to] + share * (costs[first] - costs[next_to])
    return Saving(*(max(0.0, 1 - float(c)) for c in (cost, costs[first], costs[next_to])))


def _case(rows: pd.DataFrame, limit: float, alone: bool) -> Case:
    """The operations that a family saves in one training. With `alone` an interval covers its images."""
    costs, relative = rows["operations"].to_numpy(float), distances(rows)
    relative = relative * (rows["relative_distance"] / rows["distance"]).to_numpy(float)[:, None]
    case = _saved(saving(costs, relative[:, 0], limit))
    if case.value is None or not alone or relative.shape[1] == 1:
        return case
    others = [_saved(saving(costs, one, limit)).value for one in relative[:, 1:].T]
    low, high = np.percentile(np.array(others, float), [2.5, 97.5])
    return replace(case, interval=(min(case.value, float(low)), max(case.value, float(high))))


def _saved(found: Saving | None) -> Case:
    """A saving as a case, nothing where the distance is not reached. What the line may add is its slack."""
    if found is None:
        return Case("", 0.0, note="not reached")
    return Case("", found.value, slack=(found.value - found.least, found.most - found.value))


def front_table(points: pd.DataFrame, studies: dict[str, dict]) -> pd.DataFrame:
    """What each family saves, a row an experiment and family; columns: experiment, family, and COLUMNS with intervals.

    `points` are those of `front_points`, `studies` maps an experiment to its title. A saving is the mean over the
    trainings. A training that does not reach the distance runs the full backbone, and saves nothing; the saving is
    missing where no training reaches it. The interval is Student's over the trainings; of one training it covers
    resamples of the images. It includes what the line between two settings may add. `minus_switch` and
    `minus_full_fewer_steps` are differences to what these families save, one a training. Of one training they have no
    interval.
    """
    points = points[points["operations"].notna()]
    of, means = _titles(points, studies), over_settings(points)
    numbers = [f"{name}{end}" for name in _NUMBERS for end in ("_low", "_high")]
    columns = [*COLUMNS, *(name + _suffix(limit) for limit in LIMITS for name in numbers)]
    rows = [row for name, study in points.groupby("experiment") for row in _rows(study, means)]
    table = pd.DataFrame(rows, columns=["experiment", "family", *columns])
    return table.assign(dataset=table["experiment"].map(of), title=table["family"].map(FAMILIES))


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `front_table` with a column for each of COLUMNS: numbers as text with their intervals, or "none"."""
    shown = table[[*COLUMNS]].astype(object)
    for limit in LIMITS:
        for name in _NUMBERS:
            ends = [f"{name}{end}{_suffix(limit)}" for end in ("", "_low", "_high")]
            shown[ends[0]] = [_text(*values) for values in table[ends].astype(float).to_numpy()]
        saved, reached = "saved" + _suffix(limit), "reached" + _suffix(limit)
        shown[saved] = shown[saved].fillna("none")
        counts = zip(table[reached], table["trainings"], strict=True)
        shown[reached] = [f"{some} of {every}" for some, every in counts]
    return shown


def _text(value: float, low: float, high: float) -> str | None:
    if np.isnan(value):
        return None
    value, low, high = (round(number, 2) + 0.0 for number in (value, low, high))  # 0.00, not -0.00
    return f"{value:.2f}" + ("" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def _rows(study: pd.DataFrame, means: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows of one experiment."""
    families = dict(list(study.groupby("family")))
    alone = study["train_seed"].nunique() == 1
    cases = {
        (name, limit): {
            seed: _case(rows, limit, alone) for seed, rows in family.groupby("train_seed")
        }
        for name, family in families.items()
        for limit in LIMITS
    }
    for name in [name for name in FAMILIES if name in families]:
        rows = families[name]
        mine = means[
            (means["experiment"] == rows["experiment"].iloc[0]) & (means["family"] == name)
        ]
        row = {"experiment": rows["experiment"].iloc[0], "family": name, "settings": len(mine)}
        row |= {"trainings": rows["train_seed"].nunique(), "n": rows["n"].iloc[0]}
        row |= {"train_seed": seeds_text(rows["train_seed"])}
        for limit in LIMITS:
            found = _at(cases[name, limit], mine.sort_values("operations"), limit)
            for base in BASELINES if found["reached"] else ():
                others = cases.get((base, limit), {}) if base != name else {}
                found |= _minus(cases[name, limit], others, f"minus_{base}")
            row |= {key + _suffix(limit): value for key, value in found.items()}
        yield row


def _at(cases: dict[int, Case], means: pd.DataFrame, limit: float) -> dict[str, Any]:
    """What one family saves at one limit; `means` are its settings over the trainings, the cheapest first."""
    reached = sum(not case.note for case in cases.values())
    if not reached:
        return {"reached": 0}
    within = means[means["relative_distance"] <= limit]["setting"]
    (case,) = over_trainings([[case] for case in cases.values()])
    low, high = case.ends()
    found = {"reached": reached, "saved": case.value}
    found |= {"saved_low": max(0.0, low), "saved_high": min(1.0, high)}
    return found | {"setting": within.iloc[0] if len(within) else None}


def _minus(cases: dict[int, Case], others: dict[int, Case], name: str) -> dict[str, Any]:
    """The difference of two families' savings over the trainings that both were measured in; empty without such."""
    pairs = [(case, others[seed]) for seed, case in cases.items() if seed in others]
    if not pairs:
        return {}
    differences = [
        Case(
            "",
            float(one.value or 0) - float(other.value or 0),
            slack=(one.slack[0] + other.slack[1], one.slack[1] + other.slack[0]),
        )
        for one, other in pairs
    ]
    (case,) = over_trainings([[difference] for difference in differences])
    if len(pairs) == 1:
        return {name: case.value}
    low, high = case.ends()
    return {name: case.value, f"{name}_low": low, f"{name}_high": high}
