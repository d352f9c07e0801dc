"""Titles of any printable text, through every table, page and figure: shown as they are, and read as nothing else."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import markdown
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from test_analysis import record, study
from test_claims import LIMITS, Study

from duodiff import records
from duodiff.analysis.cells import load_records
from duodiff.analysis.claims.pages import write_claims
from duodiff.analysis.claims.sources import our_sources
from duodiff.analysis.claims.verdicts import claims_table
from duodiff.analysis.figures import relative_points, trade_off_points
from duodiff.analysis.report import write_comparison, write_metrics, write_resources
from duodiff.analysis.report import write_specifications as write_specified
from duodiff.analysis.runs import write_run
from duodiff.analysis.specifications import published_values, training_table
from duodiff.analysis.summary import summary
from duodiff.data.store import write_store
from duodiff.metrics.architecture import describe
from duodiff.plotting import diagrams, figures, style
from duodiff.running.files import write_json
from duodiff.study import config

ROOT = Path(__file__).parents[3]
PAPER = ROOT / "report/paper"
ODD = (
    "Ba$$eline", "From $5 to $10", "a {b}", "{0} {experiment}", "%s %(x)d 100%", "<b>bold</b> &amp; <script>", "a|b",
    "\\", "\\$x$ \\alpha \\\\", "_", "__all__ a_b _c_", "*", "**x** *", "[a](b) [c][d]", "`code` ``", "~~gone~~",
    "-5", "--- a -- b", "t_s", "theta", "nan", "NA", "64", "1e3", "no", "null", "'",
    '"quoted", and more', "# x", "=1+1",
    "^2^", "a; Paper, CIFAR-10", "Ünïcödé → 日本語 עברית", "x" * 150, "a\u3000b\u00a0c",
)  # fmt: skip
DRAWN = (
    *ODD[:5],
    "<b>&amp;",
    "\\$x$ \\alpha",
    "_",
    "日本",
    "x" * 90,
)  # to be drawn, which takes longer
TITLES = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cn", "Co")), min_size=1, max_size=30
).filter(str.strip)
SUFFIXES = (".csv", ".md", ".tex", ".html")


def seen(text: str) -> str:
    """Text as a browser shows it: with single spaces."""
    return " ".join(text.split())


def any_titles(examples: int = 3, odd=ODD):
    """Runs a test with the titles of `odd`, then with made ones: each time studies of these titles side by side."""

    def decorate(test):
        made = st.lists(TITLES, min_size=1, max_size=5, unique_by=seen)
        health = list(HealthCheck)
        settled = settings(max_examples=examples, deadline=None, suppress_health_check=health)
        return settled(example(titles=list(odd))(given(titles=made)(test)))

    return decorate


# --- readers: what a person sees of a file


class _Cells(HTMLParser):
    """The texts of an HTML page, one an element."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.texts, self.tags = [""], set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.texts.append("")

    def handle_endtag(self, tag):
        self.texts.append("")

    def handle_data(self, data):
        self.texts[-1] += data


TEX = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textbar{}": "|",
    r"\textasciigrave{}": "`", r"$\pm$": "±", r"$t_s$": "t_s", r"$\theta$": "theta", "$<$": "<", "$>$": ">",
    "{[}": "[", "{*}": "*", "---": "—", "-{}": "-",
}  # fmt: skip


def of_latex(cell: str) -> str:
    """The text that LaTeX prints for a cell. Raises ValueError for a sign that is left to TeX."""
    printed = ""
    while cell:
        sign = next((s for s in TEX if cell.startswith(s)), None)
        if sign is None and cell[0] == "\\" and cell[1:2] in tuple("&%$#_{}"):
            printed, cell = printed + cell[1], cell[2:]
        elif sign is not None:
            printed, cell = printed + TEX[sign], cell[len(sign) :]
        elif number := re.match(r"\$(-[\d.]+)\$", cell):
            printed, cell = printed + number[1], cell[number.end() :]
        elif cell[0] in "\\&%$#_{}~^":
            raise ValueError(cell)
        else:
            printed, cell = printed + cell[0], cell[1:]
    return printed


