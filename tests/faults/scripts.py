"""Scripts of the workflow as processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def options(arguments: dict) -> list[str]:
    """The arguments of a script as its command line has them."""
    found = []
    for name, value in arguments.items():
        text = value if isinstance(value, (str, Path)) else json.dumps(value)
        found += [f"--{name.replace('_', '-')}", str(text)]
    return found


def start(script: str, arguments: dict, setup: str = "") -> subprocess.Popen:
    """A script as a process whose output is piped; `setup` is Python run before it."""
    run = f"import runpy, sys; sys.argv.pop(0)\n{setup}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    path = str(ROOT / f"workflow_scripts/{script}.py")
    command = [sys.executable, "-c", run, path, *options(arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
