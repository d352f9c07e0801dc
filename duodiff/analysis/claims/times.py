"""Statistics of times alone: speed-ups, the cost of AdaDiff's heads, the paper's formula (no torch)."""

import pandas as pd

from duodiff.analysis.claims.cases import (
    Case,
    Limits,
    NotTested,
    case_name,
    ddpm_cells,
    of_method,
    seconds_text,
    timed,
)
from duodiff.analysis.claims.sources import Source
from duodiff.paper import PAPER_IMAGES

_DERIVED = "exit layer derived"  # from the published time, so that nothing follows from the two


def speedups(cells: pd.DataFrame) -> list[Case]:
    """The speed-up over the full backbone at each t_s between 0 and T."""
    return [
        Case(case_name(row), row["speedup"], **timed(row, row["speedup_low"], row["speedup_high"]))
        for _, row in of_method(cells, "duodiff").iterrows()
    ]


def heads_cost(source: Source, limits: Limits) -> list[Case]:
    """The time with all of AdaDiff's heads computed over the full backbone's, under DDPM.

    A published dataset has a case for each theta, from its interpolated time.
    """
    return _published_heads(ddpm_cells(source)) if source.published else _our_heads(source.records)


def _our_heads(records: pd.DataFrame) -> list[Case]:
    rounds = records[(records["method"] == "adadiff_all_heads") & (records["metric"] == "speedup")]
    rounds = rounds[rounds["sampler"] == "ddpm"]
    if rounds.empty:
        raise NotTested("no theta under DDPM in the grid")
    cases = []
    for row in rounds.itertuples():
        low, high = row.interval
        interval = (1 / high, 1 / low)
        cases.append(Case("all heads", 1 / row.value, interval, row.interval_covers, row.n))
    return cases


def _published_heads(cells: pd.DataFrame) -> list[Case]:
    """Interpolated times taken back to the full depth, where the exit layer was published by itself."""
    derived = cells["certainty"].str.contains(_DERIVED)
    rows = cells[(cells["method"] == "adadiff") & ~derived]
    if rows.empty:
        raise NotTested("exit layers are derived from the times")
    over_full = cells["seconds_interpolated"] / cells[cells["t_s"] == 0]["seconds"].item()
    values = over_full * cells["depth"] / cells["mean_exit_layer"]
    return [Case(case_name(row), values[i], n=PAPER_IMAGES) for i, row in rows.iterrows()]


def formula(cells: pd.DataFrame) -> list[Case]:
    """How far the measured speed-up at each t_s > 0 is from 1 / (1 - (t_s/T)(1 - c)), relative to it."""
    rows = cells[cells["t_s"] > 0]
    if rows.empty:
        raise NotTested("no t_s above 0 in the grid")
    cases = []
    for _, row in rows.iterrows():
        low, high = (row[c] / row["ideal_speedup"] - 1 for c in ("speedup_low", "speedup_high"))
        evidence = timed(row, max(low, -high, 0), max(abs(low), abs(high)))
        value = abs(row["speedup"] / row["ideal_speedup"] - 1)
        note = f"measured {row['speedup']:.2f}, by the formula {row['ideal_speedup']:.2f}"
        cases.append(Case(case_name(row), value, note=note, **evidence))
    return cases


def underestimated(source: Source, limits: Limits) -> list[Case]:
    """AdaDiff's time with the shrinking batch over the interpolated one, by speed-ups within the same rounds."""
    if source.published:
        raise NotTested("only interpolated times are published")
    rows = of_method(ddpm_cells(source), "adadiff")
    heads = _our_heads(source.records)[0]
    fewest, most = heads.ends
    cases = []
    for _, row in rows.iterrows():
        share = row["mean_exit_layer"] / row["depth"]
        value = 1 / row["speedup"] / (share * heads.value)
        low = 1 / row["speedup_high"] / (share * most)
        high = 1 / row["speedup_low"] / (share * fewest)
        measured, interpolated = map(seconds_text, row[["seconds", "seconds_interpolated"]])
        note = f"measured {measured}, interpolated {interpolated}"
        cases.append(Case(case_name(row), value, note=note, **timed(row, low, high)))
    return cases
