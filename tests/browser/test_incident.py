"""The whole incident as a person sees it: `opsbot try` in headless Chromium, from the typed command to the healed
worker.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bot import tryout

CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 60_000  # milliseconds for what opsbot does between two clicks
PICTURES = os.environ.get("OPSBOT_PICTURES")  # a folder that keeps the screenshots; `make pictures` sets it


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
    opened.goto(trial.slack.page_url)
    expect(opened.locator('#app[data-ready="true"]')).to_be_visible()
    yield opened
    context.close()


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def become(page: Page, name: str) -> None:
    page.locator(f'[data-person-name="{name}"]').click()


def press(page: Page, action: str) -> None:
    page.locator(f'[data-action-id="{action}"]').last.click()
    page.get_by_role("alertdialog").locator('[data-confirm="yes"]').click()


def open_thread(page: Page) -> None:
    page.locator("#messages [data-open-thread]").last.click()


def keep(page: Page, name: str, folder: Path) -> None:
    picture = folder / f"{name}.png"
    page.screenshot(path=picture)
    assert picture.stat().st_size > 10_000
    if PICTURES:
        shutil.copy(picture, Path(PICTURES) / picture.name)


def test_a_typed_command_heals_a_worker(page: Page, trial: tryout.Trial, tmp_path: Path) -> None:
    say(page, f"/travis {tryout.QUESTION}")
    expect(page.locator("#messages article").last).to_contain_text("RabbitMQ sees no consumer from it")
    open_thread(page)
    expect(page.locator('[data-action-id="approve"]')).to_be_visible()
    press(page, "approve")
    expect(page.get_by_text("you asked for this yourself").last).to_be_visible()
    become(page, "bo")
    expect(page.locator('#app[data-ready="true"]')).to_be_visible()
    if not page.locator('[data-action-id="approve"]').count():
        open_thread(page)
    keep(page, "approval", tmp_path)
    press(page, "approve")
    expect(page.locator("#messages article").last).to_contain_text("✅ Fixed")
    expect(page.locator('[data-action-id="approve"]')).to_have_count(0)
    keep(page, "thread", tmp_path)
    assert trial.installation.ask(do="state")["machines"]["worker-2"]["consumers"] > 0


def test_declining_asks_for_a_reason(page: Page, trial: tryout.Trial, tmp_path: Path) -> None:
    say(page, f"/travis {tryout.QUESTION}")
    expect(page.locator("#messages article").last).to_contain_text("RabbitMQ sees no consumer from it")
    become(page, "bo")
    open_thread(page)
    page.locator('[data-action-id="decline"]').last.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Decline").click()
    expect(dialog.get_by_role("alert").first).to_be_visible()
    keep(page, "decline", tmp_path)
    dialog.locator("textarea, input[type=text]").first.fill("The release is running, wait an hour")
    dialog.get_by_role("button", name="Decline").click()
    expect(page.locator("#messages article").last).to_contain_text("The release is running")
    state = trial.installation.ask(do="state")["machines"]["worker-2"]
    assert state["consumers"] == 0


def test_words_that_are_not_understood_get_help(page: Page) -> None:
    say(page, "/travis diagnose bilds not startin")
    expect(page.locator("#messages [data-ephemeral]").last).to_contain_text("builds not starting")
