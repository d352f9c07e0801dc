"""Starts scripts of the workflow as separate processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def options(arguments: dict) -> list[str]:
    """The command-line options of a script for `arguments`, by the names of its parameters."""
    texts = []
    for name, value in arguments.items():
        text = value if isinstance(value, (str, Path)) else json.dumps(value)
        texts += [f"--{name.replace('_', '-')}", str(text)]
    return texts


def start(script: str, arguments: dict, setup: str = "") -> subprocess.Popen:
    """Starts a script as a process with piped output. `setup` is Python code that runs before the script."""
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
        encoding="utf-8",
    )
