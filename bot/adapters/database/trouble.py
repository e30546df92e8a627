"""What went wrong in a database, as a sentence without a password, and the cause of the finding it becomes, if any."""

from collections.abc import Mapping
from typing import Final

from bot.core.question import Unanswered

AWAY: Final = "database-unreachable"  # a finding: builds need it too
REFUSED: Final = "database-refused"  # not known: opsbot's own login or rights
FAILED: Final = "sql"  # not known: the query does not fit this database, or ran out of time

_NOBODY_IN: Final = {  # SQLSTATEs: it is there, and takes no queries now
    "53300": "it has no free connection",
    "57P01": "it is being shut down",
    "57P02": "it has crashed, and ended the connection",
    "57P03": "it is starting up or shutting down",
}
_NOT_US: Final = {
    "28000": "it does not let this user in",
    "28P01": "it refuses the user or the password",
    "3D000": "there is no database of this name",
    "42501": "the user may not do that",
    "25006": "a query may only read",
}
_TIME: Final = {
    "55P03": "something else holds a lock on it, and it was not free within 5 s",
    "57014": "it was not done in time, and was stopped",
    "40P01": "it and something else waited for each other, and it was stopped",
}
_SIGNS: Final = (  # what libpq says, without a code, while it connects: part of the text, cause, sentence
    ("authentication failed", REFUSED, "it refuses the user or the password"),
    ("no password supplied", REFUSED, "it asks for a password and none is configured"),
    ("no pg_hba.conf entry", REFUSED, "its pg_hba.conf does not let this user in from here"),
    ("is not permitted to log in", REFUSED, "this user may not log in"),
    ("does not exist", REFUSED, "the database or the user does not exist there"),
    ("does not support SSL", REFUSED, "it does not speak TLS, which the DSN asks for"),
    ("certificate verify failed", REFUSED, "its certificate is not trusted"),
    ("server certificate for", REFUSED, "its certificate is for another host"),
    ("too many clients", AWAY, _NOBODY_IN["53300"]),
    ("remaining connection slots", AWAY, _NOBODY_IN["53300"]),
    ("starting up", AWAY, "it is starting up"),
    ("shutting down", AWAY, "it is shutting down"),
    ("in recovery mode", AWAY, "it is recovering from a crash"),
    ("not yet accepting connections", AWAY, "it is starting up"),
    ("not accepting connections", AWAY, "it takes no connections now"),
    ("Connection refused", AWAY, "nothing listens there"),
    ("No such file or directory", AWAY, "nothing listens there"),
    ("could not translate host name", AWAY, "no such host is known"),
    ("Name or service not known", AWAY, "no such host is known"),
    ("No address associated", AWAY, "no such host is known"),
    ("timeout expired", AWAY, "it did not answer in time"),
    ("No route to host", AWAY, "there is no route to it"),
    ("Network is unreachable", AWAY, "there is no route to it"),
    ("closed the connection", AWAY, "it ended the connection"),
    ("terminating connection", AWAY, "it ended the connection"),
)


def by_code(where: str, code: str, said: str) -> Unanswered:
    """By the SQLSTATE that the server gave; `said` is its own first line."""
    known: Mapping[str, str] = {**_NOBODY_IN, **_NOT_US, **_TIME}
    why = known.get(code) or f"it says: {said}"
    if code in _NOBODY_IN or code.startswith("08"):
        return Unanswered(f"The database {where} cannot be reached: {why}.", AWAY)
    if code in _NOT_US:
        return Unanswered(f"The database {where} refuses: {why} ({said}).", REFUSED)
    return Unanswered(f"The database {where} gave no answer: {why}.", FAILED)


def by_words(where: str, said: str) -> Unanswered:
    """By what libpq said where there is no code: it could not connect, or lost the connection."""
    for sign, cause, why in _SIGNS:
        if sign in said:
            verb = "cannot be reached" if cause == AWAY else "cannot be asked"
            return Unanswered(f"The database {where} {verb}: {why}.", cause)
    return Unanswered(f"The database {where} cannot be reached: {first_line(said)}.", AWAY)


def first_line(said: str) -> str:
    """Without libpq's own address list and LINE pointers, which only fill the thread."""
    return next((line.strip() for line in said.splitlines() if line.strip()), "no words")[:300].rstrip(".")
