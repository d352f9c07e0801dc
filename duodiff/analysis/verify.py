"""A run compared with the shipped study: six named quantities decide, every other number is listed (no torch).

A number of a run is inside if it lies in the prediction interval of a further training: mean, give or take
t sqrt(1 + 1/G) sd over the G shipped trainings, widened by how far other kernels move the mean. Distances, times, exits
and thresholds are compared as logarithms, lost shares as they are. The named quantities are jointly inside for 95% of
further trainings: each has a sixth of 5%, and shares it equally among its cells (Bonferroni).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from duodiff.analysis.cells import distance_name
from duodiff.analysis.lost import lost_share
from duodiff.analysis.shipped import OTHER, USUAL, Shipped, Training
from duodiff.analysis.students import prediction_half_width
from duodiff.schedules import T
from duodiff.settings import FULL, Setting

FALSE_ALARMS = 0.05
"""The share of honest runs with a named quantity outside; of the other numbers, for each by itself."""

NAMED = {
    "full": "distance of the full backbone",
    "shallow": "distance of the shallow backbone",
    "duodiff": "distances of DuoDiff",
    "adadiff": "distances of AdaDiff",
    "exits": "thresholds and exits of AdaDiff",
    "times": "speed-ups",
}
"""The named quantities, and their titles."""

INSIDE, OUTSIDE, MISSING = "inside", "outside", "not measured"

_SHALLOW = Setting("t_s", str(T))


@dataclass(frozen=True)
class Line:
    """One number of a run beside the shipped ones: its named quantity (empty for none), and the verdict.

    `low` and `high` are the ends of the interval, `verdict` is INSIDE, OUTSIDE or MISSING. `why` says what may have
    moved a number that is not inside. `decides` is whether the verdict counts.
    """

    quantity: str
    number: str
    value: float
    low: float
    high: float
    verdict: str
    why: str
    decides: bool


@dataclass(frozen=True)
class Comparison:
    """A training of a run beside the shipped study of its experiment.

    `differences` are what is otherwise than in the shipped study, in words. `further` are settings that are not in it.
    `equal` is how many numbers equal those of the shipped training with the same seed to four digits, of `comparable`
    ones.
    """

    training: Training
    lines: list[Line]
    differences: list[str]
    further: list[str]
    equal: int
    comparable: int

    def outside(self) -> list[str]:
        """The named quantities that are not inside."""
        found = {line.quantity for line in self.lines if line.decides and line.verdict != INSIDE}
        return [name for name in NAMED if name in found]

    def undecided(self) -> list[str]:
        """The named quantities without a number that decides."""
        deciding = {line.quantity for line in self.lines if line.decides}
        return [name for name in NAMED if name not in deciding]


# --- the numbers of a training


def named_numbers(numbers: pd.DataFrame) -> pd.Series:
    """The numbers of the named quantities by (quantity, number), from the `numbers` of a training."""
    cells = _own_cells(numbers)
    found: dict[tuple[str, str], float] = {}
    for sampler, rows in cells.groupby("sampler"):
        values = rows.pivot_table(index="setting", columns="metric", values="value")
        for (quantity, name), value in _of_sampler(values, distance_name(cells)):
            found[quantity, f"{sampler} {name}"] = value
        thetas = rows.dropna(subset="theta").groupby("setting")["theta"].first()
        found |= {("exits", f"{sampler} {s}, threshold"): value for s, value in thetas.items()}
    return pd.Series(found | _speed_ups(numbers), dtype=float)


def _speed_ups(numbers: pd.DataFrame) -> dict[tuple[str, str], float]:
    """The speed-ups among the `numbers` of a training."""
    times = numbers[
        (numbers["metric"] == "speedup") & ~numbers["method"].isin(["full", "schedule"])
    ]
    found = {}
    for row in times.itertuples():
        name = row.setting or row.method.replace("_", " ")
        found["times", f"{row.sampler} {name}, speed-up"] = row.value
    return found


def _own_cells(numbers: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells at the first sampling seed and at their sampler's own steps, which are the most."""
    cells = numbers[(numbers["setting"] != "") & numbers["seed"].notna()]
    cells = cells[cells["seed"] == cells["seed"].min()]
    return cells[cells["steps"] == cells.groupby("sampler")["steps"].transform("max")]


