from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.figures import denoising_lines
    from duodiff.plotting import figures, style


def plot_denoising(losses: list[Path], studies: dict, out: list[Path]) -> str:
    """Draw the held-out loss of full, shallow and every head over t, from profile_denoising's tables."""
    lines = denoising_lines(losses, studies)
    style.save(figures.denoising_losses(lines), lines, out)
    return f"{len(lines)} points"


if __name__ == "__main__":
    job.run(plot_denoising)
