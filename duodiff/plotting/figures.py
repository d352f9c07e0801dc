"""One function per figure, each fed by data frames (or arrays of images) only."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from duodiff.data.pictures import grid
from duodiff.data.store import to_unit_range
from duodiff.plotting import style
from duodiff.schedules import T


def _panels(n: int, width: float = 4.6, height: float = 3.8, columns: int = 2):
    """A figure of n panels, at most two beside each other: more cannot be read on a phone."""
    rows, beside = -(-n // columns), min(n, columns)
    size = (width * beside, height * rows)
    figure, axes = plt.subplots(rows, beside, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[n:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:n])


def exit_layers(profiles: pd.DataFrame) -> Figure:
    """Figure 1: mean exit layer over t per theta, one panel a study; band: one standard deviation over the samples.

    Columns as `metrics.exits.exit_profiles`, and title.
    """
    style.apply()
    panels = list(profiles.groupby(["title", "train_seed"], sort=False))
    figure, axes = _panels(len(panels), width=4.8, height=4.6)
    for axis, ((title, _), panel) in zip(axes, panels, strict=True):
        depth, n = panel["depth"].iloc[0], panel["n"].iloc[0]
        for i, (theta, line) in enumerate(panel.groupby("theta")):
            look = style.line(i)
            every = max(1, len(line) // 8)
            label = f"θ = {theta:.3f}"
            axis.plot(line["t"], line["mean"], **look, markevery=(i, every), ms=5, label=label)
            low, high = line["mean"] - line["std"], line["mean"] + line["std"]
            axis.fill_between(line["t"], low, high, color=look["color"], alpha=0.15, linewidth=0)
        axis.axhline(depth, color="#888888", linewidth=1, zorder=0)
        axis.set(xlim=(T - 1, 0), ylim=(-0.2, depth + 0.4), title=f"{title} (n = {n} a line)")
        axis.set(xlabel="timestep t (sampling runs left to right)")
        axis.set(ylabel=f"exit layer (blocks run, of {depth})")
        _legend_below(axis)
    return figure


def _legend_below(axis) -> None:
    axis.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, handlelength=3, fontsize="small"
    )


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
    parts = np.ravel(figure.subfigures(len(panels), 1, height_ratios=heights))
    for part, (title, images) in zip(parts, panels, strict=True):
        mine = similarity[similarity["title"] == title]
        part.suptitle(f"{title}: r is the correlation of input and target, n = {mine['n'].iloc[0]}")
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


def _show(axis, image: np.ndarray, limit: float) -> None:
    """An image [C, H, W] on an axis, black at -limit and white at limit."""
    shown = np.clip(image / limit, -1, 1) / 2 + 0.5
    shown = shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0)
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)


def trade_off(points: pd.DataFrame) -> Figure:
    """Figure 4: distance against time per image, one panel a dataset.

    Columns: panel, metric (its label), method (a key of style.METHODS), label, seconds, distance, spread (NaN
    where unknown) and inferred (an open marker).
    """
    style.apply()
    panels = list(points.groupby("panel", sort=False))
    figure, axes = _panels(len(panels), width=3.5, height=3.1)
    for axis, (title, panel) in zip(axes, panels, strict=True):
        for method, look in style.METHODS.items():
            line = panel[panel["method"] == method].sort_values("seconds")
            # DuoDiff's t_s below its points, AdaDiff's theta above
            _labelled(axis, line, "seconds", "distance", look, above=method != "duodiff")
            axis.errorbar(
                line["seconds"],
                line["distance"],
                yerr=line["spread"],
                fmt="none",
                ecolor=look["color"],
                capsize=2,
            )
        axis.margins(x=0.1, y=0.22)
        axis.set(xlabel="seconds per image", ylabel=panel["metric"].iloc[0])
        axis.set_title(title, fontsize="medium")
        axis.locator_params(axis="x", nbins=4)
    _legend_of_all(figure, axes, points["inferred"].any())
    return figure


_OPEN = {"linestyle": "none", "markerfacecolor": "white"}


def _labelled(axis, line: pd.DataFrame, x: str, y: str, look: dict, above: bool) -> None:
    """A line with its points' labels above or below them, raised where crowded; inferred points are open."""
    if line.empty:
        return
    full = look["marker"] == "*"
    size = 13 if full else 7
    axis.plot(line[x], line[y], **look, markersize=size, zorder=5 if full else 3)
    inferred = line[line["inferred"]]
    open_marker = {k: v for k, v in look.items() if k not in ("label", "linestyle")}
    axis.plot(inferred[x], inferred[y], **open_marker | _OPEN, markersize=size, zorder=4)
    crowded, raised, last = 0.15 * (line[x].max() - line[x].min()), False, -np.inf
    for point in line[line["label"] != ""].to_dict("records"):
        raised = not raised and point[x] - last < crowded
        offset, last = 16 if raised else 7, point[x]
        axis.annotate(
            point["label"],
            (point[x], point[y]),
            xytext=(0, offset if above else -offset),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=10,
            color=look["color"],
        )


