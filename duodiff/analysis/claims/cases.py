"""A case, one measurement of a claim on one training, and what all statistics share (no torch)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pandas as pd

from duodiff.analysis.claims.sources import Training
from duodiff.analysis.students import quantile
from duodiff.paper import LARGEST_T_S, LEAST_COST, SMALLEST_T_S

IMAGES = "95%: 1.96 standard deviations over paired resamples of the images; reference held fixed"
"""What the interval of a statistic made of distances covers."""

ROUNDS = "95%: 1.96 standard deviations over resampled rounds of timing"
"""What the interval of a statistic made of times covers."""

_LEVEL = 0.975  # of each end of an interval

Limits = Mapping[str, float]
"""The configuration's `claims`."""


@dataclass(frozen=True)
class Case:
    """One measurement of a claim: its value, 95% interval and number of images.

    A value of None could not be measured; `note` has the reason. `slack` is by how much the value may be too large and
    too small beside the interval, such as what a line between two measured points adds. `freedom` are Student's degrees
    of freedom of the interval; None: many. A `disturbed` case rests on a disturbed timing and decides nothing.
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    covers: str = ""
    n: int | None = None
    note: str = ""
    slack: tuple[float, float] = (0.0, 0.0)
    freedom: int | None = None
    disturbed: bool = False

    def ends(self, among: int = 1) -> tuple[float, float]:
        """Both ends of the interval and the slack; the value twice where there is neither.

        `among` cases the intervals hold jointly (Bonferroni). Raises ValueError without a value.
        """
        if self.value is None:
            raise ValueError(f"{self.name}: no value: {self.note}")
        low, high = self.interval or (self.value, self.value)
        wider = (
            self._quantile(1 - (1 - _LEVEL) / among) / self._quantile(_LEVEL) if among > 1 else 1
        )
        if wider > 1 and np.isfinite(self.value):
            low = self.value - wider * (self.value - low)
            high = self.value + wider * (high - self.value)
        return low - self.slack[0], high + self.slack[1]

    def _quantile(self, probability: float) -> float:
        if self.freedom is None:
            return NormalDist().inv_cdf(probability)
        return quantile(probability, self.freedom)


Measure = Callable[[Training, Limits], list[Case]]
"""A statistic: the cases of a claim on one training. Raises NotTested."""

MeasureOfCells = Callable[[pd.DataFrame], list[Case]]
"""A statistic of the cells under one sampler, `Training.ddpm` or `Training.ddim`. Raises NotTested."""


class NotTested(Exception):
    """A training lacks what a claim needs; the message names it."""


# --- several trainings


def over_trainings(trainings: list[list[Case]]) -> list[Case]:
    """The cases of several trainings as one case a name: the mean of one value a training, and Student's interval.

    A training without a value, or with a disturbed timing, is left out, and the note says how many are left.
    """
    if len(trainings) == 1:
        return trainings[0]
    names = dict.fromkeys(case.name for cases in trainings for case in cases)
    return [_mean([c for cases in trainings for c in cases if c.name == n]) for n in names]


def _mean(cases: list[Case]) -> Case:
    found = [case for case in cases if case.value is not None]
    calm = [case for case in found if not case.disturbed]
    used = calm if len(calm) > 1 else found
    if len(used) < 2:
        why = "; ".join(dict.fromkeys(case.note for case in cases if case.value is None))
        return replace(cases[0], value=None, note=f"measured in {len(used)} trainings: {why}")
    values = np.array([case.value for case in used], float)
    count = len(used)
    covers = f"95%: Student's t over {count} trainings, one value each"
    note = "" if count == len(cases) else f"{count} of {len(cases)} trainings"
    about = Case(used[0].name, np.inf, covers=covers, n=used[0].n, freedom=count - 1)
    if not np.isfinite(values).all():
        low = np.inf if np.isinf(values).all() else -np.inf
        return replace(about, interval=(low, np.inf), note=f"{note}; in some trainings none")
    half = quantile(_LEVEL, count - 1) * float(values.std(ddof=1)) / count**0.5
    value = float(values.mean())
    return replace(
        about,
        value=value,
        interval=(value - half, value + half),
        slack=(_mean_of(case.slack[0] for case in used), _mean_of(case.slack[1] for case in used)),
        note=note,
        disturbed=calm != found and used is found,
    )


def _mean_of(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


# --- text


def case_name(row: pd.Series) -> str:
    """A cell's setting, as text: the same in every training, where a quantile's theta differs."""
    if pd.notna(row["t_s"]):
        return f"t_s = {row['t_s']:.0f}"
    if isinstance(row.get("setting"), str):
        return f"theta = {row['setting'].removeprefix('theta=')}"
    if pd.notna(row["theta"]):
        return f"theta = {row['theta']:.3g}"
    return f"theta not known, exits at {row['mean_exit_layer']:.2f}"


def number(value: float) -> str:
    """Three significant digits, without exponents where they can be avoided."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """ " [low, high]", or nothing."""
    return "" if interval is None else f" [{number(interval[0])}, {number(interval[1])}]"


# --- cells of a training


def ddpm_cells(training: Training) -> pd.DataFrame:
    """The cells under DDPM. Raises NotTested where it was not run."""
    if training.ddpm is None:
        raise NotTested("DDPM was not run")
    return training.ddpm


def papers_t_s(cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of the switch times in the range of the paper's tables. Raises NotTested where there are none."""
    rows = cells[cells["t_s"].between(SMALLEST_T_S, LARGEST_T_S)]
    if rows.empty:
        raise NotTested(f"no t_s from {SMALLEST_T_S} to {LARGEST_T_S} in the grid")
    return rows.sort_values("t_s")


