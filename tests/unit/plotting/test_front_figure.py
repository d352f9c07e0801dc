"""The figure of the front: panels, lines along the lower fronts, and what is beyond its upper edge."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from duodiff.analysis.front import FAMILIES, LIMITS
from duodiff.plotting import style
from duodiff.plotting.front import front, look_of


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def points(families, title="Digits") -> pd.DataFrame:
    """Three settings a family: one on the front, one beaten, one far above."""
    rows = [
        {"family": name, "setting": f"s{i}", "relative_distance": distance, "operations": cost}
        | {"time": cost + 0.01, "front": on, "front_time": on}
        for name in families
        for i, (cost, distance, on) in enumerate(
            [(0.4, 2.5, True), (0.6, 1.02, True), (0.7, 1.1, False)]
        )
    ]
    about = {"title": title, "relative_95": 0.03, "metric": "fd_digits", "n": 96, "trainings": 5}
    return pd.DataFrame(rows).assign(**about)


def test_each_experiment_has_a_panel_for_operations_and_one_for_time():
    figure = front(pd.concat([points(["switch"], "A $1"), points(["adadiff"], "B")]))
    assert [axis.get_title() for axis in figure.axes] == [
        f"{name} (n = 96, mean of 5 trainings)" for name in ("A $1", "A $1", "B", "B")
    ]
    assert [axis.get_xlabel().split()[0] for axis in figure.axes] == ["operations", "time"] * 2
    assert all(axis.get_ylabel().startswith("fd_digits over") for axis in figure.axes)


def test_a_line_joins_the_lower_front_and_marks_show_every_setting_below_the_edge():
    axis = front(points(["switch"])).axes[0]
    levels, drawn = [], []
    for line in axis.get_lines():
        y = np.array(line.get_ydata(), float)
        (levels if len(set(y)) == 1 and line.get_marker() == "None" else drawn).append(y.tolist())
    assert {level[0] for level in levels} >= set(LIMITS)
    assert [2.5, 1.02] in drawn  # towards a setting beyond the edge
    assert [1.02, 1.1] in drawn
    assert [1.0] in drawn  # the full backbone
    assert axis.get_ylim()[1] < 1.6
    assert axis.get_xlabel().endswith("(above 1.6: 1)")


def test_settings_are_named_by_what_differs_within_their_family():
    named = points(["switch", "named", "full_fewer_steps"])
    settings = ["t_s=1000", "t_s=500", "t_s=0"]
    settings += [
        "schedule=far",
        "schedule=three",
        "schedule=$1",
        "10 steps",
        "20 steps",
        "35 steps",
    ]
    texts = [text.get_text() for text in front(named.assign(setting=settings)).axes[0].texts]
    # neither those beyond the edge nor the full backbone, which is the star
    assert texts == ["500", "three", "$1", "20 steps", "35 steps"]


def test_the_legend_has_the_families_that_are_there_in_one_order():
    shown = ["adadiff", "switch", "guided"]
    (legend,) = front(points(shown)).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["Full backbone", *(FAMILIES[n] for n in ("switch", "guided", "adadiff"))]


def test_families_are_told_apart_without_colour_and_methods_look_as_in_other_figures():
    looks = [look_of(name) for name in FAMILIES]
    assert len({look.marker for look in looks}) == len(looks)
    assert all(look.dashes is not None for look in looks)
    for name, method in (("switch", "duodiff"), ("adadiff", "adadiff")):
        assert look_of(name).color == style.METHODS[method].color
        assert look_of(name).marker == style.METHODS[method].marker


def test_a_study_without_points_has_a_figure():
    empty = points(["switch"]).iloc[:0]
    assert len(front(empty).axes) == 1