def _legend_of_all(figure: Figure, axes: list, inferred: bool) -> None:
    """One legend below all panels, each name once, and that of an open marker where there is an inferred point."""
    named = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if inferred:
        named["setting inferred"] = Line2D([], [], color="#444444", **_OPEN, marker="o")
    figure.legend(
        named.values(), named.keys(), loc="outside lower center", ncols=2, fontsize="small"
    )


def relative(points: pd.DataFrame) -> Figure:
    """Distance over the full backbone's against the time saved and the blocks run, a line a dataset.

    Columns as `analysis.figures.relative_points`.
    """
    style.apply()
    figure, axes = _panels(3, width=5.4, height=3.3, columns=1)
    panels = [
        ("DuoDiff, rising $t_s$", ("full", "duodiff", "shallow"), "time_saved"),
        ("AdaDiff, rising θ, time as interpolated", ("adadiff",), "time_saved"),
        ("AdaDiff, falling θ", ("adadiff",), "blocks_run"),
    ]
    names = {"time_saved": "time saved (%)", "blocks_run": "blocks run before the exit (% of all)"}
    for axis, (title, methods, x) in zip(axes, panels, strict=True):
        shown = points[points["method"].isin(methods) & points[x].notna()].assign(label="")
        for i, source in enumerate(points["source"].unique()):
            line = shown[shown["source"] == source].sort_values(x)
            _labelled(axis, line, x, "relative_distance", style.line(i) | {"label": source}, True)
        axis.axhline(1, color="#888888", linewidth=1, zorder=0)
        axis.set(yscale="log", title=title, xlabel=names[x], ylabel="distance / full's")
        axis.margins(y=0.2)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5)))
        axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    _legend_of_all(figure, axes, points["inferred"].any())
    return figure


def qualitative(panels: list[dict]) -> Figure:
    """Figure 5: an image a row; AdaDiff's columns under rising theta left, DuoDiff's under rising t_s right.

    `panels` as `analysis.panels.qualitative_panels`.
    """
    style.apply()
    beside = max(len(panel["adadiff"]) + len(panel["duodiff"]) for panel in panels)
    heights = [0.6 * len(panel["labels"]) + 1 for panel in panels]  # inches
    figure = plt.figure(figsize=(0.6 * beside + 0.8, sum(heights)))
    parts = np.ravel(figure.subfigures(len(panels), 1, height_ratios=heights))
    headers = {"adadiff": "AdaDiff: rising θ →", "duodiff": "DuoDiff: rising $t_s$ →"}
    for part, panel, height in zip(parts, panels, heights, strict=True):
        kinds = [kind for kind in headers if panel[kind]]
        part.suptitle(panel["title"], y=1 - 0.05 / height, va="top")
        edges = {"left": 0.06, "right": 0.99, "top": 1 - 0.9 / height, "bottom": 0.1 / height}
        widths = [len(panel[kind]) for kind in kinds]
        blocks = part.add_gridspec(1, len(kinds), width_ratios=widths, wspace=0.08, **edges)
        for i, kind in enumerate(kinds):
            shape = (len(panel["labels"]), len(panel[kind]))
            axes = blocks[i].subgridspec(*shape, wspace=0.06, hspace=0.06).subplots(squeeze=False)
            for column, (name, images) in zip(axes.T, panel[kind], strict=True):
                column[0].set_title(name, fontsize=9)
                for axis, image in zip(column, images, strict=True):
                    _show(axis, to_unit_range(image), 1)
            axes[0, 0].annotate(
                headers[kind],
                (0, 1),
                xytext=(0, 20),
                xycoords="axes fraction",
                textcoords="offset points",
                fontsize="medium",
                color=style.METHODS[kind]["color"],
            )
            for axis, label in zip(axes[:, 0], panel["labels"], strict=True):
                if i == 0:
                    axis.set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def gallery(title: str, panels: list[tuple[str, np.ndarray]]) -> Figure:
    """A square of images a panel, one panel a set of images; `panels` are (name, uint8 [n, C, H, W])."""
    style.apply()
    figure, axes = _panels(len(panels), width=4, height=4.3)
    for axis, (name, images) in zip(axes, panels, strict=True):
        axis.imshow(grid(images, math.isqrt(len(images) - 1) + 1), interpolation="nearest")
        axis.set_axis_off()
        axis.set_title(name, fontsize=11)
    figure.suptitle(title, y=1, va="bottom")
    figure.tight_layout()
    return figure


