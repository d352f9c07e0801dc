"""The paper's items as files: LaTeX, the same bytes from the same input, diagrams that follow the code."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from duodiff.analysis.diagrams import drawn, parts
from duodiff.analysis.figures import relative_points, trade_off_points
from duodiff.analysis.panels import noised_images
from duodiff.analysis.report import latex, readable
from duodiff.analysis.specifications import (
    architecture_table,
    published_values,
    readable_specifications,
    training_table,
)
from duodiff.data.store import write_store
from duodiff.metrics.architecture import describe
from duodiff.plotting import diagrams, figures, style
from duodiff.plotting.figures import trade_off
from duodiff.running.files import write_json
from duodiff.schedules import noise_schedule
from duodiff.study import config
from duodiff.study.grid import network_keywords, training_keywords

ROOT = Path(__file__).parents[3]
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
    inferred = [False, False, True]
    table = table.assign(panel="Digits", metric="fd_digits", inferred=inferred)
    return table.assign(spread=[0.5, None, None], lost_share=np.nan)


def test_the_same_values_give_the_same_bytes(tmp_path, points):
    first, again = (
        [tmp_path / f"{i}.{kind}" for kind in ("svg", "pdf", "png", "csv")] for i in (1, 2)
    )
    style.save(trade_off(points), points, first)
    time.sleep(1.1)  # a date in a file would show
    style.save(trade_off(points), points, again)
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.suffix
        assert one.stat().st_size > 100


# --- architectures (Table 3, Figures 3, 6 and 7) and training (Table 4)


@pytest.fixture(scope="module")
def described() -> dict:
    return describe(NETWORKS)


def test_a_description_is_read_off_the_network_as_it_runs(described):
    found = described
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
def test_a_change_of_a_network_changes_its_description(described, role, change):
    before = described
    after = describe(NETWORKS | {role: NETWORKS[role] | change})
    structure = {"full": "stages", "shallow": "stages", "adadiff": "uncertainty_head"}[role]
    assert before[role][structure] != after[role][structure]
    assert before[role]["parameters"] != after[role]["parameters"]


@pytest.fixture(scope="module")
def papers() -> dict[str, dict]:
    return config.published_experiments(ROOT / "config/paper.yaml")


@pytest.mark.slow
def test_table_3_computed_equals_published_to_its_printed_digits(papers):
    described = {name: describe(network_keywords(found)) for name, found in papers.items()}
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
    trainings = {name: training_keywords(found) for name, found in papers.items()}
    published = published_values(ROOT / "report/paper/table4.csv")
    table = training_table(trainings, published, {})
    differs = table[table["difference"] == "differs"]
    # the official ImageNet weights saw another schedule (docs/protocols.md)
    assert set(differs["dataset"]) == {"ImageNet 64x64", "ImageNet 256x256"}
    assert set(differs["quantity"]) == {"Noise schedule", "Time as the network is fed it"}
    assert table["paper"].notna().sum() == len(published)


def test_a_study_without_a_published_dataset_is_compared_with_what_all_share(papers):
    experiments = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    digits = config.complete(experiments)["experiments"]["digits"]
    study = {"title": "Digits", "paper_dataset": None, "training": training_keywords(digits)}
    published = published_values(ROOT / "report/paper/table4.csv")
    trainings = {name: training_keywords(found) for name, found in papers.items()}
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


@pytest.fixture(scope="module")
def deeper() -> dict:
    return describe(NETWORKS | {"full": NETWORKS["full"] | {"depth": 7, "embed_dim": 36}})


@pytest.mark.parametrize("draw", [diagrams.duodiff, diagrams.adadiff, diagrams.uncertainty])
def test_a_diagram_says_what_the_description_says(draw, described, deeper):
    def texts(networks):
        return [text.get_text() for text in draw("Digits", networks).axes[0].texts]

    assert texts(described) == texts(described)
    assert texts(described) != texts(deeper)
    blocks = [text for text in texts(deeper) if text.startswith("block ")]
    expected = {diagrams.duodiff: 7 + 3, diagrams.adadiff: 7, diagrams.uncertainty: 0}[draw]
    assert len(blocks) == expected


def test_an_uncertainty_without_time_is_drawn_without_it(described):
    blind = describe(NETWORKS | {"adadiff": {"timestep_aware": False}})
    for networks, joined in ((described, 1), (blind, 0)):
        texts = [t.get_text() for t in diagrams.uncertainty("Digits", networks).axes[0].texts]
        assert sum(text.startswith("concatenate") for text in texts) == joined
    assert any(text.startswith("linear, 24 → 1") for text in texts)


def test_the_diagrams_show_the_first_study_that_has_adadiff_else_the_paper(described):
    plain = {role: described[role] for role in ("full", "shallow")}
    found = {"studies": {"a": plain, "b": described}, "paper": {"cifar10": described}}
    studies = {"a": {"title": "A"}, "b": {"title": "B"}}
    assert drawn(found, studies)[0] == "B"
    assert drawn(found, {"a": {"title": "A"}})[0] == "CIFAR-10"
    table = parts(described, ["full", "adadiff"])
    assert (table["kind"] == "Block").sum() == 5
    assert table["part"].str.startswith("uncertainty head").sum() == 5
    assert table[table["part"] == "in_blocks.0"]["parameters"].item() > 0


# --- figures of the data and of the published numbers


@pytest.fixture
def architectures(tmp_path, described) -> Path:
    blocks = {"cifar10": 13, "celeba64": 13, "imagenet64": 17, "imagenet256": 21}
    paper = {name: {"full": {"architecture": {"depth": n}}} for name, n in blocks.items()}
    write_json(tmp_path / "architectures.json", {"studies": {}, "paper": paper})
    return tmp_path / "architectures.json"


def test_published_points_are_relative_to_their_full_backbone(architectures):
    points = relative_points([], ROOT / "report/paper/table2.csv", architectures, {})
    assert len(points) == 27
    mine = points[points["source"] == "ImageNet 64x64 (paper, FID)"].set_index("label")
    assert mine.loc["300", "relative_distance"] == pytest.approx(21.49 / 19.19)
    assert mine.loc["300", "time_saved"] == pytest.approx(100 * (1 - 3.80 / 5.12))
    assert mine.loc["0.07", "blocks_run"] == pytest.approx(100 * 12.61 / 17)
    inferred = points[points["inferred"]]
    assert set(inferred["source"]) == {"CIFAR-10 (paper, FID)"}
    assert set(inferred["method"]) == {"adadiff"}


def test_the_published_ddim_table_is_a_panel_of_its_own():
    points = trade_off_points([], ROOT / "report/paper/table1.csv", {})
    assert points["panel"].unique().tolist() == ["ImageNet 256x256, DDIM (paper, 5,120 images)"]
    assert points[points["method"] == "duodiff"]["distance"].tolist() == [
        27.82,
        29.17,
        30.06,
        34.36,
    ]


def test_input_and_target_of_figure_2_follow_the_forward_process(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    path = tmp_path / "shapes/manifest.json"
    splits = {"train": [0, 20], "held_out": [20, 60]}
    write_store(path, images, np.zeros(60), {"splits": splits, "num_classes": -1})
    study = {"title": "Shapes", "dataset": "shapes", "schedule": "sd"}
    (panel,), table = noised_images([path], {"a": study})
    title, shown = panel
    clean, *pairs = shown[1]
    np.testing.assert_allclose(clean, images[21] / 127.5 - 1, atol=1e-6)
    alphas = noise_schedule("sd").alphas_cumprod
    for t, x_t, eps in zip(table["t"], pairs[::2], pairs[1::2], strict=True):
        expected = alphas[t] ** 0.5 * clean + (1 - alphas[t]) ** 0.5 * eps
        np.testing.assert_allclose(x_t, expected, atol=1e-5)
    # noise and image are independent, so the correlation is the noise's share of the deviation
    variance = (images[20:] / 127.5 - 1).var()
    signal, noise = alphas[table["t"]] * variance, 1 - alphas[table["t"]]
    np.testing.assert_allclose(table["correlation"], (noise / (signal + noise)) ** 0.5, atol=0.02)
    assert (title, set(table["n"])) == ("Shapes", {40})
    style.save(figures.noised([panel], table), table, [tmp_path / "2.svg"])
    again = noised_images([path], {"a": study})
    style.save(figures.noised(*again), again[1], [tmp_path / "again.svg"])
    assert (tmp_path / "2.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()


# --- what the scripts of the items may import


def item_scripts() -> list[str]:
    return sorted(
        p.stem
        for kind in ("make", "plot")
        for p in (ROOT / "workflow_scripts").glob(f"{kind}_*.py")
    )


def test_drawing_imports_neither_torch_nor_snakemake():
    imported = {script: modules_of(script) for script in item_scripts()}
    page = imported.pop("make_page")
    others = {module for modules in imported.values() for module in modules}
    assert "duodiff.plotting" in others
    assert loaded(others) == []
    assert loaded(page) == ["seaborn"]  # the looks of the figures


def modules_of(script: str) -> set[str]:
    """The modules that a script imports from."""
    tree = ast.parse((ROOT / f"workflow_scripts/{script}.py").read_text(encoding="utf-8"))
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def loaded(modules: set[str]) -> list[str]:
    """Which of torch, snakemake and seaborn the import of these modules loads."""
    lines = [f"import {module}" for module in sorted(modules)]
    heavy = "{'torch', 'snakemake', 'seaborn'}"
    lines += ["import json, sys", f"print(json.dumps(sorted({heavy} & set(sys.modules))))"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        text=True,
        capture_output=True,
        check=True,
        cwd=ROOT,
        encoding="utf-8",
    )
    return json.loads(done.stdout)
