"""What the page says first: the headline of a study, the full backbone with fewer steps, which setting to take."""

from dataclasses import dataclass

import pandas as pd

from duodiff.analysis import verify
from duodiff.analysis.claims.cases import interval_text, number
from duodiff.analysis.claims.sentences import headlines, warning
from duodiff.analysis.claims.statements import CLAIMS
from duodiff.analysis.claims.verdicts import (
    CONTRADICTED,
    HOLDS,
    UNDECIDED,
    UNTESTED,
    VERDICTS,
    VOID,
)
from duodiff.analysis.shipped import Shipped, Training
from duodiff.analysis.words import between, percent, with_half

SYMBOLS = {HOLDS: "✓", CONTRADICTED: "✗", UNDECIDED: "?", VOID: "∅", UNTESTED: "–"}
"""A sign for each verdict, so that it is told apart without its colour."""

_KEPT = "quality_kept"
_OPENINGS = {
    HOLDS: "DuoDiff keeps the image quality",
    CONTRADICTED: "DuoDiff does not keep the image quality",
    UNDECIDED: "it is undecided whether DuoDiff keeps the image quality",
}
_FEWER = ("lower_with_fewer_steps", "lower_with_fewer_calls")
_ALLOWED = (0.01, 0.05, 0.1)


@dataclass(frozen=True)
class Agreement:
    """A first sentence of the study, its verdict, and the verdict of this run."""

    claim: str
    text: str
    verdict: str
    mine: str

    @property
    def agrees(self) -> bool:
        """Whether both verdicts are the same."""
        return self.verdict == self.mine


@dataclass(frozen=True)
class Choice:
    """The fastest settings that lose at most `allowed` of the quality: with all steps, and with any number of them."""

    allowed: str
    own: dict | None
    any: dict | None


# --- sentences


def about(rows: pd.DataFrame) -> str:
    """What a study's claims are tested on."""
    first = rows.iloc[0]
    return f"{first['source']}, {first['scale']} scale, {first['rests_on']}"


