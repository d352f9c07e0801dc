"""What the figures draw: the values they are given, and a method alike in all of them."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from duodiff.analysis.trainings import with_means
from duodiff.identity import ROOT
from duodiff.plotting import figures, labels, style


def test_lines_of_figure_1_are_the_means_and_bands_one_standard_deviation_within_the_layers_found():
    thetas = (0.1001, 0.1002)  # alike in the legend, and still two lines
    rows = [
        {"title": "Digits", "theta": theta, "t": t, "mean": 3 + i + t / 1000, "std": 0.5}
        for i, theta in enumerate(thetas)
        for t in (0, 500, 999)
    ]
    profiles = pd.DataFrame(rows).assign(depth=7, n=64, min=[1, 1, 3.8, 1, 1, 1], max=7)
    profiles.loc[5, "max"] = 5
    figure = figures.exit_layers(profiles)
    (axis,) = figure.axes
    for i, line in enumerate(axis.get_lines()[:2]):
        np.testing.assert_allclose(line.get_xdata(), [0, 500, 999])
        np.testing.assert_allclose(line.get_ydata(), [3 + i, 3.5 + i, 3.999 + i])
        band = axis.collections[i].get_datalim(axis.transData).get_points()[:, 1]
        np.testing.assert_allclose(band, [2.5 + i, 4.499] if i == 0 else [3.5, 5])
    low = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert low[low < 4].tolist().count(3.8) >= 1  # not 3.499: no image exits before
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["θ = 0.100"] * 2


def test_the_full_backbone_stands_alone_and_an_inferred_point_is_open():
    rows = [("full", "", 2.0, 10.0, False), ("duodiff", "0", 2.0, 10.0, False)]
    rows += [("duodiff", "500", 1.0, 12.0, False), ("adadiff_interpolated", "0.1", 1.6, 12.0, True)]
    points = pd.DataFrame(rows, columns=["method", "label", "seconds", "distance", "inferred"])
    points = points.assign(panel="Digits (paper, 9 images)", metric="FID", lost_share=np.nan)
    figure = figures.trade_off(points)
    (axis,) = figure.axes
    lines = {line.get_marker(): line for line in axis.get_lines() if len(line.get_xdata())}
    assert lines["*"].get_linestyle() == "None"
    assert to_hex(lines["o"].get_color()) == style.METHODS["duodiff"].color
    np.testing.assert_allclose(lines["o"].get_xdata(), [1, 2])
    assert lines["^"].get_markerfacecolor() == "white"
    assert lines["^"].get_markeredgecolor() == style.METHODS["adadiff_interpolated"].color
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [
        "Full backbone",
        "DuoDiff, named by t_s",
        "AdaDiff, time interpolated",
        "Open: the paper does not say θ or the exit layer",
    ]


@pytest.mark.parametrize("heads", [True, False])
def test_a_network_has_its_colour_whether_or_not_there_are_heads(heads):
    networks = [("full", np.nan), ("shallow", np.nan), *([("head", 0.0), ("head", 1.0)] * heads)]
    rows = [(*network, t, 0.1 + t / 1000) for network in networks for t in (0, 999)]
    losses = pd.DataFrame(rows, columns=["network", "layer", "t", "mse"]).assign(title="Digits")
    figure = figures.denoising_losses(losses)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    colors = dict(zip(labels, (to_hex(handle.get_color()) for handle in handles), strict=True))
    names = [*(["head 0", "head 1"] * heads), "Shallow backbone", "Full backbone"]
    assert list(colors) == names
    assert colors["Full backbone"] == style.METHODS["full"].color
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


def test_a_method_has_a_marker_and_dashes_of_its_own_and_a_network_those_of_its_method():
    looks = style.METHODS.values()
    assert len({look.marker for look in looks}) == len(looks)
    lines = [look.dashes for look in looks if look.dashes is not None]
    assert len(set(lines)) == len(lines)
    for network, method in {"full": "full", "heads": "adadiff"}.items():
        for name in ("color", "marker"):
            assert getattr(style.NETWORKS[network], name) == getattr(style.METHODS[method], name)
    markers = {look.marker for look in style.NETWORKS.values()}
    assert len(markers) == len(style.NETWORKS)


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
    lines = of_trainings(
        pd.DataFrame(rows).assign(depth=7, n=64, min=0, max=7), "mean", ["setting", "t"]
    )
    (axis,) = figures.exit_layers(lines).axes
    assert axis.get_title() == "Digits (64 images a line, mean of 3 trainings)"
    mains = axis.get_lines()[:2]
    assert [line.get_ydata()[0] for line in mains] == [5, 6]
    for line in mains:
        pale = [p.get_ydata()[0] for p in faint(axis) if p.get_color() == line.get_color()]
        assert pale == [line.get_ydata()[0] + k for k in (-1, 0, 1)]


def test_figure_4_shows_each_training_faintly_and_their_mean():
    rows = [("duodiff", "0", 2.0, 10.0), ("duodiff", "500", 1.0, 12.0), ("full", "", 2.0, 10.0)]
    points = pd.DataFrame(rows, columns=["method", "label", "seconds", "distance"])
    points = points.assign(title="Digits", metric="FID", inferred=False)
    points["lost_share"] = np.nan
    points = of_trainings(points, "distance", ["method", "label"]).assign(panel="Digits (ours)")
    (axis,) = figures.trade_off(points).axes
    assert axis.get_title() == "Digits\nours, mean of 3 trainings"
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
    assert axis.get_title() == "Digits: backbones\nmean of 3 trainings"

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
    points = points.assign(panel="Digits (ours)", metric="fd_digits", inferred=False)
    figure = figures.trade_off(points.assign(faint=False, train_seed=0, trainings=1))
    axis, right = figure.axes
    figure.draw_without_rendering()
    assert right.get_ylabel() == "lost share of the quality"
    assert right.get_ylim() == axis.get_ylim()
    marks = dict(
        zip([t.get_text() for t in right.get_yticklabels()], right.get_yticks(), strict=True)
    )
    assert marks == pytest.approx({"0%": 10, "10%": 12, "25%": 15, "50%": 20, "100%": 30})
    lines = {line.get_marker(): line for line in axis.get_lines() if len(line.get_xdata())}
    np.testing.assert_allclose(lines["D"].get_ydata(), [15, 10])
    assert lines["P"].get_linestyle() == "None"
    assert {text.get_text() for text in axis.texts} == {"0", "1000", "20", "500 in 20"}
    # where the shallow backbone is not worse there is no share
    lost = points.assign(lost_share=np.nan, faint=False, train_seed=0, trainings=1)
    assert len(figures.trade_off(lost).axes) == 1


# --- names beside points


def crowd() -> pd.DataFrame:
    """Points that lie as close as those of the default study do, with long intervals."""
    seconds = [0.0136, 0.0113, 0.0106, 0.0099, 0.0092, 0.0083, 0.0077, 0.0061]
    distances = [12.6, 12.6, 12.7, 12.8, 13.3, 14.4, 16.9, 30.3]
    t_s = [0, 300, 400, 500, 600, 700, 800, 1000]
    rows = [("duodiff", f"{name}", *at) for name, *at in zip(t_s, seconds, distances, strict=True)]
    rows += [("full", "", 0.0136, 12.6)]
    adadiff = [(0.0116, 12.5), (0.0095, 12.6), (0.0083, 14.3), (0.0079, 16.9), (0.0068, 41.3)]
    for name, at in zip(("0.087", "0.122", "0.174", "0.186", "0.212"), adadiff, strict=True):
        rows += [("adadiff", name, *at), ("adadiff_interpolated", "", 1.02 * at[0], at[1])]
    fewer = [("35", 0.0095, 13.5), ("20", 0.0054, 12.6), ("10", 0.0027, 15.5)]
    rows += [("full_fewer_steps", *row) for row in fewer]
    rows += [("duodiff_fewer_steps", "500 in 20", 0.004, 12.8)]
    rows += [("duodiff_fewer_steps", "500 in 10", 0.002, 15.8)]
    points = pd.DataFrame(rows, columns=["method", "label", "seconds", "distance"])
    points["lost_share"] = (points["distance"] - 12.6) / (30.3 - 12.6)
    points.loc[7, "lost_share"] = 1
    points = points.assign(seconds_95=2e-4, distance_95=points["distance"] / 10, inferred=False)
    return points.assign(panel="Digits 8x8 (ours, 1,024 images)", metric="fd_digits")


def overlap(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one[:2] < other[2:]).all() and (other[:2] < one[2:]).all())


def check_names(figure, axis) -> None:
    """The names on an axis overlap neither each other nor a marker, and none leaves the axes."""
    figure.draw_without_rendering()
    boxes = {text.get_text(): labels.box(text) for text in axis.texts}
    assert len(boxes) == len(axis.texts)
    for one, other in combinations(boxes, 2):
        assert not overlap(boxes[one], boxes[other]), (one, other)
    middles = [
        line.get_transform().transform(place)
        for line in axis.get_lines()
        if line.get_marker() not in ("None", "")
        for place in line.get_xydata()
    ]
    left, bottom, right, top = axis.bbox.extents
    for name, box in boxes.items():
        assert not [m for m in middles if overlap(box, np.concatenate([m, m]))], name
        assert (box[:2] >= [left, bottom]).all(), name
        assert (box[2:] <= [right, top]).all(), name


def test_the_names_of_figure_4_overlap_nothing():
    figure = figures.trade_off(crowd())
    axis = figure.axes[0]
    assert len(axis.texts) == 18
    check_names(figure, axis)
    far = [text for text in axis.texts if text.arrow_patch is not None]
    assert far  # a line leads from a name that had to give way to its point
    assert len(far) < 18


@pytest.mark.parametrize("seed", range(4))
def test_names_of_any_points_overlap_nothing(seed):
    places = np.random.default_rng(seed).uniform(0, 1, (14, 2)).tolist()
    style.apply()
    figure, axis = plt.subplots(figsize=(5, 4))
    axis.plot(*zip(*places, strict=True), **style.METHODS["adadiff_interpolated"].keywords())
    names = [labels.Name(f"name {i}", place, "k", bool(i % 2)) for i, place in enumerate(places)]
    labels.write(figure, {axis: names}, 9)
    check_names(figure, axis)


def test_figure_4_has_times_that_are_short_in_milliseconds_and_intervals_both_ways():
    (axis, _) = figures.trade_off(crowd()).axes
    assert axis.get_xlabel() == "time per image (ms)"
    assert axis.get_ylabel() == "Frechet distance (fd_digits)"
    (star,) = [line for line in axis.get_lines() if line.get_marker() == "*"]
    assert star.get_xdata().tolist() == [13.6]
    ends = [path.vertices for bars in axis.collections for path in bars.get_paths()]
    assert any(np.allclose(end, [[13.4, 12.6], [13.8, 12.6]]) for end in ends)
    assert any(np.allclose(end, [[13.6, 11.34], [13.6, 13.86]]) for end in ends)
    slow = crowd().assign(seconds=crowd()["seconds"] * 1000)
    assert figures.trade_off(slow).axes[0].get_xlabel() == "time per image (s)"


def test_panels_with_few_names_stand_beside_each_other_below_those_with_many():
    few = crowd().iloc[:3].assign(panel="A (paper)", lost_share=np.nan)
    points = pd.concat([few, crowd(), few.assign(panel="B (paper)")])
    figure = figures.trade_off(points)
    boxes = {axis.get_title().split("\n")[0]: axis.bbox for axis in figure.axes if axis.get_title()}
    assert set(boxes) == {"A", "Digits 8x8", "B"}
    assert boxes["A"].y0 == boxes["B"].y0 < boxes["Digits 8x8"].y0
    assert boxes["Digits 8x8"].width > 1.9 * boxes["A"].width


def test_titles_of_panels_side_by_side_do_not_overlap():
    few = crowd().iloc[:3].assign(lost_share=np.nan)
    titles = [f"{name} (paper, 5,120 images)" for name in ("ImageNet 64x64", "ImageNet 256x256")]
    figure = figures.trade_off(pd.concat([few.assign(panel=title) for title in titles]))
    figure.draw_without_rendering()
    one, other = (axis.title.get_window_extent().extents for axis in figure.axes)
    assert not overlap(one, other)


# --- axes and lines


def test_panels_of_relative_distances_share_the_axes_of_what_they_share():
    rows = [
        ("full", 1.0, 0.0, np.nan), ("duodiff", 2.0, 40.0, np.nan),
        ("adadiff", 1.1, 5.0, 90.0), ("adadiff", 5.0, 60.0, 40.0),
    ]  # fmt: skip
    points = pd.DataFrame(rows, columns=["method", "relative_distance", "time_saved", "blocks_run"])
    points = points.assign(source="Digits", inferred=False, relative_95=[np.nan, 0.1, 0.1, 0.2])
    figure = figures.relative(points)
    duodiff, adadiff, blocks = figure.axes
    assert duodiff.get_ylim() == adadiff.get_ylim() == blocks.get_ylim()
    assert duodiff.get_xlim() == adadiff.get_xlim() != blocks.get_xlim()
    assert duodiff.get_xlim()[1] > 60
    ends = [path.vertices for bars in duodiff.collections for path in bars.get_paths()]
    assert any(np.allclose(end, [[40, 1.9], [40, 2.1]]) for end in ends)


@pytest.mark.parametrize("r2", [0.11, 0.9])
def test_a_line_in_1_over_n_is_extrapolated_only_where_it_explains_the_distances(r2):
    cells = pd.DataFrame({"t_s": 0, "n": [100, 200], "distance": [9.5, 9.25], "title": "Digits"})
    cells = cells.assign(limit=9.0, slope=50.0, r2=r2, metric="fd_digits")
    (axis,) = figures.extrapolations(cells).axes
    straight = r2 > 0.5
    assert (min(line.get_xdata().min() for line in axis.get_lines()) == 0) == straight
    ticks = [text.get_text() for text in axis.get_xticklabels()]
    assert ("∞" in ticks) == straight
    (shown,) = [text.get_text() for text in axis.get_legend().get_texts()]
    assert shown == ("t_s = 0: 9.00 at n = ∞" if straight else "t_s = 0 (R² = 0.11)")


def test_numbers_on_logarithmic_axes_are_written_out():
    losses = pd.DataFrame({"t": [0, 999], "mse": [2.0, 0.0004], "network": "full", "layer": np.nan})
    figure = figures.denoising_losses(losses.assign(title="Digits"))
    figure.draw_without_rendering()
    ticks = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert {"1", "0.1", "0.01", "0.001"} <= set(ticks)


@pytest.mark.parametrize(
    ("table", "draw", "value", "lines"),
    [
        ("exits", figures.exit_layers, "mean", 3),
        ("denoising", figures.denoising_losses, "mse", 2 + 13),
    ],
)
def test_the_tables_of_the_first_run_on_a_gpu_are_drawn(table, draw, value, lines):
    rows = pd.read_csv(ROOT / f"report/first_gpu_run/{table}.csv")
    (axis,) = draw(rows).axes
    drawn = [line for line in axis.lines if len(line.get_xdata()) > 2]
    assert len(drawn) == lines
    assert sorted(y for line in drawn for y in line.get_ydata()) == sorted(rows[value])
