"""Chromium, one for each module of tests, and a visitor in it."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.visitor import Visitor

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # No wider than a module: while it runs, its event loop counts as running in this thread, and asynchronous tests would find it in their way.
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    yield page
    page.close()


@pytest.fixture
def visitor(page: Page) -> Visitor:
    return Visitor(page)
