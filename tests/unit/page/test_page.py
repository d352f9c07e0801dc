"""The page of a run: who speaks on it, what it says, and that it holds everything itself."""

import base64
import gzip
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from duodiff.analysis import shipped
from duodiff.analysis.cells import load_fewer_steps, load_records
from duodiff.analysis.claims.sentences import headlines
from duodiff.analysis.claims.sources import our_sources, published_sources
from duodiff.analysis.claims.verdicts import claims_table
from duodiff.analysis.measured import measured
from duodiff.analysis.students import half_width
from duodiff.data.store import write_store
from duodiff.page import page as pages
from duodiff.page import pictures, said
from duodiff.running.files import read_json, write_csv
from duodiff.settings import Setting

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from made_study import config, training, write_run

ROOT = Path(__file__).parents[3]
PAPER = ROOT / "report/paper"
STUDY = {"title": "Digits <8x8> & more", "paper_dataset": None, "dataset": "digits"}
STUDIES = {"digits": STUDY | {"schedule": "linear", "scale": "toy"}}
NAN = float("nan")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A shipped study of five made trainings."""
    folder = tmp_path_factory.mktemp("study")
    results = write_run(folder / "results", {seed: training(seed) for seed in range(5)})
    shipped.write({shipped.USUAL: results}, folder / "shipped")
    return folder / "shipped"


def cell(folder: Path, text: str, steps: int, value: int) -> Path:
    """A made sample store: 24 images, each of one grey value more than the one before."""
    setting = Setting.parse(text)
    parameters = {"t_s": setting.t_s} if text.startswith("t_s") else {"theta": 0.17}
    parameters |= {} if text.startswith("t_s") else {"setting": setting.spelled}
    about = {"experiment": "digits", "train_seed": 7, "seed": 7000, "method": setting.method}
    about |= {"parameters": parameters, "sampler": {"name": "ddpm", "steps": steps}}
    images = np.arange(24, dtype=np.uint8)[:, None, None, None] + np.full(
        (24, 1, 8, 8), value, np.uint8
    )
    path = folder / f"samples/{steps}/{text}/manifest.json"
    write_store(path, images, np.arange(24) % 10, about)
    return path


def sources(folder: Path, seeds: tuple[int, ...], study: Path | None = None) -> pages.Sources:
    """The files of a made run."""
    results = write_run(folder / "results", {seed: training(seed) for seed in seeds})
    records = sorted(results.glob("digits/train*/records/*.json"))
    ours = our_sources(load_records(records), STUDIES, load_fewer_steps(records))
    published = (pd.read_csv(PAPER / f"table{n}.csv") for n in (1, 2))
    table = claims_table(ours + published_sources(*published), config([*seeds])["claims"])
    write_csv(folder / "claims.csv", table)
    write_csv(folder / "times.csv", [{"rule": "a", "jobs": 3, "minutes": 2.5}])
    real = folder / "data/digits/manifest.json"
    grey = np.full((30, 1, 8, 8), 9, np.uint8)
    write_store(real, grey, np.zeros(30), {"splits": {"train": [0, 20], "held_out": [20, 30]}})
    return pages.Sources(
        records=records,
        exits=[],
        samples=[
            cell(folder, "theta=q0.4", 50, 50),
            cell(folder, "t_s=500", 50, 100),
            cell(folder, "t_s=0", 50, 0),
            cell(folder, "t_s=0", 20, 200),
        ],
        data=[real],
        paper=PAPER / "table2.csv",
        claims=folder / "claims.csv",
        settings=results / "run/configuration.yaml",
        times=folder / "times.csv",
        study=study,
    )


def written(found: pages.Sources) -> str:
    return pages.page(found, STUDIES, ROOT / "report/page")


class Read(HTMLParser):
    """A page as its tags and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"script", "style"} & {*self.open}:
            self.words.append(data)


@pytest.fixture(scope="module")
def beside(tmp_path_factory, study) -> str:
    """The page of a run of one further training beside the shipped study."""
    return written(sources(tmp_path_factory.mktemp("beside"), (7,), study))


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> str:
    """The page of one training without a shipped study."""
    return written(sources(tmp_path_factory.mktemp("alone"), (7,)))