def _of_sampler(values: pd.DataFrame, metric: str) -> Iterator[tuple[tuple[str, str], float]]:
    """Named distances and exits of one sampler; `values` has a row a setting and a column a metric.

    A distance is a lost share where there is a shallow backbone, else it is over the full backbone's.
    """
    distances = values[metric].dropna()
    full, shallow = (distances.get(str(s), np.nan) for s in (FULL, _SHALLOW))
    for text, distance in distances.items():
        setting = Setting.parse(text)
        if setting.is_schedule:  # chosen in each training anew
            continue
        if setting.method in ("full", "shallow"):
            yield (setting.method, f"{text}, {metric}"), distance
        elif np.isnan(shallow):
            yield (setting.method, f"{text}, distance over full's"), distance / full
        else:
            share = float(lost_share(distance, full, shallow))
            yield (setting.method, f"{text}, {_LOST}"), share
    for text, layer in values.get("mean_exit_layer", pd.Series(dtype=float)).dropna().items():
        yield ("exits", f"{text}, mean exit layer"), layer


_LOST = "lost share"


def other_numbers(numbers: pd.DataFrame) -> pd.Series:
    """Every number of a training by ("", its name), as it was recorded."""
    rows = numbers.assign(
        name=[
            " ".join(
                filter(None, [row.sampler, _steps(row), row.setting or row.method, _seed(row)])
            )
            + f", {row.metric}"
            for row in numbers.itertuples()
        ]
    )
    rows = rows.drop_duplicates("name")
    index = pd.MultiIndex.from_arrays([[""] * len(rows), rows["name"]])
    return pd.Series(rows["value"].to_numpy(float), index=index)


def _steps(row) -> str:
    return f"{row.steps:.0f} steps" if pd.notna(row.steps) else ""


def _seed(row) -> str:
    return f"seed {row.seed:.0f}" if pd.notna(row.seed) and row.seed else ""


Numbers = Callable[[pd.DataFrame], pd.Series]
"""Takes numbers out of a training's: `named_numbers` or `other_numbers`."""

# --- intervals


@dataclass(frozen=True)
class Spread:
    """Numbers of the shipped trainings: a row a number, a column a training; of both halves."""

    usual: pd.DataFrame
    other: pd.DataFrame

    def without(self, seed: int) -> "Spread":
        """The table without one training, in either half."""
        return Spread(self.usual.drop(columns=seed), self.other.drop(columns=seed, errors="ignore"))

    def intervals(self, share: float) -> pd.DataFrame:
        """The ends, low and high, of each number's prediction interval, at `share` of false alarms (`_alarms`)."""
        names = self.usual.index
        usual = np.array(self.usual, float)
        other = np.array(self.other.reindex(index=names, columns=self.usual.columns), float)
        positive = ~(usual <= 0).any(axis=1) & ~(other <= 0).any(axis=1)
        logarithmic = positive & ~names.get_level_values(1).str.contains(_LOST)
        for half in (usual, other):
            half[logarithmic] = np.log(half[logarithmic])
        rows = [_ends(*row) for row in zip(usual, other, _alarms(names, share), strict=True)]
        ends = np.array(rows).reshape(-1, 2)
        # a shipped number has nine digits
        ends += 1e-8 * np.outer(np.where(logarithmic, 1, np.abs(ends).max(axis=1)), [-1, 1])
        ends[logarithmic] = np.exp(ends[logarithmic])
        return pd.DataFrame(ends, names, ["low", "high"])


