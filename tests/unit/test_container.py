"""envs/Containerfile, as far as it can be held without building it."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "envs/Containerfile").read_text()
WORKFLOW = [
    "Snakefile",
    "config",
    "duodiff",
    "envs",
    "profiles",
    "report",
    "rules",
    "workflow_scripts",
]


def test_the_container_copies_what_the_workflow_needs_from_where_it_is():
    copied = re.findall(r"^COPY (\S+) (\S+)$", RECIPE, re.M)
    assert {source for source, _ in copied} == {*WORKFLOW, "envs/requirements.txt"}
    for source, target in copied:
        assert (ROOT / source).exists()
        assert target in (source, "./", "/requirements.txt")


def test_the_container_has_the_python_that_requirements_are_locked_for():
    (version,) = re.findall(r"^FROM \S+/python:(3\.\d+)-slim$", RECIPE, re.M)
    assert f"--python-version {version} --generate-hashes" in (ROOT / "Makefile").read_text()
    environment = yaml.safe_load((ROOT / "envs/environment.yaml").read_text())
    assert f"python ={version}" in environment["dependencies"]


def test_the_container_installs_as_make_setup_does():
    for line in ("pip sync", "--compile-bytecode", "--require-hashes", "'uv>=0.9'"):
        assert line in RECIPE
        assert line in (ROOT / "Makefile").read_text()
