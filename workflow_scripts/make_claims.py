from pathlib import Path

from duodiff.running import job

with job.importing():
    import pandas as pd

    from duodiff.analysis.cells import load_fewer_steps, load_records
    from duodiff.analysis.claims.pages import write_claims
    from duodiff.analysis.claims.sources import our_sources, published_sources
    from duodiff.analysis.claims.verdicts import claims_table


def make_claims(
    records: list[Path], table1: Path, table2: Path, studies: dict, limits: dict, out: list[Path]
) -> str:
    """Test the paper's claims on our records and on the paper's published tables (--table1, --table2).

    Writes every path of --out (.csv, .md, .tex, .html). --limits is the configuration's `claims`.
    """
    published = published_sources(pd.read_csv(table1), pd.read_csv(table2))
    ours = our_sources(load_records(records), studies, load_fewer_steps(records))
    return write_claims(claims_table(ours + published, limits), out)


if __name__ == "__main__":
    job.run(make_claims)