def _ends(usual: np.ndarray, other: np.ndarray, alarms: float) -> tuple[float, float]:
    """The ends of the prediction interval of one number, of its values in both halves (NaN where there is none).

    How far other kernels move the mean is a mean of paired differences, over the trainings that both halves have.
    """
    values, pairs = usual[np.isfinite(usual)], (other - usual)[np.isfinite(other - usual)]
    if len(values) < 2:
        return np.nan, np.nan
    moved = pairs.mean() if len(pairs) else 0.0
    half = prediction_half_width(values, 1 - alarms)
    return values.mean() + min(moved, 0) - half, values.mean() + max(moved, 0) + half


def spread(shipped: Shipped, numbers: Numbers) -> Spread:
    """These numbers of all shipped trainings."""
    halves = {
        half: pd.DataFrame({t.train_seed: numbers(t.numbers) for t in shipped.halves.get(half, [])})
        for half in (USUAL, OTHER)
    }
    return Spread(halves[USUAL], halves[OTHER])


def _alarms(names: pd.MultiIndex, share: float) -> pd.Series:
    """The share of false alarms of each number: a named quantity's is `share` over all, split over its cells."""
    quantities = pd.Series(names.get_level_values(0), index=names)
    sizes = quantities.map(quantities.value_counts())
    split = share / len(NAMED) / sizes
    return split.where(quantities != "", FALSE_ALARMS)


# --- a run


def compare(
    training: Training, shipped: Shipped, config: dict, share: float = FALSE_ALARMS
) -> Comparison:
    """A training of a run beside the shipped trainings; `share` of false alarms, over the six named quantities.

    `config` is the run's configuration, empty if it is not known. Raises ValueError for a study of one training.
    """
    if len(shipped.halves[USUAL]) < 2:
        raise ValueError(f"{shipped.experiment}: found one shipped training; accepted: two or more")
    run = _Run(training, shipped, _differences(training, shipped, config))
    lines: list[Line] = []
    for numbers in (named_numbers, other_numbers):
        table, mine = spread(shipped, numbers), numbers(training.numbers)
        ends = table.intervals(share)
        values = mine.reindex(ends.index)
        lines += map(run.line, ends.index, values, ends["low"], ends["high"])
    equal, comparable = _equal(training, shipped)
    return Comparison(
        training=training,
        lines=lines,
        differences=[f"{kind}: {text}" for kind, text in run.differences.items()],
        further=_further(training, shipped),
        equal=equal,
        comparable=comparable,
    )


class _Run:
    """What the lines of one comparison share: what is otherwise than in the shipped study, and which times count."""

    def __init__(self, training: Training, shipped: Shipped, differences: dict[str, str]):
        self.differences = differences
        there = _machines(
            made for half in shipped.halves.values() for made in half[0].made["timing"]
        )
        self.elsewhere = not _machines(training.made.get("timing", [])) <= there
        rows = training.numbers
        self.disturbed = _speed_ups(rows[rows["disturbed"].eq(True)]).keys()

    def line(self, name: tuple[str, str], value: float, low: float, high: float) -> Line:
        """One number: whether it is inside, and if not, why that may be."""
        quantity, number = name
        verdict = INSIDE if low <= value <= high else OUTSIDE
        verdict = MISSING if np.isnan(value) else verdict
        reasons = [*self.differences]
        decides = quantity != "" and not np.isnan(low)  # NaN where the shipped trainings have none
        if quantity == "times":
            reasons = ["disturbed"] * (name in self.disturbed) + ["machine"] * self.elsewhere
            decides = decides and not reasons
        return Line(
            quantity=quantity,
            number=number,
            value=value,
            low=low,
            high=high,
            verdict=verdict,
            why="" if verdict == INSIDE else ", ".join(reasons) or "no known reason",
            decides=decides,
        )


def leave_one_out(shipped: Shipped) -> dict[tuple[str, int], list[str]]:
    """The named quantities that are outside where a shipped training is compared with all others, by half and seed.

    A training's twin in the other half is left out, too.
    """
    table = spread(shipped, named_numbers)
    found = {}
    for half, numbers in ((USUAL, table.usual), (OTHER, table.other)):
        for seed in numbers:
            ends, mine = table.without(seed).intervals(FALSE_ALARMS), numbers[seed]
            mine = mine.reindex(ends.index)
            inside = (mine >= ends["low"]) & (mine <= ends["high"])
            outside = set(mine.index[~inside].get_level_values(0))
            found[half, seed] = [name for name in NAMED if name in outside]
    return found


