from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.report import write_resources


def make_resources(records: list[Path], studies: dict, out: list[Path]) -> str:
    """Write what every method needs of a machine to every path of --out (.csv, .md, .tex, .html)."""
    return write_resources(records, studies, out)


if __name__ == "__main__":
    job.run(make_resources)