def rows_of_latex(text: str) -> list[list[str]]:
    """The cells of the rows of a table, headings without those that span others."""
    lines = [
        line for line in text.splitlines() if line.endswith(r" \\") and "multicolumn" not in line
    ]
    assert all(not line.startswith(("[", "*")) for line in lines)
    return [[of_latex(c) for c in re.split(r" (?<!\\)& ", line[:-3])] for line in lines]


def check_table(folder: Path, titles: list[str], column: str, heads: bool = False) -> None:
    """The titles are values of the CSV column, and each of the other files shows them as they are."""
    values = pd.read_csv(folder / "t.csv", dtype=str, keep_default_na=False)
    assert set(titles) <= set(values[column])
    html = _Cells((folder / "t.html").read_text(encoding="utf-8"))
    assert set(map(seen, titles)) <= {seen(text) for text in html.texts}
    assert "script" not in html.tags
    source = (folder / "t.md").read_text(encoding="utf-8")
    shown = _Cells(markdown.markdown(source, extensions=["tables"]))
    assert {seen(title + ", ours" * heads) for title in titles} <= {seen(t) for t in shown.texts}
    assert shown.tags <= {"p", "table", "thead", "tbody", "tr", "th", "td"}
    text = (folder / "t.tex").read_text(encoding="utf-8")
    spans = re.findall(r"\\multicolumn\{\d+\}\{c\}\{(.*?)\}(?= &| \\\\)", text)
    cells = map(of_latex, spans) if heads else (c for row in rows_of_latex(text) for c in row)
    assert set(titles) <= set(cells)


# --- tables and pages


def names(titles: list[str]) -> list[str]:
    return [f"e{i:02d}" for i in range(len(titles))]


def studies(titles: list[str]) -> dict:
    return {
        name: {"title": title, "paper_dataset": None, "scale": "toy"}
        for name, title in zip(names(titles), titles, strict=True)
    }


def measured(titles: list[str], folder: Path) -> Path:
    """Records of studies that every table finds something in."""
    found = []
    for name in names(titles):
        found += study(experiment=name)
        for metric in ("gflops_per_trajectory", "resident_parameters"):
            found.append(record(metric, 2e6, "full", {"t_s": 0}, experiment=name))
    for one in found:
        if one.sampler and one.metric.startswith("fd_digits"):
            one.reference_n = 96
    records.write(folder / "records.json", found)
    return folder / "records.json"


@pytest.mark.slow
@any_titles()
def test_tables_show_any_title(titles, tmp_path):
    out = [tmp_path / f"t{suffix}" for suffix in SUFFIXES]
    paths, named = [measured(titles, tmp_path)], studies(titles)
    write_comparison(paths, PAPER / "table2.csv", "ddpm", named, out)
    check_table(tmp_path, titles, "dataset")
    for write in (write_metrics, write_resources):
        write(paths, named, out)
        check_table(tmp_path, titles, "dataset")


@any_titles(9)
def test_specifications_show_any_title_above_their_columns(titles, tmp_path):
    training = {"training": {"backbones": {"steps": 9}}}
    named = {name: about | training for name, about in studies(titles).items()}
    table = training_table({}, published_values(PAPER / "table4.csv"), named)
    write_specified(table, [tmp_path / f"t{suffix}" for suffix in SUFFIXES])
    check_table(tmp_path, titles, "dataset", heads=True)


@pytest.mark.slow
@any_titles(2)
def test_claims_and_summary_show_any_title(titles, tmp_path):
    made = Study().records()
    found = [replace(r, experiment=name) for name in names(titles) for r in made]
    records.write(tmp_path / "claims.json", found)
    sources = our_sources(load_records([tmp_path / "claims.json"]), studies(titles))
    write_claims(claims_table(sources, LIMITS), [tmp_path / f"t{suffix}" for suffix in SUFFIXES])
    check_table(tmp_path, titles, "source")
    claims = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, dtype={"source": str})
    lines = summary([measured(titles, tmp_path)], [], studies(titles), claims).splitlines()
    for title in titles:
        assert any(line.startswith(f"{title} (corrected protocol") for line in lines)
        assert any(line.startswith(f"  {title}: ") for line in lines)


