"""The verdict of each claim on each source (no torch).

A claim has one case or several on a source (one a threshold theta, say), each held against the same limit. A case
holds if its whole interval lies beyond the limit on the claimed side; without an interval, if its value does. A claim
holds if every tested case holds. Its row shows the case furthest from holding.
"""

import numpy as np
import pandas as pd

from duodiff.analysis.claims.cases import Case, Limits, NotTested, interval_text, number
from duodiff.analysis.claims.sources import Source
from duodiff.analysis.claims.statements import CLAIMS, Claim

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested"


def limit_of(claim: Claim, limits: Limits) -> float:
    """The limit as a number."""
    name = claim.holds.split()[1]
    return float(limits.get(name, name))


def margin(claim: Claim, case: Case, limits: Limits) -> float:
    """How far the whole of the case's interval lies beyond the limit; above 0 the case holds."""
    low, high = case.ends
    limit = limit_of(claim, limits)
    return low - limit if claim.holds.startswith(">") else limit - high


def contradicts(claim: Claim, case: Case, limits: Limits) -> bool:
    """Whether no part of the case's interval lies beyond the limit."""
    low, high = case.ends
    limit = limit_of(claim, limits)
    return high <= limit if claim.holds.startswith(">") else low >= limit


def claims_table(sources: list[Source], limits: Limits) -> pd.DataFrame:
    """One row a claim and source, in the order of CLAIMS: the deciding case and the verdict.

    `contradicted`: whether a case lies wholly on the other side of the limit. A claim that neither holds nor is
    contradicted is undecided. `held`: how many of the tested cases hold. `cases`: all cases, as text.
    """
    rows = [_row(claim, source, limits) for claim in CLAIMS for source in sources]
    return pd.DataFrame(rows)


def verdict_counts(table: pd.DataFrame) -> pd.DataFrame:
    """One row a source of `claims_table`: how many claims hold, do not hold, are not tested, are undecided.

    The undecided ones are among those that do not hold.
    """
    marks = {name: table["verdict"] == name for name in (HOLDS, FAILS, UNTESTED)}
    marks |= {"undecided": marks[FAILS] & (table["contradicted"] == "no")}
    return pd.DataFrame(marks).groupby(table["source"], sort=False).sum()


def _row(claim: Claim, source: Source, limits: Limits) -> dict:
    limit = limit_of(claim, limits)
    row = {
        "claim": claim.id,
        "where": claim.where,
        "sentence": claim.sentence,
        "statistic": claim.statistic,
        "unit": claim.unit,
        "threshold": f"{claim.holds[0]} {limit:g}",
        "source": source.title,
        "rests_on": source.rests_on,
        "verdict": UNTESTED,
        **dict.fromkeys(("contradicted", "case", "held", "cases", "note", "covers"), ""),
        **dict.fromkeys(("value", "low", "high", "n"), np.nan),
    }
    try:
        cases = claim.measure(source, limits)
    except NotTested as reason:
        return row | {"note": str(reason)}
    tested = [case for case in cases if case.value is not None]
    if not tested:
        return row | {"note": "; ".join(dict.fromkeys(case.note for case in cases))}
    margins = [margin(claim, case, limits) for case in tested]
    deciding = tested[int(np.argmin(margins))]
    low, high = deciding.interval or (np.nan, np.nan)
    undecided = "the interval includes the limit" if low <= limit <= high else ""
    told = [_told(claim, case, limits) for case in cases]
    return row | {
        "case": deciding.name,
        "value": deciding.value,
        "low": low,
        "high": high,
        "covers": deciding.covers or "",
        "verdict": HOLDS if min(margins) > 0 else FAILS,
        "contradicted": "yes" if any(contradicts(claim, case, limits) for case in tested) else "no",
        "held": f"{sum(distance > 0 for distance in margins)} of {len(tested)}",
        "cases": " | ".join(told) if len(told) > 1 else "",
        "note": "; ".join(filter(None, [deciding.note, undecided])),
        "n": deciding.n,
    }


def _told(claim: Claim, case: Case, limits: Limits) -> str:
    if case.value is None:
        return f"{case.name}: {UNTESTED} ({case.note})"
    verdict = HOLDS if margin(claim, case, limits) > 0 else FAILS
    return f"{case.name}: {number(case.value)}{interval_text(case.interval)} {verdict}"
