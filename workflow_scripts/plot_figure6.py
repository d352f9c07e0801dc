from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.diagrams import drawn, parts
    from duodiff.plotting import diagrams, style
    from duodiff.running.files import read_json


def plot_figure6(architectures: Path, studies: dict, out: list[Path]) -> str:
    """Draw Figure 6, AdaDiff on the full backbone, from describe_architectures' JSON.

    The figure shows the first study that has AdaDiff, or the paper's first if no study has.
    """
    title, networks = drawn(read_json(architectures), studies)
    style.save(diagrams.adadiff(title, networks), parts(networks, ["full", "adadiff"]), out)
    return title


if __name__ == "__main__":
    job.run(plot_figure6)
