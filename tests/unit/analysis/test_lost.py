"""The lost share of made distances."""

import numpy as np
import pytest

from duodiff.analysis.lost import lost_share


def test_the_backbones_are_the_ends_of_the_scale_and_a_setting_lies_between():
    np.testing.assert_allclose(lost_share([10, 30, 15, 8], 10, 30), [0, 1, 0.25, -0.1])


@pytest.mark.parametrize(("scale", "offset"), [(3.0, 0.0), (0.1, 7.0)])
def test_another_ruler_that_is_a_line_of_the_first_gives_the_same_share(scale, offset):
    distances = np.array([17.75, 18.2, 24.0])
    other = scale * distances + offset
    for ruler in (distances, other):
        assert lost_share(ruler[1], ruler[0], ruler[2]) == pytest.approx(0.072)


def test_where_the_full_backbone_is_not_better_nothing_can_be_lost():
    shares = lost_share(12.0, [10.0, 20.0, 10.0], [20.0, 20.0, 9.0])
    np.testing.assert_array_equal(shares, [0.2, np.nan, np.nan])
    assert np.isnan(lost_share(12.0, 10.0, np.nan))
