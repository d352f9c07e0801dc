"""Configurations that cannot be run are refused before torch is imported, with key, value and accepted values."""

import json
import subprocess
import sys

import pytest
import yaml

from faults.scripts import ROOT

TEXT = (ROOT / "config/config.yaml").read_text(encoding="utf-8")
BAD = yaml.safe_load((ROOT / "tests/faults/bad_configurations.yaml").read_text(encoding="utf-8"))

CHECK = """
import json, sys, yaml
from duodiff.study.config import ConfigError, complete
for text in json.load(sys.stdin):
    try:
        complete(yaml.safe_load(text))
        found = "accepted"
    except ConfigError as error:
        found = str(error)
    print(json.dumps([found, "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def answers() -> list:
    """The answer to each bad configuration, and whether torch was imported by then. One process checks all."""
    texts = []
    for bad in BAD:
        assert bad["old"] in TEXT, bad
        texts.append(TEXT.replace(bad["old"], bad["new"], 1))
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        cwd=ROOT,
        input=json.dumps(texts),
        text=True,
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("i", range(len(BAD)), ids=[bad["rule"] for bad in BAD])
def test_a_bad_configuration_is_refused_without_torch(i, answers):
    answer, with_torch = answers[i]
    assert BAD[i]["message"] in answer
    assert not with_torch


def test_there_are_at_least_25_of_them_each_for_a_rule_of_its_own():
    assert len({bad["rule"] for bad in BAD}) == len(BAD) >= 25
