"""The tests of `make test-gpu`: those that need a CUDA device, by the interpreter that runs this file.

    python tests/gpu.py [options of pytest]

It needs neither Snakemake nor an installation. It names the tests that it skips. The exit status is that of pytest, or
2 where there is no CUDA device or no pytest.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(options: list[str]) -> int:
    """Runs the tests and returns the exit status."""
    try:
        import pytest
        import torch
    except ModuleNotFoundError as error:
        return refused(f"found no package {error.name} for {sys.executable}")
    if not torch.cuda.is_available():
        return refused(f"torch {torch.__version__} of {sys.executable} sees no CUDA device")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {sys.executable}")
    sys.path.insert(0, str(ROOT))
    # for the processes that tests start
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.chdir(ROOT)
    # other versions of libraries than the locked ones may warn of other things
    return pytest.main(["-m", "cuda", "-W", "default", "tests/unit", *options])


def refused(found: str) -> int:
    """Says what is missing; the exit status."""
    print(
        f"make test-gpu: {found}; accepted: PYTHON=python of an environment with pytest and the requirements of"
        " pyproject.toml, on a machine with an NVIDIA GPU",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
