"""One function per figure, each fed by data frames (or arrays of images) only."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from duodiff.pictures import grid
from duodiff.plotting import style
from duodiff.schedules import T


def _panels(n: int, width: float = 5.2, height: float = 3.8, columns: int = 3):
    rows = -(-n // columns)
    figure, axes = plt.subplots(
        rows, min(n, columns), figsize=(width * min(n, columns), height * rows), squeeze=False
    )
    for axis in axes.flat[n:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:n])


def exit_layers(profiles: pd.DataFrame) -> Figure:
    """Figure 1: mean exit layer over t per theta, one panel a study; band: one standard deviation,
    thin lines: minimum and maximum over the samples. Columns as `analysis.exits.exit_profiles`, and title.
    """
    style.apply()
    panels = list(profiles.groupby(["title", "train_seed"], sort=False))
    figure, axes = _panels(len(panels))
    for axis, ((title, _), panel) in zip(axes, panels, strict=True):
        colors = plt.get_cmap("viridis")(np.linspace(0, 0.85, panel["theta"].nunique()))
        for color, (theta, line) in zip(colors, panel.groupby("theta"), strict=True):
            axis.plot(line["t"], line["mean"], color=color, label=f"θ = {theta:.3f}")
            low, high = line["mean"] - line["std"], line["mean"] + line["std"]
            axis.fill_between(line["t"], low, high, color=color, alpha=0.25, linewidth=0)
            for edge in ("min", "max"):
                axis.plot(line["t"], line[edge], color=color, linewidth=0.5, alpha=0.6)
        depth, n = panel["depth"].iloc[0], panel["n"].iloc[0]
        axis.axhline(depth, color="#888888", linewidth=0.8, linestyle="--")
        axis.set(xlim=(T - 1, 0), ylim=(-0.2, depth + 0.4), title=f"{title} (n = {n} per θ)")
        axis.set(
            xlabel="timestep t (sampling runs left to right)", ylabel="exit layer (blocks run)"
        )
        axis.legend(loc="lower right", fontsize="small")
    figure.tight_layout()
    return figure


def trade_off(points: pd.DataFrame) -> Figure:
    """Figure 4: distance against time per image, one panel a dataset.

    Columns: panel, metric (its label), method (a key of style.METHODS), label, seconds, distance and
    spread (NaN where unknown).
    """
    style.apply()
    panels = list(points.groupby("panel", sort=False))
    figure, axes = _panels(len(panels), width=4.6)
    for axis, (title, panel) in zip(axes, panels, strict=True):
        for method, look in style.METHODS.items():
            line = panel[panel["method"] == method].sort_values("seconds")
            if line.empty:
                continue
            size = {"markersize": 13 if method == "full" else 6}
            axis.plot(line["seconds"], line["distance"], **look, **size, zorder=3)
            axis.errorbar(
                line["seconds"],
                line["distance"],
                yerr=line["spread"],
                fmt="none",
                ecolor=look["color"],
                capsize=2,
            )
            # DuoDiff's t_s below its points, AdaDiff's theta above
            up = -11 if method == "duodiff" else 6
            for point in line[line["label"] != ""].itertuples():
                axis.annotate(
                    point.label,
                    (point.seconds, point.distance),
                    xytext=(0, up),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                    color=look["color"],
                )
        axis.margins(y=0.12)
        axis.set(title=title, xlabel="seconds per image", ylabel=panel["metric"].iloc[0])
        axis.locator_params(axis="x", nbins=5)
        axis.legend(fontsize="small")
    figure.tight_layout()
    return figure


def qualitative(rows: list[tuple[str, np.ndarray]], columns: list[str]) -> Figure:
    """Figure 5: a grid of images, one row a setting, the same noise and label in every column.

    `rows` are (name, uint8 images [n, C, H, W]); `columns` name the n labels.
    """
    style.apply()
    n = len(columns)
    figure, axes = plt.subplots(
        len(rows), n, figsize=(0.62 * n + 1.6, 0.62 * len(rows) + 0.6), squeeze=False
    )
    for row, (name, images) in enumerate(rows):
        for column, image in enumerate(images):
            axis = axes[row, column]
            shown = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            axis.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            if row == 0:
                axis.set_title(columns[column], fontsize=9)
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.subplots_adjust(wspace=0.06, hspace=0.06)
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
    figure.tight_layout()
    return figure


def denoising_losses(losses: pd.DataFrame) -> Figure:
    """Held-out squared error over t of full, shallow and every head, one panel a study.

    Columns: title, t, network ("full", "shallow", "head"), layer, mse.
    """
    style.apply()
    panels = list(losses.groupby("title", sort=False))
    figure, axes = _panels(len(panels), width=6)
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
    figure.tight_layout()
    return figure


def extrapolations(points: pd.DataFrame) -> Figure:
    """Distance over 1/n of random subsets, and the line through them down to 1/n = 0, one panel a study.

    Columns: title, metric, t_s, n, distance, and the line's limit, slope and r2.
    """
    style.apply()
    panels = list(points.groupby("title", sort=False))
    figure, axes = _panels(len(panels), width=6)
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
    figure.tight_layout()
    return figure
