"""`opsbot try` in headless Chromium: `page` is open and ready, `trial` is what runs behind it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bot import tryout
from tests.browser.hands import enter

CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 60_000  # milliseconds for what opsbot does between two clicks


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def trial() -> Iterator[tryout.Trial]:
    with tryout.started() as running:
        yield running


@pytest.fixture
def page(chromium: Browser, trial: tryout.Trial) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 980}, timezone_id="UTC")
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    opened = context.new_page()
    enter(opened, trial.slack.page_url)
    yield opened
    context.close()
