from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.panels import qualitative_panels
    from duodiff.plotting import figures, style


def plot_figure5(samples: list[Path], data: list[Path], studies: dict, out: list[Path]) -> str:
    """Draw Figure 5, the same noise and labels under rising theta and rising t_s, from sample stores.

    The packed datasets name the classes.
    """
    panels, table = qualitative_panels(samples, data, studies)
    style.save(figures.qualitative(panels), table, out)
    return f"{len(samples)} settings"


if __name__ == "__main__":
    job.run(plot_figure5)
