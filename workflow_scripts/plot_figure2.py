from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.panels import noised_images
    from duodiff.plotting import figures, style


def plot_figure2(data: list[Path], studies: dict, out: list[Path]) -> str:
    """Draw Figure 2, clean image, noisy input and target at several timesteps, from packed datasets."""
    panels, similarity = noised_images(data, studies)
    style.save(figures.noised(panels, similarity), similarity, out)
    return f"{len(panels)} datasets"


if __name__ == "__main__":
    job.run(plot_figure2)
