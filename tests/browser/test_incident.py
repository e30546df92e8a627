"""The whole incident as a person sees it: `opsbot try` in headless Chromium, from the typed command to the healed
worker.
"""

from pathlib import Path

from playwright.sync_api import Page, expect

from bot import tryout
from tests.browser.hands import become, keep, open_thread, press, say


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
