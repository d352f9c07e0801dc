from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.report import write_front


def make_front(records: list[Path], studies: dict, out: list[Path]) -> str:
    """Write the operations that each family of settings saves to every path of --out (.csv, .md, .tex, .html)."""
    return write_front(records, studies, out)


if __name__ == "__main__":
    job.run(make_front)
