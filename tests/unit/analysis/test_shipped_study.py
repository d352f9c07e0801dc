"""The shipped study itself: its files, what `verify` finds in tampered copies of it, and the README's numbers."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from duodiff.analysis import shipped, shipped_page, verify
from duodiff.analysis.cells import distance_name
from duodiff.analysis.measured import measured
from duodiff.analysis.words import percent
from duodiff.page import said
from duodiff.page.page import with_texts
from duodiff.running import receipts

ROOT = Path(__file__).parents[3]
STUDY = ROOT / "report/study"
STUDIES = sorted({path.parents[1] for path in ROOT.glob("report/*/*/study.json")})
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study() -> shipped.Shipped:
    return shipped.read(STUDY)["digits"]


def test_its_files_are_small(study):
    sizes = [path.stat().st_size for path in STUDY.rglob("*") if path.is_file()]
    assert max(sizes) < 2_000_000
    assert sum(sizes) < 6_000_000


@pytest.mark.parametrize("folder", STUDIES, ids=lambda path: path.name)
def test_no_record_of_a_study_is_large(folder):
    records = [path for path in folder.rglob("*") if path.suffix in (".csv", ".json", ".md")]
    assert 0 < max(path.stat().st_size for path in records) < 1_000_000


def test_it_has_ten_trainings_and_five_of_them_under_other_kernels(study):
    seeds = {half: [t.train_seed for t in found] for half, found in study.halves.items()}
    assert seeds == {"usual": [*range(10)], "other_kernels": [*range(5)]}
    kernels = [
        {made.get("kernels") for role in found[0].made.values() for made in role} - {None}
        for found in study.halves.values()
    ]
    assert [len(one) for one in kernels] == [1, 1]
    assert kernels[0] != kernels[1]


@pytest.mark.parametrize("folder", STUDIES, ids=lambda path: path.name)
def test_a_page_is_what_the_code_makes_of_its_records(folder):
    """Where it is not: `duodiff.analysis.shipped_page.write(Path("report/study"))`, say."""
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page == "\n".join(map(shipped_page.page, shipped.read(folder).values()))


def test_its_networks_are_of_this_code():
    """Where they are not, `make sample-only` refuses them: `make study` makes the study anew."""
    folders = sorted(STUDY.glob("*/networks/*"))
    assert [folder.name for folder in folders] == ["full", "heads", "shallow"]
    for folder in folders:
        receipt = receipts.read(folder / "receipt.json")
        module, name = next(iter(receipt["code"])).split(": ")
        assert [*receipts.differences(receipt, (module, name), receipt["options"])] == []


# --- verify


def outside(study: shipped.Shipped, numbers: pd.DataFrame) -> list[str]:
    """The named quantities that are outside, of a run with the machine and code of the study."""
    run = replace(study.halves["usual"][-1], numbers=numbers)
    return verify.compare(run, study, {}).outside()


@pytest.fixture
def numbers(study) -> pd.DataFrame:
    """The numbers of one training, to be tampered with."""
    return study.halves["usual"][-1].numbers.copy()


def first_seed(numbers: pd.DataFrame, metric: str) -> pd.Series:
    """Which rows are of this metric at the first sampling seed and all steps."""
    return (numbers["metric"] == metric) & (numbers["seed"] == 0) & (numbers["steps"] == 50)


def test_leaving_one_training_out_raises_few_false_alarms(study):
    alarms = verify.leave_one_out(study)
    assert len(alarms) == 15
    assert sum(map(bool, alarms.values())) <= 3  # 5% of 15, and Poisson's 97.5% above it


def test_a_shipped_training_is_inside(study, numbers):
    assert outside(study, numbers) == []


@pytest.mark.parametrize("setting", ["t_s=300", "t_s=500", "t_s=700", "theta=q0.25"])
def test_an_exchanged_store_is_found(study, numbers, setting):
    """The samples of a setting are those of the shallow backbone."""
    rows = first_seed(numbers, distance_name(numbers)) & (numbers["sampler"] == "ddpm")
    shallow = numbers.loc[rows & (numbers["setting"] == "t_s=1000"), "value"].item()
    numbers.loc[rows & (numbers["setting"] == setting), "value"] = shallow
    assert len(outside(study, numbers)) == 1


def test_each_doubled_time_is_found(study, numbers):
    times = numbers.index[(numbers["metric"] == "speedup") & (numbers["method"] != "full")]
    assert len(times) > 10
    for row in times:
        doubled = numbers.copy()
        doubled.loc[row, "value"] /= 2
        assert outside(study, doubled) == ["times"]


def test_each_moved_theta_is_found(study, numbers):
    """The cell of a quantile was run at the threshold of another, so its exits are the other's."""
    settings = sorted(numbers.dropna(subset="theta")["setting"].unique())
    assert len(settings) == 5
    thetas = numbers.groupby("setting")["theta"].first()
    rows = first_seed(numbers, "mean_exit_layer")
    layers = numbers[rows].set_index("setting")["value"]
    for setting, other in zip(settings, [*settings[-1:] * 3, *settings[:1] * 2], strict=True):
        moved = numbers.copy()
        moved.loc[moved["setting"] == setting, "theta"] = thetas[other]
        moved.loc[rows & (moved["setting"] == setting), "value"] = layers[other]
        assert outside(study, moved) == ["exits"]


