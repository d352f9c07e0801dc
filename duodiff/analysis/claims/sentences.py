"""What the claims say of a study, as sentences: for the summary, the report and the README (no torch)."""

import pandas as pd

from duodiff.analysis.claims.statements import PREMISE
from duodiff.analysis.claims.verdicts import CONTRADICTED, HOLDS, UNDECIDED, UNTESTED, VOID

_GROUPS = {
    HOLDS: "These hold",
    CONTRADICTED: "Contradicted",
    UNDECIDED: "Undecided",
    VOID: "Void",
    UNTESTED: "Not tested",
}
_HEADLINES = (
    "quality_kept",
    "faster_than_base",
    "lower_at_equal_time",
    "lower_at_equal_operations",
    "heads_cost",
)


def warning(rows: pd.DataFrame) -> str:
    """What makes a study say nothing about t_s, with what to do; "" where nothing does. `rows` of one source."""
    premises = rows[rows["where"] == PREMISE].set_index("claim")
    false = [name for name in premises.index if premises["verdict"][name] == CONTRADICTED]
    if "full_beats_noise" in false:
        return "This study says nothing: the full backbone is no better than noise. Train longer."
    if "full_beats_shallow" in false:
        return "This study says nothing about t_s: the full backbone is no better than the shallow one. Train longer."
    if premises["verdict"]["full_beats_shallow"] == UNTESTED:
        why = premises["note"]["full_beats_shallow"]
        return f"This study says nothing about t_s: whether the full backbone is better is not tested ({why})."
    if premises["verdict"]["full_beats_shallow"] == UNDECIDED:
        return "It is undecided whether the full backbone is better than the shallow one: the rest is conditional."
    return "The images may be copies of training images." if "no_copies" in false else ""


def headlines(rows: pd.DataFrame) -> dict[str, str]:
    """The sentences of a study that a reader looks for first, by claim, those that were tested."""
    said = rows.set_index("claim")
    return {name: said["said"][name] for name in _HEADLINES if said["verdict"][name] != UNTESTED}


def paragraph(rows: pd.DataFrame) -> str:
    """Which of the paper's central sentences survive on one study, in one paragraph."""
    first, central = rows.iloc[0], rows[rows["central"] == "yes"]
    about = f"{first['source']} ({first['scale']} scale, {first['rests_on']})"
    parts = [f"The paper's {len(central)} central sentences on {about}."]
    if said := warning(rows):
        parts.append(said)
    for verdict, words in _GROUPS.items():
        found = central[central["verdict"] == verdict]
        if len(found):
            texts = [_text(row) for _, row in found.iterrows()]
            parts.append(f"{words}: {' '.join(texts)}")
    return " ".join(parts)


def _text(row: pd.Series) -> str:
    condition = f" (if {row['conditional_on']})" if row["conditional_on"] else ""
    return f"“{row['sentence']}”{condition}"