@any_titles()
def test_the_page_of_a_run_shows_any_title(titles, tmp_path):
    page, times, kept = (tmp_path / name for name in ("run.html", "times.csv", "config.yaml"))
    rows = [
        vars(r) | {"made": {"device": title, "libraries": {}}}
        for name, title in zip(names(titles), titles, strict=True)
        for r in study(experiment=name)
    ]
    write_json(tmp_path / "records.json", rows)
    chosen = {"experiments": studies(titles)}
    write_run(
        [tmp_path / "records.json"], tmp_path, [], [], chosen, overview=page, times=times, settings=kept
    )  # fmt: skip
    shown = [seen(t) for t in _Cells(page.read_text(encoding="utf-8")).texts]
    assert all(shown.count(seen(title)) >= 2 for title in titles)  # as experiment and as device
    assert yaml.safe_load(kept.read_text(encoding="utf-8")) == chosen


# --- figures


def drawn(figure, tmp_path: Path, titles: list[str]) -> None:
    """Draws the figure as files, and checks that the titles are among its texts as they are."""
    style.save(figure, pd.DataFrame(), [tmp_path / "f.svg"])
    texts = figure.findobj(Text)
    for title in titles:
        shown = [text for text in texts if title in text.get_text()]
        assert any(not text.get_parse_math() for text in shown), title
    maths = {text.get_text() for text in texts if text.get_parse_math()}
    assert not {t for t in titles if t.count("$") > 1} & maths


@pytest.fixture(scope="module")
def networks() -> dict:
    net = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 24, "depth": 3}
    net |= {"num_heads": 2, "num_classes": 3}
    return describe({"full": net, "shallow": net, "adadiff": {"timestep_aware": True}})


@pytest.fixture(scope="module")
def architectures(tmp_path_factory) -> Path:
    blocks = ("cifar10", "celeba64", "imagenet64", "imagenet256")
    paper = {name: {"full": {"architecture": {"depth": 13}}} for name in blocks}
    path = tmp_path_factory.mktemp("networks") / "architectures.json"
    write_json(path, {"studies": {}, "paper": paper})
    return path


def by_title(titles: list[str]) -> dict:
    """A figure of each kind whose data has a column of titles."""
    each = pd.DataFrame({"title": titles})
    exits = pd.DataFrame(
        {"t": [0, 500, 999], "theta": 0.1, "mean": 3.0, "std": 0.5, "depth": 7, "n": 64}
    ).assign(min=2, max=7)
    curves = pd.DataFrame(
        {"model": ["full", "heads"], "step": 1, "train_loss": 0.2, "held_out_loss": 0.1}
    )
    losses = pd.DataFrame(
        {"network": ["full", "shallow"], "t": 0, "mse": [0.1, 0.2], "layer": np.nan}
    )
    points = pd.DataFrame(
        {"n": [10, 20, 40], "distance": [3.0, 2.5, 2.2], "metric": "fd_x", "t_s": 0}
    )
    points = points.assign(limit=2.0, slope=1.0, r2=0.9)
    alike = pd.DataFrame({"t": [50, 250, 500, 750, 999], "correlation": 0.5, "n": 9})
    image, square = np.zeros((11, 1, 4, 4), np.float32), np.zeros((2, 1, 4, 4), np.uint8)
    about = {"labels": ["1", "2"], "adadiff": [], "duodiff": [("0", square)], "schedule": []}
    panels = [(title, [image]) for title in titles]
    return {
        "exit_layers": lambda: figures.exit_layers(each.merge(exits, "cross")),
        "training": lambda: figures.training_curves(each.merge(curves, "cross")),
        "denoising": lambda: figures.denoising_losses(each.merge(losses, "cross")),
        "extrapolation": lambda: figures.extrapolations(each.merge(points, "cross")),
        "noised": lambda: figures.noised(panels, each.merge(alike, "cross")),
        "qualitative": lambda: figures.qualitative([{"title": t} | about for t in titles]),
    }


@pytest.mark.slow
@any_titles(2, DRAWN)
@pytest.mark.parametrize("name", by_title([]))
def test_figures_show_any_title(titles, name, tmp_path):
    drawn(by_title(titles)[name](), tmp_path, titles)


@pytest.mark.slow
@any_titles(2, DRAWN)
def test_trade_offs_show_any_title(titles, architectures, tmp_path):
    paths, named = [measured(titles, tmp_path)], studies(titles)
    points = trade_off_points(paths, PAPER / "table2.csv", named)
    drawn(figures.trade_off(points), tmp_path, titles)
    points = relative_points(paths, PAPER / "table2.csv", architectures, named)
    drawn(figures.relative(points), tmp_path, titles)


