"""The paper's items as files: LaTeX, and the same bytes from the same input."""

import time

import pandas as pd
import pytest

from duodiff.analysis.report import latex, readable
from duodiff.plotting import style
from duodiff.plotting.figures import trade_off


def test_latex_escapes_and_spans_the_groups():
    columns = {"dataset": ("", "Dataset"), "method": ("", "Method"), "t_s": ("", "t_s")}
    columns |= {"paper": ("Cost & more", "paper_1"), "ours": ("Cost & more", "± (95%)")}
    table = pd.DataFrame({"dataset": ["A&B_{~^\\}"], "method": ["50% #1 $<>"], "t_s": [300]})
    shown = readable(table.assign(paper=-0.5, ours="—"), columns)
    assert latex(shown).splitlines() == [
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r" &  &  & \multicolumn{2}{c}{Cost \& more} \\",
        r"\cmidrule(lr){4-5}",
        r"Dataset & Method & $t_s$ & paper\_1 & $\pm$ (95\%) \\",
        r"\midrule",
        r"A\&B\_\{\textasciitilde{}\textasciicircum{}\textbackslash{}\} & 50\% \#1 \$$<$$>$ & 300 & $-0.50$ & --- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.fixture
def points() -> pd.DataFrame:
    rows = [("full", "", 2.0, 10.0), ("duodiff", "300", 1.5, 11.0), ("adadiff", "0.1", 1.6, 12.0)]
    table = pd.DataFrame(rows, columns=["method", "label", "seconds", "distance"])
    return table.assign(panel="Digits", metric="fd_digits", spread=[0.5, None, None])


@pytest.mark.parametrize("kind", ["svg", "pdf", "png", "csv"])
def test_the_same_values_give_the_same_bytes(tmp_path, points, kind):
    paths = [tmp_path / f"{i}.{kind}" for i in (1, 2)]
    for path in paths:
        style.save(trade_off(points), points, [path])
        time.sleep(1.1)  # a date in the file would show
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size > 100
