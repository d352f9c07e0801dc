"""The figure of SwitchBench, from its table of scores."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from duodiff.plotting import style

_STATISTICS = {
    "within": "Kendall's tau within equal cost",
    "regret": "regret, of shallow minus full",
}
_SAMPLERS = {"ddpm": "DDPM", "ddim": "DDIM"}
_APART = 0.24  # between the marks of two feature spaces, in distances of two scores


def agreement(scores: pd.DataFrame) -> Figure:
    """Each score's agreement with the distances and its regret, a column a sampler, by feature space.

    `scores` are rows of one set of trainings, as `switchbench.tables.scores_table` gives them. Marks are means over the
    trainings with their intervals. A band is the interval of the ceiling.
    """
    style.apply()
    samplers, spaces = list(scores["sampler"].unique()), list(scores["space"].unique())
    looks = dict(zip(spaces, style.looks(spaces), strict=True))
    figure, axes = plt.subplots(
        len(_STATISTICS),
        len(samplers),
        figsize=(5 * len(samplers), 3.4 * len(_STATISTICS)),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, (statistic, label) in zip(axes, _STATISTICS.items(), strict=True):
        row[0].set_ylabel(label)
        for axis, sampler in zip(row, samplers, strict=True):
            _draw(
                axis, scores[(scores.sampler == sampler) & (scores.statistic == statistic)], looks
            )
    for axis, sampler in zip(axes[0], samplers, strict=True):
        axis.set_title(_SAMPLERS[sampler])
    handles = [look.handle() for look in looks.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw(axis: Axes, rows: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    """Draws a mark with an interval for each score and space, and a band for each ceiling."""
    ceilings, marks = rows[rows.score == "ceiling"], rows[rows.score != "ceiling"]
    names = list(marks["score"].unique())
    for i, (space, look) in enumerate(looks.items()):
        for _, one in ceilings[ceilings.space == space].iterrows():
            axis.axhspan(one.low, one.high, color=look.color, alpha=0.15, linewidth=0)
        own = marks[marks.space == space]
        axis.errorbar(
            own["score"].map(names.index) + _APART * (i - (len(looks) - 1) / 2),
            own["mean"],
            yerr=[own["mean"] - own["low"], own["high"] - own["mean"]],
            **look.keywords() | {"linestyle": "none"},
        )
    axis.axhline(0, color=style.GREY, linewidth=1)
    axis.set_xticks(range(len(names)), names)
