"""The charts of the page: where each line, mark and label of an SVG lies, and what a mark says (no drawing).

A chart is made for a screen and once more for a phone. The same methods have the looks of all figures.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle

from duodiff.analysis.front import FAMILIES, lower_front
from duodiff.analysis.words import percent, with_half
from duodiff.plotting.front import look_of
from duodiff.plotting.style import METHODS, Look, looks, shades
from duodiff.schedules import T
from duodiff.settings import Setting

SIZES = {"wide": (860, 470), "narrow": (360, 400)}
"""Width and height of a chart in units of its text, by the class of its picture."""

_EDGES = {"wide": (64, 72, 16, 52), "narrow": (56, 58, 12, 46)}  # left, right, top, bottom
_LETTER, _LINE = 8.2, 15  # width and height of a letter


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high` over the pixels `start` to `end`; `bend` stretches it, `ticks` are (value, text)."""

    label: str
    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[tuple[float, str]]
    bend: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        """The pixel of a value; beyond an end it is that end's."""
        low, high = self.bend(self.low), self.bend(self.high)
        share = (self.bend(float(value)) - low) / (high - low)
        return round(self.start + min(max(share, 0), 1) * (self.end - self.start), 1)

    def shown(self) -> list[tuple[float, str]]:
        """The ticks with their pixels."""
        return [(self(value), text) for value, text in self.ticks]


class Line(NamedTuple):
    """A line through pixels, as the `d` of an SVG path; `name` is that of its look."""

    name: str
    d: str
    faint: bool = False


@dataclass(frozen=True)
class Mark:
    """A point that a reader can look at: its place, its look, what it says, and the cell whose images it shows."""

    name: str
    x: float
    y: float
    said: list[tuple[str, str]]
    cell: str
    bars: list[tuple[float, float, float, float]] = field(default_factory=list)

    def text(self) -> str:
        """What it says, in one line."""
        return "; ".join(f"{term}: {text}" for term, text in self.said)


class Label(NamedTuple):
    """A text beside a mark."""

    name: str
    x: float
    y: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Drawn:
    """A chart of one size."""

    size: str
    x: Axis
    y: Axis
    lines: list[Line]
    marks: list[Mark]
    labels: list[Label] = field(default_factory=list)
    right: tuple[str, list[tuple[float, str]]] = ("", [])

    @property
    def width(self) -> int:
        """In pixels."""
        return SIZES[self.size][0]

    @property
    def height(self) -> int:
        """In pixels."""
        return SIZES[self.size][1]


@dataclass(frozen=True)
class Chart:
    """A chart in all sizes, with the looks of its lines by name; `first` is the mark that is looked at first.

    `radius` and `near` are those of a mark, and of what counts as pointing at it. `costs` is whether it shows what
    settings cost.
    """

    id: str
    title: str
    looks: dict[str, Look]
    drawn: list[Drawn]
    first: int
    radius: float = 6.5
    near: float = 13
    costs: bool = False


def dashes(look: Look) -> str:
    """A look's dashes for an SVG, whose lines are 1.8 wide."""
    return ",".join(f"{1.8 * length:g}" for length in look.dashes or ()) or "none"


def marker(look: Look, radius: float) -> str:
    """The outline of a look's marker as the `d` of an SVG path, around 0."""
    style = MarkerStyle(look.marker)
    outline = style.get_path().transformed(style.get_transform())
    scale = radius * (1.6 if look.marker == "*" else 1) / np.abs(outline.vertices).max()
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    parts = []
    for values, code in outline.iter_segments(curves=True, simplify=False):
        letter = letters[int(code)]
        numbers = [] if letter == "Z" else (scale * values * _DOWN[: len(values)]).round(2)
        parts.append(letter + ",".join(f"{number:g}" for number in numbers))
    return "".join(parts)


_DOWN = np.array([1, -1] * 3)
"""An SVG's y grows downwards."""