# --- who speaks


@pytest.mark.slow
def test_the_shipped_study_speaks_and_the_run_says_whether_it_agrees(beside, study):
    text = Read(beside).text
    claims = shipped.read(study)["digits"].claims
    kept = claims.set_index("claim").loc["quality_kept"]
    low, high = (f"{100 * end:.1f}%" for end in (kept["low"], kept["high"]))
    assert "toy scale, 5 trainings (seeds 0 to 4), DuoDiff keeps the image quality" in text
    assert f"it loses {100 * kept['value']:.1f}% [{low}, {high}]" in text
    assert "This is the shipped study." in text
    told = text.count("This run agrees.") + text.count("This run differs:")
    assert told == len(headlines(claims)) >= 3
    assert "named quantities inside the shipped study" in text
    assert "This is one training" not in text


@pytest.mark.slow
def test_a_run_that_contradicts_the_study_says_so_and_does_not_take_the_headline(tmp_path, study):
    found = sources(tmp_path, (7,), study)
    claims = pd.read_csv(found.claims, keep_default_na=False)
    mine = (claims["claim"] == "quality_kept") & (claims["experiment"] == "digits")
    claims.loc[mine, "verdict"] = "contradicted"
    write_csv(found.claims, claims)
    text = Read(written(found)).text
    assert "DuoDiff keeps the image quality" in text
    assert "This run differs: contradicted." in text


@pytest.mark.slow
def test_one_training_without_a_study_says_that_it_is_one(alone):
    text = Read(alone).text
    assert "This is one training" in text
    assert "one training (seed 7), DuoDiff" in text
    assert "This run agrees" not in text


@pytest.mark.slow
def test_several_trainings_without_a_study_speak_for_themselves(tmp_path):
    text = Read(written(sources(tmp_path, (7, 8, 9)))).text
    assert "the 3 trainings of this run speak" in text
    assert "3 trainings (seeds 7 to 9), DuoDiff" in text


# --- what the page holds


@pytest.mark.slow
def test_nothing_is_loaded_and_every_link_within_the_page_has_its_end(beside, alone):
    for text in (beside, alone):
        found = Read(text)
        ids = [about["id"] for _, about in found.tags if "id" in about]
        assert len(ids) == len({*ids})
        for tag, about in found.tags:
            assert tag not in ("iframe", "object", "embed")
            assert about.get("src", "data:").startswith("data:")
            link = about.get("href", "")
            if link.startswith("#"):
                assert link[1:] in ids, link
            assert tag == "a" or link.startswith("data:") or not link
        assert "url(" not in text.replace("url(data:", "")
        assert "@import" not in text


@pytest.mark.slow
def test_a_title_is_text_and_no_markup(beside):
    assert "Digits &lt;8x8&gt; &amp; more" in beside
    assert "<8x8>" not in beside


@pytest.mark.slow
def test_every_setting_is_a_row_of_eight_columns_and_a_mark_with_its_images(beside):
    table = beside.split("Every setting of this run")[1].split("</table>")[0]
    headings = re.findall(r'<th scope="col">(.*?)</th>', table)
    assert headings == [heading.replace("'", "&#39;") for heading in pages.HEADINGS]
    assert len(headings) == 8
    assert table.count('<th scope="row">') == 7  # five t_s and two thetas
    marks = re.findall(r'role="option"[^>]*data-cell="([^"]+)"', beside)
    assert {"t_s=0", "t_s=500", "theta=q0.4"} <= {*marks}
    for name in ("t_s=0", "t_s=500", "theta=q0.4", "t_s=0, 20 steps"):
        assert beside.count('alt="24 images by') >= 4
        assert f'data-cell="{name}"' in beside


@pytest.mark.slow
def test_the_records_are_in_the_page(beside):
    link = re.search(
        r'download="digits-numbers.csv.gz" href="data:application/gzip;base64,(.+?)"', beside
    )
    text = gzip.decompress(base64.b64decode(link[1])).decode("utf-8")
    table = pd.read_csv(io.StringIO(text))
    assert len(table) == len(training(7))
    full = table[(table["metric"] == "fd_digits") & (table["setting"] == "t_s=0")]
    expected = [
        r.value for r in training(7) if r.metric == "fd_digits" and r.parameters == {"t_s": 0}
    ]
    assert full["value"].tolist() == pytest.approx(expected)


