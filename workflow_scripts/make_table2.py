from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.report import write_comparison


def make_table2(records: list[Path], paper: Path, studies: dict, out: list[Path]) -> str:
    """Write Table 2 (DDPM), the paper's numbers beside ours, to every path of --out (.csv, .md, .tex, .html)."""
    return write_comparison(records, paper, "ddpm", studies, out)


if __name__ == "__main__":
    job.run(make_table2)
