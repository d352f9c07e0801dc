"""The charts of the page: where marks, intervals and labels lie, and that methods look as in all figures."""

import re
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from duodiff.analysis.words import between, percent, with_half
from duodiff.page import charts
from duodiff.plotting.style import METHODS

NAN = float("nan")
SETTINGS = [
    # setting, method, fewer, share, half, ms
    ("t_s=0", "full", False, 0.0, NAN, 13.5),
    ("t_s=300", "duodiff", False, 0.0, 0.001, 11.3),
    ("t_s=400", "duodiff", False, 0.0, 0.002, 10.6),
    ("t_s=500", "duodiff", False, 0.01, 0.006, 9.9),
    ("t_s=700", "duodiff", False, 0.10, 0.03, 8.3),
    ("t_s=1000", "shallow", False, 1.0, NAN, 6.1),
    ("theta=q0.1", "adadiff", False, -0.01, 0.013, 11.6),
    ("theta=q0.4", "adadiff", False, 0.09, 0.036, 8.3),
    ("theta=q0.55", "adadiff", False, 1.6, 0.2, 6.8),
    ("t_s=0", "full", True, 0.16, 0.3, 2.7),
    ("t_s=500", "duodiff", True, 0.18, 0.3, 2.0),
]


@pytest.fixture
def table() -> pd.DataFrame:
    names = ["setting", "method", "fewer", "lost_share", "lost_share_95", "ms"]
    found = pd.DataFrame(SETTINGS, columns=names)
    return found.assign(
        name=found["setting"],
        metric="fd_digits",
        steps=np.where(found["fewer"], 10, 50),
        theta=np.where(found["method"] == "adadiff", 0.1, NAN),
        exits=NAN,
        distance=10 + 10 * found["lost_share"],
        distance_95=NAN,
        minus_full=10 * found["lost_share"],
        minus_full_95=10 * found["lost_share_95"],
        ms_95=0.2,
        speedup=13.5 / found["ms"],
        speedup_95=0.02,
        operations=13.5 / found["ms"],
        operations_95=NAN,
    )


@pytest.mark.parametrize("size", charts.SIZES)
@pytest.mark.parametrize("x", ["ms", "operations"])
def test_a_mark_lies_where_its_numbers_say(table, size, x):
    (drawn,) = (one for one in charts.trade_off(table, x).drawn if one.size == size)
    costs = table["ms"]  # operations rise with them
    places = pd.DataFrame([(m.x, m.y) for m in drawn.marks], columns=["x", "y"])
    assert places["x"].rank().tolist() == costs.rank().tolist()
    assert (-places["y"]).rank().tolist() == table["lost_share"].rank().tolist()
    for mark in drawn.marks:
        assert 0 < mark.x < drawn.width
        assert 0 < mark.y < drawn.height
    assert len({mark.cell for mark in drawn.marks}) == len(table)


def test_an_interval_is_drawn_whole(table):
    (wide, _) = charts.trade_off(table).drawn
    at_500 = wide.marks[3]
    across, upright = at_500.bars
    assert across == (wide.x(9.7), at_500.y, wide.x(10.1), at_500.y)
    assert upright == (at_500.x, wide.y(0.01 - 0.006), at_500.x, wide.y(0.01 + 0.006))
    lowest = wide.marks[-2].bars[1]
    assert (
        wide.y.end < lowest[3] < lowest[1] < wide.y.start
    )  # none is cut off by an end of the axis
    full = wide.marks[0].bars
    assert [bar[1] == bar[3] for bar in full] == [True]  # a share that is 0 by definition has none


@pytest.mark.parametrize("size", charts.SIZES)
def test_no_label_lies_on_another_or_on_a_mark(table, size):
    (drawn,) = (one for one in charts.trade_off(table).drawn if one.size == size)
    assert len(drawn.labels) >= 7
    boxes = [box(label) for label in drawn.labels]
    for one, other in combinations(boxes, 2):
        assert not meet(one, other)
    for one in boxes:
        assert not any(meet(one, (m.x - 5, m.y - 5, m.x + 5, m.y + 5)) for m in drawn.marks)


def box(label: charts.Label) -> tuple[float, float, float, float]:
    width = 7 * len(label.text)
    left = label.x - width * {"start": 0, "middle": 0.5, "end": 1}[label.anchor]
    return left, label.y - 10, left + width, label.y + 3


def meet(one, other) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_a_method_has_the_look_of_all_figures(table):
    chart = charts.trade_off(table)
    assert chart.looks == {name: METHODS[name] for name in chart.looks}
    assert [mark.name for mark in chart.drawn[0].marks] == [
        "full",
        *["duodiff"] * 5,
        *["adadiff"] * 3,
        "full_fewer_steps",
        "duodiff_fewer_steps",
    ]
    outlines = {charts.marker(look, 6) for look in chart.looks.values()}
    assert len(outlines) == len(chart.looks)
    lines = {line.name: charts.dashes(METHODS[line.name]) for line in chart.drawn[0].lines}
    assert len({*lines.values()}) == len(lines) == 3


