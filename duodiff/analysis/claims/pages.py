"""The table of claims as files: CSV with every column, Markdown and LaTeX tables, and a page with a card a claim."""

from html import escape
from pathlib import Path

import pandas as pd

from duodiff.analysis.claims.cases import interval_text, number
from duodiff.analysis.claims.sentences import paragraph
from duodiff.analysis.claims.verdicts import (
    CONTRADICTED,
    HOLDS,
    UNDECIDED,
    UNTESTED,
    VERDICTS,
    VOID,
    verdict_counts,
)
from duodiff.analysis.report import latex, markdown, page
from duodiff.running.files import write_csv, write_text

_SYMBOLS = {HOLDS: "✓", CONTRADICTED: "✗", UNDECIDED: "?", VOID: "∅", UNTESTED: "–"}
_STYLES = {
    HOLDS: "holds",
    CONTRADICTED: "fails",
    UNDECIDED: "open",
    VOID: "untested",
    UNTESTED: "untested",
}
_WIDTHS = r"p{.22\linewidth}p{.12\linewidth}p{.26\linewidth}p{.16\linewidth}lp{.14\linewidth}"
_STYLE = """<style>
.wide{max-width:52em}
.counts td,.counts th{white-space:normal}
section{overflow-wrap:anywhere;border:1px solid #bbb;border-radius:.4em;padding:.2em .9em .5em;margin:1em 0}
h2{font-size:1.1em;margin:.5em 0}
.how{color:#555;margin:.3em 0}
ul{list-style:none;padding:0;margin:0}
section>ul>li{border-top:1px solid #ddd;padding:.4em 0}
b{display:inline-block;padding:0 .4em;border:2px solid;border-radius:.3em}
.holds{color:#0a5c2b}
.fails{color:#a01010;border-style:dashed}
.open{color:#7a5200;border-style:dashed}
.untested{color:#555;border-style:dotted;font-weight:normal}
details ul{padding-left:1.2em}
</style>
<p>A claim holds where the whole interval (the number, where there is no interval) lies beyond the limit in every case
of its range. It is contradicted where some case lies wholly on the other side, by an interval that is joint over the
cases. Otherwise it is undecided. It is void where something that it rests on is false or not tested. The case shown is
the one furthest from holding.</p>
"""


def write_claims(table: pd.DataFrame, out: list[Path]) -> str:
    """Writes `verdicts.claims_table` to each path of `out` by suffix; a one-line summary."""
    for path in out:
        match Path(path).suffix:
            case ".csv":
                write_csv(path, table)
            case ".md":
                write_text(path, markdown(_readable(table)))
            case ".tex":
                write_text(path, latex(_readable(table), _WIDTHS, "longtable"))
            case ".html":
                write_text(path, _page(table))
    counts = table["verdict"].value_counts()
    return ", ".join(f"{counts.get(name, 0)} {name}" for name in VERDICTS)


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text, one row a claim and source; sources that lack the same are one row."""
    rows = []
    for _, claim in table.groupby("claim", sort=False):
        about = claim.iloc[0]
        said = {"Claim": f"{about['sentence']} ({about['where']})"}
        for _, row in _tested(claim).iterrows():
            rows.append(
                said
                | {
                    "Source": row["source"],
                    "Test": "; ".join(filter(None, [row["statistic"], row["over"]])) + _at(row),
                    "Value": _value(row),
                    "Limit": row["threshold"],
                    "Verdict": _verdict(row),
                }
            )
        for sources, note in _untested(claim):
            rows.append(said | {"Source": sources, "Test": note, "Verdict": UNTESTED})
    shown = pd.DataFrame(rows).fillna("—")
    return shown.set_axis(pd.MultiIndex.from_tuples([("", name) for name in shown]), axis=1)


def _tested(claim: pd.DataFrame) -> pd.DataFrame:
    return claim[claim["verdict"] != UNTESTED]


def _untested(claim: pd.DataFrame) -> list[tuple[str, str]]:
    """(sources, why) of the sources a claim is not tested on, those for the same reason together."""
    rows = claim[claim["verdict"] == UNTESTED]
    return [(_listed(*same["source"]), why) for why, same in rows.groupby("note", sort=False)]


def _listed(first: str, *others: str) -> str:
    """The titles of several sources; that they are the paper's is said once."""
    paper = "Paper, "
    return first + "".join(
        f", {title.removeprefix(paper)}" if title.startswith(paper) else f"; {title}"
        for title in others
    )


def _at(row: pd.Series) -> str:
    """The deciding case, where there are several to choose from."""
    return f"; here {row['case']}, {row['held']} hold" if row["cases"] else ""


def _value(row: pd.Series) -> str:
    interval = None if pd.isna(row["low"]) else (row["low"], row["high"])
    return number(row["value"]) + interval_text(interval)


def _verdict(row: pd.Series) -> str:
    """The verdict, with what it hangs on."""
    if row["verdict"] == VOID:
        return f"{VOID} ({row['note'].split(';')[0]})"
    return row["verdict"] + (f" if {row['conditional_on']}" if row["conditional_on"] else "")


def _page(table: pd.DataFrame) -> str:
    """One card a claim, with a block a source: symbol and verdict, value and interval, and all cases to unfold."""
    cards = [_card(claim) for _, claim in table.groupby("claim", sort=False)]
    said = "".join(f"<p>{escape(paragraph(rows))}</p>" for _, rows in _ours(table))
    return page(_STYLE + said + _counts(table) + "\n".join(cards))


def _ours(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each study of ours, by its title."""
    return list(table[table["experiment"] != ""].groupby("source", sort=False))


def _counts(table: pd.DataFrame) -> str:
    counts = verdict_counts(table).rename_axis("Source").astype(str)
    return counts.reset_index().to_html(index=False, border=0, classes="counts")


def _card(claim: pd.DataFrame) -> str:
    about = claim.iloc[0]
    over = f", over {about['over']}" if about["over"] else ""
    twin = f" At equal operations: {about['twin']}." if about["twin"] else ""
    how = f"{about['where']}: {about['statistic']}{over} ({about['unit']}). Holds if {about['threshold']}.{twin}"
    items = [_item(row) for _, row in _tested(claim).iterrows()]
    items += [
        f"<li>{_badge(UNTESTED, UNTESTED)} {escape(sources)}: {escape(why)}</li>"
        for sources, why in _untested(claim)
    ]
    return (
        f'<section id="{about["claim"]}"><h2>{escape(about["sentence"])}</h2>'
        f'<p class="how">{escape(how)}</p><ul>{"".join(items)}</ul></section>'
    )


def _badge(verdict: str, text: str) -> str:
    return f'<b class="{_STYLES[verdict]}">{_SYMBOLS[verdict]} {escape(text)}</b>'


def _item(row: pd.Series) -> str:
    value = f"{_value(row)}" + (f" at {row['case']}" if row["case"] else "")
    n = "" if pd.isna(row["n"]) else f"n = {row['n']:.0f}"
    about = "; ".join(filter(None, [row["note"], row["covers"], n, row["rests_on"], _scale(row)]))
    unfolded = ""
    if row["cases"]:
        cases = "".join(f"<li>{escape(case)}</li>" for case in row["cases"].split(" | "))
        unfolded = f"<details><summary>{row['held']} hold</summary><ul>{cases}</ul></details>"
    return (
        f"<li>{_badge(row['verdict'], _verdict(row))} <strong>{escape(row['source'])}</strong>: "
        f'{escape(value)}<p class="how">{escape(about)}</p>{unfolded}</li>'
    )


def _scale(row: pd.Series) -> str:
    return f"scale: {row['scale']}"
