"""The front: distance against operations and against time, a line and marks for each family of settings."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from duodiff.analysis.front import FAMILIES, LIMITS, over_settings, shipped_points
from duodiff.analysis.shipped import USUAL, read
from duodiff.plotting import labels, style
from duodiff.plotting.style import Look

_HEIGHT = 4.6  # inches of a panel
_NAMES = 8  # points high, of the names beside points
_HIGHEST = 1.6  # of a distance over the full backbone's; higher ones would flatten the others
_COSTS = {"operations": "front", "time": "front_time"}
_COLORS = sns.color_palette("colorblind").as_hex()
_METHODS = {"switch": "duodiff", "named": "schedule"}
_DASHES: dict[str, tuple[float, ...]] = {
    "duodiff_fewer_steps": (8, 2),
    "named": (5, 1, 2, 1, 2, 1),
}
_OWN = {
    "chosen": Look("", _COLORS[1], "^", (1, 1)),
    "chosen_steps": Look("", _COLORS[2], "v", (5, 1, 1, 1)),
    "guided": Look("", _COLORS[4], "<", (2, 3)),
}


def look_of(family: str) -> Look:
    """The look of a family: where it is a method, the method's colour and marker of the other figures."""
    look = _OWN.get(family) or style.METHODS[_METHODS.get(family, family)]
    return look._replace(label=FAMILIES[family], dashes=_DASHES.get(family, look.dashes))


def front(points: pd.DataFrame) -> Figure:
    """The front, two panels an experiment: of the mean distance against operations, and below it against time.

    Columns as `analysis.front.plotted`. Both are over the full backbone's. Each family has marks for its settings, with
    their intervals, and a line along its lower front. Settings worse than `_HIGHEST` are counted, not drawn.
    """
    style.apply()
    panels = [(title, cost) for title in points["title"].unique() for cost in _COSTS]
    rows = max(1, len(panels))
    size = (style.WIDTH, _HEIGHT * rows + 1.6)
    figure, axes = plt.subplots(rows, 1, squeeze=False, figsize=size, layout="constrained")
    names = {}
    for (title, cost), axis in zip(panels, axes.flat, strict=False):
        shown = points[(points["title"] == title) & points[cost].notna()]
        axis.set_title(title, parse_math=False)
        if len(shown):
            _draw(axis, shown, cost)
            names[axis] = _name(axis, shown, cost)
    looks = [look_of(name) for name in FAMILIES if name in set(points["family"])]
    handles = [look.handle() for look in (style.METHODS["full"], *looks)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=4)
    labels.write(figure, names, _NAMES)
    return figure


def draw_shipped(folder: Path) -> None:
    """Writes the front of each experiment of a shipped study into its folder: front.svg."""
    shown = []
    for study in read(folder).values():
        experiment = study.configuration["experiment"]
        points = over_settings(shipped_points(study.halves[USUAL], experiment))
        shown.append(points.assign(title=experiment["title"]))
    points = pd.concat(shown)
    style.save(front(points), points, [folder / "front.svg"])


def _draw(axis: Axes, rows: pd.DataFrame, cost: str) -> None:
    """Draws a panel: each family's settings against `cost`, and a level line for each of LIMITS."""
    for limit in LIMITS:
        axis.axhline(limit, color=style.GREY, linewidth=1, zorder=0)
    for name, settings in rows.sort_values(cost).groupby("family"):
        look = look_of(name).keywords()
        drawn = settings[settings["relative_distance"] <= _HIGHEST]
        on = settings[settings[_COSTS[cost]]]
        place = drawn[cost], drawn["relative_distance"]
        bars = {"ecolor": look["color"], "elinewidth": 1.2, "capsize": 2.5, "zorder": 2}
        axis.errorbar(*place, drawn["relative_95"], fmt="none", **bars)
        axis.plot(on[cost], on["relative_distance"], **look | {"marker": "None", "zorder": 3})
        axis.plot(*place, **look | {"linestyle": "None", "zorder": 4})
    axis.plot([1], [1], zorder=5, **style.METHODS["full"].keywords())


def _name(axis: Axes, rows: pd.DataFrame, cost: str) -> list[labels.Name]:
    """Sets a panel's limits, says what it shows, and returns the names of its points."""
    shown = rows[rows["relative_distance"] <= _HIGHEST]
    distances = shown["relative_distance"]
    axis.set_ylim(min([*distances, 1.0]) - 0.07, max([*distances, LIMITS[-1]]) + 0.04)
    beyond = len(rows) - len(shown)
    said = f" (above {_HIGHEST}: {beyond})" if beyond else ""
    axis.set(xlabel=f"{cost} over the full backbone's{said}")
    axis.set(ylabel=f"{rows['metric'].iloc[0]} over the full backbone's")
    about, over = f"n = {rows['n'].iloc[0]:,.0f}", rows["trainings"].max()
    more = f", mean of {over:.0f} trainings" if over > 1 else ""
    axis.set_title(f"{axis.get_title()} ({about}{more})", parse_math=False)
    others = shown[shown["setting"] != "t_s=0"]  # the star
    return [
        labels.Name(
            point.setting.partition("=")[2] or point.setting,
            (getattr(point, cost), point.relative_distance),
            look_of(point.family).color,
            above=point.family not in ("switch", "duodiff_fewer_steps"),
        )
        for point in others.itertuples()
    ]
