"""The front: distance against operations and against time, a line and marks for each family of settings."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from duodiff.analysis.front import FAMILIES, LIMITS
from duodiff.plotting import style
from duodiff.plotting.style import Look

_SIZE = (5.4, 3.9)  # inches of a panel; on a phone's 390 pixels its letters can be read
_HIGHEST = 1.6  # of a distance over the full backbone's; higher ones would flatten the others
_COSTS = {"operations": "front", "time": "front_time"}
_COLORS = sns.color_palette("colorblind").as_hex()
_DASHES: dict[str, tuple[float, ...]] = {"duodiff_fewer_steps": (8, 2)}
_OF_METHODS = {"switch": "duodiff"} | {
    name: name for name in ("full_fewer_steps", "duodiff_fewer_steps", "adadiff")
}
_OWN = {
    "chosen": Look("", _COLORS[1], "^", (1, 1)),
    "chosen_steps": Look("", _COLORS[2], "v", (5, 1, 1, 1)),
    "named": Look("", _COLORS[5], "X", (5, 1, 2, 1, 2, 1)),
    "guided": Look("", _COLORS[4], "<", (2, 3)),
}


def look_of(family: str) -> Look:
    """The look of a family: where it is a method, the method's colour and marker of the other figures."""
    look = _OWN.get(family) or style.METHODS[_OF_METHODS[family]]
    return look._replace(label=FAMILIES[family], dashes=_DASHES.get(family, look.dashes))


def front(points: pd.DataFrame) -> Figure:
    """The front, two panels an experiment: of the mean distance against operations, and below it against time.

    Columns as `analysis.front.plotted`. Both are over the full backbone's. Each family has marks for its settings, with
    their intervals, and a line along its lower front. Settings worse than `_HIGHEST` are counted, not drawn.
    """
    style.apply()
    panels = [(title, cost) for title in points["title"].unique() for cost in _COSTS]
    size = (_SIZE[0], _SIZE[1] * max(1, len(panels)) + 1.2)
    figure, axes = plt.subplots(
        max(1, len(panels)), 1, squeeze=False, figsize=size, layout="constrained"
    )
    for (title, cost), axis in zip(panels, axes.flat, strict=False):
        rows = points[(points["title"] == title) & points[cost].notna()]
        axis.set_title(title, parse_math=False)
        if len(rows):
            _draw(axis, rows, cost)
            _name(axis, rows, cost)
    looks = [look_of(name) for name in FAMILIES if name in set(points["family"])]
    handles = [look.handle() for look in (style.METHODS["full"], *looks)]
    figure.legend(handles=handles, loc="outside lower center", ncols=1, handlelength=4)
    return figure


def _draw(axis: Axes, rows: pd.DataFrame, cost: str) -> None:
    """Draws a panel: each family's settings against `cost`, and a level line for each of LIMITS."""
    for limit in LIMITS:
        axis.axhline(limit, color=style.GREY, linewidth=1, zorder=0)
    for name, settings in rows.sort_values(cost).groupby("family"):
        look = look_of(name)
        drawn = settings[settings["relative_distance"] <= _HIGHEST]
        place = drawn[cost], drawn["relative_distance"]
        axis.errorbar(*place, drawn["relative_95"], fmt="none", ecolor=look.color, capsize=2.5)
        line, marks = look.handle(), look.handle()
        on = settings[settings[_COSTS[cost]]]
        line.set_data(on[cost], on["relative_distance"])
        line.set(marker="none", zorder=3)
        marks.set_data(*place)
        marks.set(linestyle="none", zorder=4)
        axis.add_line(line)
        axis.add_line(marks)
    full = style.METHODS["full"].handle()
    full.set_data([1], [1])
    full.set_zorder(5)
    axis.add_line(full)
    axis.autoscale_view()


def _name(axis: Axes, rows: pd.DataFrame, cost: str) -> None:
    """Sets a panel's limits, and says what it shows."""
    distances = rows["relative_distance"]
    shown = distances[distances <= _HIGHEST]
    axis.set_ylim(min([*shown, 1.0]) - 0.07, max([*shown, LIMITS[-1]]) + 0.04)
    beyond = len(rows) - len(shown)
    said = f" (above {_HIGHEST}: {beyond})" if beyond else ""
    axis.set(xlabel=f"{cost} over the full backbone's{said}")
    axis.set(ylabel=f"{rows['metric'].iloc[0]} over the full backbone's")
    about, over = f"n = {rows['n'].iloc[0]}", rows["trainings"].max()
    more = f", mean of {over:.0f} trainings" if over > 1 else ""
    axis.set_title(f"{axis.get_title()} ({about}{more})", parse_math=False)