@pytest.mark.slow
def test_the_same_sources_give_the_same_bytes(tmp_path, beside, study):
    assert written(sources(tmp_path, (7,), study)) == beside


@pytest.mark.slow
def test_every_claim_is_a_card_with_what_it_rests_on(beside):
    cards = re.findall(r'<details id="digits-(\w+)">', beside)
    assert len(cards) == len(said.CLAIMS) == len({*cards})
    kept = beside.split('<details id="digits-quality_kept">')[1].split('<details id="digits-')[0]
    for name in ("Shipped study", "This run", "Paper, CelebA 64x64"):
        assert name in kept
    assert 'href="#digits-full_beats_shallow"' in kept


# --- its parts


def test_a_picture_has_each_image_at_its_place():
    images = np.random.default_rng(0).integers(0, 256, (23, 3, 8, 7), dtype=np.uint8)
    source = pictures.picture(images)
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as opened:
        shown = np.asarray(opened)
    assert shown.shape == (3 * 9 - 1, 10 * 8 - 1, 4)
    for i, image in enumerate(images):
        y, x = i // 10 * 9, i % 10 * 8
        tile = shown[y : y + 8, x : x + 7]
        np.testing.assert_array_equal(tile[..., :3], image.transpose(1, 2, 0))
        assert (tile[..., 3] == 255).all()
    assert (shown[8, :, 3] == 0).all()  # a clear line between rows


