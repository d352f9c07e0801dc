from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.report import write_specifications
    from duodiff.analysis.specifications import architecture_table, published_values
    from duodiff.running.files import read_json


def make_table3(architectures: Path, paper: Path, studies: dict, out: list[Path]) -> str:
    """Write Table 3 (networks), the paper's numbers beside ours, to every path of --out (.csv, .md, .tex, .html)."""
    table = architecture_table(read_json(architectures), published_values(paper), studies)
    return write_specifications(table, out)


if __name__ == "__main__":
    job.run(make_table3)
