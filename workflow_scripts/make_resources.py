from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.report import write_resources


def make_resources(records: list[Path], studies: dict, out: list[Path]) -> str:
    """Write the cost of every method on its machine to every path of --out (.csv, .md, .tex, .html)."""
    return write_resources(records, studies, out)


if __name__ == "__main__":
    job.run(make_resources)
