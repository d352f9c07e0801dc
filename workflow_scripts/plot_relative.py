from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.figures import relative_points
    from duodiff.plotting import figures, style


def plot_relative(
    records: list[Path], paper: Path, architectures: Path, studies: dict, out: list[Path]
) -> str:
    """Draw what compares across datasets, ours and published: distance over the full backbone's against time saved."""
    points = relative_points(records, paper, architectures, studies)
    style.save(figures.relative(points), points, out)
    return f"{len(points)} points"


if __name__ == "__main__":
    job.run(plot_relative)
