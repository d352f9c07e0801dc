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
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

from duodiff.analysis.lost import lost_share
from duodiff.data.pictures import grid
from duodiff.data.store import to_unit_range
from duodiff.plotting import style
from duodiff.schedules import T

_TIME = "timestep t (sampling runs left to right)"


def _facets(
    data: pd.DataFrame, by: str, size: tuple[float, float], columns: int = 2
) -> tuple[Figure, list[tuple[str, Axes, pd.DataFrame]]]:
    """A figure with a panel of `size` inches for each value of the column `by`, and each panel's value, axis and rows.

    At most two panels stand beside each other: more cannot be read on a phone. The grid knows the panels by number,
    since it draws what it knows them by before a title can be set.
    """
    style.apply()
    names = list(data[by].unique())
    width, height = size
    facets = sns.FacetGrid(
        data.assign(number=data[by].map(names.index)),
        col="number",
        col_order=range(len(names)),
        col_wrap=min(columns, len(names)),
        height=height,
        aspect=width / height,
        sharex=False,
        sharey=False,
    )
    facets.figure.set_layout_engine("constrained")
    panels = zip(names, facets.axes, strict=True)
    return facets.figure, [(name, axis, data[data[by] == name]) for name, axis in panels]


def _lines(
    axis: Axes, rows: pd.DataFrame, x: str, y: str, *, by: str, looks: dict[str, style.Look]
) -> None:
    """Draws a line for each value of the column `by`, in its look. Points that are `inferred` are open."""
    alone = rows[by].map(lambda name: looks[name].dashes is None)
    sns.lineplot(
        rows[~alone],
        x=x,
        y=y,
        hue=by,
        style=by,
        **style.mapped(looks),
        estimator=None,
        markersize=8,
        legend=False,
        ax=axis,
    )
    for name, points in rows[alone | rows["inferred"]].groupby(by):
        look = looks[name]
        (marks,) = axis.plot(points[x], points[y], look.marker, markersize=look.size, zorder=5)
        opened = look.dashes is not None
        marks.set(
            markerfacecolor="white" if opened else look.color,
            markeredgecolor=look.color if opened else "white",
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


def _legend_below(figure: Figure, looks: list[style.Look], inferred: bool) -> None:
    """Draws one legend below all panels, with an open marker in it where there is an inferred point."""
    handles = [look.handle() for look in looks]
    if inferred:
        handles.append(Line2D([], [], color=style.GREY, marker="o", linestyle="none"))
        handles[-1].set(label="setting inferred", markerfacecolor="white")
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)


