"""Whether a study can say anything: its networks have learned, and its images are no copies (no torch)."""

import pandas as pd

from duodiff.analysis.cells import distance_name
from duodiff.analysis.claims.cases import (
    IMAGES,
    Case,
    Limits,
    NotTested,
    ddpm_cells,
    distances,
    full_backbone,
    measured,
)
from duodiff.analysis.claims.sources import Training
from duodiff.schedules import T

_COPIES = "nearest_train_distance_q01"


def full_over_noise(training: Training, limits: Limits) -> list[Case]:
    """The full backbone's distance over that of noise."""
    full = full_backbone(_ours(training))
    noise = _scale(training.records, "noise", distance_name(training.records))
    value = full["distance"] / noise
    return [Case("", value, n=int(full["n"]), note=f"{full['distance']:.2f} against {noise:.2f}")]


def shallow_minus_full(training: Training, limits: Limits) -> list[Case]:
    """The shallow backbone's distance minus the full one's."""
    cells = _ours(training)
    rows = cells[cells["t_s"].isin([0, T])].sort_values("t_s")
    if len(rows) < 2:
        raise NotTested(f"no t_s = {T} in the grid")
    full, shallow = distances(rows)
    note = f"full {full[0]:.2f}, shallow {shallow[0]:.2f}"
    return [measured("", shallow - full, IMAGES, rows, note)]


def nearest_over_held_out(training: Training, limits: Limits) -> list[Case]:
    """The full backbone's distance to the nearest training image over held-out images', of the nearest 1%."""
    full = full_backbone(_ours(training))
    if _COPIES not in full or pd.isna(full[_COPIES]):
        raise NotTested("no distance to the nearest training image among the records")
    held_out = _scale(training.records, "real_held_out", _COPIES)
    note = f"{full[_COPIES]:.3f} against {held_out:.3f}"
    return [Case("", full[_COPIES] / held_out, n=int(full["n"]), note=note)]


def _ours(training: Training) -> pd.DataFrame:
    """The cells under DDPM. Raises NotTested for published numbers, which are taken as they are."""
    if training.published:
        raise NotTested("not published, taken as given")
    return ddpm_cells(training)


def _scale(records: pd.DataFrame, method: str, metric: str) -> float:
    found = records[(records["method"] == method) & (records["metric"] == metric)]["value"]
    if found.empty:
        raise NotTested(f"no record of {method.replace('_', ' ')}")
    return float(found.iloc[0])
