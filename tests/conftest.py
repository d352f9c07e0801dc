"""Copies of the project to run Snakemake in. Several tests share one complete run of config/test.yaml."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from duodiff.running import job
from duodiff.running.memory import keep_freed_memory

ROOT = Path(__file__).parents[1]
# One thread, as in a job: two threads of torch wait for each other longer than small networks compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when a test imports torch
keep_freed_memory()
# Property tests draw the same examples each time, however busy the machine: nothing hangs on luck. To look further:
# pytest --hypothesis-profile=default
try:
    from hypothesis import settings
except ModuleNotFoundError:  # `make test-gpu` needs few packages
    pass
else:
    settings.register_profile("same", derandomize=True, database=None, deadline=None)
    settings.load_profile("same")

TREE = ["Snakefile", "rules", "workflow_scripts", "config", "envs", "profiles", "report", "duodiff"]


class Workflow:
    """A copy of the project to run Snakemake in."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in TREE:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)

    def copied(self, folder: Path) -> "Workflow":
        """A copy of it, in a new folder, that a test may change."""
        copy = object.__new__(Workflow)
        copy.folder = folder
        shutil.copytree(self.folder, folder, symlinks=True)
        return copy

    def snakemake(self, *arguments: str, config: str = "config/test.yaml") -> str:
        """The output of a run that must succeed."""
        done = self.run(*arguments, config=config)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def run(self, *arguments: str, config: str = "config/test.yaml"):
        command = ["snakemake", "--configfile", config, *arguments]
        # A job's thread count must come from its rule, not from the shell the tests run in.
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            encoding="utf-8",
        )

    def pending(self, *arguments: str, config: str = "config/test.yaml") -> dict[str, int]:
        """The number of jobs that a run would start, by rule, without the target rule."""
        output = self.snakemake("--dry-run", *arguments, config=config)
        table = re.search(r"Job stats:\n.*?\n-+ .*?\n(.*?)\ntotal", output, re.S)
        rows = [] if table is None else [line.split() for line in table[1].splitlines()]
        return {name: int(count) for name, count in rows if name != "all"}


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """`make test-gpu` skips a module of tests that imports a package which is not there, and names the package."""
    report = yield
    found = re.search(r"ModuleNotFoundError: No module named '(\w+)", str(report.longrepr))
    if report.failed and collector.config.option.markexpr == "cuda" and found:
        reason = f"Skipped: the package {found[1]} is not installed"
        report.outcome, report.longrepr = "skipped", (str(collector.path), 1, reason)
    return report


@pytest.fixture(autouse=True)
def stay(monkeypatch):
    """A job that a test runs in its own process returns, and does not end the process."""
    monkeypatch.setattr(job, "_leave", lambda: None)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Workflow:
    """The project after one complete run, and its report."""
    workflow = Workflow(tmp_path_factory.mktemp("workflow"))
    workflow.output = workflow.snakemake("--cores", "all")
    return workflow


@pytest.fixture
def fresh(tmp_path) -> Workflow:
    """The project before any run."""
    return Workflow(tmp_path)
