from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.diagrams import drawn, parts
    from duodiff.plotting import diagrams, style
    from duodiff.running.files import read_json


def plot_figure3(architectures: Path, studies: dict, out: list[Path]) -> str:
    """Draw Figure 3, DuoDiff and its two backbones, from describe_architectures' JSON.

    The figure shows the first study that has AdaDiff, or the paper's first if no study has.
    """
    title, networks = drawn(read_json(architectures), studies)
    style.save(diagrams.duodiff(title, networks), parts(networks, ["full", "shallow"]), out)
    return title


if __name__ == "__main__":
    job.run(plot_figure3)