def exit_layers(profiles: pd.DataFrame) -> Figure:
    """Figure 1: mean exit layer over t per theta, one panel a study; band: one standard deviation over the samples.

    Columns as `metrics.exits.exit_profiles`, and title.
    """
    figure, panels = _facets(profiles, "title", (4.8, 4.6))
    for title, axis, rows in panels:
        trainings, panel = _trainings(rows)
        depth, n = panel["depth"].iloc[0], panel["n"].iloc[0]
        thetas = sorted(panel["theta"].unique())
        names = [f"θ = {theta:.3f}" for theta in thetas]
        looks = style.looks(names, style.shades("adadiff", len(names)))
        # a line is the mean of two ends, and its band reaches from one to the other
        ends = [panel.assign(layer=panel["mean"] + side * panel["std"]) for side in (-1, 1)]
        sns.lineplot(
            pd.concat(ends),
            x="t",
            y="layer",
            hue="theta",
            style="theta",
            **style.mapped(dict(zip(thetas, looks, strict=True))),
            errorbar=("pi", 100),
            err_kws={"alpha": 0.15, "linewidth": 0},
            markersize=7,
            legend=False,
            ax=axis,
        )
        if len(trainings):
            settings = panel.groupby("setting")["theta"].first().sort_values().index
            colors = {name: look.color for name, look in zip(settings, looks, strict=True)}
            _faintly(axis, trainings, "t", "mean", by="setting", colors=colors)
        every = max(1, panel["t"].nunique() // 8)
        for i, line in enumerate(axis.get_lines()[: len(thetas)]):
            line.set_markevery((i, every))
        axis.axhline(depth, color=style.GREY, linewidth=1, zorder=0)
        axis.set(xlim=(T - 1, 0), ylim=(-0.2, depth + 0.4))
        axis.set_title(f"{title} (n = {n} a line{_over(panel)})", parse_math=False)
        axis.set(xlabel=_TIME, ylabel=f"exit layer (blocks run, of {depth})")
        axis.legend(
            handles=[look.handle() for look in looks],
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            ncols=2,
            handlelength=3,
            fontsize="small",
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
    axis.grid(False)


def trade_off(points: pd.DataFrame) -> Figure:
    """Figure 4: distance against time per image, one panel a dataset.

    Columns: panel, metric (its label), method (a key of style.METHODS), label, seconds, distance, lost_share and spread
    (NaN where unknown) and inferred (an open marker). A panel whose backbones are both there has the lost share of its
    distances on the right.
    """
    alone = [method for method, look in style.METHODS.items() if look.dashes is None]
    figure, panels = _facets(points, "panel", (3.5, 3.1))
    for title, axis, rows in panels:
        trainings, panel = _trainings(rows)
        # the full backbone's points begin the lines of DuoDiff
        trainings = trainings[~trainings["method"].isin(alone)]
        colors = {method: look.color for method, look in style.METHODS.items()}
        _faintly(axis, trainings, "seconds", "distance", by="method", colors=colors)
        _lines(axis, panel, "seconds", "distance", by="method", looks=style.METHODS)
        for method, line in panel.groupby("method"):
            look = style.METHODS[method]
            place = (line["seconds"], line["distance"])
            axis.errorbar(*place, yerr=line["spread"], fmt="none", ecolor=look.color, capsize=2)
            # DuoDiff's t_s below its points, AdaDiff's theta above
            above = not method.startswith("duodiff")
            _name_points(axis, line.sort_values("seconds"), look.color, above=above)
        axis.margins(x=0.1, y=0.22)
        axis.set(xlabel="seconds per image", ylabel=panel["metric"].iloc[0])
        _lost_share_axis(axis, panel)
        named = f"{title}{_over(panel)}".replace(", mean", "\nmean")  # a panel is narrow
        axis.set_title(named, fontsize="medium", parse_math=False)
        axis.locator_params(axis="x", nbins=4)
    shown = [look for method, look in style.METHODS.items() if method in set(points["method"])]
    _legend_below(figure, shown, points["inferred"].any())
    return figure


def _lost_share_axis(axis: Axes, rows: pd.DataFrame) -> None:
    """Draws the scale of the lost share on the right, from the distances of both backbones, if they are there."""
    if rows["lost_share"].isna().all():
        return
    full, shallow = (rows[rows["lost_share"] == share]["distance"].iloc[0] for share in (0, 1))

    def share(distance: ArrayLike) -> np.ndarray:
        return lost_share(distance, full, shallow)

    def distance(share: ArrayLike) -> np.ndarray:
        return full + np.asarray(share) * (shallow - full)

    axis.secondary_yaxis("right", functions=(share, distance)).set_ylabel("lost share")


def _name_points(axis: Axes, line: pd.DataFrame, color: str, above: bool) -> None:
    """The labels of a trade-off's points, above or below them, further away where two are close."""
    close = 0.15 * (line["seconds"].max() - line["seconds"].min())
    raised, last = False, -np.inf
    for point in line[line["label"] != ""].to_dict("records"):
        raised = not raised and point["seconds"] - last < close
        offset, last = 16 if raised else 7, point["seconds"]
        axis.annotate(
            point["label"],
            (point["seconds"], point["distance"]),
            xytext=(0, offset if above else -offset),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=10,
            color=color,
        )


def relative(points: pd.DataFrame) -> Figure:
    """Distance over the full backbone's against the time saved and the blocks run, a line a dataset.

    Columns as `analysis.figures.relative_points`.
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
    figure, panels = _facets(pd.concat(rows), "title", (5.4, 3.3), columns=1)
    for title, axis, drawn in panels:
        trainings, panel = _trainings(drawn)
        x = panel["x"].iloc[0]
        colors = {source: look.color for source, look in looks.items()}
        _faintly(axis, trainings, x, "relative_distance", by="source", colors=colors)
        _lines(axis, panel, x, "relative_distance", by="source", looks=looks)
        axis.axhline(1, color=style.GREY, linewidth=1, zorder=0)
        axis.set(yscale="log", title=title, xlabel=names[x], ylabel="distance / full's")
        axis.margins(y=0.2)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5)))
        axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    _legend_below(figure, list(looks.values()), points["inferred"].any())
    return figure


def qualitative(panels: list[dict]) -> Figure:
    """Figure 5: an image a row; columns of AdaDiff under rising theta, DuoDiff under rising t_s, named schedules.

    `panels` as `analysis.panels.qualitative_panels`.
    """
    style.apply()
    headers = {
        "adadiff": "AdaDiff: rising θ →",
        "duodiff": "DuoDiff: rising $t_s$ →",
        "schedule": "By name",
    }
    beside = max(sum(len(panel[kind]) for kind in headers) for panel in panels)
    heights = [0.6 * len(panel["labels"]) + 1 for panel in panels]  # inches
    figure = plt.figure(figsize=(0.6 * beside + 0.8, sum(heights)))
    parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, panel, height in zip(parts, panels, heights, strict=True):
        kinds = [kind for kind in headers if panel[kind]]
        part.suptitle(panel["title"], y=1 - 0.05 / height, va="top", parse_math=False)
        edges = {"left": 0.06, "right": 0.99, "top": 1 - 0.9 / height, "bottom": 0.1 / height}
        widths = [len(panel[kind]) for kind in kinds]
        blocks = part.add_gridspec(1, len(kinds), width_ratios=widths, wspace=0.08, **edges)
        for i, kind in enumerate(kinds):
            shape = (len(panel["labels"]), len(panel[kind]))
            axes = blocks[i].subgridspec(*shape, wspace=0.06, hspace=0.06).subplots(squeeze=False)
            for column, (name, images) in zip(axes.T, panel[kind], strict=True):
                column[0].set_title(name if len(name) < 9 else f"{name[:8]}…", fontsize=9)
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
                    axis.set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def gallery(title: str, panels: list[tuple[str, np.ndarray]]) -> Figure:
    """A square of images a panel, one panel a set of images; `panels` are (name, uint8 [n, C, H, W])."""
    style.apply()
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(8, 4.3 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, images) in zip(axes.flat, panels, strict=False):
        axis.imshow(grid(images, math.isqrt(len(images) - 1) + 1), interpolation="nearest")
        axis.set_title(name, fontsize=11)
    figure.suptitle(title, y=1, va="bottom", parse_math=False)
    figure.tight_layout()
    return figure


def training_curves(curves: pd.DataFrame) -> Figure:
    """Held-out (solid) and training (dotted) loss over steps: backbones left, AdaDiff's heads right.

    Columns: title, model ("full", "shallow", "heads", or a further network), step, train_loss, held_out_loss.
    """
    style.apply()
    names = {"held_out_loss": "held out", "train_loss": "training"}
    trainings, curves = _trainings(curves)
    colors = style.networks(curves["model"])
    lines = curves.rename(columns=names).melt(
        ["title", "model", "step"], list(names.values()), var_name="images", value_name="loss"
    )
    panels = [
        (title, of_heads)
        for title in curves["title"].unique()
        for of_heads in (False, True)
        if ((curves["title"] == title) & ((curves["model"] == "heads") == of_heads)).any()
    ]
    of_line = zip(lines["title"], lines["model"] == "heads", strict=True)
    lines["number"] = [panels.index(panel) for panel in of_line]
    facets = sns.relplot(
        lines,
        kind="line",
        x="step",
        y="loss",
        hue="model",
        style="images",
        palette=colors,
        dashes={"held out": "", "training": (1, 1)},
        errorbar=None,
        col="number",
        col_order=range(len(panels)),
        col_wrap=2,
        height=4.6,
        aspect=1,
        facet_kws={"sharex": False, "sharey": False},
    )
    facets.set(yscale="log", xlabel="training step")
    for (title, of_heads), axis in zip(panels, facets.axes, strict=True):
        kind = "AdaDiff heads" if of_heads else "backbones"
        mine = curves[(curves["title"] == title) & ((curves["model"] == "heads") == of_heads)]
        axis.set_title(f"{title}: {kind}{_over(mine)}", parse_math=False)
        single = trainings[trainings["title"] == title]
        single = single[single["model"].isin(mine["model"])]
        _faintly(axis, single, "step", "held_out_loss", by="model", colors=colors)
        axis.set(ylabel="loss (Eq. 6 + Eq. 7)" if of_heads else "loss (Eq. 2)")
    facets.figure.set_layout_engine("constrained")
    sns.move_legend(facets, "outside lower center", ncols=2, frameon=True, fontsize="small")
    return facets.figure


def denoising_losses(losses: pd.DataFrame) -> Figure:
    """Held-out squared error over t of full, shallow and every head, one panel a study.

    Columns: title, t, network ("full", "shallow", a further one, or "head"), layer, mse.
    """
    figure, panels = _facets(losses, "title", (6.4, 3.8), columns=1)
    for title, axis, rows in panels:
        heads = rows["network"] == "head"
        rows = rows.assign(
            line=rows["network"].mask(heads, "head " + rows["layer"].map("{:.0f}".format))
        )
        trainings, panel = _trainings(rows)
        names = [f"head {layer:.0f}" for layer in sorted(rows[heads]["layer"].unique())]
        colors = dict(zip(names, style.shades("adadiff", len(names)), strict=True))
        drawn = [*reversed(list(dict.fromkeys(rows[~heads]["network"])))]
        colors |= {network: style.networks(drawn)[network] for network in drawn}
        _faintly(axis, trainings, "t", "mse", by="line", colors=colors)
        sns.lineplot(
            panel,
            x="t",
            y="mse",
            hue="line",
            size="line",
            hue_order=colors,
            size_order=colors,
            palette=colors,
            sizes={line: 1 if line in names else 2.5 for line in colors},
            errorbar=None,
            ax=axis,
        )
        axis.set(xlim=(T - 1, 0), yscale="log")
        axis.set_title(f"{title}{_over(panel)}", parse_math=False)
        axis.set(xlabel=_TIME, ylabel="held-out squared error")
        axis.legend(fontsize="x-small", ncols=2)
    return figure


def extrapolations(points: pd.DataFrame) -> Figure:
    """Distance over 1/n of random subsets, and the line through them down to 1/n = 0, one panel a study.

    Columns: title, metric, t_s, n, distance, and the line's limit, slope and r2.
    """
    figure, panels = _facets(points, "title", (6.4, 3.8), columns=1)
    for title, axis, rows in panels:
        trainings, panel = _trainings(rows)
        cells = panel.drop_duplicates("t_s").sort_values("t_s")
        names = {
            cell.t_s: f"$t_s$ = {cell.t_s:.0f}: {cell.limit:.2f} ($R^2$ = {cell.r2:.2f})"
            for cell in cells.itertuples()
        }
        dots = panel.assign(x=1 / panel["n"], cell=panel["t_s"].map(names))
        ends = dots.groupby("t_s")["x"].transform("max")
        fits = [dots.assign(x=x, distance=dots["limit"] + dots["slope"] * x) for x in (0, ends)]
        shades = style.shades("duodiff", len(names))
        look = {
            "x": "x",
            "y": "distance",
            "hue": "cell",
            "palette": dict(zip(names.values(), shades, strict=True)),
            "hue_order": names.values(),
            "ax": axis,
        }
        ends = trainings["limit"] + trainings["slope"] / trainings["n"]
        fitted = trainings.assign(x=1 / trainings["n"], fit=ends)
        of_t_s = dict(zip(names, shades, strict=True))
        _faintly(axis, fitted, "x", "fit", by="t_s", colors=of_t_s)
        sns.scatterplot(dots, s=30, legend=False, **look)
        sns.lineplot(pd.concat(fits), errorbar=None, linewidth=1, **look)
        sizes = np.unique(panel["n"])
        sizes = sizes[[0, len(sizes) // 3, -1]]
        axis.set_xticks([0, *1 / sizes], ["∞", *map(str, sizes)])
        metric = panel["metric"].iloc[0]
        axis.set(xlabel="number of images n (spaced by 1/n)", ylabel=metric)
        axis.set_title(f"{title}{_over(panel)}", parse_math=False)
        axis.legend(
            fontsize="x-small",
            title="limit at n = ∞",
            title_fontsize="x-small",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
        )
    return figure
