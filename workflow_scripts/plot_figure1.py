from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.figures import exit_layer_lines
    from duodiff.plotting import figures, style


def plot_figure1(profiles: list[Path], studies: dict, out: list[Path]) -> str:
    """Draw Figure 1, the exit layers over t, from the tables of profile_exits."""
    lines = exit_layer_lines(profiles, studies)
    style.save(figures.exit_layers(lines), lines, out)
    return f"{lines['theta'].nunique()} thresholds"


if __name__ == "__main__":
    job.run(plot_figure1)