def test_large_images_are_reduced():
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 256, 192), dtype=np.uint8)
    source = pictures.picture(images)
    data = base64.b64decode(source.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.size == (10 * (48 + 3) - 3, 2 * (64 + 3) - 3)
    assert len(source) < 200_000


def test_the_sliders_go_through_rising_settings(tmp_path):
    paths = [
        cell(tmp_path, text, steps, 0)
        for text, steps in [("t_s=1000", 50), ("t_s=300", 50), ("t_s=0", 50), ("theta=q0.4", 50)]
    ]
    paths += [cell(tmp_path, "t_s=500", 20, 0), cell(tmp_path, "t_s=0", 20, 0)]
    groups = pictures.groups(pictures.cells_of(paths)["digits"])
    shown = {group.id: [one.short for one in group.cells] for group in groups}
    assert shown == {
        "t_s": ["0", "300", "1000"],
        "theta": ["0.170"],
        "fewer": ["20 steps", "20 steps, t_s 500"],
    }


def settings(*rows: tuple) -> pd.DataFrame:
    names = ["name", "setting", "method", "fewer", "lost_share", "lost_share_95", "speedup"]
    return pd.DataFrame(rows, columns=names).assign(
        speedup_95=NAN, operations=NAN, steps=[20 if row[3] else 50 for row in rows]
    )


CHOICES = settings(
    ("full", "t_s=0", "full", False, 0.0, NAN, 1.0),
    ("300", "t_s=300", "duodiff", False, 0.0, 0.001, 1.2),
    ("500", "t_s=500", "duodiff", False, 0.008, 0.006, 1.4),
    ("700", "t_s=700", "duodiff", False, 0.09, 0.02, 1.6),
    ("fewer", "t_s=0", "full", True, 0.0, 0.06, 2.5),
)


def test_the_choice_is_the_fastest_whose_whole_interval_is_within_what_is_allowed():
    found = [(c.allowed, c.own["name"], c.any["name"]) for c in said.choices(CHOICES)]
    assert found == [("1%", "300", "300"), ("5%", "500", "500"), ("10%", "500", "fewer")]
    nothing = said.choices(CHOICES[CHOICES["name"] == "700"])
    assert [(one.own, one.any) for one in nothing] == [(None, None)] * 3


def test_fewer_steps_are_said_beside_the_headline():
    assert said.with_fewer_steps(CHOICES) == [
        "20 of 50 steps: loses 0.0 ± 6.0%, at 2.50 times the speed"
    ]
    assert said.with_fewer_steps(CHOICES[~CHOICES["fewer"]]) == []


def claim(verdict: str, **more) -> pd.DataFrame:
    row = {"claim": "quality_kept", "where": "", "verdict": verdict, "value": 0.012, "low": 0.005}
    row |= {
        "high": 0.018,
        "case": "t_s = 500",
        "note": "",
        "conditional_on": "",
        "source": "Digits",
    }
    row |= {"scale": "toy", "rests_on": "10 trainings (seeds 0 to 9)"} | more
    premises = [
        {"claim": name, "where": "first of all", "verdict": "holds", "note": ""}
        for name in ("full_beats_noise", "full_beats_shallow", "no_copies")
    ]
    return pd.DataFrame([row, *premises])


@pytest.mark.parametrize(
    ("verdict", "opening"),
    [
        ("holds", "DuoDiff keeps the image quality: "),
        ("contradicted", "DuoDiff does not keep the image quality: "),
        ("undecided", "it is undecided whether DuoDiff keeps the image quality: "),
    ],
)
def test_the_headline_follows_the_verdict(verdict, opening):
    assert said.headline(claim(verdict), CHOICES) == (
        f"On Digits, toy scale, 10 trainings (seeds 0 to 9), {opening}at t_s = 500, the setting that decides, it loses"
        " 1.2% [0.5%, 1.8%] of what separates the full backbone from the shallow one, at 1.40 times the speed."
    )


def test_a_headline_has_no_number_that_was_not_measured():
    published = said.headline(claim("holds", low=NAN, high=NAN, case="t_s = 600"), CHOICES)
    assert published.endswith(
        "it loses 1.2% of what separates the full backbone from the shallow one."
    )
    void = said.headline(claim("void", note="rests on full_beats_shallow"), CHOICES)
    assert void.endswith("whether DuoDiff keeps the quality is void: rests on full_beats_shallow.")


# --- the settings of trainings


def test_settings_of_one_training_have_the_intervals_of_its_records(tmp_path):
    results = write_run(tmp_path / "results", {7: training(7)})
    one = shipped.read_training(results / "digits/train7")
    table = measured([one], "ddpm").set_index("setting")
    assert list(table.index) == [
        *("t_s=0", "t_s=300", "t_s=500", "t_s=700", "t_s=1000"),
        *("theta=q0.25", "theta=q0.4"),
    ]
    records = read_json(results / "digits/train7/records/evaluate_samples.json")
    difference = next(
        r
        for r in records
        if r["metric"] == "fd_digits_difference" and r["parameters"] == {"t_s": 500}
    )
    row = table.loc["t_s=500"]
    assert row["minus_full"] == pytest.approx(difference["value"])
    assert row["minus_full_95"] == pytest.approx(0.1)
    whole = table.loc["t_s=1000", "minus_full"]
    assert row["lost_share"] == pytest.approx(difference["value"] / whole)
    assert row["lost_share_95"] == pytest.approx(0.1 / whole)
    assert row["speedup_95"] == pytest.approx(0.01 * row["speedup"])
    assert row["ms_95"] / row["ms"] == pytest.approx(0.01)
    assert np.isnan(table.loc["t_s=0", "lost_share_95"])
    assert measured([one], "ddim").empty


def test_settings_of_several_trainings_are_means_with_students_interval(tmp_path):
    results = write_run(tmp_path / "results", {seed: training(seed) for seed in (1, 2, 3)})
    three = [shipped.read_training(folder) for folder in shipped.trainings(results)]
    table = measured(three, "ddpm").set_index("setting")
    singles = [measured([one], "ddpm").set_index("setting") for one in three]
    for name in ("lost_share", "minus_full", "speedup", "ms"):
        values = [one.loc["theta=q0.4", name] for one in singles]
        assert table.loc["theta=q0.4", name] == pytest.approx(np.mean(values))
        assert table.loc["theta=q0.4", f"{name}_95"] == pytest.approx(half_width(values))
    assert set(table["trainings"]) == {3}
