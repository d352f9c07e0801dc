from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.figures import extrapolation_points
    from duodiff.plotting import figures, style


def plot_extrapolation(curves: list[Path], studies: dict, out: list[Path]) -> str:
    """Draw the distance against the number of images and its limit, from evaluate_samples' tables."""
    points = extrapolation_points(curves, studies)
    style.save(figures.extrapolations(points), points, out)
    return f"{len(points)} points"


if __name__ == "__main__":
    job.run(plot_extrapolation)
