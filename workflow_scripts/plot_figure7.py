from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.diagrams import drawn, parts
    from duodiff.plotting import diagrams, style
    from duodiff.running.files import read_json


def plot_figure7(architectures: Path, studies: dict, out: list[Path]) -> str:
    """Draw Figure 7, the uncertainty estimation module, from describe_architectures' JSON.

    The figure shows the first study that has AdaDiff, or the paper's first if no study has.
    """
    title, networks = drawn(read_json(architectures), studies)
    style.save(diagrams.uncertainty(title, networks), parts(networks, ["adadiff"]), out)
    return title


if __name__ == "__main__":
    job.run(plot_figure7)