@pytest.mark.slow
@any_titles(2, DRAWN)
def test_galleries_and_diagrams_show_any_title(titles, networks, tmp_path):
    draws = [diagrams.duodiff, diagrams.adadiff, diagrams.uncertainty]
    for i, title in enumerate(titles):
        drawn(draws[i % 3](title, networks), tmp_path, [title])
        drawn(figures.gallery(title, [SQUARE]), tmp_path, [title])


SQUARE = ("$t_s$ = 0", np.zeros((1, 1, 4, 4), np.uint8))


@pytest.mark.parametrize("title", ODD[:3])
def test_a_title_is_drawn_as_plain_text_beside_mathematics(title, tmp_path):
    figure = figures.gallery(title, [SQUARE])
    drawn(figure, tmp_path, [title])
    maths = [text for text in figure.findobj(Text) if text.get_text() == "$t_s$ = 0"]
    assert [text.get_parse_math() for text in maths] == [True]


def test_characters_that_the_font_lacks_are_named_once(tmp_path, caplog):
    drawn(figures.gallery("a 日本", [SQUARE]), tmp_path, ["a 日本"])
    assert caplog.messages == ["the font of the figures has no glyph for 日本: boxes are drawn"]


# --- where a title comes from, and where it goes


@pytest.mark.parametrize("title", ["a\nb", "a\tb", "a\x00", "a\u2028b", "\ud800", "  "])
def test_a_title_that_is_no_line_of_text_is_refused(title):
    chosen = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    chosen["experiments"]["digits"]["title"] = title
    with pytest.raises(config.ConfigError, match=r"title: found .*; accepted: one line of print"):
        config.complete(chosen)


@pytest.mark.parametrize("title", ODD)
def test_a_title_that_is_a_line_of_text_is_accepted(title):
    chosen = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    chosen["experiments"]["digits"]["title"] = title
    assert config.complete(chosen)["experiments"]["digits"]["title"] == title


PLAIN = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
UTF_8 = {"LC_ALL": "C.utf8", "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)}


def scripts(folder: Path, environment: dict) -> dict[str, bytes]:
    """The files that the scripts of a table, of the claims' summary and of a gallery write, by name."""
    folder.mkdir()
    paths = folder / "records.json"
    records.write(paths, [replace(r, experiment="e00") for r in Study().records()])
    named = json.dumps(studies(["Bäume → 日本 θ"]))
    for name in ("real", "cell"):
        about = {"splits": {"held_out": [0, 2], "train": [2, 4]}, "experiment": "e00"}
        about |= {"train_seed": 0, "seed": 0, "method": "full", "parameters": {"t_s": 0}}
        about |= {"sampler": {"name": "ddpm", "steps": 5}}
        write_store(
            folder / name / "manifest.json", np.zeros((4, 1, 8, 8), np.uint8), np.zeros(4), about
        )
    calls = {
        "make_table2": ["--records", paths, "--paper", PAPER / "table2.csv",
                        "--out", "t.csv", "t.md", "t.tex", "t.html"],
        "make_claims": ["--records", paths, "--table1", PAPER / "table1.csv", "--table2", PAPER / "table2.csv",
                        "--limits", json.dumps(LIMITS), "--out", "c.csv", "c.md", "c.tex", "c.html"],
        "plot_gallery": ["--samples", "cell/manifest.json", "--images", "real/manifest.json",
                         "--out", "g.png", "g.csv"],
        "summarise": ["--records", paths, "--scores", "--curves", "--claims", "c.csv", "--out", "s.txt"],
    }  # fmt: skip
    for script, options in calls.items():
        command = [sys.executable, ROOT / f"workflow_scripts/{script}.py", *options]
        command += ["--studies", named, "--log", f"{script}.log"]
        done = subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)} | environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    return {path.name: path.read_bytes() for path in folder.glob("?.*")}


@pytest.mark.slow
def test_a_locale_of_ascii_gives_the_same_files(tmp_path):
    plain = scripts(tmp_path / "plain", PLAIN)
    assert "Bäume → 日本 θ".encode() in plain["t.csv"]
    assert len(plain) == 4 + 4 + 2 + 1
    assert plain == scripts(tmp_path / "utf8", UTF_8)
