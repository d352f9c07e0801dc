"""What an earlier study left beside the tables and figures of this one."""

import pytest
from conftest import Workflow

from duodiff.running import receipts
from duodiff.running.files import write_text

# made without records, in seconds
FIGURE, TABLE = "results/figures/figure3.csv", "results/tables/table4.csv"


def leave(name: str) -> list[str]:
    """A figure of an earlier study, with its receipt, in the working directory."""
    paths = [f"results/figures/{name}.csv", f"results/figures/{name}.png"]
    for path in paths:
        write_text(path, name)
    work = ("workflow_scripts.plot_extrapolation", "plot_extrapolation")
    receipts.write(receipts.Plan("earlier", work, {}, [], paths))
    return paths


@pytest.fixture
def workflow(fresh, monkeypatch) -> Workflow:
    """A project with one figure of its study, and two figures that this study does not make."""
    fresh.snakemake("--cores", "1", FIGURE)
    monkeypatch.chdir(fresh.folder)
    return fresh


def test_nothing_of_an_earlier_study_stays_beside_new_items(workflow):
    left = leave("extrapolation") + leave("figure_of_an_older_version")
    mine = workflow.folder / "results/figures/mine.png"
    mine.write_text("mine", encoding="utf-8")
    # a dry run removes nothing, nor does a run that makes nothing beside them
    workflow.snakemake("--dry-run", TABLE)
    said = workflow.snakemake("--cores", "1", FIGURE)
    assert "Removed" not in said
    assert all((workflow.folder / path).exists() for path in left)
    config = workflow.folder / "config/test.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("title: Digits 8x8", "title: Ours"), encoding="utf-8")
    said = workflow.snakemake("--cores", "1", TABLE)
    assert not any((workflow.folder / path).exists() for path in left)
    assert mine.exists()
    assert (
        "not made by this one: results/figures/extrapolation,"
        " results/figures/figure_of_an_older_version\n"
    ) in said
    # the title has changed since the figure was made
    assert "Of an earlier run: results/figures/figure3;" in said