def training_curves(curves: pd.DataFrame) -> Figure:
    """Held-out (solid) and training (dotted) loss over steps: backbones left, AdaDiff's heads right.

    Columns: title, model ("full", "shallow", "heads"), step, train_loss, held_out_loss.
    """
    style.apply()
    titles = curves["title"].unique()
    figure, axes = _panels(2 * len(titles), columns=2)
    colors = {"full": "#222222", "shallow": "#009e73", "heads": "#d55e00"}
    for i, (title, panel) in enumerate(curves.groupby("title", sort=False)):
        for axis, models in zip(
            axes[2 * i : 2 * i + 2], (["full", "shallow"], ["heads"]), strict=True
        ):
            for model in models:
                line = panel[panel["model"] == model]
                axis.plot(
                    line["step"],
                    line["held_out_loss"],
                    color=colors[model],
                    label=f"{model}, held out",
                )
                axis.plot(
                    line["step"],
                    line["train_loss"],
                    color=colors[model],
                    linestyle=":",
                    label=f"{model}, training",
                )
            axis.set(yscale="log", xlabel="training step")
            axis.legend(fontsize="small")
        axes[2 * i].set(title=f"{title}: backbones", ylabel="loss (Eq. 2)")
        axes[2 * i + 1].set(title=f"{title}: AdaDiff heads", ylabel="loss (Eq. 6 + Eq. 7)")
    return figure


def denoising_losses(losses: pd.DataFrame) -> Figure:
    """Held-out squared error over t of full, shallow and every head, one panel a study.

    Columns: title, t, network ("full", "shallow", "head"), layer, mse.
    """
    style.apply()
    panels = list(losses.groupby("title", sort=False))
    figure, axes = _panels(len(panels), width=6.4, columns=1)
    for axis, (title, panel) in zip(axes, panels, strict=True):
        heads = panel[panel["network"] == "head"]
        colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, heads["layer"].nunique()))
        for color, (layer, line) in zip(colors, heads.groupby("layer"), strict=True):
            axis.plot(line["t"], line["mse"], color=color, linewidth=1, label=f"head {int(layer)}")
        for network, color in (("shallow", "#009e73"), ("full", "#222222")):
            line = panel[panel["network"] == network]
            axis.plot(line["t"], line["mse"], color=color, linewidth=2, label=network)
        axis.set(xlim=(T - 1, 0), yscale="log", title=title)
        axis.set(xlabel="timestep t (sampling runs left to right)", ylabel="held-out squared error")
        axis.legend(fontsize="x-small", ncols=2)
    return figure


def extrapolations(points: pd.DataFrame) -> Figure:
    """Distance over 1/n of random subsets, and the line through them down to 1/n = 0, one panel a study.

    Columns: title, metric, t_s, n, distance, and the line's limit, slope and r2.
    """
    style.apply()
    panels = list(points.groupby("title", sort=False))
    figure, axes = _panels(len(panels), width=6.4, columns=1)
    for axis, (title, panel) in zip(axes, panels, strict=True):
        cells = list(panel.groupby("t_s"))
        colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(cells)))
        for color, (t_s, cell) in zip(colors, cells, strict=True):
            limit, slope, r2 = cell[["limit", "slope", "r2"]].iloc[0]
            ends = np.array([0, 1 / cell["n"].min()])
            axis.plot(1 / cell["n"], cell["distance"], "o", color=color, markersize=4)
            label = f"$t_s$ = {t_s:.0f}: {limit:.2f} ($R^2$ = {r2:.2f})"
            axis.plot(ends, limit + slope * ends, color=color, linewidth=1, label=label)
        sizes = np.unique(panel["n"])[[0, len(np.unique(panel["n"])) // 3, -1]]
        axis.set_xticks([0, *1 / sizes], ["∞", *map(str, sizes)])
        metric = panel["metric"].iloc[0]
        axis.set(title=title, xlabel="number of images n (spaced by 1/n)", ylabel=metric)
        axis.legend(
            fontsize="x-small",
            title="limit at n = ∞",
            title_fontsize="x-small",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
        )
    return figure
