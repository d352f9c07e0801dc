"""A setting's text, path, method and networks."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duodiff.schedules import T
from duodiff.settings import FULL, PATTERN, Setting

UNIT = st.floats(0, 1, allow_subnormal=False)
SETTINGS = st.one_of(
    st.builds(Setting.of, st.just("t_s"), st.integers(0, T)),
    st.builds(Setting.of, st.just("theta"), UNIT),
    st.builds(Setting.of, st.just("theta"), UNIT.map(lambda level: f"q{level}")),
)


@given(SETTINGS)
def test_the_text_of_a_setting_is_read_back_and_fits_the_pattern(setting):
    assert Setting.parse(str(setting)) == setting
    assert re.fullmatch(PATTERN, str(setting))


@pytest.mark.parametrize(
    ("text", "folder", "method", "networks", "number"),
    [
        ("t_s=0", "duodiff", "full", ("full",), 0),
        ("t_s=1", "duodiff", "duodiff", ("full", "shallow"), 1),
        ("t_s=999", "duodiff", "duodiff", ("full", "shallow"), 999),
        ("t_s=1000", "duodiff", "shallow", ("shallow",), 1000),
        ("theta=0.120", "adadiff", "adadiff", ("full", "heads"), 0.12),
        ("theta=q0.4", "adadiff", "adadiff", ("full", "heads"), 0.4),
    ],
)
def test_a_setting_knows_its_path_method_and_networks(text, folder, method, networks, number):
    setting = Setting.parse(text)
    assert (setting.folder, setting.method, setting.networks) == (folder, method, networks)
    assert (str(setting), setting.number) == (text, number)
    assert setting.exits_early == (method == "adadiff")
    assert setting.is_quantile == ("q" in text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t_s=1001", "t_s: found 1001; accepted: 0 to 1000"),
        ("theta=1.5", "theta: found 1.5; accepted: 0 to 1, or a quantile"),
        ("theta=q2", "theta: found q2; accepted"),
        ("theta=1e-", "theta: found 1e-; accepted"),
        ("t_s=0.5", "setting: found 't_s=0.5'; accepted: t_s=500, theta=0.12, theta=q0.4"),
        ("steps=5", "setting: found 'steps=5'"),
        ("theta=nan", "setting: found 'theta=nan'"),
    ],
)
def test_what_is_no_setting_is_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Setting.parse(text)


def test_a_setting_is_found_again_in_a_record():
    assert Setting.of_record({"t_s": 0, "eta": 0}) == FULL
    assert str(Setting.of_record({"theta": 0.11, "setting": "q0.4", "depth": 7})) == "theta=q0.4"