def papers_cost(cells: pd.DataFrame, method: str) -> pd.DataFrame:
    """The rows of "duodiff" or "adadiff" that cost at least LEAST_COST of the full backbone, t_s = 0 not among them.

    The cost is that of the blocks: for DuoDiff by FLOPs (published: by blocks), for AdaDiff the mean exit layer over
    the depth. No machine moves it. Raises NotTested where there are no such rows.
    """
    rows = cells[cells["method"] == method]
    if rows.empty:
        missing = {"duodiff": "no t_s between 0 and 1000", "adadiff": "no theta"}
        raise NotTested(f"{missing[method]} in the grid")
    costs = 1 / rows["ideal_speedup"]
    if method == "adadiff":
        costs = rows["mean_exit_layer"] / rows["depth"].astype(float)
    rows = rows[costs >= LEAST_COST]
    if rows.empty:
        name = {"duodiff": "t_s", "adadiff": "theta"}[method]
        raise NotTested(f"no {name} that costs {LEAST_COST} of the full backbone or more")
    return rows


def full_backbone(cells: pd.DataFrame) -> pd.Series:
    """The row of the full backbone."""
    return cells[cells["t_s"] == 0].iloc[0]


def under_ddpm(measure: MeasureOfCells) -> Measure:
    """`measure` of the cells under DDPM."""

    def cases(training: Training, limits: Limits) -> list[Case]:
        return measure(ddpm_cells(training))

    return cases


def under_ddim(measure: MeasureOfCells) -> Measure:
    """`measure` of the cells under DDIM."""

    def cases(training: Training, limits: Limits) -> list[Case]:
        if training.ddim is None:
            raise NotTested(
                "no DDIM rows are published" if training.published else "DDIM was not run"
            )
        return measure(training.ddim)

    return cases


def in_latent_space(measure: MeasureOfCells) -> Measure:
    """`measure` of the cells under DDPM, of trainings in latent space only."""

    def cases(training: Training, limits: Limits) -> list[Case]:
        if not training.latent:
            raise NotTested("not in latent space")
        return measure(ddpm_cells(training))

    return cases


# --- values and their resamples


def distances(rows: pd.DataFrame) -> np.ndarray:
    """The distances of `rows`, float64 [rows, 1 + resamples]: of the images, then of paired resamples of them.

    A resample moves each distance by how much it moves the distance minus the full backbone's. There are no resamples
    where a row has none.
    """
    return _resampled(rows, "distance", "resampled")


def speeds(rows: pd.DataFrame) -> np.ndarray:
    """The speed-ups of `rows`, float64 [rows, 1 + resamples]: measured, then of resampled rounds."""
    return _resampled(rows, "speedup", "speedup_resampled")


def _resampled(rows: pd.DataFrame, column: str, resampled: str) -> np.ndarray:
    values = rows[column].to_numpy(float)[:, None]
    found = rows[resampled].tolist()
    if not found or any(r is None for r in found):
        return values
    moved = np.array(found, float)
    return np.hstack([values, values + moved - moved.mean(axis=1, keepdims=True)])


def measured(
    name: str, values: np.ndarray, covers: str, rows: pd.DataFrame, note: str = ""
) -> Case:
    """The case of a statistic float64 [1 + resamples] of `rows`, whose first entry is its value."""
    value, n = float(values[0]), int(rows["n"].iloc[0])
    case = Case(name, value, n=n, note=note, disturbed=covers == ROUNDS and is_disturbed(rows))
    if len(values) == 1 or not np.isfinite(value):
        return case
    half = 1.96 * float(np.nanstd(values[1:], ddof=1))
    return replace(case, interval=(value - half, value + half), covers=covers)


def is_disturbed(rows: pd.DataFrame) -> bool:
    """Whether a time of `rows` was disturbed."""
    return any(value is True or value is np.True_ for value in rows["speedup_disturbed"])
