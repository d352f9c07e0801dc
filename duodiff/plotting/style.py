"""One look for every figure: seaborn's theme, a colour and a mark for each method, and files that do not change."""

import logging
import warnings
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.text import Text

from duodiff.running.files import atomic, write_csv

matplotlib.use("Agg")

log = logging.getLogger("duodiff")

_COLORS = sns.color_palette("colorblind").as_hex()
_FONT = "DejaVu Sans"
WIDTH = 5.4
"""Inches of a figure. On a phone's 390 pixels a letter of 9 points is 9 pixels high."""

INK, GREY = "#222222", "#888888"

_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p"]
_SIZES = {"*": 13, "P": 9, "X": 8}  # points, of a marker that is thinner than others
_DASHES: list[tuple[float, ...]] = [
    (),
    (4, 1.5),
    (1, 1),
    (3, 1.25, 1.5, 1.25),
    (5, 1, 1, 1),
    (5, 1, 2, 1, 2, 1),
    (8, 2),
]


class Look(NamedTuple):
    """How a line is drawn, told apart without its colour too.

    `dashes` are the lengths of dash, gap, dash, ... in line widths, as matplotlib takes them. () is a solid line, None
    is no line: a point that stands alone.
    """

    label: str
    color: str
    marker: str
    dashes: tuple[float, ...] | None

    def keywords(self) -> dict[str, Any]:
        """How matplotlib's `plot` draws a line of this look."""
        line: Any = "none" if self.dashes is None else "solid"
        return {
            "color": self.color,
            "marker": self.marker,
            "markersize": _SIZES.get(self.marker, 7),
            "markeredgecolor": "white",
            "linestyle": (0, self.dashes) if self.dashes else line,
        }

    def handle(self) -> Line2D:
        """Its line in a legend."""
        return Line2D([], [], label=self.label, **self.keywords())


METHODS = {
    "full": Look("Full backbone", INK, "*", None),
    "duodiff": Look("DuoDiff", _COLORS[0], "o", ()),
    "adadiff": Look("AdaDiff, time measured", _COLORS[3], "s", (4, 1.5)),
    "adadiff_interpolated": Look("AdaDiff, time interpolated", _COLORS[4], "^", (1, 1)),
    "schedule": Look("Schedule with a name", _COLORS[5], "X", None),
    "full_fewer_steps": Look("Full backbone, fewer steps", INK, "D", (3, 1.25, 1.5, 1.25)),
    "duodiff_fewer_steps": Look("DuoDiff, fewer steps", _COLORS[0], "P", None),
}
"""The look of each method, in every figure."""

NETWORKS = {
    "full": METHODS["full"]._replace(dashes=()),
    "shallow": Look("Shallow backbone", _COLORS[2], "v", ()),
    "heads": METHODS["adadiff"]._replace(label="AdaDiff's heads", dashes=()),
}
"""The look of the networks that every experiment may have: the colour and marker of its method."""

_FURTHER = [_COLORS[i] for i in (8, 9, 6, 7, 1)]


def networks(names: Iterable[str]) -> dict[str, Look]:
    """The look of each of these networks; further ones have looks of their own, by their order."""
    further = [name for name in dict.fromkeys(names) if name not in NETWORKS]
    others = zip(further, cycle(_FURTHER), cycle("<>ph"), cycle(_DASHES[1:]))
    return NETWORKS | {
        name: Look(name, color, marker, line) for name, color, marker, line in others
    }


_SHADES = {"adadiff": "rocket_r", "duodiff": "mako_r"}


def shades(method: str, n: int) -> list[str]:
    """n colours for a method's rising settings, from light to dark: t_s of "duodiff", theta or layers of "adadiff"."""
    return sns.color_palette(_SHADES[method], n + 2).as_hex()[1:-1]  # neither pale nor black


def looks(labels: list[str], colors: list[str] | None = None) -> list[Look]:
    """A look for each label, for lines that are not methods. Colours are dark by default, and none is a method's."""
    colors = colors or sns.color_palette("dark", len(labels)).as_hex()
    return list(map(Look, labels, colors, cycle(_MARKERS), cycle(_DASHES)))


def apply() -> None:
    """Sets the defaults of matplotlib: a white grid, sizes to be read on a phone (`WIDTH`), files equal between runs.

    The font comes with matplotlib, so that a figure does not depend on the fonts of a machine.
    """
    warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `save` says it once
    plt.style.use("default")
    sns.set_theme(
        style="whitegrid",
        palette="colorblind",
        font=_FONT,
        rc={
            "font.size": 10.5,
            "axes.titlesize": 11,
            "axes.labelsize": 10.5,
            "xtick.labelsize": 9.5,
            "ytick.labelsize": 9.5,
            "legend.fontsize": 9.5,
            "legend.title_fontsize": 9.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 1.5,
            "grid.linewidth": 0.8,
            "axes.linewidth": 1,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "svg.hashsalt": "duodiff",
            "svg.fonttype": "path",
            "pdf.fonttype": 42,
        },
    )


def _without_glyph(figure: Figure) -> str:
    """The characters of a figure's texts that its font lacks."""
    known = get_font(findfont(_FONT)).get_charmap()
    used = {character for text in figure.findobj(Text) for character in text.get_text()}
    return "".join(sorted(c for c in used if ord(c) not in known and c != "\n"))


def save(figure: Figure, data: pd.DataFrame, paths: list[Path]) -> None:
    """Writes the figure to each path by its suffix, without dates, and the values it shows to a .csv; closes it."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    if unknown := _without_glyph(figure):
        log.warning("the font of the figures has no glyph for %s: boxes are drawn", unknown)
    for path in paths:
        kind = Path(path).suffix[1:]
        if kind == "csv":
            write_csv(path, data)
            continue
        with atomic(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=undated[kind])
    plt.close(figure)
