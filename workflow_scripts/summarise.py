from pathlib import Path

from duodiff.running import job

with job.importing():
    import pandas as pd

    from duodiff.analysis.summary import summary
    from duodiff.running.files import write_text


def summarise(
    records: list[Path],
    scores: list[Path],
    curves: list[Path],
    claims: Path,
    studies: dict,
    out: Path,
) -> str:
    """Write the headline comparison of a run, as text, from its records, loss curves and table of claims.

    --scores are the records of choose_schedules.
    """
    told = pd.read_csv(claims, keep_default_na=False)
    text = summary(records, curves, studies, told, scores)
    write_text(out, text)
    return f"{len(text.splitlines())} lines"


if __name__ == "__main__":
    job.run(summarise)
