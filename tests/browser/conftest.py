"""What the tests in a real browser share: a finished run, and the browser."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "results/screenshots"


@pytest.fixture(scope="session")
def folder(request) -> Path:
    """A finished run: that of REPORT_OF, or else of config/test.yaml."""
    if given := os.environ.get("REPORT_OF"):
        return Path(given).resolve()
    return request.getfixturevalue("finished").folder


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium: Debian's, because playwright's own is a download."""
    path = shutil.which("chromium")
    assert path, "chromium is missing: apt-get install chromium fonts-dejavu-core"
    with sync_playwright() as playwright:
        # without its sandbox, which root (CI) may not use
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
