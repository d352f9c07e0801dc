from pathlib import Path

from duodiff.running import job

with job.importing():
    import pandas as pd

    from duodiff.analysis.claims.pages import write_claims
    from duodiff.analysis.claims.sources import published_sources
    from duodiff.analysis.claims.verdicts import claims_table


def make_published_claims(table1: Path, table2: Path, limits: dict, out: list[Path]) -> str:
    """Test the paper's claims on the paper's published tables (--table1, --table2) alone.

    Writes every path of --out (.csv, .md, .tex, .html). --limits is the configuration's `claims`.
    """
    sources = published_sources(pd.read_csv(table1), pd.read_csv(table2))
    return write_claims(claims_table(sources, limits), out)


if __name__ == "__main__":
    job.run(make_published_claims)
