"""Only where backups are taken may opsbot's login read everything of a platform."""

from dataclasses import replace

import pytest

from bot.cli.sudoers import CONTAINER, PLATFORM, Broker, sudoers
from bot.core.backup import DumpInside, sent
from bot.core.command import Command
from bot.core.dump import inside
from bot.core.target import Role
from bot.core.wire import stream_script
from handlers.toolbox import backup
from tests.cli.test_sudoers import allowed, rules_of

WORDS = ("tar -c -f - --numeric-owner -C / var/travis etc/travis", "-c lock_timeout=0 -c default_transaction_read",
         "redis-cli --rdb -", "export_definitions -", "app-config export --hidden", "config/travis.yml")  # fmt: skip


def test_backups_need_rules_of_their_own() -> None:
    with_them, without = (
        "\n".join(rules_of(sudoers(["ops"], (Broker(backups=taken),)), Role.PLATFORM)) for taken in (True, False)
    )
    plain = with_them.replace("\\", "")
    for words in WORDS:
        assert words in plain, words
        assert words not in without.replace("\\", ""), words


def test_a_stream_is_sent_as_its_rule_says() -> None:
    source = backup.data_source(PLATFORM, "/var/travis", "gzip", False)
    assert isinstance(source.origin, Command)
    script = stream_script(sent(source.origin, source.packed), int(source.within.total_seconds()), "nonce")
    rules = rules_of(sudoers(["ops"], (Broker(backups=True),)), Role.PLATFORM)
    (rule,) = (rule.replace("\\", "") for rule in rules if "--numeric-owner" in rule)
    assert f"sudo -n {rule.removeprefix('/usr/bin/')}" in script


@pytest.mark.parametrize("counted", [False, True])
def test_a_dump_needs_one_rule_whatever_psql_is_told(counted: bool) -> None:
    rules = rules_of(sudoers(["ops"], (Broker(backups=True),)), Role.PLATFORM)
    feed, psql = inside(DumpInside(CONTAINER, "travis_production", "travis", counted)).parts()
    assert allowed(rules, psql, backup.HOURS)
    assert not feed.as_root
    for words in ((*psql.words, "-c", "DROP TABLE users"), (*psql.words[:6], "sh")):
        assert not allowed(rules, replace(psql, words=words), backup.HOURS), words
