"""What the figures draw: the values they are given, and a method alike in all of them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from duodiff.plotting import figures, style


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


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
    points = points.assign(panel="Digits", metric="FID", spread=[0.1, np.nan, np.nan, np.nan])
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
