from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.figures import training_lines
    from duodiff.plotting import figures, style


def plot_training(curves: list[Path], studies: dict, out: list[Path]) -> str:
    """Draw the loss curves of every training (curve.csv beside each checkpoint)."""
    lines = training_lines(curves, studies)
    style.save(figures.training_curves(lines), lines, out)
    return f"{len(curves)} trainings"


if __name__ == "__main__":
    job.run(plot_training)
