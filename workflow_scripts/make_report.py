import json
import subprocess
import sys
import tempfile
from pathlib import Path

from duodiff.running import job
from duodiff.running.signals import how_it_ended

WORKFLOW = Path(__file__).resolve().parents[1]


def make_report(configuration: dict, out: Path) -> str:
    """Write Snakemake's report of a finished study in the current folder: --out, an HTML page, or a zip of many files.

    --configuration is that of the study, as JSON. A run may be at work in the folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(configuration), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "snakemake"),
            f"--snakefile={WORKFLOW / 'Snakefile'}",
            f"--configfile={path}",
            "--workflow-profile=none",
            f"--report={out}",
            f"--report-stylesheet={WORKFLOW / 'report/report.css'}",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, encoding="utf-8"
        )
    if done.returncode:
        ended = f"the report was not made: Snakemake {how_it_ended(done.returncode)}"
        raise ValueError(f"{ended}\n{done.stdout}{done.stderr}")
    return f"{out.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    job.run(make_report)
