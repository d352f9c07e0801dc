"""One look for every figure: seaborn's theme, a colour and a mark for each method, and files that do not change."""

import logging
import warnings
from collections.abc import Iterable, Mapping
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
INK, GREY = "#222222", "#888888"

_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p"]
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

    `dashes` are the lengths of dash, gap, dash, ... in line widths, as seaborn takes them. () is a solid line, None is
    no line: a point that stands alone.
    """

    label: str
    color: str
    marker: str
    dashes: tuple[float, ...] | None

    @property
    def size(self) -> int:
        """Of the marker, in points."""
        return 15 if self.marker == "*" else 8

    def handle(self) -> Line2D:
        """Its line in a legend."""
        line = Line2D([], [], color=self.color, marker=self.marker, markersize=self.size)
        line.set(label=self.label, markeredgecolor="white")
        if self.dashes is None:
            line.set_linestyle("none")
        elif self.dashes:
            line.set_linestyle((0, self.dashes))
        return line


METHODS = {
    "full": Look("Full backbone", INK, "*", None),
    "duodiff": Look("DuoDiff", _COLORS[0], "o", ()),
    "adadiff": Look("AdaDiff, measured", _COLORS[3], "s", (4, 1.5)),
    "adadiff_interpolated": Look("AdaDiff, interpolated (A.5)", _COLORS[4], "^", (1, 1)),
    "schedule": Look("Schedule with a name", _COLORS[2], "v", None),
    "full_fewer_steps": Look("Full backbone, fewer steps", INK, "D", (3, 1.25, 1.5, 1.25)),
    "duodiff_fewer_steps": Look("DuoDiff, fewer steps", _COLORS[0], "P", None),
}
"""The look of each method, in every figure."""

_FURTHER = [_COLORS[i] for i in (1, 4, 5, 8, 9)]
NETWORKS = {"full": INK, "shallow": _COLORS[2], "heads": _COLORS[3]}
"""The colour of the networks that every experiment may have."""


def networks(names: Iterable[str]) -> dict[str, str]:
    """The colour of each of these networks; further ones have colours of their own, by their order."""
    further = [name for name in dict.fromkeys(names) if name not in NETWORKS]
    return NETWORKS | dict(zip(further, cycle(_FURTHER)))


_SHADES = {"adadiff": "rocket_r", "duodiff": "mako_r"}


def shades(method: str, n: int) -> list[str]:
    """n colours for a method's rising settings, from light to dark: t_s of "duodiff", theta or layers of "adadiff"."""
    return sns.color_palette(_SHADES[method], n + 2).as_hex()[1:-1]  # neither pale nor black


def looks(labels: list[str], colors: list[str] | None = None) -> list[Look]:
    """A look for each label, for lines that are not methods. Colours are dark by default, and none is a method's."""
    colors = colors or sns.color_palette("dark", len(labels)).as_hex()
    return list(map(Look, labels, colors, cycle(_MARKERS), cycle(_DASHES)))


def mapped(looks: Mapping[Any, Look]) -> dict[str, dict]:
    """The looks of the values of a column as keyword arguments of seaborn: palette, markers and dashes."""
    return {
        "palette": {value: look.color for value, look in looks.items()},
        "markers": {value: look.marker for value, look in looks.items()},
        "dashes": {value: look.dashes or "" for value, look in looks.items()},
    }


def apply() -> None:
    """Sets the defaults of matplotlib: a white grid, sizes to be read on a phone, files equal between runs.

    The font comes with matplotlib, so that a figure does not depend on the fonts of a machine.
    """
    warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `save` says it once
    plt.style.use("default")
    sns.set_theme(
        style="whitegrid",
        palette="colorblind",
        font=_FONT,
        rc={
            "font.size": 12.5,
            "axes.titlesize": 12.5,
            "axes.labelsize": 12.5,
            "xtick.labelsize": 11.5,
            "ytick.labelsize": 11.5,
            "legend.fontsize": 11.5,
            "legend.title_fontsize": 11.5,
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
