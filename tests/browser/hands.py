"""What a person does in the page of the local Slack, and the pictures that are kept of it."""

import os
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect

PICTURES = os.environ.get("OPSBOT_PICTURES")  # a folder that keeps the screenshots; `make pictures` sets it


def enter(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator('#app[data-ready="true"]')).to_be_visible()


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
