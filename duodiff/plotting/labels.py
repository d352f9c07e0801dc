"""Names beside the points of a plot, placed where they overlap nothing."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

_DIRECTIONS = 16
_REACHES = (2, 12, 22, 34)
"""How far a name may stand from its point's marker, in points. From the second on a thin line leads to it."""
_APART = 1.0  # points between a name and what is beside it
_OF_NAME, _OF_MARKER, _OF_BAR, _OF_LINE, _OUTSIDE = 1000, 100, 10, 3, 2000
"""What it costs to cover another name, a marker, a sample of a bar or a line; and to leave the axes."""


class Name(NamedTuple):
    """The name of a point at `place` (in data), which stands above it if there is room, or below it."""

    text: str
    place: tuple[float, float]
    color: str
    above: bool


class _Drawn(NamedTuple):
    """Boxes in pixels, [n, 4] as left, bottom, right, top, and what it costs to cover each."""

    boxes: np.ndarray
    costs: np.ndarray


def write(figure: Figure, names: Mapping[Axes, list[Name]], size: float) -> None:
    """Writes the names of the points on each axis, `size` points high, where they cost least.

    The layout of the figure is settled before and fixed by this. Limits and scales must not change after it.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis, mine in names.items():
        texts = [axis.text(*name.place, name.text, fontsize=size) for name in mine]
        sizes = [_size(text) for text in texts]
        for text in texts:
            text.remove()
        for name, offset, far in zip(mine, *_offsets(axis, mine, sizes), strict=True):
            axis.annotate(
                name.text,
                name.place,
                xytext=tuple(offset),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=size,
                color=name.color,
                arrowprops=_LEADER | {"color": name.color} if far else None,
            )


_LEADER = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}


def box(text: Text) -> np.ndarray:
    """The box of a name in pixels: left, bottom, right, top, without the line that leads to it."""
    return np.array(Text.get_window_extent(text).extents)


def _size(text: Text) -> np.ndarray:
    left, bottom, right, top = box(text)
    return np.array([right - left, top - bottom])


def _offsets(
    axis: Axes, names: list[Name], sizes: list[np.ndarray]
) -> tuple[list[np.ndarray], list[bool]]:
    """The offset of each name's middle from its point, in points, and whether it is far from it.

    Each name in turn takes its cheapest place beside those that stand, three times.
    """
    point = axis.figure.dpi / 72  # pixels
    drawn = _drawn(axis)
    at = [axis.transData.transform(name.place) for name in names]
    places = [_places(name.above, size / point) for name, size in zip(names, sizes, strict=True)]
    chosen = [0] * len(names)
    stand: dict[int, np.ndarray] = {}
    for _ in range(3):
        for i in range(len(names)):
            others = np.array([stand[j] for j in stand if j != i]).reshape(-1, 4)
            offsets, own = places[i]
            half = sizes[i] / 2 + _APART * point
            boxes = np.hstack([at[i] + offsets * point - half, at[i] + offsets * point + half])
            cost = own + [_cost(one, others, drawn, axis) for one in boxes]
            cost += [_of_leader(at[i], one, others) for one in boxes]
            chosen[i] = int(np.argmin(cost))
            stand[i] = boxes[chosen[i]]
    found = [offsets[i] for (offsets, _), i in zip(places, chosen, strict=True)]
    return found, [i >= _DIRECTIONS for i in chosen]


def _places(above: bool, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of a name's middle from its point, in points, and what each costs by itself; near places first."""
    offsets, costs = [], []
    for reach in _REACHES:
        for k in range(_DIRECTIONS):
            angle = 2 * math.pi * k / _DIRECTIONS + (math.pi / 2 if above else -math.pi / 2)
            way = np.array([math.cos(angle), math.sin(angle)])
            beside = np.clip(1.42 * way, -1, 1) * (4 + size / 2)  # its box clears the marker's
            offsets.append(reach * way + beside)
            away = min(k, _DIRECTIONS - k) / _DIRECTIONS  # 0 to a half: from the side it prefers
            costs.append(reach + 6 * away)
    return np.array(offsets), np.array(costs)


def _cost(one: np.ndarray, others: np.ndarray, drawn: _Drawn, axis: Axes) -> float:
    left, bottom, right, top = axis.bbox.extents
    outside = one[0] < left or one[1] < bottom or one[2] > right or one[3] > top
    covered = drawn.costs[_overlap(one, drawn.boxes)].sum()
    return float(covered + _OF_NAME * _overlap(one, others).sum() + _OUTSIDE * outside)


def _of_leader(start: np.ndarray, one: np.ndarray, others: np.ndarray) -> float:
    """What it costs that the line from a point to its name crosses other names."""
    end = (one[:2] + one[2:]) / 2
    path = start + (end - start) * np.linspace(0, 1, 8)[:, None]
    return _OF_NAME / 4 * sum(_overlap(np.tile(place, 2), others).sum() for place in path)


def _overlap(one: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which of `boxes` [n, 4] share a point with the box `one`."""
    low, high = (boxes[:, :2] <= one[2:]), (boxes[:, 2:] >= one[:2])
    return np.asarray(np.hstack([low, high]).all(axis=1))


def _drawn(axis: Axes) -> _Drawn:
    """Markers, lines and error bars on an axis."""
    point = axis.figure.dpi / 72
    boxes, costs = [np.empty((0, 4))], [np.empty(0)]

    def add(middles: np.ndarray, half: float, cost: float) -> None:
        boxes.append(np.hstack([middles - half, middles + half]))
        costs.append(np.full(len(middles), cost))

    for line in axis.get_lines():
        places = line.get_transform().transform(line.get_xydata())
        if line.get_marker() not in (None, "None", ""):
            add(places, line.get_markersize() / 2 * point, _OF_MARKER)
        if line.get_linestyle() != "None":
            add(_samples(places), 0, _OF_LINE)
    for bars in axis.collections:
        for path in bars.get_paths():
            add(_samples(axis.transData.transform(path.vertices)), 0, _OF_BAR)
    return _Drawn(np.vstack(boxes), np.concatenate(costs))


def _samples(path: np.ndarray) -> np.ndarray:
    """Points along a path [n, 2], some 3 pixels apart."""
    pieces = [path[:1]]
    for start, end in pairwise(path):
        n = max(1, int(np.hypot(*(end - start)) / 3)) if np.isfinite(end - start).all() else 0
        pieces.append(start + (end - start) * np.arange(1, n + 1)[:, None] / n if n else path[:0])
    return np.vstack(pieces)
