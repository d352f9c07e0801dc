"""A case, one measurement of a claim, and what all statistics share: rows of a method and intervals (no torch)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pandas as pd

from duodiff.analysis.claims.sources import Source

PAIRED = (
    "95%: 1.96 standard deviations over paired bootstrap resamples of the images;"
    " times and reference held fixed"
)
"""What the interval of a statistic made of distances covers."""

Limits = Mapping[str, float]
"""The configuration's `claims`."""


@dataclass(frozen=True)
class Case:
    """One measurement of a claim: its value, interval and number of images.

    A value of None could not be measured; `note` has the reason.
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    covers: str | None = None
    n: int | None = None
    note: str = ""

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the interval; the value twice where there is no interval. Raises ValueError without a value."""
        if self.value is None:
            raise ValueError(f"{self.name}: no value: {self.note}")
        return self.interval or (self.value, self.value)


Measure = Callable[[Source, Limits], list[Case]]
"""A statistic: the cases of a claim on one source. Raises NotTested."""

MeasureOfCells = Callable[[pd.DataFrame], list[Case]]
"""A statistic of the cells under one sampler, `Source.ddpm` or `Source.ddim`. Raises NotTested."""


class NotTested(Exception):
    """A source lacks what a claim needs; the message names it."""


def case_name(row: pd.Series) -> str:
    """A cell's setting, as text."""
    if pd.notna(row["t_s"]):
        return f"t_s = {row['t_s']:.0f}"
    if pd.notna(row["theta"]):
        return f"theta = {row['theta']:.3g}"
    return f"theta not known, exits at {row['mean_exit_layer']:.2f}"


def seconds_text(seconds: float) -> str:
    """A time with three significant digits, in s or ms."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def number(value: float) -> str:
    """Three significant digits, without exponents where they can be avoided."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """ " [low, high]", or nothing."""
    return "" if interval is None else f" [{number(interval[0])}, {number(interval[1])}]"


# --- cells of a source


def ddpm_cells(source: Source) -> pd.DataFrame:
    """The cells under DDPM. Raises NotTested where it was not run."""
    if source.ddpm is None:
        raise NotTested("DDPM was not run")
    return source.ddpm


def of_method(cells: pd.DataFrame, method: str) -> pd.DataFrame:
    """The rows of "duodiff" (0 < t_s < T) or "adadiff". Raises NotTested where there are none."""
    rows = cells[cells["method"] == method]
    if rows.empty:
        missing = {"duodiff": "no t_s between 0 and 1000", "adadiff": "no theta"}
        raise NotTested(f"{missing[method]} in the grid")
    return rows


def full_backbone(cells: pd.DataFrame) -> pd.Series:
    """The row of the full backbone."""
    return cells[cells["t_s"] == 0].iloc[0]


def under_ddpm(measure: MeasureOfCells) -> Measure:
    """`measure` of the cells under DDPM."""

    def cases(source: Source, limits: Limits) -> list[Case]:
        return measure(ddpm_cells(source))

    return cases


def under_ddim(measure: MeasureOfCells) -> Measure:
    """`measure` of the cells under DDIM."""

    def cases(source: Source, limits: Limits) -> list[Case]:
        if source.ddim is None:
            raise NotTested(
                "no DDIM rows are published" if source.published else "DDIM was not run"
            )
        return measure(source.ddim)

    return cases


def in_latent_space(measure: MeasureOfCells) -> Measure:
    """`measure` of the cells under DDPM, of sources in latent space only."""

    def cases(source: Source, limits: Limits) -> list[Case]:
        if not source.latent:
            raise NotTested("not in latent space")
        return measure(ddpm_cells(source))

    return cases


# --- intervals


class Evidence(TypedDict, total=False):
    """The interval of a case, what it covers, and n: keywords of `Case`."""

    interval: tuple[float, float]
    covers: str
    n: int


def combined_distances(
    value: float, weights: Iterable[float], rows: pd.DataFrame, scale: float = 1
) -> Evidence:
    """Evidence of `value` = `scale` x the sum of weights x (distance minus the full backbone's), a weight a row.

    The interval comes from the paired resamples; there is none where a row with a weight has no resamples.
    """
    used = [(w, r) for w, r in zip(weights, rows["resampled"], strict=True) if w]
    images = int(rows["n"].iloc[0])
    if any(resampled is None for _, resampled in used):
        return {"n": images}
    deviation = abs(scale) * float(np.std(sum(w * np.array(r) for w, r in used), ddof=1))
    interval = (value - 1.96 * deviation, value + 1.96 * deviation)
    return {"n": images, "interval": interval, "covers": PAIRED}


def timed(row: pd.Series, low: float, high: float) -> Evidence:
    """Evidence of a ratio of times that lies from `low` to `high`, by the timing of `row`; n: images at a time."""
    if pd.isna(low) or pd.isna(high):
        return {}
    interval = (float(low), float(high))
    return {"interval": interval, "covers": row["speedup_covers"], "n": int(row["speedup_n"])}
