"""The page of a run, results/index.html: the result, its figures and its sources in one file that needs no network."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from duodiff.analysis import shipped
from duodiff.analysis.cells import load_fewer_steps, load_records
from duodiff.analysis.figures import exit_layer_lines
from duodiff.analysis.front import family
from duodiff.analysis.measured import measured
from duodiff.analysis.report import readable
from duodiff.analysis.runs import MACHINES, machines
from duodiff.analysis.shipped import Shipped, Training
from duodiff.analysis.tables import ASIDE, COLUMNS, comparison
from duodiff.analysis.words import percent, with_half
from duodiff.page import charts, pictures, said
from duodiff.page.charts import Chart
from duodiff.page.pictures import Cell, Group
from duodiff.running.files import read_text, write_text
from duodiff.settings import text_of
from duodiff.study.grid import samplers

_TEXTS = ("case", "cases", "conditional_on", "covers", "held", "note", "over", "twin", "experiment")


@dataclass(frozen=True)
class Sources:
    """The files that a page is made from."""

    records: list[Path]
    exits: list[Path]
    samples: list[Path]
    data: list[Path]
    paper: Path
    claims: Path
    settings: Path
    times: Path
    study: Path | None


class File(NamedTuple):
    """A file that the page holds itself."""

    name: str
    what: str
    url: str


class Real(NamedTuple):
    """Training images as one picture."""

    source: str
    small: bool
    images: int


@dataclass(frozen=True)
class Section:
    """The part of the page about one experiment."""

    id: str
    title: str
    sampler: str
    metric: str
    n: int
    shipped: bool
    trainings: int
    headline: str
    commits: str
    fewer: list[str]
    against_fewer: list[str]
    agreements: list[said.Agreement]
    verify: str
    differences: list[str]
    choices: list[said.Choice]
    chosen_from: str
    charts: list[Chart]
    groups: list[Group]
    real: Real
    about_cells: dict[str, list[tuple[str, str]]]
    table: list[list[str]]
    cards: list[said.Card]
    counted: list[tuple[str, str, int]]
    downloads: list[File]


def write(sources: Sources, studies: dict, templates: Path, out: Path) -> str:
    """Writes the page to `out`; a one-line summary. `studies` maps an experiment to its title and paper_dataset."""
    text = page(sources, studies, templates)
    write_text(out, text)
    return f"{len(studies)} studies, {len(text.encode('utf-8')) / 1e6:.2f} MB"


def page(sources: Sources, studies: dict, templates: Path) -> str:
    """The page as text."""
    run = _trainings(sources.records)
    found = _speaking(sources.study)
    config = yaml.safe_load(read_text(sources.settings))
    every = load_records(sources.records)
    fewer = load_fewer_steps(sources.records)
    table2 = comparison(every, pd.read_csv(sources.paper), "ddpm", studies, fewer)
    claims = _claims(sources.claims)
    lines = exit_layer_lines(sources.exits, studies) if sources.exits else pd.DataFrame()
    cells = pictures.cells_of(sources.samples)
    real = {path.parent.name: path for path in map(Path, sources.data)}
    sections = [
        _section(
            name,
            studies[name]["title"],
            run[name],
            found.get(name),
            config=config,
            records=every[every["experiment"] == name],
            claims=claims,
            lines=lines,
            cells=cells.get(name, []),
            real=Real(*pictures.real(real[studies[name]["dataset"]])),
            table2=table2[table2["dataset"] == studies[name]["title"]],
        )
        for name in studies
    ]
    times = pd.read_csv(sources.times)
    where = machines(every, config["experiments"]).rename(columns=MACHINES)
    return _rendered(
        templates,
        sections=sections,
        headings=HEADINGS,
        minutes=f"{times['minutes'].sum():.1f}",
        jobs=int(times["jobs"].sum()),
        machines=_texts(where),
        table2=_texts(_flat(readable(table2.drop(columns=list(ASIDE)), COLUMNS))),
    )


def _rendered(templates: Path, **values) -> str:
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"json": json.dumps, "marker": charts.marker, "dashes": charts.dashes}
    environment.globals["symbols"] = said.SYMBOLS
    for name in ("style.css", "script.js"):
        values[name.partition(".")[0]] = read_text(templates / name)
    return environment.get_template("index.html").render(**values)


def _speaking(study: Path | None) -> dict[str, Shipped]:
    """The shipped studies that can speak, by experiment: those of several trainings."""
    found = shipped.read(study) if study else {}
    return {name: one for name, one in found.items() if len(one.halves[shipped.USUAL]) > 1}


def _trainings(records: list[Path]) -> dict[str, list[Training]]:
    """The trainings of the run by experiment."""
    folders = dict.fromkeys(path.parents[1] for path in map(Path, records))
    found: dict[str, list[Training]] = {}
    for folder in folders:
        found.setdefault(folder.parent.name, []).append(shipped.read_training(folder))
    return found


def _claims(path: Path) -> pd.DataFrame:
    return with_texts(pd.read_csv(path))


def with_texts(claims: pd.DataFrame) -> pd.DataFrame:
    """A table of claims whose empty texts are texts."""
    texts = {name: claims[name].astype(object).where(claims[name].notna(), "") for name in _TEXTS}
    return claims.assign(**texts)


def _commits(trainings: list[Training]) -> str:
    """The commits that trainings were measured by."""
    found = [
        made.get("commit", "") for one in trainings for made in one.made.get("measurements", [])
    ]
    return ", ".join(dict.fromkeys(name[:10] for name in found if name)) or "unknown"


# --- one experiment


def _section(
    name: str,
    title: str,
    run: list[Training],
    study: Shipped | None,
    *,
    config: dict,
    records: pd.DataFrame,
    claims: pd.DataFrame,
    lines: pd.DataFrame,
    cells: list[Cell],
    real: Real,
    table2: pd.DataFrame,
) -> Section:
    sampler = _sampler(run)
    mine = described(measured(run, sampler), records)
    own = claims[claims["experiment"] == name]
    speaking, table, verified = own, mine, ""
    differences: list[str] = []
    agreements: list[said.Agreement] = []
    sources = {"This run": own}
    if study is not None:
        speaking = with_texts(study.claims)
        table = measured(study.halves[shipped.USUAL], sampler)
        agreements = said.agreements(speaking, own.set_index("claim")["verdict"].to_dict())
        verified, differences = said.compared(run, study, config)
        sources = {"Shipped study": speaking} | sources
    published = claims[claims["experiment"] == ""]
    sources |= {str(title): rows for title, rows in published.groupby("source")}
    singles = [described(measured([one], sampler), records) for one in run] if len(run) > 1 else []
    costs = [x for x in ("ms", "operations") if mine[x].notna().sum() > 1]
    drawn = [charts.trade_off(mine, x, singles) for x in costs]
    if len(lines) and (lines["experiment"] == name).any():
        drawn.append(charts.exits(lines[lines["experiment"] == name]))
    cards = said.cards(sources)
    return Section(
        id=name,
        title=title,
        sampler=samplers()[sampler]["title"],
        metric=mine["metric"].iloc[0],
        n=int(mine["n"].iloc[0]),
        shipped=study is not None,
        trainings=len(run),
        headline=said.headline(speaking, table),
        commits=_commits(study.halves[shipped.USUAL] if study else run),
        fewer=said.with_fewer_steps(table),
        against_fewer=said.against_fewer_steps(speaking),
        agreements=agreements,
        verify=verified,
        differences=differences,
        choices=said.choices(table),
        chosen_from=said.about(speaking),
        charts=drawn,
        groups=pictures.groups(cells),
        real=real,
        about_cells={charts.cell_id(row): charts.said(row) for row in mine.to_dict("records")},
        table=_table(mine, table2),
        cards=cards,
        counted=said.counted(cards),
        downloads=_downloads(run, own),
    )


def described(table: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """The settings of `table`, each named schedule with its `family` and `runs`, which networks run at which t.

    `records` are those of one experiment. A schedule that differs between trainings has no `runs`.
    """
    named = records[records["method"] == "schedule"]
    found: dict[str, tuple[set, set]] = {}
    for parameters in named["parameters"]:
        families, runs = found.setdefault(text_of(parameters), (set(), set()))
        families.add(family(parameters))
        runs.add(_runs(parameters))
    # a budget of steps may choose the sampler's own in one training: chosen_steps comes after chosen
    shown = {setting: (max(families), runs) for setting, (families, runs) in found.items()}
    of = [shown.get(setting, ("", {""})) for setting in table["setting"]]
    return table.assign(
        family=[name for name, _ in of],
        runs=[next(iter(runs)) if len(runs) == 1 else "" for _, runs in of],
    )


def _runs(parameters: dict) -> str:
    """The networks of a named schedule in the order of sampling, and how many steps it has of its own."""
    parts = [f"{name} at t = {high} to {low}" for name, low, high in parameters["intervals"]]
    calls = len(parameters.get("timesteps", []))
    return ", ".join(parts) + (f"; {calls} steps" if calls else "")


def _sampler(run: list[Training]) -> str:
    """DDPM, or the first sampler there is."""
    found = {*pd.concat([training.numbers["sampler"] for training in run])}
    return next(name for name in samplers() if name in found)


HEADINGS = (
    "Setting",
    "Distance",
    "Minus the full backbone's",
    "Quality lost",
    "Time per image, ms",
    "Speed-up",
    "By operations",
    "Speed-up in the paper",
)
"""The columns of Table 2 on the page."""


def _table(mine: pd.DataFrame, table2: pd.DataFrame) -> list[list[str]]:
    """Table 2 in eight columns, a row a setting."""
    paper = table2.dropna(subset=["t_s", "speedup_paper"]).set_index("t_s")["speedup_paper"]
    rows = []
    for row in mine.to_dict("records"):
        is_full = row["method"] == "full" and not row["fewer"]
        t_s = float(row["setting"].partition("=")[2]) if row["setting"].startswith("t_s") else -1
        published = float("nan") if row["fewer"] else paper.get(t_s, float("nan"))
        minus = with_half(row["minus_full"], row["minus_full_95"], 2, sign="+")
        texts = [
            row["name"],
            with_half(row["distance"], row["distance_95"], 2),
            "" if is_full else minus,
            percent(row["lost_share"], row["lost_share_95"]),
            with_half(row["ms"], row["ms_95"], 2),
            with_half(row["speedup"], row["speedup_95"], 2),
            with_half(row["operations"], float("nan"), 2),
            with_half(published, float("nan"), 2),
        ]
        rows.append([text or "–" for text in texts])
    return rows


def _texts(table: pd.DataFrame) -> dict[str, list]:
    """A table as its headings and its rows of text."""
    return {"headings": list(table.columns), "rows": table.astype(str).to_numpy().tolist()}


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose headings, of a group each, are one line."""
    return table.set_axis([", ".join(filter(None, heading)) for heading in table.columns], axis=1)


def _downloads(run: list[Training], claims: pd.DataFrame) -> list[File]:
    """The records of a run, to be downloaded from the page."""
    numbers = [one.numbers.assign(train_seed=one.train_seed) for one in run]
    name = run[0].experiment
    return [
        File(
            f"{name}-numbers.csv.gz",
            "every record as a row: value, interval, n, setting, sampler, steps, seeds",
            pictures.packed(pd.concat(numbers).to_csv(index=False, float_format="%.9g")),
        ),
        File(
            f"{name}-made.json.gz",
            "what made the records: code, commit, device, kernels, libraries",
            pictures.packed(json.dumps({one.train_seed: one.made for one in run}, indent=1)),
        ),
        File(
            f"{name}-claims.csv.gz",
            "the claims table of this run",
            pictures.packed(claims.to_csv(index=False)),
        ),
    ]
