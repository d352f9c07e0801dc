"""One function per figure, each fed by data frames (or arrays of images) only.

Rows that are `faint` are of single trainings, beside rows of their mean. They are drawn as thin, pale lines.

A title is free text, which is drawn with `parse_math=False`: matplotlib would read the text between two $ as
mathematics.
"""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from duodiff.data.pictures import grid
from duodiff.data.store import to_unit_range
from duodiff.plotting import labels, style
from duodiff.schedules import T

_TIME = "timestep t (sampling runs left to right)"
_NAMES = 9  # points high, of the names beside points
_STRAIGHT = 0.5
"""A line in 1/n that explains less than this share of the variance is not drawn."""

Panels = list[tuple[Any, Axes, pd.DataFrame]]
"""A panel's title, its axis and its rows."""


def _stacked(
    data: pd.DataFrame, by: str, height: float, sharey: bool = False
) -> tuple[Figure, Panels]:
    """A figure with a panel for each value of the column `by`, one below the other, each `height` inches high."""
    style.apply()
    names = list(data[by].unique())
    size = (style.WIDTH, height * len(names))
    figure, axes = plt.subplots(
        len(names), 1, sharey=sharey, squeeze=False, figsize=size, layout="constrained"
    )
    return figure, [
        (name, axis, data[data[by] == name]) for name, axis in zip(names, axes.flat, strict=True)
    ]


def _lines(
    axis: Axes, rows: pd.DataFrame, x: str, y: str, *, by: str, looks: Mapping[Any, style.Look]
) -> None:
    """Draws a line for each value of the column `by`, in its look. Points that are `inferred` are open."""
    for name, line in rows.groupby(by, sort=False):
        look = looks[name]
        line = line.sort_values(x)
        order = 5 if look.dashes is None else 3
        axis.plot(line[x], line[y], zorder=order, **look.keywords())
        if "inferred" in line and line["inferred"].any():
            opened = line[line["inferred"]]
            marks = look.keywords() | {"linestyle": "none", "markeredgecolor": look.color}
            axis.plot(opened[x], opened[y], zorder=4, **marks | {"markerfacecolor": "white"})


def _intervals(
    axis: Axes, rows: pd.DataFrame, place: tuple[str, str], half: tuple[str, str]
) -> None:
    """Draws the intervals of points, across and upright, in the colour of their method.

    `place` and `half` are columns: of the values, and of half their intervals.
    """
    for method, points in rows.groupby("method"):
        across, upright = (points.get(name) for name in half)
        axis.errorbar(
            points[place[0]],
            points[place[1]],
            xerr=across,
            yerr=upright,
            fmt="none",
            ecolor=style.METHODS[method].color,
            elinewidth=1.2,
            capsize=2.5,
            zorder=2,
        )


