"""The HTML report in a real browser, as a reader opens it: offline, on a desktop's and on a phone's width.

REPORT_OF=FOLDER looks at the report of a finished run there instead of running config/test.yaml. Screenshots of every
item go to results/screenshots.
"""

import os
import re
import zipfile
from pathlib import Path

import pytest

from browser.conftest import SCREENSHOTS

ROOT = Path(__file__).parents[2]
WIDTHS = (1280, 390)
MENU, PANE = "#app > div > nav", "#app > div > .grow"
ONLY_WITH_MANY_IMAGES = "Distance against n, extrapolated"


class Reader:
    """A report opened at one width, with everything that a browser complains of or asks for."""

    def __init__(self, browser, report: Path, width: int):
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.complaints, self.requests = [], []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.resolve().as_uri())
        self.page.locator(MENU).wait_for()
        self.width = width

    def _console(self, message) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def items(self) -> list[tuple[str, str]]:
        """(category, label) of every result the page knows."""
        found = self.page.evaluate(
            "Object.entries(categories).flatMap(([category, subs]) => Object.values(subs).flat()"
            ".map(path => [category, results[path].labels.item]))"
        )
        return [tuple(item) for item in found]

    def open(self, category: str, label: str) -> None:
        """Clicks through the menu to one item, and opens it."""
        self.page.locator(f"{MENU} a").nth(1).click()  # home
        self.page.locator(MENU).get_by_text(category, exact=True).click()
        row = self.page.locator(f"{MENU} tbody tr").filter(has_text=label).first
        row.locator("a").first.click()
        self.shown = self.page.locator(f"{PANE} img, {PANE} iframe").first
        self.shown.wait_for()
        self.row = row

    def caption(self) -> dict:
        """Text, font size in pixels and visible width of the open item's caption."""
        self.row.locator("a").nth(1).click()
        caption = self.page.locator(f"{MENU} .prose").first
        caption.wait_for()
        size = caption.evaluate("node => parseFloat(getComputedStyle(node).fontSize)")
        return {
            "text": caption.inner_text(),
            "size": size,
            "width": caption.bounding_box()["width"],
        }

    def picture(self) -> tuple[float, float]:
        """Width of the shown picture, of its own and on the page (0 if it is broken or an HTML page)."""
        return self.shown.evaluate("""async node => {
            if (node.tagName != 'IMG') return [0, 0];
            await node.decode();
            return [node.naturalWidth, node.getBoundingClientRect().width];
        }""")

    def text(self) -> str:
        """Text of the shown HTML page, if it is one."""
        if self.shown.evaluate("node => node.tagName") != "IFRAME":
            return ""
        body = self.shown.element_handle().content_frame().locator("body")
        return body.inner_text()

    def first_corner(self) -> tuple[float, float]:
        """Where the left upper corner of the item lies from that of its pane, with nothing scrolled."""
        return self.shown.evaluate(
            """(node, selector) => {
            const pane = document.querySelector(selector);
            pane.scrollTo(0, 0);
            const [inner, outer] = [node.getBoundingClientRect(), pane.getBoundingClientRect()];
            return [inner.left - outer.left, inner.top - outer.top];
        }""",
            PANE,
        )

    def shoot(self, name: str) -> None:
        """Keeps a picture of the page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
        self.page.screenshot(path=SCREENSHOTS / f"{file}_{self.width}.png")


@pytest.fixture(scope="module", params=WIDTHS)
def reader(request, browser, folder) -> Reader:
    return Reader(browser, folder / "results/report.html", request.param)


def test_every_item_of_the_rules_is_in_the_report(reader):
    labels = re.findall(
        r'(?:label=|"item": )"(.+?)"', (ROOT / "rules/paper.smk").read_text(encoding="utf-8")
    )
    shown = {label for _, label in reader.items()}
    for label in set(labels) - {ONLY_WITH_MANY_IMAGES}:
        # a wildcard stands for any text
        pattern = re.sub(r"\\\{\w+\\\}", ".+", re.escape(label))
        assert any(re.fullmatch(pattern, found) for found in shown), label


def test_every_item_opens_with_its_caption_and_is_legible(reader):
    reader.shoot("home")
    welcome = reader.page.locator(f"{PANE} .prose").first.bounding_box()
    assert welcome["x"] + welcome["width"] <= reader.width
    for category, label in reader.items():
        reader.open(category, label)
        own, shown = reader.picture()
        assert shown > 0 or len(reader.text()) > 100, f"{label}: nothing to see"
        # the smallest letters of the figures have 8 points, 10.7 pixels of an unscaled picture
        assert shown >= 0.7 * min(own, 1280), f"{label}: shrunk from {own} to {shown} pixels"
        assert min(reader.first_corner()) >= 0, f"{label}: its first corner cannot be reached"
        reader.shoot(f"{category} {label}")
        caption = reader.caption()
        reader.shoot(f"{category} {label} caption")
        assert len(caption["text"]) > 40, f"{label}: no caption"
        assert caption["size"] >= 12, f"{label}: caption of {caption['size']} pixels"
        assert caption["width"] >= 280, f"{label}: caption {caption['width']} pixels wide"


def test_the_menu_of_the_workflow_opens(reader):
    for name in ("Workflow", "Statistics", "About"):
        reader.page.locator(f"{MENU} a").nth(1).click()
        reader.page.locator(MENU).get_by_text(name, exact=True).click()
        reader.page.wait_for_timeout(300)
        reader.shoot(name)


def test_nothing_is_asked_of_the_network_and_nothing_complained_of(reader):
    asked = {url for url in reader.requests if not url.startswith(("data:", "file:", "blob:"))}
    assert not asked
    assert not reader.complaints


@pytest.mark.skipif(
    "REPORT_OF" in os.environ, reason="a zip is made of the run of config/test.yaml alone"
)
def test_a_report_in_a_zip_opens_too(browser, finished, tmp_path):
    """As the paper's scale needs it: results beside the page."""
    finished.snakemake("--report", "results/report.zip", "--report-stylesheet", "report/report.css")
    with zipfile.ZipFile(finished.folder / "results/report.zip") as archive:
        archive.extractall(tmp_path)
    (page,) = tmp_path.glob("*/report.html")
    reader = Reader(browser, page, 1280)
    for category, label in reader.items():
        reader.open(category, label)
        assert reader.picture()[1] > 0 or len(reader.text()) > 100, f"{label}: nothing to see"
    assert not reader.complaints
