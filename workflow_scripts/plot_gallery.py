from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.panels import gallery_panels
    from duodiff.plotting import figures, style


def plot_gallery(samples: list[Path], images: Path, studies: dict, out: list[Path]) -> str:
    """Draw samples of every cell of one study beside training images. --images is the manifest of a packed store."""
    title, panels, table = gallery_panels(samples, images, studies)
    style.save(figures.gallery(title, panels), table, out)
    return f"{len(panels)} panels of up to {table['images'].max()} images"


if __name__ == "__main__":
    job.run(plot_gallery)
