from pathlib import Path

from duodiff import job
from duodiff.analysis.figures import qualitative_rows
from duodiff.plotting import figures, style


def plot_figure5(samples: list[Path], studies: dict, out: list[Path]) -> str:
    """Draw Figure 5, the same noise and labels under rising theta and rising t_s, from sample stores."""
    rows, columns, table = qualitative_rows(samples, studies)
    style.save(figures.qualitative(rows, columns), table, out)
    return f"{len(rows)} settings of {len(columns)} images"


if __name__ == "__main__":
    job.run(plot_figure5)
