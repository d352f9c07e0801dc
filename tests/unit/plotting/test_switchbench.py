"""The figure of SwitchBench: marks, intervals and ceilings are those of the table."""

import numpy as np
import pandas as pd

from duodiff.plotting.switchbench import agreement


def test_marks_are_means_with_their_intervals_and_bands_are_ceilings():
    rows = [
        {"sampler": sampler, "space": space, "score": score, "statistic": statistic, "mean": mean}
        for sampler in ("ddpm", "ddim")
        for space in ("fd_digits", "fd_pixels")
        for statistic in ("within", "overall", "regret")
        for score, mean in (("A*", 0.8), ("N", 0.1))
    ]
    ceiling = {"score": "ceiling", "statistic": "within", "mean": 0.9}
    rows += [
        {"sampler": sampler, "space": space} | ceiling
        for sampler in ("ddpm", "ddim")
        for space in ("fd_digits", "fd_pixels")
    ]
    scores = pd.DataFrame(rows)
    scores = scores.assign(low=scores["mean"] - 0.1, high=scores["mean"] + 0.2)
    figure = agreement(scores)
    assert [axis.get_title() for axis in figure.axes] == ["DDPM", "DDIM", "", ""]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fd_digits", "fd_pixels"]
    for axis in figure.axes[2:]:  # those below are shared with those above
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ["A*", "N"]
    for i, axis in enumerate(figure.axes):
        marks, zero = axis.containers, axis.get_lines()[-1]
        assert [list(mark[0].get_ydata()) for mark in marks] == [[0.8, 0.1]] * 2
        assert list(zero.get_ydata()) == [0, 0]
        for mark in marks:
            (bars,) = mark[2]
            ends = [segment[:, 1] for segment in bars.get_segments()]
            np.testing.assert_allclose(ends, [[0.7, 1.0], [0.0, 0.3]])
        bands = [p.get_y() for p in axis.patches] + [p.get_height() for p in axis.patches]
        np.testing.assert_allclose(bands, [0.8, 0.8, 0.3, 0.3] if i < 2 else [])
