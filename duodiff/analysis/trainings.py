"""Several trainings of one experiment as one study: means, and standard deviations over the trainings (pandas only)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from duodiff.analysis.students import half_width

SPREAD = ("distance", "lost_share", "mean_exit_layer", "relative_distance", "speedup")
"""Columns of cells whose standard deviation over the trainings is shown, as <column>_sd."""

_STUDENTS = {
    "minus_full_95": "minus_full",
    "relative_95": "relative_distance",
    "speedup_95": "speedup",
}
"""Half intervals, and the column that each is of."""

_OF_ONE_TRAINING = (
    "speedup_low",
    "speedup_high",
    "speedup_95",
    "speedup_covers",
    "speedup_n",
    "speedup_rounds",
    "speedup_resampled",
    "resampled",
)


def seeds_text(seeds: Sequence[int]) -> str:
    """Training seeds as text: "3", "0 to 9", or "0, 2, 5"."""
    listed = sorted({int(seed) for seed in seeds})
    if len(listed) > 2 and listed == [*range(listed[0], listed[-1] + 1)]:
        return f"{listed[0]} to {listed[-1]}"
    return ", ".join(map(str, listed))


def over_trainings(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of one experiment and sampler as `cells.cells` has them, as one row a cell over all its trainings.

    - numbers are means over the trainings, NaN where one training has none
    - `<column>_sd` for each column of SPREAD: the standard deviation over the trainings, NaN for one training
    - `minus_full_95`, `relative_95` and `speedup_95`: half of Student's 95% interval of the mean, from one paired
      difference or ratio a training; for one training they stay what they are
    - `trainings` is their number, `train_seed` their seeds (text if there are several)
    """
    if table["train_seed"].nunique() < 2:
        return table.assign(trainings=1)
    table = table.drop(columns=[c for c in table if c.startswith(_OF_ONE_TRAINING)])
    groups = table.groupby(["method", "cell", "steps"], sort=False, dropna=False)
    return pd.DataFrame([_row(group) for _, group in groups])


def _row(group: pd.DataFrame) -> dict:
    row = {name: mean(group[name]) for name in group}
    row |= {f"{name}_sd": group[name].std() for name in SPREAD if name in group}
    row |= {"trainings": len(group), "train_seed": seeds_text(group["train_seed"])}
    students = {half: name for half, name in _STUDENTS.items() if name in group}
    return row | {half: half_width(group[name].to_numpy(float)) for half, name in students.items()}


def mean(values: pd.Series):
    """The mean of numbers, NaN if one is missing; the first value where all are the same, or are no numbers."""
    numbers = pd.to_numeric(values, errors="coerce") if _numeric(values) else None
    if numbers is None or numbers.nunique(dropna=False) == 1:
        return values.iloc[0]
    return numbers.mean(skipna=False)


def _numeric(values: pd.Series) -> bool:
    return all(value is None or isinstance(value, (int, float, np.number)) for value in values)


def with_means(lines: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Plotted rows of several experiments, with a row a point for the mean over the trainings of an experiment.

    `keys` are the columns that name a point of one training; `title` is that of an experiment. In the column `faint`
    the rows of single trainings are True where their experiment has several, and the means are False, as are the rows
    of an experiment's only training. Means come after the trainings that they are of. They have no
    seeds; `trainings` is their number.
    """
    tables = []
    for _, rows in lines.groupby("title", sort=False):
        trainings = rows["train_seed"].nunique()
        tables.append(rows.assign(faint=trainings > 1, trainings=1))
        if trainings > 1:
            groups = rows.groupby(keys, sort=False, dropna=False)
            means = [{name: mean(group[name]) for name in rows} for _, group in groups]
            seeds = {name: np.nan for name in ("train_seed", "sample_seed") if name in rows}
            about = {"faint": False, "trainings": trainings} | seeds
            tables.append(pd.DataFrame(means).assign(**about))
    return pd.concat(tables, ignore_index=True)
