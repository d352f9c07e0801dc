from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.report import write_metrics


def make_metrics(records: list[Path], studies: dict, out: list[Path]) -> str:
    """Write every metric of every cell, with its intervals, to every path of --out (.csv, .md, .tex, .html)."""
    return write_metrics(records, studies, out)


if __name__ == "__main__":
    job.run(make_metrics)
