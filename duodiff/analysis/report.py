"""Tables as files: CSV with every digit, Markdown and HTML to read, LaTeX to print."""

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pandas as pd

from duodiff.analysis import front, metrics, resources, tables
from duodiff.analysis.cells import load_fewer_steps, load_records
from duodiff.analysis.specifications import readable_specifications
from duodiff.analysis.tables import comparison
from duodiff.running.files import write_csv, write_text

_WHOLE = ("t_s", "steps", "settings", "n", "nfe", "train_seed", "trainings", "reference_n")
_DIGITS = dict.fromkeys(_WHOLE, 0) | {
    "theta": 3,
    "lost_share": 3,
    "lost_share_sd": 3,
    "nearest_train_distance_q01": 3,
    "nearest_train_distance_q05": 3,
}
_SIGNIFICANT = ("kernel", "parameters_m", "gflops", "joules", "memory_mb")
_SYMBOLS = {"t_s": "$t_s$", "theta": r"$\theta$"}
_SPECIAL = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
}
# What Markdown would read as its own signs, and how a cell has it as text. In this order.
_MARKDOWN = (
    (r"\\", r"\\\\"),
    (r"&(?=[#A-Za-z])", "&amp;"),
    (r"<(?=[A-Za-z/!?])", "&lt;"),
    (r"([`|])", r"\\\1"),
    (r"\*(?!$)", r"\\*"),
    (r"(?<![^\W_])_|_(?![^\W_])", r"\\_"),  # within a word it is no emphasis
    (r"\](?=[(\[])", r"\\]"),
    (r"\$", "&#36;"),
    ("~", "&#126;"),
)
_STYLE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body{font:14px/1.4 system-ui,sans-serif;margin:1em}
.wide{overflow-x:auto}
table{border-collapse:collapse}
th,td{padding:.25em .6em;border-bottom:1px solid #ddd;text-align:right}
td{white-space:nowrap}
td:first-child,th:first-child{position:sticky;left:0;background:white}
th{vertical-align:bottom;border-bottom:2px solid #888}
thead tr:first-child:not(:last-child) th{text-align:center;border-bottom:1px solid #ddd;border-left:1em solid white}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}
.text td,.text th{text-align:left;vertical-align:top;min-width:7em;white-space:normal}
</style>
"""


def write_comparison(
    records: list[Path], published: Path, sampler: str, studies: dict, out: list[Path]
) -> str:
    """Writes one sampler's comparison with a published table to each path of `out` by suffix; a one-line summary.

    What is to be read begins with the eight columns of `tables.GLANCE`; HTML and Markdown have the others in a second
    table, CSV has all.
    """
    ours, fewer_steps = load_records(records), load_fewer_steps(records)
    table = comparison(ours, pd.read_csv(published), sampler, studies, fewer_steps)
    glance = tables.at_a_glance(table)
    left_out = {*tables.ASIDE, *tables.GLANCE, "method", "t_s", "theta"} - {"dataset"}
    others = table[[name for name in table if name not in left_out]]
    others.insert(1, "setting", glance["setting"])
    glance = glance.dropna(subset=["distance", "fid_paper"], how="all")
    columns = tables.COLUMNS | tables.GLANCE
    return _write(table, readable(glance, columns), out, readable(others, columns))


def write_metrics(records: list[Path], studies: dict, out: list[Path]) -> str:
    """Writes the table of all metrics to each path of `out` by suffix; a one-line summary."""
    every = pd.concat([load_records(records), load_fewer_steps(records)])
    table = metrics.all_metrics(every, studies)
    return _write(table, readable(table, metrics.COLUMNS), out)


def write_resources(records: list[Path], studies: dict, out: list[Path]) -> str:
    """Writes the table of what the methods need to each path of `out` by suffix; a one-line summary."""
    table = resources.resources_table(load_records(records), studies)
    return _write(table, readable(table, resources.COLUMNS), out)


def write_front(records: list[Path], studies: dict, out: list[Path]) -> str:
    """Writes what each family of settings saves to each path of `out` by suffix; a one-line summary."""
    table = front.front_table(front.front_points(records), studies)
    return _write(table, readable(front.as_text(table), front.COLUMNS), out)


def write_specifications(table: pd.DataFrame, out: list[Path]) -> str:
    """Writes Table 3 or 4 (of `specifications`) to each path of `out` by suffix; a one-line summary."""
    return _write(table, readable_specifications(table), out)


def _write(
    table: pd.DataFrame, shown: pd.DataFrame, out: list[Path], others: pd.DataFrame | None = None
) -> str:
    """Writes a table by suffix: CSV has all of it, the others show `shown`. HTML and Markdown have `others` below."""
    for path in out:
        match Path(path).suffix:
            case ".csv":
                write_csv(path, table)
            case ".md":
                more = "" if others is None else f"\nThe other columns:\n\n{markdown(others)}"
                write_text(path, markdown(shown) + more)
            case ".html":
                more = "" if others is None else _folded(others)
                write_text(path, page(shown.to_html(index=False, border=0)) + more)
            case ".tex":
                write_text(path, latex(shown))
    return f"{len(table)} rows"


def _folded(others: pd.DataFrame) -> str:
    """Further columns below a page's table, to be unfolded."""
    table = others.to_html(index=False, border=0)
    summary = "<summary>The other columns</summary>"
    return f'<details>{summary}<div class="wide">{table}</div></details>\n'


def page(body: str) -> str:
    """An HTML page of `body`, whose tables scroll sideways where the screen is narrow."""
    return f'{_STYLE}<div class="wide">{body}</div>\n'


def readable(table: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """The table as text under the headings of `columns`. Empty columns are left out; a missing number is a dash."""
    table = table.dropna(axis="columns", how="all")
    shown = pd.DataFrame(
        {name: [_cell(name, value) for value in table[name]] for name in table.columns}
    )
    shown.columns = pd.MultiIndex.from_tuples([columns[name] for name in table.columns])
    return shown


def _cell(name: str, value: str | float) -> str:
    if pd.isna(value):
        return "—"
    if isinstance(value, str):
        return value
    if name.startswith("seconds"):
        number, unit = (value, "s") if value >= 1 else (1000 * value, "ms")
        return f"{f'{number:#.3g}'.rstrip('.')} {unit}"
    if name.startswith(_SIGNIFICANT):
        return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    text = f"{value:.{_DIGITS.get(name, 2)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def markdown(table: pd.DataFrame) -> str:
    """A table of text as GitHub Markdown."""
    headings = [", ".join(filter(None, column)) for column in table.columns]
    rows = [[_in_markdown(text) for text in row] for row in [headings, *table.to_numpy().tolist()]]
    lines = [rows[0], ["---"] * len(table.columns), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _in_markdown(text: str) -> str:
    """`text` for a cell of a Markdown table, which shows it as it is."""
    for sign, written in _MARKDOWN:
        text = re.sub(sign, written, text)
    return text


def latex(table: pd.DataFrame, columns: str | None = None, environment: str = "tabular") -> str:
    """A table of text as LaTeX, for a document that uses booktabs (and longtable, if `environment` is longtable).

    `columns` is LaTeX's specification of the columns; by default two are set to the left, the others to the right.
    """
    columns = columns or "ll" + "r" * (len(table.columns) - 2)
    lines = [rf"\begin{{{environment}}}{{{columns}}}", r"\toprule"]
    groups = [(name, len(list(columns))) for name, columns in groupby(c[0] for c in table.columns)]
    if any(name for name, _ in groups):
        lines += _latex_groups(groups)
    symbols = [_SYMBOLS.get(column[1]) or _escape(column[1]) for column in table.columns]
    lines += [_latex_row(symbols), r"\midrule"]
    for first, rows in groupby(table.to_numpy().tolist(), lambda row: row[0]):
        lines += [_latex_row(map(_escape, row)) for row in rows]
        lines += [r"\midrule"] if first != table.iloc[-1, 0] else []
    return "\n".join([*lines, r"\bottomrule", rf"\end{{{environment}}}"]) + "\n"


def _latex_groups(groups: list[tuple[str, int]]) -> list[str]:
    """The row of headings that span each group's columns, and the rules below; a group is (name, width)."""
    heads, rules, first = [], [], 1
    for name, width in groups:
        if name:
            heads.append(rf"\multicolumn{{{width}}}{{c}}{{{_escape(name)}}}")
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        else:
            heads += [""] * width
        first += width
    return [" & ".join(heads) + r" \\", " ".join(rules)]


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escape(text: str) -> str:
    """`text` for LaTeX: special characters escaped, a number's minus in math."""
    if re.fullmatch(r"-[\d.]+", text):
        return f"${text}$"
    parts = [
        "".join(_SPECIAL.get(character, character) for character in p) for p in text.split("—")
    ]
    escaped = "---".join(re.sub("-(?=-)", "-{}", part) for part in parts)
    # The end of the row before would take a bracket or a star for its own argument.
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped.startswith(("[", "*")) else escaped
