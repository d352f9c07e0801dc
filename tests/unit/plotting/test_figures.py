"""What the figures draw: the values they are given, and a method alike in all of them."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from duodiff.analysis.trainings import with_means
from duodiff.plotting import figures, style


def test_lines_of_figure_1_are_the_means_and_bands_one_standard_deviation():
    thetas = (0.1001, 0.1002)  # alike in the legend, and still two lines
    rows = [
        {"title": "Digits", "theta": theta, "t": t, "mean": 3 + i + t / 1000, "std": 0.5}
        for i, theta in enumerate(thetas)
        for t in (0, 500, 999)
    ]
    figure = figures.exit_layers(pd.DataFrame(rows).assign(depth=7, n=64))
    (axis,) = figure.axes
    for i, line in enumerate(axis.get_lines()[:2]):
        np.testing.assert_allclose(line.get_xdata(), [0, 500, 999])
        np.testing.assert_allclose(line.get_ydata(), [3 + i, 3.5 + i, 3.999 + i])
        band = axis.collections[i].get_datalim(axis.transData).get_points()[:, 1]
        np.testing.assert_allclose(band, [2.5 + i, 4.499 + i])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["θ = 0.100"] * 2


def test_the_full_backbone_stands_alone_and_an_inferred_point_is_open():
    rows = [("full", "", 2.0, 10.0, False), ("duodiff", "0", 2.0, 10.0, False)]
    rows += [("duodiff", "500", 1.0, 12.0, False), ("adadiff_interpolated", "0.1", 1.6, 12.0, True)]
    points = pd.DataFrame(rows, columns=["method", "label", "seconds", "distance", "inferred"])
    points = points.assign(
        panel="Digits", metric="FID", lost_share=np.nan, spread=[0.1, np.nan, np.nan, np.nan]
    )
    figure = figures.trade_off(points)
    (axis,) = figure.axes
    lines = {line.get_marker(): line for line in axis.get_lines() if len(line.get_xdata())}
    assert lines["*"].get_linestyle() == "None"
    assert to_hex(lines["o"].get_color()) == style.METHODS["duodiff"].color
    np.testing.assert_allclose(lines["o"].get_xdata(), [1, 2])
    assert lines["^"].get_markerfacecolor() == "white"
    assert lines["^"].get_markeredgecolor() == style.METHODS["adadiff_interpolated"].color
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    names = ("full", "duodiff", "adadiff_interpolated")
    assert shown == [*(style.METHODS[name].label for name in names), "setting inferred"]


@pytest.mark.parametrize("heads", [True, False])
def test_a_network_has_its_colour_whether_or_not_there_are_heads(heads):
    networks = [("full", np.nan), ("shallow", np.nan), *([("head", 0.0), ("head", 1.0)] * heads)]
    rows = [(*network, t, 0.1 + t / 1000) for network in networks for t in (0, 999)]
    losses = pd.DataFrame(rows, columns=["network", "layer", "t", "mse"]).assign(title="Digits")
    figure = figures.denoising_losses(losses)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    colors = dict(zip(labels, (to_hex(handle.get_color()) for handle in handles), strict=True))
    assert list(colors) == [*(["head 0", "head 1"] * heads), "shallow", "full"]
    assert colors["full"] == style.METHODS["full"].color
    models = ["full", "shallow", *(["heads"] * heads)]
    curves = pd.DataFrame({"model": models, "title": "Digits", "step": 1}).assign(
        train_loss=0.2, held_out_loss=0.1
    )
    panels = [axis.get_title() for axis in figures.training_curves(curves).axes]
    assert panels == ["Digits: backbones", *(["Digits: AdaDiff heads"] * heads)]


def test_settings_have_as_many_colours_as_there_are_and_none_is_a_methods():
    methods = {look.color for look in style.METHODS.values()}
    for n in (1, 5, 13):
        shades = style.shades("duodiff", n) + style.shades("adadiff", n)
        assert len(set(shades)) == 2 * n
        assert not methods & set(shades)
        looks = style.looks([str(i) for i in range(n)])
        assert len({(look.color, look.marker, look.dashes) for look in looks}) == n
        assert not methods & {look.color for look in looks}


def faint(axis) -> list:
    """The thin, pale lines on an axis: single trainings."""
    return [line for line in axis.get_lines() if line.get_alpha() == 0.35]


def of_trainings(rows: pd.DataFrame, column: str, keys: list[str]) -> pd.DataFrame:
    """The rows as three trainings that lie 1 apart, with their mean, which is that of the second."""
    trainings = [rows.assign(train_seed=k, **{column: rows[column] + k}) for k in range(3)]
    return with_means(pd.concat(trainings, ignore_index=True), keys)


def test_figure_1_shows_each_training_faintly_and_their_mean():
    rows = [
        {"title": "Digits", "setting": f"q{i}", "theta": i / 10, "t": t, "mean": 3 + i, "std": 0.5}
        for i in (1, 2)
        for t in (0, 500, 999)
    ]
    lines = of_trainings(pd.DataFrame(rows).assign(depth=7, n=64), "mean", ["setting", "t"])
    (axis,) = figures.exit_layers(lines).axes
    assert axis.get_title() == "Digits (n = 64 a line, mean of 3 trainings)"
    mains = axis.get_lines()[:2]
    assert [line.get_ydata()[0] for line in mains] == [5, 6]
    for line in mains:
        pale = [p.get_ydata()[0] for p in faint(axis) if p.get_color() == line.get_color()]
        assert pale == [line.get_ydata()[0] + k for k in (-1, 0, 1)]


def test_figure_4_shows_each_training_faintly_and_their_mean():
    rows = [("duodiff", "0", 2.0, 10.0), ("duodiff", "500", 1.0, 12.0), ("full", "", 2.0, 10.0)]
    points = pd.DataFrame(rows, columns=["method", "label", "seconds", "distance"])
    points = points.assign(title="Digits", metric="FID", spread=np.nan, inferred=False)
    points["lost_share"] = np.nan
    points = of_trainings(points, "distance", ["method", "label"]).assign(panel="Digits")
    (axis,) = figures.trade_off(points).axes
    assert axis.get_title() == "Digits\nmean of 3 trainings"
    assert [line.get_ydata().tolist() for line in faint(axis)] == [[12, 10], [13, 11], [14, 12]]
    (main,) = [line for line in axis.get_lines() if line.get_marker() == "o"]
    assert main.get_ydata().tolist() == [13, 11]
    assert {text.get_text() for text in axis.texts} == {"0", "500"}


def test_the_other_figures_show_each_training_faintly():
    losses = pd.DataFrame([("full", np.nan, t, 0.1) for t in (0, 999)]).assign(title="Digits")
    losses.columns = ["network", "layer", "t", "mse", "title"]
    losses = of_trainings(losses, "mse", ["network", "layer", "t"])
    (axis,) = figures.denoising_losses(losses).axes
    assert [line.get_ydata()[0] for line in faint(axis)] == pytest.approx([0.1, 1.1, 2.1])

    curves = pd.DataFrame({"model": "full", "step": [1, 2], "title": "Digits"})
    curves = curves.assign(train_loss=0.2, held_out_loss=0.1)
    curves = of_trainings(curves, "held_out_loss", ["model", "step"])
    (axis,) = figures.training_curves(curves).axes
    assert [line.get_ydata()[0] for line in faint(axis)] == pytest.approx([0.1, 1.1, 2.1])
    assert axis.get_title() == "Digits: backbones, mean of 3 trainings"

    cells = pd.DataFrame({"t_s": 0, "n": [100, 200], "distance": [9.5, 9.25], "title": "Digits"})
    cells = cells.assign(limit=9.0, slope=50.0, r2=0.9, metric="fd_digits")
    (axis,) = figures.extrapolations(of_trainings(cells, "limit", ["t_s", "n"])).axes
    ends = [line.get_ydata().tolist() for line in faint(axis)]
    assert ends == [[9.25, 9.5], [10.25, 10.5], [11.25, 11.5]]

    points = pd.DataFrame({"method": ["full", "duodiff"], "label": ["", "500"]})
    points = points.assign(title="Digits", relative_distance=[1.0, 1.2], time_saved=[0.0, 30.0])
    points = points.assign(blocks_run=np.nan, inferred=False, source="Digits")
    points = of_trainings(points, "relative_distance", ["method", "label"])
    (axis,) = figures.relative(points).axes
    ends = [line.get_ydata().tolist() for line in faint(axis)]
    assert ends == [[1.0, 1.2], [2.0, 2.2], [3.0, 3.2]]


def test_figure_4_has_the_lost_share_on_the_right_and_fewer_steps_as_a_line_of_their_own():
    rows = [
        ("full", "", 2.0, 10.0, 0.0),
        ("duodiff", "0", 2.0, 10.0, 0.0),
        ("duodiff", "1000", 1.0, 30.0, 1.0),
        ("full_fewer_steps", "", 2.0, 10.0, 0.0),
        ("full_fewer_steps", "20", 0.8, 15.0, 0.25),
        ("duodiff_fewer_steps", "500 in 20", 0.6, 17.0, 0.35),
    ]
    points = pd.DataFrame(rows, columns=["method", "label", "seconds", "distance", "lost_share"])
    points = points.assign(panel="Digits", metric="fd_digits", spread=np.nan, inferred=False)
    figure = figures.trade_off(points.assign(faint=False, train_seed=0, trainings=1))
    (axis,) = figure.axes
    (right,) = axis.child_axes
    figure.draw_without_rendering()
    assert right.get_ylabel() == "lost share"
    np.testing.assert_allclose(
        right.get_ylim(), [(end - 10) / 20 for end in axis.get_ylim()], atol=1e-9
    )
    lines = {line.get_marker(): line for line in axis.get_lines() if len(line.get_xdata())}
    np.testing.assert_allclose(lines["D"].get_ydata(), [15, 10])
    assert lines["P"].get_linestyle() == "None"
    assert {text.get_text() for text in axis.texts} == {"0", "1000", "20", "500 in 20"}
    # where the shallow backbone is not worse there is no share
    lost = points.assign(lost_share=np.nan, faint=False, train_seed=0, trainings=1)
    assert not figures.trade_off(lost).axes[0].child_axes
