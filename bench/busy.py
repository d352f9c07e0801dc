"""Times beside busy programs: how far `measure_latency` of a finished default run moves, and what it says of it.

    python bench/busy.py results/digits/train0 --busy 0 1 2

For each number of busy programs the timing of the study runs in a process of its own, beside as many processes of
endless matrix products, of one thread each. The others are compared with the first: 0, on a quiet machine. Records lie
in results/bench/busy. `--read` runs nothing and compares those that lie there.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from duodiff.running.files import read_json
from duodiff.settings import Setting
from duodiff.study import config
from duodiff.study.grid import grid_settings, sampler_options

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results/bench/busy"
_BUSY = "import numpy as np; a = np.random.rand(300, 300)\nwhile True: a @ a"


def main() -> None:
    """Runs the timings and prints a line for each number of busy programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="the folder of a trained study of the default")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--read", action="store_true", help="print what was measured before")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    quiet: dict = {}
    for busy in options.busy:
        out = OUT / f"busy{busy}.json"
        if not options.read:
            took = timing(options.study, busy, out)
            print(f"{busy} busy: {took:.1f} s")
        found = read_json(out)
        quiet = quiet or found
        print(f"{busy} busy: {compared(found, quiet)}")


def timing(study: Path, busy: int, out: Path) -> float:
    """Runs the timing job beside `busy` busy programs; the seconds it took."""
    chosen = config.read(ROOT / "config/config.yaml")["experiments"]["digits"]
    grid = [
        [sampler_options(chosen, name), [str(s) for s in grid_settings(grid) if not s.is_schedule]]
        for name, grid in chosen["grid"].items()
    ]
    conventions = {"schedule": "linear", "time_input": "t", "class_order": None}
    command = [sys.executable, str(ROOT / "workflow_scripts/measure_latency.py")]
    command += ["--experiment", "digits", "--protocol", "corrected", "--device", "cpu"]
    command += ["--conventions", json.dumps(conventions), "--grid", json.dumps(grid)]
    for role in ("full", "shallow", "heads"):
        command += [f"--{role}", str(study / role / "manifest.json")]
    command += ["--quantiles", str(study / "profile/quantiles.json"), "--out", str(out)]
    command += ["--batch", str(chosen["latency"]["batch"]), "--threads", "1"]
    command += ["--repeats", str(chosen["latency"]["repeats"]), "--train-seed", "0", "--seed", "0"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    beside = [subprocess.Popen([sys.executable, "-c", _BUSY], env=one_thread) for _ in range(busy)]
    try:
        began = time.perf_counter()
        subprocess.run(command, check=True)
        return time.perf_counter() - began
    finally:
        for process in beside:
            process.kill()
            process.wait()


def compared(found: list[dict], quiet: list[dict]) -> str:
    """How the speed-ups in `found` stand to those in `quiet`, by both clocks."""
    parts = []
    for metric, limit in (("speedup", 0.04), ("speedup_processor", 0.06)):
        mine, base = speedups(found, metric), speedups(quiet, metric)
        moved = {key: mine[key]["value"] / base[key]["value"] - 1 for key in base}
        disturbed = sum(record["disturbed"] for record in mine.values())
        good = sum(abs(moved[key]) <= limit and not mine[key]["disturbed"] for key in base)
        rounds = [record["rounds"] for record in mine.values()]
        width = [np.ptp(r["interval"]) / 2 / r["value"] for r in mine.values()]
        furthest = max(moved, key=lambda key: abs(moved[key]))
        parts.append(
            f"{metric}: {good} of {len(base)} undisturbed and within {limit:.0%}, {disturbed} disturbed,"
            f" furthest {moved[furthest]:+.1%} ({' '.join(furthest)}), median"
            f" {np.median(np.abs([*moved.values()])):.1%}; {min(rounds)} to {max(rounds)} rounds,"
            f" intervals of {min(width):.1%} to {max(width):.1%} to either side"
        )
    return "; ".join(parts)


def speedups(records: list[dict], metric: str) -> dict[tuple[str, str], dict]:
    """The records of a metric by sampler and setting, without the full backbone's."""
    found = {}
    for record in records:
        if record["metric"] == metric and record["method"] != "full":
            method, parameters = record["method"], record["parameters"]
            mechanism = method.startswith("adadiff_")  # all heads, or none exits
            setting = method if mechanism else str(Setting.of_record(parameters))
            found[record["sampler"], setting] = record
    return found


if __name__ == "__main__":
    main()
