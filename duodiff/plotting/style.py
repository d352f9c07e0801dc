"""One look for every figure: a marker, line style and colour per method, and deterministic files."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from duodiff.running.files import atomic, write_csv

matplotlib.use("Agg")

METHODS = {
    "full": {"label": "Full backbone", "color": "#222222", "marker": "*", "linestyle": "none"},
    "duodiff": {"label": "DuoDiff", "color": "#0072b2", "marker": "o", "linestyle": "-"},
    "adadiff": {"label": "AdaDiff, measured", "color": "#d55e00", "marker": "s", "linestyle": "--"},
    "adadiff_interpolated": {
        "label": "AdaDiff, interpolated (A.5)",
        "color": "#cc79a7",
        "marker": "^",
        "linestyle": ":",
    },
}

LINES = [
    {"color": "#440154", "linestyle": "-", "marker": "o"},
    {"color": "#3b528b", "linestyle": "--", "marker": "s"},
    {"color": "#21918c", "linestyle": "-.", "marker": "^"},
    {"color": "#5aa02c", "linestyle": ":", "marker": "D"},
    {"color": "#d08a00", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": "#b03a7a", "linestyle": (0, (8, 2)), "marker": "P"},
    {"color": "#666666", "linestyle": (0, (1, 3)), "marker": "X"},
]
"""Looks of lines that are not methods, told apart without colour too."""


def line(i: int) -> dict:
    """The look of the i-th line; after the last they repeat."""
    return LINES[i % len(LINES)]


def apply() -> None:
    """Sets matplotlib's defaults: white grid, sizes to be read on a phone, files that do not change between runs."""
    plt.style.use(
        ["default", "seaborn-v0_8-whitegrid"]
    )  # matplotlib's own; seaborn is slow to import
    plt.rcParams.update(
        {
            "font.size": 12.5,
            "axes.titlesize": 12.5,
            "axes.labelsize": 12.5,
            "xtick.labelsize": 11.5,
            "ytick.labelsize": 11.5,
            "legend.fontsize": 11.5,
            "lines.linewidth": 1.3,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "svg.hashsalt": "duodiff",
            "svg.fonttype": "path",
            "pdf.fonttype": 42,
            "legend.frameon": True,
        }
    )


def save(figure: Figure, data: pd.DataFrame, paths: list[Path]) -> None:
    """Writes the figure to each path by its suffix, without dates, and the values it shows to a .csv; closes it."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    for path in paths:
        kind = Path(path).suffix[1:]
        if kind == "csv":
            write_csv(path, data)
            continue
        with atomic(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=undated[kind])
    plt.close(figure)
