from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.figures import trade_off_points
    from duodiff.plotting import figures, style


def plot_figure4(records: list[Path], paper: Path, studies: dict, out: list[Path]) -> str:
    """Draw Figure 4, distance against time per image: our points and the paper's published points."""
    points = trade_off_points(records, paper, studies)
    style.save(figures.trade_off(points), points, out)
    return f"{len(points)} points"


if __name__ == "__main__":
    job.run(plot_figure4)