def headline(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """The result of a study in one sentence.

    `rows` are its claims (`claims_table`), `table` its settings (`analysis.measured`).
    """
    kept = rows.set_index("claim").loc[_KEPT]
    if kept["verdict"] not in _OPENINGS:
        why = (
            warning(rows)
            or f"whether DuoDiff keeps the quality is {kept['verdict']}: {kept['note']}"
        )
        return f"On {about(rows)}: {why[0].lower()}{why[1:].rstrip('.')}."
    text = f"On {about(rows)}, {_OPENINGS[kept['verdict']]}"
    conditional = f" (if {kept['conditional_on']} holds)" if kept["conditional_on"] else ""
    interval = "" if pd.isna(kept["low"]) else f" {between(kept['low'], kept['high'])}"
    lost = f"it loses {percent(kept['value'], float('nan'))}{interval} of what separates the full"
    return (
        f"{text}{conditional}: at {kept['case']}, the setting that decides, {lost} backbone from the shallow one"
        f"{_speed(table, kept['case'])}."
    )


def _speed(table: pd.DataFrame, case: str) -> str:
    """The end of the headline: the speed of its setting."""
    mine = table[(table["setting"] == case.replace(" ", "")) & ~table["fewer"]]
    if mine.empty or mine["speedup"].isna().all():
        return ""
    row = mine.iloc[0]
    return f", at {with_half(row['speedup'], row['speedup_95'], 2)} times the speed"


def with_fewer_steps(table: pd.DataFrame) -> list[str]:
    """What a reader would try first, beside the headline: the full backbone with fewer steps."""
    most = table["steps"].max()
    fewer = table[table["fewer"] & (table["method"] == "full")]
    return [
        f"{row['steps']:.0f} of {most:.0f} steps: loses {percent(row['lost_share'], row['lost_share_95'])}, at"
        f" {with_half(row['speedup'], row['speedup_95'], 2)} times the speed"
        for _, row in fewer.iterrows()
    ]


def against_fewer_steps(rows: pd.DataFrame) -> list[str]:
    """Whether DuoDiff is better than fewer steps, as the claims say."""
    tested = rows[rows["claim"].isin(_FEWER) & (rows["verdict"] != UNTESTED)]
    return list(tested["said"])


def agreements(rows: pd.DataFrame, mine: dict[str, str]) -> list[Agreement]:
    """The first sentences of a study, each beside the verdict of a run, `mine` by claim."""
    verdicts = rows.set_index("claim")["verdict"]
    return [
        Agreement(claim, text, verdicts[claim], mine.get(claim, UNTESTED))
        for claim, text in headlines(rows).items()
    ]


def compared(run: list[Training], study: Shipped, config: dict) -> tuple[str, list[str]]:
    """The line of `verify` for the trainings of a run, and what is otherwise than in the shipped study."""
    share = verify.FALSE_ALARMS / len(run)
    found = [verify.compare(training, study, config, share) for training in run]
    alarms = verify.leave_one_out(study)
    differences = dict.fromkeys(text for one in found for text in one.differences)
    return verify.summed(found, alarms), list(differences)


# --- which setting


def choices(table: pd.DataFrame) -> list[Choice]:
    """The fastest settings whose whole interval loses at most 1, 5 and 10% of the quality, from `analysis.measured`."""
    upper = table["lost_share"] + table["lost_share_95"].fillna(0)
    found = []
    for allowed in _ALLOWED:
        kept = table[(upper <= allowed) & table["speedup"].notna()]
        own = kept[~kept["fewer"]]
        found.append(Choice(f"{100 * allowed:g}%", _fastest(own), _fastest(kept)))
    return found


def _fastest(rows: pd.DataFrame) -> dict | None:
    if rows.empty:
        return None
    row = rows.loc[rows["speedup"].idxmax()]
    return {
        "name": row["name"],
        "lost": percent(row["lost_share"], row["lost_share_95"]),
        "speedup": with_half(row["speedup"], row["speedup_95"], 2),
        "operations": with_half(row["operations"], float("nan"), 2),
    }


# --- claims


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict on one source, in words."""

    source: str
    verdict: str
    number: str
    at: str
    more: str
    cases: list[str]

    @property
    def symbol(self) -> str:
        """The sign of the verdict."""
        return SYMBOLS[self.verdict]


@dataclass(frozen=True)
class Card:
    """A claim: what it is, its test, and its verdicts, that of whoever speaks first."""

    id: str
    sentence: str
    central: bool
    how: str
    unit: str
    rests_on: tuple[str, ...]
    verdicts: list[Verdict]
    untested: list[str]


def cards(sources: dict[str, pd.DataFrame]) -> list[Card]:
    """The claims in the order of the paper; `sources` are rows of `claims_table` by the name of whom they are of.

    The first source's verdict comes first.
    """
    tables = {name: rows.set_index("claim") for name, rows in sources.items()}
    found = []
    for claim in CLAIMS:
        rows = {
            name: table.loc[claim.id] for name, table in tables.items() if claim.id in table.index
        }
        if not rows:
            continue
        first = next(iter(rows.values()))
        told = [_verdict(name, row) for name, row in rows.items()]
        found.append(
            Card(
                id=claim.id,
                sentence=claim.sentence,
                central=claim.central,
                how=_how(claim, first),
                unit=claim.unit,
                rests_on=claim.rests_on,
                verdicts=[told[0], *(one for one in told[1:] if one.verdict != UNTESTED)],
                untested=[one.source for one in told[1:] if one.verdict == UNTESTED],
            )
        )
    return found


def _how(claim, row: pd.Series) -> str:
    over = f", over {claim.over}" if claim.over else ""
    return f"{claim.where}. Measured: {claim.statistic}{over}. It holds if {claim.unit} {row['threshold']}."


def _verdict(source: str, row: pd.Series) -> Verdict:
    interval = None if pd.isna(row["low"]) else (row["low"], row["high"])
    n = "" if pd.isna(row["n"]) else f"n = {row['n']:.0f}"
    held = f"{row['held']} cases hold" if row["cases"] else ""
    conditional = f"only if {row['conditional_on']} holds" if row["conditional_on"] else ""
    parts = [
        row["rests_on"],
        f"{row['scale']} scale",
        n,
        row["covers"],
        held,
        conditional,
        row["note"],
    ]
    return Verdict(
        source=source,
        verdict=row["verdict"],
        number="" if pd.isna(row["value"]) else number(row["value"]) + interval_text(interval),
        at=row["case"],
        more="; ".join(filter(None, parts)),
        cases=row["cases"].split(" | ") if row["cases"] else [],
    )


def counted(found: list[Card]) -> list[tuple[str, str, int]]:
    """How many claims have which verdict: (symbol, verdict, number)."""
    verdicts = [card.verdicts[0].verdict for card in found]
    return [(SYMBOLS[name], name, verdicts.count(name)) for name in VERDICTS if name in verdicts]
