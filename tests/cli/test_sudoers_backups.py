"""Only where backups are taken may opsbot's login read everything of a platform."""

from bot.cli.sudoers import PLATFORM, Broker, sudoers
from bot.core.target import Role
from bot.core.wire import stream_script
from handlers.toolbox import backup
from tests.cli.test_sudoers import rules_of

WORDS = ("tar -c -f - --numeric-owner -C / var/travis etc/travis", "pg_dump -h 127.0.0.1 -U travis",
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
    sent = stream_script(source.sent, int(source.within.total_seconds()), "nonce")
    rules = rules_of(sudoers(["ops"], (Broker(backups=True),)), Role.PLATFORM)
    (rule,) = (rule.replace("\\", "") for rule in rules if "--numeric-owner" in rule)
    assert f"sudo -n {rule.removeprefix('/usr/bin/')}" in sent
