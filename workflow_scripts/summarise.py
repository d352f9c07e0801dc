from pathlib import Path

from duodiff import job
from duodiff.analysis.summary import summary
from duodiff.files import write_text


def summarise(
    records: list[Path], curves: list[Path], claims: Path, studies: dict, out: Path
) -> str:
    """Write the headline comparison of a run, as text, from its records, loss curves and claims."""
    text = summary(records, curves, studies, claims)
    write_text(out, text)
    return f"{len(text.splitlines())} lines"


if __name__ == "__main__":
    job.run(summarise)