def _trainings(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of single trainings, to be drawn faintly, and the other rows."""
    faint = rows["faint"] if "faint" in rows else pd.Series(False, index=rows.index)
    return rows[faint], rows[~faint]


def _faintly(
    axis: Axes, rows: pd.DataFrame, x: str, y: str, *, by: str, colors: Mapping[Any, str]
) -> None:
    """Draws a thin, pale line for each training and each value of the column `by`, in the color of this value."""
    if rows.empty:
        return
    for (name, _), line in rows.groupby([by, "train_seed"], sort=False):
        line = line.sort_values(x)
        axis.plot(line[x], line[y], color=colors[name], linewidth=0.8, alpha=0.35, zorder=1)


def _over(rows: pd.DataFrame) -> str:
    """The end of a title: how many trainings a mean is over; nothing for one training."""
    count = rows["trainings"].max() if "trainings" in rows else 1
    return f", mean of {count:.0f} trainings" if count > 1 else ""


def _title(axis: Axes, text: str, more: str = "") -> None:
    """The title of a panel, which is free text, with `more` in a line of its own."""
    more = more.removeprefix(", ")
    axis.set_title(f"{text}\n{more}" if more else text, parse_math=False)


def _legend_below(figure: Figure, handles: list[Line2D], **more) -> None:
    """Draws one legend below all panels. Its texts are free."""
    legend = figure.legend(handles=handles, loc="outside lower center", handlelength=3, **more)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _opened(points: pd.DataFrame) -> list[Line2D]:
    """The legend's marker of inferred points, where there are any."""
    label = "Open: the paper does not say θ or the exit layer"
    look: dict[str, Any] = {"color": style.GREY, "marker": "o", "linestyle": "none"}
    mark = Line2D([], [], label=label, markerfacecolor="white", **look)
    return [mark] if points["inferred"].any() else []


def _logarithmic(axis: Axes, most: int = 6) -> None:
    """Makes the upright axis logarithmic, with at most so many numbers, written out."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high < 10 * low:
        locator: Locator = MaxNLocator(most, steps=[1, 2, 5, 10])
    else:
        locator = LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,))
    axis.yaxis.set_major_locator(locator)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def exit_layers(profiles: pd.DataFrame) -> Figure:
    """Figure 1: mean exit layer over t per theta, one panel a study; band: one standard deviation over the samples.

    Columns as `metrics.exits.exit_profiles`, and title. A band ends at the lowest and the highest layer that an image
    exits at.
    """
    figure, panels = _stacked(profiles, "title", 4.6)
    for title, axis, rows in panels:
        trainings, panel = _trainings(rows)
        depth, n = panel["depth"].iloc[0], panel["n"].iloc[0]
        thetas = sorted(panel["theta"].unique())
        names = [f"θ = {theta:.3f}" for theta in thetas]
        looks = style.looks(names, style.shades("adadiff", len(names)))
        every = max(1, panel["t"].nunique() // 8)
        for i, (theta, look) in enumerate(zip(thetas, looks, strict=True)):
            line = panel[panel["theta"] == theta].sort_values("t")
            axis.plot(line["t"], line["mean"], markevery=(i, every), zorder=3, **look.keywords())
            low = np.maximum(line["mean"] - line["std"], line["min"])
            high = np.minimum(line["mean"] + line["std"], line["max"])
            axis.fill_between(line["t"], low, high, color=look.color, alpha=0.12, linewidth=0)
        if len(trainings):
            settings = panel.groupby("setting")["theta"].first().sort_values().index
            colors = {name: look.color for name, look in zip(settings, looks, strict=True)}
            _faintly(axis, trainings, "t", "mean", by="setting", colors=colors)
        axis.axhline(depth, color=style.GREY, linewidth=1, zorder=0)
        axis.set(xlim=(T - 1, 0), ylim=(-0.2, depth + 0.4))
        _title(axis, f"{title} ({n:,.0f} images a line{_over(panel)})")
        axis.set(xlabel=_TIME, ylabel=f"exit layer (blocks run, of {depth:.0f})")
        axis.legend(
            handles=[look.handle() for look in looks],
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=3,
            handlelength=3,
        )
    return figure


def noised(panels: list[tuple[str, list[np.ndarray]]], similarity: pd.DataFrame) -> Figure:
    """Figure 2: a clean image, and below each other the noisy input and the target at several timesteps.

    `panels` and `similarity` (columns title, t, correlation, n) as `analysis.panels.noised_images`.
    """
    style.apply()
    beside = 1 + similarity["t"].nunique()
    rows = sum(2 * len(images) for _, images in panels)
    size = (1.1 * beside, 1.1 * rows + 1.2 * len(panels))
    figure = plt.figure(figsize=size, layout="constrained")
    heights = [2 * len(images) + 1 for _, images in panels]
    parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (title, images) in zip(parts, panels, strict=True):
        mine = similarity[similarity["title"] == title]
        about = f"r is the correlation of input and target, n = {mine['n'].iloc[0]}"
        part.suptitle(f"{title}: {about}", parse_math=False)
        axes = part.subplots(2 * len(images), beside, squeeze=False)
        for pair, image in zip(axes.reshape(len(images), 2, beside), images, strict=True):
            _show(pair[0, 0], image[0], 1)
            pair[1, 0].axis("off")
            for column, (x_t, eps) in enumerate(zip(image[1::2], image[2::2], strict=True), 1):
                _show(pair[0, column], x_t, _NOISE_RANGE)
                _show(pair[1, column], eps, _NOISE_RANGE)
            pair[0, 1].set_ylabel("input $x_t$", fontsize="small")
            pair[1, 1].set_ylabel("target $\\epsilon$", fontsize="small")
        axes[0, 0].set_title("clean $x_0$", fontsize="small")
        for axis, row in zip(axes[0, 1:], mine.itertuples(), strict=True):
            axis.set_title(f"t = {row.t}\nr = {row.correlation:.2f}", fontsize="small")
    return figure


_NOISE_RANGE = 2.5  # standard deviations of noise from black to white


def _show(axis: Axes, image: np.ndarray, limit: float) -> None:
    """An image [C, H, W] on an axis, black at -limit and white at limit."""
    shown = np.clip(image / limit, -1, 1) / 2 + 0.5
    shown = shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0)
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(True)
    axis.grid(False)


_NAMED = {
    "duodiff": "DuoDiff, named by t_s",
    "adadiff": "AdaDiff, time measured, named by θ",
    "full_fewer_steps": "Full backbone, fewer steps, named by calls",
    "duodiff_fewer_steps": "DuoDiff, fewer steps: t_s in calls",
}
"""What the points of a trade-off are named by, for its legend."""


def trade_off(points: pd.DataFrame) -> Figure:
    """Figure 4: distance against time per image, one panel a dataset.

    Columns: panel, metric (its label), method (a key of style.METHODS), label, seconds and distance, half their
    intervals seconds_95 and distance_95, lost_share (these three NaN where unknown) and inferred (an open marker). A
    panel whose backbones are both there has the lost share of its distances on the right. A panel with many names is
    as wide as the figure, two others stand beside each other.
    """
    figure, panels = _mosaic(points)
    names = {axis: _trade_off_panel(axis, title, rows) for title, axis, rows in panels}
    shown = [
        look._replace(label=_NAMED.get(method, look.label)).handle()
        for method, look in style.METHODS.items()
        if method in set(points["method"])
    ]
    _legend_below(figure, shown + _opened(points))
    labels.write(figure, names, _NAMES)
    return figure


def _mosaic(points: pd.DataFrame) -> tuple[Figure, Panels]:
    style.apply()
    groups = dict(iter(points.groupby("panel", sort=False)))
    many = {name for name, rows in groups.items() if (rows["label"] != "").sum() > 8}
    narrow = [name for name in groups if name not in many and len(groups) > 1]
    rows = [[name, name] for name in groups if name not in narrow]
    rows += [[*narrow[i : i + 2], "."][:2] for i in range(0, len(narrow), 2)]
    heights = [2.6 if row[0] in narrow else 4.6 for row in rows]
    size = (style.WIDTH, sum(heights) + 1)
    figure = plt.figure(figsize=size, layout="constrained")
    place = {name: i for i, name in enumerate(groups)}  # a title may be any text
    mosaic: list[Any] = [[place.get(name, ".") for name in row] for row in rows]
    axes = figure.subplot_mosaic(mosaic, height_ratios=heights, empty_sentinel=".")
    return figure, [(name, axes[i], groups[name]) for name, i in place.items()]


def _trade_off_panel(axis: Axes, title: str, rows: pd.DataFrame) -> list[labels.Name]:
    """Draws a panel of the trade-off, and returns the names of its points."""
    trainings, panel = _trainings(rows)
    scale, unit = (1000, "ms") if rows["seconds"].max() < 1 else (1, "s")
    alone = [method for method, look in style.METHODS.items() if look.dashes is None]
    # the full backbone's points begin the lines of DuoDiff
    trainings = trainings[~trainings["method"].isin(alone)]
    trainings, panel = (_in_unit(part, scale) for part in (trainings, panel))
    colors = {method: look.color for method, look in style.METHODS.items()}
    _faintly(axis, trainings, "time", "distance", by="method", colors=colors)
    _intervals(axis, panel, ("time", "distance"), ("time_95", "distance_95"))
    _lines(axis, panel, "time", "distance", by="method", looks=style.METHODS)
    _logarithmic(axis)
    axis.margins(x=0.08, y=0.12)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    metric = panel["metric"].iloc[0]
    axis.set(xlabel=f"time per image ({unit})", ylabel=_distance_label(metric))
    _lost_share_axis(axis, panel)
    of_panel, _, about = title.rpartition(" (")
    _title(axis, of_panel, f", {about.rstrip(')')}{_over(panel)}")
    return [
        # DuoDiff's t_s below its points, AdaDiff's theta and fewer calls above
        labels.Name(
            point.label,
            (point.time, point.distance),
            colors[point.method],
            above=not point.method.startswith("duodiff"),
        )
        for point in panel[panel["label"] != ""].itertuples()
    ]


def _in_unit(rows: pd.DataFrame, scale: float) -> pd.DataFrame:
    rows = rows.assign(time=scale * rows["seconds"])
    return rows.assign(time_95=scale * rows["seconds_95"]) if "seconds_95" in rows else rows


def _distance_label(metric: str) -> str:
    """An axis of distances: FID, or a Frechet distance with its feature space."""
    return "FID" if metric.lower() == "fid" else f"Frechet distance ({metric})"


_SHARES = (0, 0.1, 0.25, 0.5, 1, 2, 4, 8)


def _lost_share_axis(axis: Axes, rows: pd.DataFrame) -> None:
    """Draws the scale of the lost share on the right, from the distances of both backbones, if they are there."""
    if rows["lost_share"].isna().all():
        return
    full, shallow = (rows[rows["lost_share"] == share]["distance"].iloc[0] for share in (0, 1))
    axis.axhline(full, color=style.GREY, linewidth=1, zorder=0)
    right = axis.twinx()
    right.set(yscale="log", ylim=axis.get_ylim(), ylabel="lost share of the quality")
    distances = {share: full + share * (shallow - full) for share in _SHARES}
    low, high = axis.get_ylim()
    shown = [share for share, distance in distances.items() if low < distance < high]
    right.set_yticks([distances[s] for s in shown], [f"{100 * s:g}%" for s in shown])
    right.yaxis.set_minor_locator(NullLocator())
    right.grid(False)
    for side in (axis, right):
        side.tick_params(axis="y", length=0)


def relative(points: pd.DataFrame) -> Figure:
    """Distance over the full backbone's against the time saved and the blocks run, a line a dataset.

    Columns as `analysis.figures.relative_points`. The panels share the axes of the quantities that they share.
    """
    shown = [
        ("DuoDiff, rising $t_s$", ("full", "duodiff", "shallow"), "time_saved"),
        ("AdaDiff, rising θ, time as interpolated", ("adadiff",), "time_saved"),
        ("AdaDiff, falling θ", ("adadiff",), "blocks_run"),
    ]
    names = {"time_saved": "time saved (%)", "blocks_run": "blocks run before the exit (% of all)"}
    rows = [
        points[points["method"].isin(methods) & points[x].notna()].assign(title=title, x=x)
        for title, methods, x in shown
    ]
    sources = list(points["source"].unique())
    looks = dict(zip(sources, style.looks(sources), strict=True))
    colors = {source: look.color for source, look in looks.items()}
    figure, panels = _stacked(pd.concat(rows), "title", 3, sharey=True)
    for title, axis, drawn in panels:
        trainings, panel = _trainings(drawn)
        x = panel["x"].iloc[0]
        _faintly(axis, trainings, x, "relative_distance", by="source", colors=colors)
        _lines(axis, panel, x, "relative_distance", by="source", looks=looks)
        for source, line in panel.groupby("source"):
            place = line[x], line["relative_distance"]
            bars = {"ecolor": colors[source], "capsize": 2.5, "zorder": 2}
            axis.errorbar(*place, yerr=line.get("relative_95"), fmt="none", **bars)
        axis.axhline(1, color=style.GREY, linewidth=1, zorder=0)
        axis.set(title=title, xlabel=names[x], ylabel="distance / full's")
        axis.margins(y=0.1)
    _logarithmic(panels[0][1], most=8)
    saved = [axis for _, axis, drawn in panels if drawn["x"].iloc[0] == "time_saved"]
    ends = [axis.get_xlim() for axis in saved]
    for axis in saved:
        axis.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))
    handles = [look.handle() for look in looks.values()]
    _legend_below(figure, handles + _opened(points))
    return figure


def qualitative(panels: list[dict]) -> Figure:
    """Figure 5: an image a row; columns of AdaDiff under rising theta, DuoDiff under rising t_s, named schedules.

    `panels` as `analysis.panels.qualitative_panels`.
    """
    style.apply()
    plt.rcParams["font.size"] = 14  # the figure is as wide as its columns
    headers = {
        "adadiff": "AdaDiff: rising θ →",
        "duodiff": "DuoDiff: rising $t_s$ →",
        "schedule": "By name",
    }
    beside = max(sum(len(panel[kind]) for kind in headers) for panel in panels)
    heights = [0.6 * len(panel["labels"]) + 1.1 for panel in panels]  # inches
    left = 0.2 + 0.12 * max(len(label) for panel in panels for label in panel["labels"])
    width = left + 0.6 * beside + 0.4
    figure = plt.figure(figsize=(width, sum(heights)))
    parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, panel, height in zip(parts, panels, heights, strict=True):
        kinds = [kind for kind in headers if panel[kind]]
        part.suptitle(panel["title"], y=1 - 0.05 / height, va="top", parse_math=False)
        edges = {"left": left / width, "right": 0.99, "top": 1 - 1 / height, "bottom": 0.1 / height}
        widths = [len(panel[kind]) for kind in kinds]
        blocks = part.add_gridspec(1, len(kinds), width_ratios=widths, wspace=0.08, **edges)
        for i, kind in enumerate(kinds):
            shape = (len(panel["labels"]), len(panel[kind]))
            axes = blocks[i].subgridspec(*shape, wspace=0.06, hspace=0.06).subplots(squeeze=False)
            for column, (name, images) in zip(axes.T, panel[kind], strict=True):
                column[0].set_title(name if len(name) < 7 else f"{name[:6]}…", fontsize=12)
                for axis, image in zip(column, images, strict=True):
                    _show(axis, to_unit_range(image), 1)
            axes[0, 0].annotate(
                headers[kind],
                (0, 1),
                xytext=(0, 20),
                xycoords="axes fraction",
                textcoords="offset points",
                fontsize="medium",
                color=style.METHODS[kind].color,
            )
            for axis, label in zip(axes[:, 0], panel["labels"], strict=True):
                if i == 0:
                    axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=14)
                    axis.yaxis.label.set_parse_math(False)
    return figure


def gallery(title: str, panels: list[tuple[str, np.ndarray]]) -> Figure:
    """A square of images a panel, one panel a set of images; `panels` are (name, uint8 [n, C, H, W]).

    Three panels stand beside each other. The whole is twice as large where images are.
    """
    style.apply()
    rows = -(-len(panels) // 3)
    large = 2 if panels[0][1].shape[-1] > 32 else 1
    size = (large * style.WIDTH, large * 2.15 * rows)
    figure, axes = plt.subplots(rows, 3, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, images) in zip(axes.flat, panels, strict=False):
        axis.imshow(grid(images, math.isqrt(len(images) - 1) + 1), interpolation="nearest")
        axis.set_title(name.replace(", ", "\n", 1), fontsize=9 * large)  # the sampler above
    figure.suptitle(title, y=1, va="bottom", parse_math=False, fontsize=11 * large)
    figure.tight_layout()
    return figure


def training_curves(curves: pd.DataFrame) -> Figure:
    """Held-out (solid) and training (dotted) loss over steps: the backbones, and below them AdaDiff's heads.

    Columns: title, model ("full", "shallow", "heads", or a further network), step, train_loss, held_out_loss.
    """
    heads = curves["model"] == "heads"
    panels = curves.assign(panel=list(zip(curves["title"], heads, strict=True)))
    panels = panels.sort_values("model", key=lambda model: model == "heads", kind="stable")
    order = {title: i for i, title in enumerate(curves["title"].unique())}
    panels = panels.sort_values("title", key=lambda title: title.map(order), kind="stable")
    looks = style.networks(curves["model"])
    colors = {model: look.color for model, look in looks.items()}
    figure, drawn = _stacked(panels, "panel", 3)
    for (title, of_heads), axis, rows in drawn:
        trainings, panel = _trainings(rows)
        _faintly(axis, trainings, "step", "held_out_loss", by="model", colors=colors)
        for model, line in panel.groupby("model", sort=False):
            held_out = looks[model].keywords()
            every = max(1, len(line) // 8)
            axis.plot(line["step"], line["train_loss"], ":", color=held_out["color"])
            axis.plot(line["step"], line["held_out_loss"], markevery=every, **held_out)
        _logarithmic(axis)
        _title(axis, f"{title}: {'AdaDiff heads' if of_heads else 'backbones'}", _over(panel))
        losses = "loss (Eq. 6 + Eq. 7)" if of_heads else "loss (Eq. 2)"
        axis.set(xlabel="training step", ylabel=losses)
    shown = [look.handle() for name, look in looks.items() if name in set(curves["model"])]
    kinds: dict[str, Any] = {"held-out images": "-", "training batches": ":"}
    shown += [Line2D([], [], color=style.GREY, linestyle=k, label=n) for n, k in kinds.items()]
    _legend_below(figure, shown, ncols=2)
    return figure


def denoising_losses(losses: pd.DataFrame) -> Figure:
    """Held-out squared error over t of full, shallow and every head, one panel a study.

    Columns: title, t, network ("full", "shallow", a further one, or "head"), layer, mse.
    """
    figure, panels = _stacked(losses, "title", 4.8)
    for title, axis, rows in panels:
        heads = rows["network"] == "head"
        rows = rows.assign(
            line=rows["network"].mask(heads, "head " + rows["layer"].map("{:.0f}".format))
        )
        trainings, panel = _trainings(rows)
        names = [f"head {layer:.0f}" for layer in sorted(rows[heads]["layer"].unique())]
        of_heads = style.looks(names, style.shades("adadiff", len(names)))
        looks = dict(zip(names, of_heads, strict=True))
        drawn = [*reversed(list(dict.fromkeys(rows[~heads]["network"])))]
        looks |= {name: style.networks(drawn)[name] for name in drawn}
        colors = {name: look.color for name, look in looks.items()}
        _faintly(axis, trainings, "t", "mse", by="line", colors=colors)
        every = max(1, panel["t"].nunique() // 6)
        for i, (name, look) in enumerate(looks.items()):
            line = panel[panel["line"] == name].sort_values("t")
            width = 1 if name in names else 2
            marks = {"markevery": (i % every, every), "linewidth": width}
            axis.plot(line["t"], line["mse"], label=look.label, **look.keywords() | marks)
        axis.set_xlim(T - 1, 0)
        _logarithmic(axis)
        _title(axis, title, _over(panel))
        axis.set(xlabel=_TIME, ylabel="held-out squared error")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, handlelength=3)
    return figure


def extrapolations(points: pd.DataFrame) -> Figure:
    """Distance over 1/n of random subsets, one panel a study.

    A straight line goes on to 1/n = 0 where it explains at least the share `_STRAIGHT` of the variance; the dots of
    another t_s are joined, and nothing goes beyond them. Columns: title, metric, t_s, n, distance, and the line's
    limit, slope and r2.
    """
    figure, panels = _stacked(points, "title", 4.8)
    for title, axis, rows in panels:
        trainings, panel = _trainings(rows.assign(x=1 / rows["n"]))
        t_s = sorted(panel["t_s"].unique())
        looks = style.looks([f"{value:.0f}" for value in t_s], style.shades("duodiff", len(t_s)))
        handles = []
        for value, look in zip(t_s, looks, strict=True):
            line = panel[panel["t_s"] == value].sort_values("x")
            straight = line["r2"].iloc[0] >= _STRAIGHT
            fit = line["limit"] + line["slope"] * line["x"]
            single = trainings[trainings["t_s"] == value]
            single = single.assign(fit=single["limit"] + single["slope"] * single["x"])
            shown = "fit" if straight else "distance"
            _faintly(axis, single, "x", shown, by="t_s", colors={value: look.color})
            found = f"t_s = {value:.0f} (R² = {line['r2'].iloc[0]:.2f})"
            if straight:
                ends = [0, line["x"].iloc[-1]], [line["limit"].iloc[0], fit.iloc[-1]]
                axis.plot(*ends, **look.keywords() | {"marker": ""})
                found = f"t_s = {value:.0f}: {line['limit'].iloc[0]:.2f} at n = ∞"
            dots = look.keywords() | ({"linestyle": "none"} if straight else {"linewidth": 0.8})
            axis.plot(line["x"], line["distance"], **dots)
            handles.append(look._replace(label=found).handle())
        sizes = np.unique(panel["n"])
        sizes = sizes[[0, len(sizes) // 3, -1]]
        limit = {0: "∞"} if (panel["r2"] >= _STRAIGHT).any() else {}
        ticks = limit | {1 / n: f"{n:,}" for n in sizes}
        axis.set_xticks(list(ticks), ticks.values())
        metric = _distance_label(panel["metric"].iloc[0])
        axis.set(xlabel="number of images n (spaced by 1/n)", ylabel=metric)
        _title(axis, title, _over(panel))
        axis.legend(
            handles=handles,
            title="" if limit else "no straight line, so no limit at n = ∞",
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=2,
            handlelength=3,
        )
    return figure
