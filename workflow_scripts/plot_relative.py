from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.figures import relative_points
    from duodiff.plotting import figures, style


def plot_relative(
    records: list[Path], paper: Path, architectures: Path, studies: dict, out: list[Path]
) -> str:
    """Draw our points and the paper's of all datasets in one figure: relative distance against the time saved.

    A relative distance is divided by the distance of the full backbone.
    """
    points = relative_points(records, paper, architectures, studies)
    style.save(figures.relative(points), points, out)
    return f"{len(points)} points"


if __name__ == "__main__":
    job.run(plot_relative)
