"""The verdict of each claim on each source (no torch).

A claim has one case or several on a source (one a threshold theta, say), each held against the same limit. A case
holds if its whole 95% interval lies beyond the limit on the claimed side; without an interval, if its value does. A
claim holds if every tested case holds. It is contradicted if some case lies wholly on the other side by an interval
that is joint over the cases. Otherwise it is undecided. A claim that rests on one that is contradicted, void or not
tested is void; on one that is undecided, conditional. Published numbers are taken as good as they are: what they do
not test voids nothing.
"""

import numpy as np
import pandas as pd

from duodiff.analysis.claims.cases import (
    Case,
    Limits,
    NotTested,
    interval_text,
    number,
    over_trainings,
)
from duodiff.analysis.claims.sources import Source
from duodiff.analysis.claims.statements import BASELINE, CLAIMS, PREMISE, Claim

HOLDS, CONTRADICTED, UNDECIDED = "holds", "contradicted", "undecided"
VOID, UNTESTED = "void", "not tested"
VERDICTS = (HOLDS, CONTRADICTED, UNDECIDED, VOID, UNTESTED)


def limit_of(claim: Claim, limits: Limits) -> float:
    """The limit as a number."""
    name = claim.holds.split()[1]
    return float(limits.get(name, name))


def margin(claim: Claim, case: Case, limits: Limits) -> float:
    """How far the whole of the case's interval lies beyond the limit; above 0 the case holds, unless disturbed."""
    low, high = case.ends()
    limit = limit_of(claim, limits)
    return low - limit if claim.holds.startswith(">") else limit - high


def holds(claim: Claim, case: Case, limits: Limits) -> bool:
    """Whether the case holds."""
    return margin(claim, case, limits) > 0 and not case.disturbed


def contradicts(claim: Claim, case: Case, limits: Limits, among: int) -> bool:
    """Whether no part of the case's interval, joint over `among` cases, lies beyond the limit."""
    low, high = case.ends(among)
    limit = limit_of(claim, limits)
    beyond = high > limit if claim.holds.startswith(">") else low < limit
    return not beyond and not case.disturbed


def claims_table(sources: list[Source], limits: Limits) -> pd.DataFrame:
    """One row a claim and source, in the order of CLAIMS: the deciding case and the verdict.

    `held`: how many of the tested cases hold. `cases`: all cases, as text. `conditional_on`: the undecided claims that
    a verdict rests on. `said`: the verdict as a sentence.
    """
    rows = {}
    for source in sources:
        verdicts: dict[str, dict] = {}
        for claim in CLAIMS:
            row = _on_its_premises(claim, _row(claim, source, limits), source, verdicts)
            verdicts[claim.id] = row
            rows[claim.id, source.title, source.experiment] = row | {"said": _said(claim, row)}
    order = [claim.id for claim in CLAIMS]
    return pd.DataFrame(sorted(rows.values(), key=lambda row: order.index(row["claim"])))


