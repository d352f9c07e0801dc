"""Student's t: the quantiles are scipy's, and the intervals cover what they say."""

import numpy as np
import pytest
from scipy.special import stdtrit

from duodiff.analysis.students import half_width, prediction_half_width, quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 14, 99])
def test_quantiles_are_scipys(degrees):
    for probability in (0.01, 0.3, 0.6, 0.9, 0.975, 0.9995):
        expected = stdtrit(degrees, probability)
        assert quantile(probability, degrees) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("probability", "degrees"), [(0, 3), (1, 3), (0.5, 0)])
def test_what_has_no_quantile_is_refused(probability, degrees):
    with pytest.raises(ValueError, match="accepted: between 0 and 1"):
        quantile(probability, degrees)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_cover_the_mean_and_a_further_value(n):
    rng, studies = np.random.default_rng(0), 2000
    values = rng.standard_normal((studies, n + 1))
    mean = [abs(v[:-1].mean()) < half_width(v[:-1]) for v in values]
    further = [abs(v[-1] - v[:-1].mean()) < prediction_half_width(v[:-1], 0.95) for v in values]
    # 2,000 studies: 95% give or take 1.5%
    assert 0.935 < np.mean(mean) < 0.965
    assert 0.935 < np.mean(further) < 0.965


def test_one_value_has_no_interval():
    assert np.isnan(half_width([1.0]))
    assert np.isnan(prediction_half_width([1.0], 0.95))
