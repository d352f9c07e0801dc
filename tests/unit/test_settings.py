"""A setting's text, path, method and networks."""

import hashlib
import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duodiff.schedules import T
from duodiff.settings import FULL, PATTERN, Schedules, Setting, gap, misplaced, text_of

UNIT = st.floats(0, 1, allow_subnormal=False)
SETTINGS = st.one_of(
    st.builds(Setting.of, st.just("t_s"), st.integers(0, T)),
    st.builds(Setting.of, st.just("theta"), UNIT),
    st.builds(Setting.of, st.just("schedule"), st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True)),
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


INTERVALS = [["shallow", 600, 999], ["middle", 300, 599], ["early", 0, 299]]
MADE = {"early": {"exit": 4}, "guided": {"network": "middle", "by": "shallow", "weight": 0.5}}


def test_a_named_schedule_has_a_path_a_method_and_the_networks_of_its_intervals():
    bare = Setting.parse("schedule=three")
    assert (str(bare), bare.folder, bare.method) == ("schedule=three", "schedule", "schedule")
    assert not bare.exits_early
    assert not bare.is_quantile
    with pytest.raises(ValueError, match="schedule=three: found its name alone"):
        _ = bare.networks
    known = Schedules({"three": {"intervals": INTERVALS, "networks": MADE}})
    setting = known.setting("schedule=three", "ddpm")
    assert setting == bare
    assert setting.networks == ("full", "shallow", "heads", "middle")
    assert known.setting("t_s=300", "ddpm") == Setting.of("t_s", 300)
    with pytest.raises(ValueError, match="schedule: found 'four'; accepted: three"):
        known.setting("schedule=four", "ddpm")


def test_a_record_gives_a_named_schedule_back_as_it_was():
    described = {"intervals": INTERVALS, "timesteps": [999, 500, 0], "networks": MADE}
    setting = Schedules({"three": described}).setting("schedule=three", "ddpm")
    parameters = setting.named_schedule.parameters
    assert parameters == {
        "schedule": "three",
        "intervals": INTERVALS,
        "timesteps": [999, 500, 0],
        "networks": {"early": {"exit": 4}},  # guided has no interval
    }
    assert Setting.of_record(parameters).named_schedule == setting.named_schedule
    assert text_of(parameters) == "schedule=three"
    assert text_of({"eta": 0}) == ""


def test_what_a_guided_network_is_made_of_belongs_to_its_schedule():
    made = MADE | {"guided": {"network": "full", "by": "early", "weight": 0.5}}
    described = {"intervals": [["guided", 0, 999]], "networks": made}
    setting = Schedules({"one": described}).setting("schedule=one", "ddpm")
    assert setting.named_schedule.networks == made
    assert setting.networks == ("full", "heads")


def test_a_schedule_without_intervals_is_read_from_the_file_in_which_it_was_chosen(tmp_path):
    chosen = tmp_path / "chosen.json"
    found = {"intervals": [["full", 0, 999]], "timesteps": None, "operations": 1.0}
    chosen.write_text(json.dumps({"ddpm": {"thrifty": found}}), encoding="utf-8")
    known = Schedules({"thrifty": {}}, chosen)
    named = known.setting("schedule=thrifty", "ddpm").named_schedule
    assert named.parameters == {
        "schedule": "thrifty",
        "intervals": [["full", 0, 999]],
        "prediction_sha256": hashlib.sha256(chosen.read_bytes()).hexdigest(),
    }
    with pytest.raises(ValueError, match=r"chosen.json: found no schedule thrifty for ddim"):
        known.setting("schedule=thrifty", "ddim")
    with pytest.raises(ValueError, match="thrifty: found no intervals, nor a file"):
        Schedules({"thrifty": {}}).setting("schedule=thrifty", "ddpm")


@pytest.mark.parametrize(
    ("intervals", "problem"),
    [
        ([("a", 0, 999)], ""),
        ([("a", 0, 499), ("b", 500, 999)], ""),
        ([("b", 500, 999)], "t = 499 has no network"),
        ([("a", 0, 998)], "t = 999 has no network"),
        ([("a", 0, 500), ("b", 500, 999)], "t = 500 is covered twice"),
        ([("a", 0, 999), ("b", 300, 400)], "t = 400 is covered twice"),
        ([("a", 999, 0)], "a runs from t = 999 to 0; accepted: 0 to 999, the smaller t first"),
        ([("a", 0, 1000)], "a runs from t = 0 to 1000"),
        ([], "t = 999 has no network"),
    ],
)
def test_intervals_cover_every_t_once(intervals, problem):
    assert gap(intervals).startswith(problem)
    assert bool(gap(intervals)) == bool(problem)


@given(st.sets(st.integers(1, T - 1), max_size=6))
def test_any_cuts_cover_every_t_once(cuts):
    edges = [0, *sorted(cuts), T]
    intervals = [(f"n{low}", low, high - 1) for low, high in pairwise(edges)]
    assert gap(intervals) == ""
    message = f"t = {edges[1] - 1} has no network; accepted: every t from 0 to 999 once"
    assert gap(intervals[1:]) == message


@pytest.mark.parametrize("visited", [[999, 0], [999, 500, 3, 0]])
def test_timesteps_fall_from_the_first_to_the_last(visited):
    assert misplaced(visited) == ""
    for wrong in (visited[:-1], visited[1:], visited[::-1], [*visited, 0], []):
        assert "accepted: timesteps that fall from 999 to 0" in misplaced(wrong)


def test_a_setting_is_found_again_in_a_record():
    assert Setting.of_record({"t_s": 0, "eta": 0}) == FULL
    assert str(Setting.of_record({"theta": 0.11, "setting": "q0.4", "depth": 7})) == "theta=q0.4"