def _machines(made) -> set[tuple]:
    return {(one.get("device"), one.get("kernels")) for one in made}


def _differences(training: Training, shipped: Shipped, config: dict) -> dict[str, str]:
    """What is otherwise than in the shipped study, in words, by kind."""
    there = [half[0].made for half in shipped.halves.values()]
    pairs = {
        role: (mine, theirs)
        for role, mine in training.made.items()
        if (theirs := [one for made in there for one in made.get(role, [])])
    }
    found = {
        "configuration": "; ".join(_changed_configuration(training, shipped, config)),
        "code": ", ".join(
            role
            for role, (mine, theirs) in pairs.items()
            if not {one["code"] for one in mine} <= {one["code"] for one in theirs}
        ),
        "versions": _other_versions(*map(list, zip(*pairs.values(), strict=True))),
        "machine": _other_machines(*map(list, zip(*pairs.values(), strict=True))),
    }
    return {kind: text for kind, text in found.items() if text}


def _further(training: Training, shipped: Shipped) -> list[str]:
    """The cells of a training, by sampler and setting, that no shipped training has."""
    there = pd.concat(one.numbers for one in shipped.halves[USUAL])
    mine, theirs = (
        dict.fromkeys(f"{row.sampler} {row.setting}" for row in rows.itertuples() if row.setting)
        for rows in (training.numbers, there)
    )
    return [name for name in mine if name not in theirs]


def _flat(made: list[list[dict]]) -> list[dict]:
    return [one for role in made for one in role]


def _other_versions(mine: list[list[dict]], theirs: list[list[dict]]) -> str:
    def versions(made):
        return {item for one in _flat(made) for item in one.get("libraries", {}).items()}

    here, there = versions(mine), versions(theirs)
    known = dict(sorted(there))
    new = [(name, found) for name, found in sorted(here - there) if name != "duodiff"]
    return ", ".join(f"{name} {found} (shipped: {known.get(name, 'none')})" for name, found in new)


def _other_machines(mine: list[list[dict]], theirs: list[list[dict]]) -> str:
    here, there = _machines(_flat(mine)), _machines(_flat(theirs))

    def text(machines):
        return "; ".join(sorted(", ".join(filter(None, machine)) for machine in machines))

    return f"{text(here - there)} (shipped: {text(there)})" if here - there else ""


def _changed_configuration(training: Training, shipped: Shipped, config: dict) -> Iterator[str]:
    """The keys of the experiment and its dataset that have another value than in the shipped study."""
    if not config:
        return
    experiment = config["experiments"][training.experiment]
    mine = {"experiment": experiment, "dataset": config["datasets"][experiment["dataset"]]}
    before, now = (dict(_leaves("", about)) for about in (shipped.configuration, mine))
    for key in sorted(before.keys() | now.keys()):
        if key not in before and _FURTHER.match(key):
            continue
        if key not in _NAMES and before.get(key) != now.get(key):
            shown = key.removeprefix("experiment.")
            yield f"{shown} {before.get(key)} is {now.get(key)}"


_NAMES = ("experiment.title", "experiment.train_seeds", "experiment.dataset")
"""Keys that decide no number of a training."""

_FURTHER = re.compile(r"experiment\.(networks|schedules|budgets|grid\.\w+\.schedules\Z)")
"""Keys that add cells to a training, and change none."""


def _leaves(key: str, value) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(f"{key}.{name}".strip("."), item)
    else:
        yield key, value