# --- what README.md and docs/study.md say of it


def quoted(path: str, heading: str) -> str:
    """A section of a page."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]


def unquoted(section: str) -> str:
    """A section's words in one line, without the marks of quotations."""
    return " ".join(section.replace("\n> ", " ").split())


def test_the_readme_opens_with_the_headline_and_rows_of_the_study(study):
    section = quoted("README.md", "Does it hold?")
    table = measured(study.halves[shipped.USUAL], "ddpm")
    assert said.headline(with_texts(study.claims), table) in unquoted(section)
    page = (STUDY / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) > 8
    assert [row for row in rows if row not in page and "---" not in row] == []
    counts = shipped_page.agreement(study).partition(". Of the ")[0]
    assert counts in unquoted(section)


def test_what_the_docs_say_of_seeds_kernels_and_settings_is_of_the_study(study):
    section = unquoted(quoted("docs/study.md", "What the study shows"))
    assert shipped_page.moved(study) in section
    table = measured(study.halves[shipped.USUAL], "ddpm").set_index(["steps", "setting"])
    for steps, t_s in ((50, 500), (50, 700), (20, 500)):
        row = table.loc[steps, f"t_s={t_s}"]
        assert f"loses {percent(row['lost_share'], row['lost_share_95'])}" in section
    assert f"at {table.loc[50, 't_s=500']['speedup']:.2f} times the speed" in section
    assert f"± {table.loc[50, 't_s=500']['minus_full_95']:.2f} at" in section
    numbers = pd.concat(one.numbers for one in study.halves[shipped.USUAL])
    chosen = (numbers["metric"] == distance_name(numbers)) & (numbers["setting"] == "t_s=0")
    ddpm = (numbers["sampler"] == "ddpm") & (numbers["steps"] == 50) & (numbers["seed"] == 0)
    full = numbers[chosen & ddpm]["value"]
    assert len(full) == 10
    assert (
        f"deviation of {full.std():.1f} over the seeds ({full.min():.1f} to {full.max():.1f})"
        in section
    )


@pytest.mark.parametrize(
    ("quoting", "page", "numbers"),
    [
        (
            "docs/choice.md",
            "report/schedules",
            [
                "0.00 [-0.07, 0.10]",
                "2.5% [2.0%, 3.1%] | 2.4 ± 2.4%",
                "36.5% [33.4%, 39.8%] | 52.0 ± 7.8%",
                "0.49 [0.37, 0.53]",
                "0.13 [-0.04, 0.23]",
                "0.70 [0.54, 0.89]",
                "-3.42 ± 1.43 | -21.5 ± 9.0% | 0.86",
                "-2.37 ± 2.10 | -14.2 ± 5.4% | 1.35",
                "2.5% [2.0%, 3.1%] | 7.3 ± 4.7%",
                "3.3% [2.9%, 3.7%] | 11.7 ± 10.4%",
            ],
        ),
        (
            "docs/choice.md",
            "report/schedules_cifar10",
            [
                "0.45 [0.35, 0.50]",
                "0.30 [0.29, 0.40]",
                "0.29 [0.21, 0.35]",
                "0.15 [0.00, 0.30]",
                "7.2% [6.8%, 7.5%] | 20.5 ± 4.6%",
                "6.7% [6.4%, 7.0%] | 23.1 ± 4.6%",
                "4.5% [4.2%, 4.7%] | 0.3 ± 11.1%",
                "-27.43 ± 3.26 | -51.7 ± 6.2% | 1.33",
                "-22.72 ± 4.77 | -42.9 ± 9.0% | 0.85",
            ],
        ),
        (
            "README.md",
            "report/schedules_cifar10",
            [
                "0.15 [0.00, 0.30]",
                "0.30 [0.29, 0.40]",
                "0.45 [0.35, 0.50]",
                "108.27",
                "-27.43 ± 3.26",
            ],
        ),
        ("README.md", "report/schedules", ["-2.37 ± 2.10 | -14.2 ± 5.4% | 1.35"]),
        ("README.md", "report/study", ["0.62 [0.52, 0.83]", "0.35 [0.30, 0.39]"]),
    ],
)
def test_what_is_said_of_schedules_and_fronts_is_of_a_shipped_study(quoting, page, numbers):
    """Each text stands in the page; its first and last number stand in the text that quotes it."""
    shown = (ROOT / page / "README.md").read_text(encoding="utf-8")
    text = " ".join((ROOT / quoting).read_text(encoding="utf-8").split())
    for number in numbers:
        assert number in shown
        first, *_, last = number.split(" | ") * 2
        assert first.removeprefix("-") in text
        assert last.removeprefix("-") in text