def of_the_paper(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `claims_table` that are the paper's: no premise, and nothing that is asked of the paper."""
    return table[~table["where"].isin([PREMISE, BASELINE])]


def verdict_counts(table: pd.DataFrame) -> pd.DataFrame:
    """One row a source of `claims_table`: how many of the paper's claims have each of VERDICTS."""
    mine = of_the_paper(table)
    marks = pd.DataFrame({name: mine["verdict"] == name for name in VERDICTS})
    return marks.groupby(mine["source"], sort=False).sum()


def _row(claim: Claim, source: Source, limits: Limits) -> dict:
    limit = limit_of(claim, limits)
    row = {
        "claim": claim.id,
        "where": claim.where,
        "sentence": claim.sentence,
        "central": "yes" if claim.central else "no",
        "statistic": claim.statistic,
        "over": claim.over,
        "unit": claim.unit,
        "threshold": f"{claim.holds[0]} {limit:g}",
        "twin": claim.twin,
        "source": source.title,
        "experiment": source.experiment,
        "rests_on": source.rests_on,
        "scale": source.scale,
        "verdict": UNTESTED,
        **dict.fromkeys(("conditional_on", "case", "held", "cases", "note", "covers"), ""),
        **dict.fromkeys(("value", "low", "high", "n"), np.nan),
    }
    try:
        cases = over_trainings([claim.measure(one, limits) for one in source.trainings])
    except NotTested as reason:
        return row | {"note": str(reason)}
    tested = [case for case in cases if case.value is not None]
    if not tested:
        return row | {"note": "; ".join(dict.fromkeys(case.note for case in cases))}
    held = [case for case in tested if holds(claim, case, limits)]
    against = [case for case in tested if contradicts(claim, case, limits, len(tested))]
    deciding = min(against or tested, key=lambda case: margin(claim, case, limits))
    exact = deciding.interval is None and not any(deciding.slack)
    low, high = (np.nan, np.nan) if exact else deciding.ends()
    told = [_told(claim, case, limits, len(tested)) for case in cases]
    undecided = not against and len(held) < len(tested)
    why = _why(deciding) if undecided else ""
    return row | {
        "case": deciding.name,
        "value": deciding.value,
        "low": low,
        "high": high,
        "covers": deciding.covers + _slack_text(deciding),
        "verdict": CONTRADICTED if against else UNDECIDED if undecided else HOLDS,
        "held": f"{len(held)} of {len(tested)}",
        "cases": " | ".join(told) if len(told) > 1 else "",
        "note": "; ".join(filter(None, [deciding.note, why])),
        "n": deciding.n,
    }


def _why(case: Case) -> str:
    return "disturbed timing" if case.disturbed else "the interval includes the limit"


def _slack_text(case: Case) -> str:
    return "; with what a line between measured points may add" if any(case.slack) else ""


def _on_its_premises(claim: Claim, row: dict, source: Source, verdicts: dict[str, dict]) -> dict:
    """The row, void or conditional where the verdicts of what the claim rests on say so."""
    if row["verdict"] == UNTESTED:
        return row
    found = {id: verdicts[id] for id in claim.rests_on}
    false = [id for id, one in found.items() if _fails(one, source)]
    if false:
        why = f"rests on {', '.join(false)}"
        return row | {"verdict": VOID, "note": "; ".join(filter(None, [why, row["note"]]))}
    undecided = [id for id, one in found.items() if one["verdict"] == UNDECIDED]
    conditions = [id for one in found.values() for id in one["conditional_on"].split(", ") if id]
    return row | {"conditional_on": ", ".join(dict.fromkeys([*undecided, *conditions]))}


def _fails(premise: dict, source: Source) -> bool:
    untested = premise["verdict"] == UNTESTED and not source.published
    return untested or premise["verdict"] in (CONTRADICTED, VOID)


def _told(claim: Claim, case: Case, limits: Limits, among: int) -> str:
    if case.value is None:
        return f"{case.name}: {UNTESTED} ({case.note})"
    shown = None if case.interval is None and not any(case.slack) else case.ends()
    if holds(claim, case, limits):
        verdict = HOLDS
    else:
        verdict = "contradicts" if contradicts(claim, case, limits, among) else UNDECIDED
    disturbed = " (disturbed)" if case.disturbed else ""
    return f"{case.name}: {number(case.value)}{interval_text(shown)} {verdict}{disturbed}"


def _said(claim: Claim, row: dict) -> str:
    """The verdict as a sentence: what it is about, the number that decided, how many cases hold."""
    if row["verdict"] == UNTESTED:
        return f"{claim.sentence} Not tested: {row['note']}."
    if row["verdict"] == VOID:
        return f"{claim.sentence} Void: {row['note'].split(';')[0]}."
    interval = None if pd.isna(row["low"]) else (row["low"], row["high"])
    at = f" at {row['case']}" if row["case"] else ""
    several = f", {row['held']} hold" if row["cases"] else ""
    told = f"{row['verdict']}: {number(row['value'])}{interval_text(interval)}{at}{several}"
    limit = f"{row['unit']}; holds if {row['threshold']}"
    where = f" (if {row['conditional_on']} holds)" if row["conditional_on"] else ""
    return f"{claim.sentence} {told[0].upper()}{told[1:]} ({limit}){where}."
