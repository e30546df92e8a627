"""Backups as a person sees them: how far one is, how it ended, the chart of the last thirty, and one that is cancelled.

The platform's disk is slow, so that a backup of some megabytes takes as long as one of gigabytes elsewhere.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect
from psycopg import Connection
from psycopg.rows import DictRow

from bot import tryout
from bot.adapters import embedded
from bot.adapters.store import Audit, Pool, Store
from bot.core.keeping import Proof
from bot.core.outcome import Outcome
from bot.core.people import Actor
from bot.core.run import Order, Verb
from bot.core.shown import Redactor
from tests.browser.hands import enter, keep, say

MIB = 1024**2
PLAIN = 8 * MIB  # bytes of the platform's data as they come, packed
RESTORED = 180_000  # milliseconds: each dump is loaded into a PostgreSQL of its own meanwhile
PHONE = ViewportSize(width=390, height=844)
FAR = re.compile(r"data-platform-1: under way \(\d\.\d MiB of about \d\.\d MiB \(\d+ %\), [\d.]+ KiB/s, \d+ s left\)")
pytestmark = pytest.mark.timeout(360)


@pytest.fixture
def trial() -> Iterator[tryout.Trial]:
    with tryout.started(faults=["platform-1 has a slow disk", "platform-1 has a large archive"]) as running:
        yield running


def lived(trial: tryout.Trial, nights: int) -> None:
    """A platform that has been backed up every night, with what happens in a month."""
    pool = Pool(embedded.start(trial.folder / "state" / "database"), size=1)
    store = Store(Audit(pool, b"k" * 32))
    try:
        for night in range(nights, 0, -1):
            with pool.connection() as tx:
                _night(store, tx, night)
    finally:
        pool.close()


def _night(store: Store, tx: Connection[DictRow], night: int) -> None:
    """One failed, one was never proven, and once somebody took the data alone."""
    what = "data" if night == 12 else "all"
    run = store.start(tx, Order(Verb.JOB, f"backup {what}", "try", (), "", Actor("T0ACME", "schedule", "cli")))
    store.finish(tx, run, Outcome.DONE, Redactor().show("Stored."))
    plain, took = PLAIN - night * MIB // 16, timedelta(seconds=19 - night / 4 + night % 3)
    if night == 20:
        plain, took = plain // 4, took / 4
    given = {"what": what, "run": run, "night": timedelta(days=night), "plain": plain, "took": took}
    tx.execute(TAKEN, given)
    for piece in tx.execute(STORED, given).fetchall():
        store.prove(tx, piece["id"], Proof.READ_BACK, night != 5, Redactor().show("read from the store and compared"))
    tx.execute("SET LOCAL session_replication_role = replica")  # no trigger: what has ended is never changed
    tx.execute(ENDED, given)
    if night != 20:
        tx.execute(SEALED, given)


TAKEN = """INSERT INTO opsbot.backups (site, what, run_id, folder, began_at)
VALUES ('try', %(what)s, %(run)s, 'night-' || %(run)s, now() - %(night)s)"""
STORED = """INSERT INTO opsbot.backup_pieces
    (backup_id, kind, name, key, plain, stored, sha256, packed, began_at, ended_at)
SELECT id, 'data', 'data-platform-1', folder, %(plain)s, %(plain)s, '', 'gzip', began_at, began_at + %(took)s
  FROM opsbot.backups WHERE run_id = %(run)s RETURNING id"""
ENDED = """UPDATE opsbot.runs SET finished_at = taken.began_at + %(took)s
  FROM opsbot.backups AS taken WHERE taken.run_id = runs.id AND runs.id = %(run)s"""
SEALED = "UPDATE opsbot.backups SET sealed_at = began_at + %(took)s, manifest = folder WHERE run_id = %(run)s"


def stored(trial: tryout.Trial) -> set[Path]:
    return {path for path in (trial.folder / "backups").rglob("*") if path.is_file()}


def streaming(trial: tryout.Trial) -> list[str]:
    """What the platform writes at this moment."""
    processes = trial.installation.ask(do="state")["machines"]["platform-1"]["processes"]
    return [line for line in processes if "tar -c" in line]


def status(page: Page) -> Locator:
    """Messages that everybody sees."""
    return page.locator("#messages article:not([data-ephemeral])")


def test_a_backup_tells_how_far_it_is_and_the_chart_shows_the_last_thirty(
    chromium: Browser, page: Page, trial: tryout.Trial, tmp_path: Path
) -> None:
    lived(trial, 29)
    page.locator("#hints button").last.click()
    say(page, "/travis backup all")
    expect(status(page)).to_contain_text(FAR)
    first = status(page).inner_text()
    keep(page, "backup-progress", tmp_path)
    expect(status(page)).not_to_contain_text(found(first))
    expect(status(page)).to_contain_text(FAR)
    expect(status(page)).to_contain_text("✅ Done", timeout=RESTORED)
    expect(status(page)).not_to_contain_text("KiB/s")
    expect(status(page)).to_have_count(1)

    say(page, "/travis backups")
    expect(page.locator("#messages [data-ephemeral] pre")).to_contain_text("last proven restorable")
    image = page.locator("#messages .picture img")
    expect(image).to_have_js_property("complete", True)
    assert image.evaluate("one => one.naturalWidth") == 1080
    assert "The last 30 backups of try, size and duration: 28 proven" in str(image.get_attribute("alt"))
    page.set_viewport_size({"width": 1280, "height": 1300})
    page.locator("#messages article").last.scroll_into_view_if_needed()
    keep(page, "backups", tmp_path)

    phone = chromium.new_context(viewport=PHONE, device_scale_factor=2, is_mobile=True, has_touch=True)
    held = phone.new_page()
    enter(held, trial.slack.page_url)
    held.locator("#messages .picture img").scroll_into_view_if_needed()
    assert held.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    held.screenshot(path=tmp_path / "phone.png")
    phone.close()


def found(text: str) -> str:
    """The words of progress in a message."""
    far = FAR.search(text)
    assert far is not None
    return far[0]


def test_one_that_is_cancelled_ends_there_and_leaves_nothing(page: Page, trial: tryout.Trial) -> None:
    say(page, "/travis backup data")
    expect(status(page)).to_contain_text(re.compile(r"back up data-platform-1: under way \([\d.]+ MiB, [\d.]+ KiB/s\)"))
    assert len(streaming(trial)) == 1
    run = re.search(r"run (\d+)", status(page).inner_text())
    assert run is not None
    say(page, f"/travis cancel {run[1]}")
    expect(status(page)).to_contain_text("⏹️ Cancelled")
    expect(status(page)).to_contain_text("back up data-platform-1: given up")
    trial.slack.driver.wait_for(lambda _: not streaming(trial), 10)
    assert stored(trial) == set()
    say(page, "/travis backups")
    expect(page.locator("#messages [data-ephemeral]").last).to_contain_text("incomplete")
    assert page.locator("#messages .picture").count() == 0, "one backup is no chart"
