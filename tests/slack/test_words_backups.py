"""Backups in words: what there is, one of them, how to restore it, and jobs about the number of a backup."""

from dataclasses import replace

import pytest

from bot.core.errors import NotUnderstood
from bot.core.request import Ask, Request
from bot.slack.words import guide, read
from tests.slack.fakes import VOCABULARY

WORDS = replace(
    VOCABULARY, jobs=("backup all", "backup data", "backup verify"), job_takes=(("backup verify", "backup"),)
)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("backups", Request(Ask.BACKUPS)),
        ("backups on prod", Request(Ask.BACKUPS, site="prod")),
        ("backup show 12", Request(Ask.BACKUP, number=12)),
        ("Backup show #12", Request(Ask.BACKUP, number=12)),
        ("restore 12", Request(Ask.RESTORE, number=12)),
        ("backup all on prod", Request(Ask.RUN, "job", "backup all", site="prod")),
        ("backup verify 12", Request(Ask.RUN, "job", "backup verify", site="prod", argument="12")),
        ("backup verify on prod", Request(Ask.RUN, "job", "backup verify", site="prod")),
        ("backup cancel #12", Request(Ask.CANCEL, number=12, argument="backup")),
        ("backup verify #012 on prod", Request(Ask.RUN, "job", "backup verify", site="prod", argument="12")),
    ],
)
def test_understands(text: str, request_: Request) -> None:
    assert read(text, WORDS, "prod") == request_


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("backup verify all", "Which backup? Say its number: `backup verify 12`"),
        ("backup cancel", "`backup cancel 12`"),
        ("backup show", "`backup show 12`"),
        ("restore", "`restore 12`"),
        ("backup everything", "I did not understand `backup everything`"),
        ("backups now", "stands alone"),
    ],
)
def test_says_what_is_missing(text: str, says: str) -> None:
    with pytest.raises(NotUnderstood) as why:
        read(text, WORDS, "prod")
    assert says in str(why.value)


def test_the_guide_knows_them() -> None:
    assert "last proven restorable" in guide(WORDS, "backups")