def _equal(training: Training, shipped: Shipped) -> tuple[int, int]:
    """How many numbers of the shipped training with the same seed the run has to four digits, and of how many."""
    twins = [t for t in shipped.halves[USUAL] if t.train_seed == training.train_seed]
    if not twins:
        return 0, 0
    mine, theirs = (
        other_numbers(rows[~rows["metric"].str.startswith(_TIMES)])
        for rows in (training.numbers, twins[0].numbers)
    )
    both = mine.index.intersection(theirs.index)
    close = np.isclose(mine[both], theirs[both], rtol=5e-5, atol=1e-12)
    return int(close.sum()), len(both)


_TIMES = ("seconds", "speedup", "decode", "joules", "processor")


def listed_verdicts(verdicts: Mapping[str, str], shipped: Shipped) -> Iterator[str]:
    """A line a claim: its verdict in a run, inside or outside, over the shipped trainings, and in single ones.

    A verdict is inside if it is the one over all shipped trainings, or that of a training by itself.
    """
    for claim, found in verdicts.items():
        if claim not in shipped.verdicts.index:
            yield f"{claim}: {found} (shipped: {MISSING})"
            continue
        told = shipped.verdicts.loc[claim]
        counts = told.drop("all").value_counts()
        single = ", ".join(f"{verdict} in {count}" for verdict, count in counts.items())
        inside = INSIDE if found in {told["all"], *counts.index} else OUTSIDE
        yield f"{claim}: {found}, {inside} (all trainings: {told['all']}; single ones: {single})"


# --- as text


def listed(found: Comparison, trainings: int) -> list[str]:
    """The comparison as lines of text, for a study of so many shipped `trainings`."""
    name = f"{found.training.experiment}, training seed {found.training.train_seed}"
    lines = [f"{name}, beside {trainings} shipped trainings (n = {trainings})"]
    lines += [f"  otherwise than there: {text}" for text in found.differences]
    if found.further:
        lines.append(f"  not in the shipped study: {', '.join(found.further)}")
    if found.comparable:
        lines.append(
            f"  equal to four digits with the shipped training of this seed: {found.equal} of"
            f" {found.comparable} numbers but times"
        )
    for quantity, title in NAMED.items():
        mine = [line for line in found.lines if line.quantity == quantity]
        lines.append(f"  {title}: {_verdict(found, quantity)}")
        lines += [f"    {_shown(line)}" for line in mine]
    others = [line for line in found.lines if line.quantity == ""]
    left = [line for line in others if line.verdict == OUTSIDE]
    lines.append(
        f"  other numbers, each by itself: {len(left)} of {len(others)} outside"
        f" ({FALSE_ALARMS * len(others):.0f} expected)"
    )
    lines += [f"    {_shown(line)}" for line in left]
    return lines


def row(found: Comparison, line: Line) -> dict:
    """A line of a comparison as a row of a table."""
    about = {"experiment": found.training.experiment, "train_seed": found.training.train_seed}
    return about | asdict(line)


def _verdict(found: Comparison, quantity: str) -> str:
    if quantity in found.undecided():
        return "decides nothing here"
    return OUTSIDE if quantity in found.outside() else INSIDE


def _shown(line: Line) -> str:
    text = f"{line.number}: {line.value:.4g} in [{line.low:.4g}, {line.high:.4g}], {line.verdict}"
    return text + (f" ({line.why})" if line.why else "")


def summed(found: list[Comparison], alarms: dict[tuple[str, int], list[str]]) -> str:
    """One line: whether the named quantities are inside, and how often a shipped training would be outside."""
    outside = {name: None for comparison in found for name in comparison.outside()}
    undecided = {name: None for comparison in found for name in comparison.undecided()}
    deciding = len(NAMED) - len(undecided.keys() - outside.keys())
    said = f"{deciding - len(outside)} of {deciding} named quantities inside the shipped study"
    said += f"; outside: {', '.join(NAMED[name] for name in outside)}" if outside else ""
    if left := [NAMED[name] for name in undecided if name not in outside]:
        said += f"; not decided: {', '.join(left)}"
    wrong = sum(bool(names) for names in alarms.values())
    return f"{said} (a shipped training left out: outside in {wrong} of {len(alarms)})"