def _axes(size: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """The pixels of both axes: left to right, bottom to top."""
    (width, height), (left, right, top, bottom) = SIZES[size], _EDGES[size]
    return (left, width - right), (height - bottom, top)


def _path(x: Axis, y: Axis, rows: pd.DataFrame, columns: tuple[str, str]) -> str:
    places = [f"{x(a)},{y(b)}" for a, b in rows[list(columns)].itertuples(index=False)]
    return "M" + "L".join(places)


# --- labels


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def placed(wanted: list[tuple[Mark, str]], x: Axis, y: Axis, paths: Sequence[str]) -> list[Label]:
    """Labels for marks, each at the first place beside its mark that is free; none where no place is.

    A place on one of the lines, whose `paths` are "Mx,yLx,y...", or on an interval is taken where no other is free.
    """
    soft = [box for path in paths for box in _along(_corners(path))]
    for mark, _ in wanted:
        for left, top, right, bottom in mark.bars:
            soft += _along([(left, top), (right, bottom)])
    hard = [_Box(m.x - 7, m.y - 7, m.x + 7, m.y + 7) for m, _ in wanted]
    labels = []
    for mark, text in wanted:
        places = [(la, box) for la, box in _places(mark, text) if _within(box, x, y)]
        free = [one for one in places if not any(one[1].meets(other) for other in hard)]
        clear = [one for one in free if not any(one[1].meets(other) for other in soft)]
        for label, box in (clear or free)[:1]:
            labels.append(label)
            hard.append(box)
    return labels


def _within(box: _Box, x: Axis, y: Axis) -> bool:
    return box.left > x.start and box.right < x.end and box.top > y.end and box.bottom < y.start


def _corners(path: str) -> list[tuple[float, float]]:
    corners = [corner.split(",") for corner in path.removeprefix("M").split("L")]
    return [(float(x), float(y)) for x, y in corners]


def _along(corners: list[tuple[float, float]]) -> Iterator[_Box]:
    """Small boxes along a line through these corners."""
    for (a, b), (c, d) in pairwise(corners):
        count = max(1, int(max(abs(c - a), abs(d - b)) / 5))
        for x, y in zip(np.linspace(a, c, count + 1), np.linspace(b, d, count + 1), strict=True):
            yield _Box(x - 1, y - 1, x + 1, y + 1)


def _places(mark: Mark, text: str) -> Iterator[tuple[Label, _Box]]:
    """Above, below, right and left of a mark, and at its four corners."""
    width = _LETTER * len(text)
    beside = [(0, -11, "middle"), (0, 20, "middle"), (11, 4, "start"), (-11, 4, "end")]
    beside += [(8, -9, "start"), (-8, -9, "end"), (8, 17, "start"), (-8, 17, "end")]
    for across, down, anchor in beside:
        x, y = mark.x + across, mark.y + down
        left = x - width * {"middle": 0.5, "start": 0, "end": 1}[anchor]
        box = _Box(left, y - _LINE + 4, left + width, y + 4)
        yield Label(mark.name, round(x, 1), round(y, 1), text, anchor), box


# --- Figure 4


def trade_off(table: pd.DataFrame, x: str = "ms", singles: Sequence[pd.DataFrame] = ()) -> Chart:
    """Lost share (without a shallow backbone the distance) against `x`, "ms" or "operations", of settings.

    It has every setting, as the front does: those of Figure 4, and named schedules by family. `table` is as
    `analysis.measured` has it; the column `family` is that of each named schedule. `singles` are the same of single
    trainings, whose lines are drawn faintly.
    """
    table = _with_cost(table, x)
    others = [_with_cost(one, x) for one in singles]
    shown = {name: look for name, look in _LOOKS.items() if name in {*table["look"]}}
    drawn = [_trade_off(table, others, x, size) for size in SIZES]
    switched = [i for i, name in enumerate(table["look"]) if name == "duodiff"]
    first = switched[len(switched) // 2] if switched else 0
    return Chart(f"figure4-{x}", _COST[x].label, shown, drawn, first, costs=True)


def _with_cost(table: pd.DataFrame, x: str) -> pd.DataFrame:
    """The settings whose cost is known, with it, half its interval, and the names of their looks."""
    half = table["ms_95"] if x == "ms" else 0.0
    table = table.assign(look=_look_names(table), cost=_COST[x].of(table), cost_95=half)
    return table.dropna(subset=["cost", "distance"])


class _Cost(NamedTuple):
    label: str
    of: Callable[[pd.DataFrame], pd.Series]


_COST = {
    "ms": _Cost("time per image (ms)", lambda table: table["ms"]),
    "operations": _Cost(
        "operations per image (% of the full backbone's)", lambda t: 100 / t["operations"]
    ),
}


def _look_names(table: pd.DataFrame) -> list[str]:
    names = []
    for row in table.to_dict("records"):
        own = "duodiff" if row["method"] == "shallow" else row["method"]
        own = row.get("family") or own
        names.append(f"{own}_fewer_steps" if row["fewer"] else own)
    return names


OF_SCHEDULES = ("chosen", "chosen_steps", "named", "guided")
"""The families of named schedules, as `analysis.front` has them. Each has a look of its own."""

_LOOKS = METHODS | {family: look_of(family) for family in OF_SCHEDULES}


def _trade_off(table: pd.DataFrame, singles: list[pd.DataFrame], x: str, size: str) -> Drawn:
    across, up = _axes(size)
    most = table["cost"].max()
    every = nice_step(most, 8 if size == "wide" else 4)
    ticks = [(v, f"{v:g}") for v in np.arange(0, 1.06 * most, every)]
    horizontal = Axis(_COST[x].label, 0, 1.06 * most, *across, ticks)
    vertical, right = _quality_axis(table, up)
    y = "lost_share" if table["lost_share"].notna().any() else "distance"
    marks = [_mark(row, horizontal, vertical, y) for row in table.to_dict("records")]
    wanted = [(m, _short(row)) for m, row in zip(marks, table.to_dict("records"), strict=True)]
    lines = list(_method_lines(table, horizontal, vertical, y))
    labels = placed(wanted, horizontal, vertical, [line.d for line in lines])
    every_line = [line for one in singles for line in _method_lines(one, horizontal, vertical, y)]
    lines = [line._replace(faint=True) for line in every_line] + lines
    return Drawn(size, horizontal, vertical, lines, marks, labels=labels, right=right)


def nice_step(most: float, count: int) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides 0 to `most` into about `count`."""
    power = 10 ** np.floor(np.log10(most / count))
    return next(float(f * power) for f in (1, 2, 5, 10) if most / (f * power) <= count)


_SHARES = (-1, -0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


def _stretched(share: float) -> float:
    """A lost share, linear within a percent of 0 and logarithmic beyond."""
    return float(np.arcsinh(share / 0.01))


def _quality_axis(
    table: pd.DataFrame, up: tuple[float, float]
) -> tuple[Axis, tuple[str, list[tuple[float, str]]]]:
    """The axis of quality on the left, and the label and ticks on the right: the distance at each tick."""
    metric = table["metric"].iloc[0]
    if table["lost_share"].isna().all():
        low, high = 0.98 * table["distance"].min(), 1.02 * table["distance"].max()
        ticks = [(v, f"{v:.3g}") for v in np.geomspace(low, high, 5)]
        return Axis(f"{metric} (log)", low, high, *up, ticks, bend=np.log), ("", [])
    half = table["lost_share_95"].fillna(0)
    low = min((table["lost_share"] - half).min(), -0.01)
    high = max((table["lost_share"] + half).max(), 1)
    ticks = [(s, f"{100 * s:g}%") for s in _SHARES if low <= s <= high]
    label = "quality lost (stretched around 0)"
    axis = Axis(label, 1.2 * low, 1.2 * high, *up, ticks, bend=_stretched)
    own = table[~table["fewer"]]
    full, shallow = (own[own["lost_share"] == end]["distance"] for end in (0, 1))
    if full.empty or shallow.empty:
        return axis, ("", [])
    full, whole = full.iloc[0], shallow.iloc[0] - full.iloc[0]
    return axis, (metric, [(axis(s), f"{full + s * whole:.1f}") for s, _ in ticks])


def _mark(row: dict, x: Axis, y: Axis, quality: str) -> Mark:
    place = x(row["cost"]), y(row[quality])
    ends = [
        (a, place[1], b, place[1])
        for a, b in [_ends(x, row["cost"], row["cost_95"])]
        if row["cost_95"] > 0
    ]
    half = row[f"{quality}_95"]
    if half > 0:
        low, high = _ends(y, row[quality], half)
        ends.append((place[0], low, place[0], high))
    return Mark(row["look"], *place, said(row), cell_id(row), ends)


def _ends(axis: Axis, value: float, half: float) -> tuple[float, float]:
    return axis(value - half), axis(value + half)


def cell_id(row: dict) -> str:
    """The name of a cell's images on the page: its setting, and its steps where they are fewer than the sampler's."""
    return f"{row['setting']}, {row['steps']:.0f} steps" if row["fewer"] else row["setting"]


def said(row: dict) -> list[tuple[str, str]]:
    """What a setting's mark says, as (term, text)."""
    minus = with_half(row["minus_full"], row["minus_full_95"], 2, sign="+")
    distance = with_half(row["distance"], row["distance_95"], 2)
    is_full = row["method"] == "full" and not row["fewer"]
    lines = [
        ("Setting", row["name"]),
        ("Kind", FAMILIES.get(row.get("family", ""), "")),
        ("Networks", row.get("runs") or ""),
        (f"Distance ({row['metric']})", distance + ("" if is_full else f" (full's {minus})")),
        ("Quality lost", percent(row["lost_share"], row["lost_share_95"])),
        ("Time per image", with_half(row["ms"], row["ms_95"], 2, " ms")),
        ("Speed-up", with_half(row["speedup"], row["speedup_95"], 2)),
        ("By operations", with_half(row["operations"], float("nan"), 2)),
        ("Exits after", with_half(row["exits"], float("nan"), 2, " blocks")),
    ]
    return [(term, text) for term, text in lines if text]


def _short(row: dict) -> str:
    """The label of a setting in the chart."""
    setting = Setting.parse(row["setting"])
    if setting.is_schedule:
        return setting.spelled
    if row["fewer"]:
        calls = f"{row['steps']:.0f} steps"
        return calls if row["method"] == "full" else f"{setting.t_s}, {calls}"
    return f"θ {row['theta']:.2g}" if setting.exits_early else str(setting.t_s)


def _method_lines(table: pd.DataFrame, x: Axis, y: Axis, quality: str) -> Iterator[Line]:
    """A line a method; those of the full backbone's t_s begin at its point, as those with fewer steps do.

    A family of named schedules has a line along its lower front.
    """
    own = table[~table["fewer"]]
    full = own[own["method"] == "full"]
    groups = {
        "duodiff": own[own["method"].isin(["full", "duodiff", "shallow"])],
        "adadiff": own[own["method"] == "adadiff"],
        "full_fewer_steps": pd.concat([full, table[table["look"] == "full_fewer_steps"]]),
    }
    for family in OF_SCHEDULES:
        mine = own[own["look"] == family]
        groups[family] = mine.iloc[lower_front(mine["cost"].to_numpy(), mine[quality].to_numpy())]
    for name, rows in groups.items():
        if len(rows) > 1:
            yield Line(name, _path(x, y, rows.sort_values("cost"), ("cost", quality)))


# --- Figure 1


def exits(lines: pd.DataFrame) -> Chart:
    """Figure 1, the mean exit layer over t of each theta, from `figures.exit_layer_lines` of one experiment."""
    own, faint = lines[~lines["faint"]], lines[lines["faint"]]
    thetas = own.groupby("setting")["theta"].first().sort_values()
    names = [f"θ = {theta:.3f}" for theta in thetas]
    mapped = dict(zip(thetas.index, looks(names, shades("adadiff", len(names))), strict=True))
    drawn = [_exits(own, faint, mapped, size) for size in SIZES]
    return Chart("figure1", "exit layer over t", mapped, drawn, first=0, radius=2.8, near=6)


def _exits(own: pd.DataFrame, faint: pd.DataFrame, mapped: dict[str, Look], size: str) -> Drawn:
    across, up = _axes(size)
    depth = int(own["depth"].iloc[0])
    x = Axis(_TIME, T - 1, 0, *across, [(v, str(v)) for v in (999, 750, 500, 250, 0)])
    ticks = [(v, str(v)) for v in range(0, depth + 1, max(1, depth // 7))]
    y = Axis("blocks run before the exit", 0, depth * 1.04, *up, ticks)
    lines, marks = [], []
    for (setting, _), rows in faint.groupby(["setting", "train_seed"], sort=False):
        lines.append(Line(setting, _path(x, y, rows, ("t", "mean")), faint=True))
    for setting in mapped:
        rows = own[own["setting"] == setting].sort_values("t", ascending=False)
        lines.append(Line(setting, _path(x, y, rows, ("t", "mean"))))
        marks += [_exit(row, mapped[setting], x, y) for row in rows.to_dict("records")]
    return Drawn(size, x, y, lines, marks)


_TIME = "timestep t (sampling runs left to right)"


def _exit(row: dict, look: Look, x: Axis, y: Axis) -> Mark:
    among = f"{row['mean']:.2f} of {row['depth']} (sd over the images {row['std']:.2f})"
    told = [
        ("Setting", f"AdaDiff, {look.label} ({row['setting']})"),
        ("Timestep t", f"{row['t']:.0f}"),
        ("Blocks run, mean", among),
    ]
    return Mark(row["setting"], x(row["t"]), y(row["mean"]), told, f"theta={row['setting']}")
