from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.front import plotted
    from duodiff.plotting import front, style


def plot_front(records: list[Path], studies: dict, out: list[Path]) -> str:
    """Draw the front: distance against operations and against time, of every family of settings."""
    points = plotted(records, studies)
    style.save(front.front(points), points, out)
    return f"{len(points)} points"


if __name__ == "__main__":
    job.run(plot_front)
