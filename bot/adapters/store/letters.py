"""Writing letters: a row of the outbox in the transaction that has something to say."""

from collections.abc import Mapping
from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow

from bot.adapters.store import values
from bot.adapters.store.queries import Queries
from bot.core.people import Actor, Place
from bot.core.run import Run
from bot.core.shown import Shown

SQL = Queries("outbox")


def status(connection: Connection[DictRow], run: int) -> None:
    _write(connection, "status", {"run": run})


def note(connection: Connection[DictRow], run: int, body: Mapping[str, Any]) -> None:
    _write(connection, "note", {"run": run, "body": values.json_text(dict(body))})


def post(connection: Connection[DictRow], place: Place, body: Mapping[str, Any]) -> None:
    """A note that no run says, where somebody asked."""
    letter = {"channel": place.channel, "thread": place.thread, "body": values.json_text(dict(body))}
    _write(connection, "post", letter)


def approval(connection: Connection[DictRow], approval: int, else_channel: str | None) -> None:
    """The question itself, or its newest state where it stands already."""
    _write(connection, "approval", {"approval": approval, "else_channel": else_channel})


def pointer(connection: Connection[DictRow], approval: int, approvals_channel: str | None) -> None:
    """One line in the approvals channel, when the question stands elsewhere."""
    if approvals_channel:
        _write(connection, "pointer", {"approval": approval, "approvals_channel": approvals_channel})


def announcement(connection: Connection[DictRow], channel: str, text: Shown) -> None:
    _write(connection, "announcement", {"channel": channel, "body": values.json_text({"text": str(text)})})


def private(connection: Connection[DictRow], actor: Actor, place: Place | None, text: Shown) -> None:
    """Where they acted, else in their own conversation with the bot (a user id is a channel to Slack)."""
    letter = {
        "channel": place.channel if place else actor.user,
        "thread": place.thread if place else None,
        "user": actor.user,
        "body": values.json_text({"text": str(text)}),
    }
    _write(connection, "private", letter)


def unheard(connection: Connection[DictRow], run: Run, word: str) -> None:
    """To who asked, that their run cannot be told of where it belongs; once."""
    if not run.order.actor.nobody:
        letter = {"run": run.id, "user": run.order.actor.user, "body": values.json_text({"text": word})}
        _write(connection, "unheard", letter)


def _write(connection: Connection[DictRow], kind: str, letter: Mapping[str, Any]) -> None:
    connection.execute(SQL[kind], letter)
    connection.execute(SQL["notify"])
