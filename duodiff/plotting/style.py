"""One look for every figure: a marker, line style and colour per method, and deterministic files."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from duodiff.files import atomic, write_csv

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


def apply() -> None:
    """Sets matplotlib's defaults: white grid, readable sizes, files that do not change between runs."""
    sns.set_theme(context="paper", style="whitegrid", font_scale=1.15)
    plt.rcParams.update(
        {
            "figure.dpi": 100,
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