def test_single_trainings_are_drawn_faintly_beneath(table):
    single = table.assign(lost_share=table["lost_share"] + 0.05)
    (wide, _) = charts.trade_off(table, "ms", [single]).drawn
    assert [line.faint for line in wide.lines] == [True] * 3 + [False] * 3
    assert len(wide.marks) == len(table)


def test_a_marker_is_drawn_around_0_with_its_radius():
    for look in METHODS.values():
        outline = charts.marker(look, 6)
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", outline)]
        assert outline.startswith("M")
        assert max(map(abs, numbers)) == pytest.approx(9.6 if look.marker == "*" else 6)


def test_without_a_shallow_backbone_the_distance_is_shown(table):
    table = table.assign(lost_share=NAN, lost_share_95=NAN)
    (wide, _) = charts.trade_off(table).drawn
    assert wide.y.label == "fd_digits (log)"
    assert wide.right == ("", [])
    assert wide.marks[3].y == wide.y(10.1)
    assert "Quality lost" not in dict(wide.marks[3].said)


def test_a_mark_says_method_distance_time_and_speed(table):
    said = dict(charts.trade_off(table).drawn[0].marks[3].said)
    assert said == {
        "Setting": "t_s=500",
        "Distance (fd_digits)": "10.10 (full's +0.10 ± 0.06)",
        "Quality lost": "1.0 ± 0.6%",
        "Time per image": "9.90 ± 0.20 ms",
        "Speed-up": "1.36 ± 0.02",
        "By operations": "1.36",
    }


def test_figure_1_has_a_line_a_theta_and_a_mark_a_timestep():
    rows = [
        {"setting": f"q{i}", "theta": 0.1 * i, "t": t, "mean": i + t / 1000, "std": 0.5}
        for i in (2, 1)
        for t in (0, 500, 999)
    ]
    lines = pd.DataFrame(rows).assign(depth=7, faint=False)
    faint = lines.assign(faint=True, train_seed=1, mean=3.0)
    chart = charts.exits(pd.concat([lines, faint]))
    assert [look.label for look in chart.looks.values()] == ["θ = 0.100", "θ = 0.200"]
    (wide, narrow) = chart.drawn
    assert [line.faint for line in wide.lines] == [True, True, False, False]
    assert len(wide.marks) == len(narrow.marks) == 6
    first = wide.marks[0]
    assert (first.x, first.y) == (wide.x(999), wide.y(1.999))
    assert wide.x(999) < wide.x(0)  # sampling runs left to right
    assert first.cell == "theta=q1"


def test_numbers_are_said_with_half_their_interval():
    assert with_half(12.345, 0.04, 2) == "12.35 ± 0.04"
    assert with_half(12.345, 0.004, 2, " ms") == "12.35 ms"
    assert with_half(-0.001, 0.2, 2, sign="+") == "+0.00 ± 0.20"
    assert with_half(-0.001, NAN, 2) == "0.00"
    assert with_half(NAN, 0.1, 2) == ""
    assert percent(0.0123, 0.0046) == "1.2 ± 0.5%"
    assert between(-0.0001, 0.0123) == "[0.0%, 1.2%]"


def scheduled(table: pd.DataFrame) -> pd.DataFrame:
    """The table with four named schedules: two of one family, of which one is beaten, and one of each of two others."""
    rows = [
        ("schedule=good", "chosen", 0.02, 8.0),
        ("schedule=worse", "chosen", 0.05, 9.0),
        ("schedule=best", "chosen", 0.01, 10.0),
        ("schedule=few", "chosen_steps", 0.04, 4.0),
        ("schedule=helped", "guided", -0.05, 12.0),
    ]
    like = table.iloc[[3] * len(rows)]
    names = ["setting", "family", "lost_share", "ms"]
    columns = pd.DataFrame(rows, columns=names, index=like.index)
    more = like.assign(
        **columns, method="schedule", name=columns["setting"], runs="full at t = 999 to 0"
    )
    return pd.concat([table.assign(family="", runs=""), more], ignore_index=True)


def test_named_schedules_are_marks_of_their_family_with_a_line_along_its_lower_front(table):
    table = scheduled(table)
    chart = charts.trade_off(table)
    wide = chart.drawn[0]
    mine = {mark.cell: mark for mark in wide.marks if mark.cell.startswith("schedule")}
    names = [mark.name for mark in mine.values()]
    assert names == ["chosen", "chosen", "chosen", "chosen_steps", "guided"]
    (line,) = (one for one in wide.lines if one.name == "chosen")
    ends = [mine[f"schedule={name}"] for name in ("good", "best")]
    assert line.d == "M" + "L".join(f"{mark.x},{mark.y}" for mark in ends)
    told = dict(mine["schedule=helped"].said)
    assert told["Kind"] == "Guided by another network"
    assert told["Networks"] == "full at t = 999 to 0"
    assert "Kind" not in dict(wide.marks[0].said)
    outlines = {charts.marker(look, 6) for look in chart.looks.values()}
    assert len(outlines) == len(chart.looks) == 8
    assert [label.text for label in wide.labels if label.name == "guided"] == ["helped"]
