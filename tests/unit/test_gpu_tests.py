"""`make test-gpu` without a GPU, and what it collects where few packages are installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISSING = ("snakemake", "torch_fidelity", "diffusers", "openvino", "hypothesis")
BLOCK = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-m", "cuda", "tests/unit"]))
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        text=True,
        capture_output=True,
        check=False,
        encoding="utf-8",
    )


def test_without_a_gpu_it_says_so_and_exits_with_2():
    done = run("tests/gpu.py", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "sees no CUDA device; accepted: PYTHON=" in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_its_tests_are_collected_without_the_packages_that_a_gpu_machine_may_lack():
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # hypothesis has one
    done = run("-c", BLOCK.format(missing=MISSING), **plugins)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = [line for line in done.stdout.splitlines() if "::" in line]
    files = {line.split("::")[0].removeprefix("tests/unit/") for line in collected}
    assert files >= {
        "test_goldens.py",
        "test_early_exit.py",
        "test_fast.py",
        "test_graphs.py",
        "test_on_a_gpu.py",
        "sampling/test_models.py",
        "sampling/test_generation.py",
    }
    assert all("cuda" in line or "test_on_a_gpu" in line for line in collected)
    assert "test_noise.py" in done.stdout  # skipped, by name
    assert "the package hypothesis is not installed" in done.stdout
