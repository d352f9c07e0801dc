"""The paper's items as files: LaTeX, and the same bytes from the same input."""

import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from duodiff import config
from duodiff.analysis.report import latex, readable
from duodiff.analysis.specifications import (
    architecture_table,
    published_values,
    readable_specifications,
    training_table,
)
from duodiff.metrics.architecture import describe
from duodiff.plotting import style
from duodiff.plotting.figures import trade_off

ROOT = Path(__file__).parents[2]
NETWORKS = {
    "full": {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 24, "depth": 5}
    | {"num_heads": 2, "num_classes": 3},
    "adadiff": {"timestep_aware": True},
}
NETWORKS["shallow"] = NETWORKS["full"] | {"depth": 3}


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


# --- architectures (Table 3, Figures 3, 6 and 7) and training (Table 4)


def test_a_description_is_read_off_the_network_as_it_runs():
    found = describe(NETWORKS)
    full, adadiff = found["full"], found["adadiff"]
    blocks = [stage["name"] for stage in full["stages"] if stage["kind"] == "Block"]
    assert blocks == ["in_blocks.0", "in_blocks.1", "mid_block", "out_blocks.0", "out_blocks.1"]
    assert full["skips"] == [["in_blocks.1", "out_blocks.0"], ["in_blocks.0", "out_blocks.1"]]
    stages = {stage["name"]: stage for stage in full["stages"]}
    assert stages["patch_embed"]["out"] == [1, 16, 24]
    assert stages["out_blocks.0"]["in"] == [[1, 18, 24], [1, 18, 24]]
    assert stages["final_layer"]["out"] == [1, 1, 8, 8]
    assert full["block"][0]["name"] == "skip_linear"
    assert [head["uncertainty"]["layer"] for head in adadiff["heads"]] == [0, 1, 2, 3, 4]
    assert [head["output"]["layer"] for head in adadiff["heads"]] == [0, 1, 2, 3, 4]
    assert adadiff["uncertainty_head"]["linear"] == [48, 1]
    operations = [name for name, _ in adadiff["uncertainty_head"]["operations"]]
    assert operations[-2:] == ["sigmoid", "mean"]
    assert len(found["shallow"]["skips"]) == 1


@pytest.mark.parametrize(
    ("role", "change"),
    [
        ("full", {"depth": 7}),
        ("full", {"conv": False}),
        ("full", {"num_classes": -1}),
        ("shallow", {"depth": 5}),
        ("adadiff", {"timestep_aware": False}),
    ],
)
def test_a_change_of_a_network_changes_its_description(role, change):
    before = describe(NETWORKS)
    after = describe(NETWORKS | {role: NETWORKS[role] | change})
    structure = {"full": "stages", "shallow": "stages", "adadiff": "uncertainty_head"}[role]
    assert before[role][structure] != after[role][structure]
    assert before[role]["parameters"] != after[role]["parameters"]


@pytest.fixture(scope="module")
def papers() -> dict[str, dict]:
    return config.published_experiments(ROOT / "config/paper.yaml")


def test_table_3_computed_equals_published_to_its_printed_digits(papers):
    described = {name: describe(config.networks(found)) for name, found in papers.items()}
    published = published_values(ROOT / "report/paper/table3.csv")
    table = architecture_table({"studies": {}, "paper": described}, published, {})
    assert table["dataset"].nunique() == 4
    compared = table[table["difference"].notna()]
    measured = compared["quantity"].str.contains("Parameters|GFLOPs")
    assert measured.sum() == 4 * 2 * 2
    assert (compared[~measured]["difference"] == "equal").all()
    assert len(compared) == len(published)
    for row in compared[measured].itertuples():
        assert f"{float(row.ours):.2f}" == row.paper
        assert float(row.difference) == pytest.approx(float(row.ours) - float(row.paper), abs=1e-6)


def test_table_4_names_every_difference_of_the_papers_experiments(papers):
    trainings = {name: config.training(found) for name, found in papers.items()}
    published = published_values(ROOT / "report/paper/table4.csv")
    table = training_table(trainings, published, {})
    differs = table[table["difference"] == "differs"]
    # the official ImageNet weights saw another schedule (docs/protocols.md)
    assert set(differs["dataset"]) == {"ImageNet 64x64", "ImageNet 256x256"}
    assert set(differs["quantity"]) == {"Noise schedule", "Time as the network is fed it"}
    assert table["paper"].notna().sum() == len(published)


def test_a_study_without_a_published_dataset_is_compared_with_what_all_share(papers):
    experiments = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    digits = config.complete(experiments)["experiments"]["digits"]
    study = {"title": "Digits", "paper_dataset": None, "training": config.training(digits)}
    published = published_values(ROOT / "report/paper/table4.csv")
    trainings = {name: config.training(found) for name, found in papers.items()}
    table = training_table(trainings, published, {"digits": study})
    mine = table[(table["dataset"] == "Digits") & (table["model"] == "Backbones trained here")]
    mine = mine.set_index("quantity")
    assert mine.loc["Learning rate", ["paper", "ours", "difference"]].tolist() == [
        "0.0002",
        "0.004",
        "differs",
    ]
    assert mine.loc["Gradient clipping (norm)", "difference"] == "equal"
    assert pd.isna(mine.loc["Steps", "paper"])
    shown = readable_specifications(table)
    assert len(shown) == len(table[["model", "quantity"]].drop_duplicates())
    assert shown.columns[2] == ("Digits", "paper")
    assert "0*" in shown[("CIFAR-10", "paper")].tolist()
