"""The page of a run, results/index.html, in a real browser: six questions in two clicks at most, on any screen.

REPORT_OF=FOLDER looks at the page of a finished run there. Screenshots go to results/screenshots.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from browser.conftest import SCREENSHOTS

WIDTHS = (390, 1280, 2560)
MOST_BYTES = 3_000_000
MOST_CLICKS = 2
AXE = "axe-core@4.14.1"
AXE_SHA512 = (
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)


class Visitor:
    """Someone who opens the page, and whose clicks are counted."""

    def __init__(self, browser, path: Path, width: int, **context):
        height = 844 if width < 500 else 900
        self.page = browser.new_page(viewport={"width": width, "height": height}, **context)
        self.complaints, self.requests, self.clicks = [], [], 0
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.width = width

    def _console(self, message) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def click(self, locator) -> None:
        self.clicks += 1
        locator.click()

    def ask(self, question: str) -> None:
        """Follows one of the questions at the top."""
        self.click(self.page.get_by_role("navigation", name="Questions").get_by_text(question))

    def in_sight(self, locator) -> str:
        """The text of what is on the screen without scrolling further. Fails where it is not."""
        box, height = locator.bounding_box(), self.page.viewport_size["height"]
        assert box is not None
        assert 0 <= box["y"] < height
        return locator.inner_text()

    def shoot(self, name: str, whole: bool = False) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"page_{name}_{self.width}.png"
        self.page.screenshot(path=path, full_page=whole)


@pytest.fixture(scope="module")
def path(folder) -> Path:
    return (folder / "results/index.html").resolve()


@pytest.fixture(params=WIDTHS)
def visitor(request, browser, path):
    visitor = Visitor(browser, path, request.param)
    yield visitor
    assert not visitor.complaints
    assert {url for url in visitor.requests if not url.startswith(("data:", "file:"))} == set()
    assert visitor.clicks <= MOST_CLICKS
    visitor.page.close()


@pytest.fixture
def reader(browser, path):
    """Someone at a desktop who may click as often as needed."""
    visitor = Visitor(browser, path, 1280)
    yield visitor
    assert not visitor.complaints
    visitor.page.close()


# --- six questions


def test_does_it_hold_here(visitor):
    said = visitor.in_sight(visitor.page.locator("blockquote").first)
    assert "scale" in said
    assert "training" in said
    assert visitor.clicks == 0
    visitor.shoot("whole", whole=True)
    visitor.shoot("holds")


def test_how_much_faster(visitor):
    visitor.ask("How much faster?")
    chart = visitor.page.locator(".figure:visible svg:visible").first
    mark = chart.get_by_role("option", name="DuoDiff, t_s = 500").first
    mark.locator(".near").hover(force=True)  # its neighbours may lie on it
    told = visitor.page.locator(".figure:visible .card").first
    assert "Speed-up" in told.inner_text()
    assert "DuoDiff, t_s = 500" in told.inner_text()
    assert told.locator("img").evaluate("image => image.naturalWidth") > 0
    visitor.shoot("faster")


def test_what_do_images_look_like_at_a_switch_time(visitor):
    visitor.ask("What do images look like?")
    slides = visitor.page.locator(".slides").first
    stops = slides.get_by_role("button")
    wanted = "DuoDiff, t_s = 700" if stops.get_by_text("700").count() else "DuoDiff, t_s = 500"
    visitor.click(slides.locator(f".stops [data-words='{wanted}']"))
    shown = slides.locator("figure:visible")
    assert shown.count() == 1
    assert wanted in visitor.in_sight(shown)
    assert shown.locator("img").evaluate("image => image.naturalWidth") > 0
    visitor.shoot("images")


def test_how_sure_is_it(visitor):
    visitor.ask("How sure is it?")
    claim = visitor.page.locator(".claims > li").filter(has_text="saves time while").first
    visitor.click(claim.locator("summary").first)
    told = claim.inner_text()
    assert "scale" in told
    assert "It holds if share < 0.1" in told
    assert "Rests on full_beats_shallow, faster_than_base" in told
    visitor.shoot("sure")


def test_what_did_it_run_on(visitor):
    visitor.ask("What did it run on?")
    told = visitor.in_sight(visitor.page.locator("#ran"))
    assert "minutes in all" in told
    for heading in ("Device", "Commit", "Versions"):
        assert heading in told
    visitor.shoot("ran")


def test_which_setting_should_i_take(visitor):
    visitor.ask("Which setting?")
    told = visitor.in_sight(visitor.page.locator(".choices").first)
    assert "Lose at most" in told
    for allowed in ("1%", "5%", "10%"):
        assert allowed in told
    visitor.shoot("which")


# --- any reader, any screen


def test_no_screen_is_too_narrow(visitor):
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= visitor.width
    sizes = visitor.page.evaluate("""[...document.querySelectorAll(".chart text, p, li, td, dd")]
        .filter(node => node.getBoundingClientRect().width).map(node => {
          const svg = node.closest("svg");
          const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
          return scale * parseFloat(getComputedStyle(node).fontSize);
        })""")
    assert min(sizes) >= 11


def test_labels_of_the_charts_do_not_overlap(visitor):
    overlapping = visitor.page.evaluate("""() => {
        const found = [];
        for (const svg of document.querySelectorAll("svg.chart")) {
          const texts = [...svg.querySelectorAll("text")].filter(text => text.getBoundingClientRect().width);
          const boxes = texts.map(text => text.getBoundingClientRect());
          for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
            const [a, b] = [boxes[i], boxes[j]];
            if (a.left < b.right && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom)
              found.push([texts[i].textContent, texts[j].textContent]);
          }
        }
        return found;
      }""")
    assert overlapping == []


def test_marks_and_sliders_answer_to_the_keyboard(reader):
    chart = reader.page.locator(".figure svg.wide").first
    options = chart.get_by_role("option")
    assert chart.locator("[role=option][tabindex='0']").count() == 1
    chart.locator("[role=option][tabindex='0']").focus()
    card = reader.page.locator(".figure .card").first
    reader.page.keyboard.press("Home")
    first = card.inner_text()
    assert options.nth(0).get_attribute("aria-selected") == "true"
    reader.page.keyboard.press("ArrowRight")
    assert options.nth(1).get_attribute("aria-selected") == "true"
    assert card.inner_text() != first
    assert chart.locator("[aria-selected=true]").count() == 1
    slides = reader.page.locator(".slides").first
    slides.locator("input").focus()
    reader.page.keyboard.press("Home")
    assert slides.locator("figure:visible").get_attribute("data-shows") == "t_s=0"
    reader.page.keyboard.press("ArrowRight")
    assert slides.locator("figure:visible").get_attribute("data-shows") != "t_s=0"
    assert slides.locator("input").get_attribute("aria-valuetext").startswith("DuoDiff, t_s")


def test_a_mark_says_to_a_screen_reader_what_it_says_to_the_eye(reader):
    for mark in reader.page.locator(".figure svg.wide [role=option]").all()[:5]:
        told = mark.get_attribute("aria-label")
        for part in ("Setting: ", "Distance (", "Time per image: ", "Speed-up: "):
            assert part in told


def test_the_headline_is_copied_as_a_citation(browser, path):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(path.as_uri())
    page.get_by_role("button", name="Copy as a citation").first.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(page.locator("blockquote").first.inner_text())
    assert "(DuoDiff, reproduced; commit " in copied
    context.close()


def test_a_link_to_a_claim_unfolds_it(reader):
    claim = reader.page.locator(".rest > ul > li > details").last
    assert not claim.is_visible()
    reader.page.goto(f"{reader.page.url}#{claim.get_attribute('id')}")
    assert claim.get_attribute("open") is not None
    assert claim.is_visible()


def test_without_script_everything_is_there(browser, path):
    page = browser.new_page(java_script_enabled=False)
    page.goto(path.as_uri())
    for figure in page.locator(".slides figure").all():
        assert figure.is_visible()
    assert not page.locator(".control").first.is_visible()
    page.close()


def test_it_prints_with_all_images_and_without_controls(browser, path, reader):
    reader.page.emulate_media(media="print")
    assert reader.page.locator(".slides figure").last.is_visible()
    for hidden in ("nav", ".control", ".copy"):
        assert not reader.page.locator(hidden).first.is_visible()
    assert len(reader.page.pdf(format="A4")) > 50_000
    reader.shoot("print", whole=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_scheme_of_the_reader(browser, path, scheme):
    visitor = Visitor(browser, path, 1280, color_scheme=scheme)
    color = visitor.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    red = int(color.removeprefix("rgb(").split(",")[0])
    assert (red > 200) == (scheme == "light")
    visitor.shoot(f"whole_{scheme}", whole=True)
    visitor.page.close()


# --- its weight, its links, its access


def test_it_is_light_and_paints_soon(reader, path, record_property):
    assert path.stat().st_size < MOST_BYTES
    # the page may be loaded before it is painted
    entry = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    paint = reader.page.wait_for_function(entry).json_value()
    record_property("first_contentful_paint_ms", paint)  # a time decides no test
    print(f"{path.stat().st_size / 1e6:.2f} MB; first contentful paint after {paint:.0f} ms")


def test_no_link_is_dead(reader, path):
    links = reader.page.evaluate("[...document.links].map(link => link.getAttribute('href'))")
    assert len(links) > 10
    for link in {*links}:
        if link.startswith("#"):
            assert reader.page.evaluate("id => !!document.getElementById(id)", link[1:]), link
        elif not link.startswith(("data:", "https:")):
            assert (path.parent / link).exists(), link
    assert [one for one in links if one.startswith("https:")] == [
        "https://arxiv.org/abs/2410.09633"
    ]


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """The source of axe-core, which looks for what keeps readers out. It comes from npm, and its hash is held here."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"{AXE}: npm is not here")
    command = [npm, "pack", AXE, "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False, cwd=folder)
    if done.returncode:
        pytest.skip(f"{AXE}: npm does not reach it")
    (archive,) = folder.glob("*.tgz")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode("ascii")
    assert digest == AXE_SHA512
    with tarfile.open(archive) as opened:
        return opened.extractfile("package/axe.min.js").read().decode("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_that_keeps_a_reader_out(browser, path, axe, width, scheme):
    visitor = Visitor(browser, path, width, color_scheme=scheme)
    visitor.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    visitor.page.evaluate(axe)
    found = visitor.page.evaluate("axe.run().then(result => result.violations)")
    told = [
        (one["id"], one["help"], [node["target"] for node in one["nodes"]][:3]) for one in found
    ]
    visitor.page.close()
    assert told == []
