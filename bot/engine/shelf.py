"""How backups read: the table, one of them in full, and how a person restores it. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from bot.core import restore
from bot.core.chart import Bar, Chart, Mark
from bot.core.fix import readable
from bot.core.keeping import ALL, Backup, Piece
from bot.core.target import Role, Site, Target
from bot.engine.words import listed, size

BY_HAND: Final = "docs/backups.md"
HEADS: Final = ("no", "what", "when (UTC)", "size", "state", "last proven restorable")
NOT_BY_ITSELF: Final = (
    "opsbot restores nothing by itself: backups are encrypted to keys that it does not have, and a restore overwrites "
    f"what is there. A person does it on a machine that has the secret key; {BY_HAND} says each step. "
    "`restore {number} because …` does it with you, step by step, once another person has approved the plan. "
    f"STORE is `backups.store` of the configuration, {restore.KEY_FILE} the file with the secret key. "
    "Paste it step by step, into a bash."
)


def table(backups: Sequence[Backup]) -> str:
    if not backups:
        return "There is no backup yet. `backup all` takes one."
    rows = [HEADS, *(_row(each) for each in backups)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "```\n" + "\n".join(lines) + "\n```\n`backup show N` says more of one."


def _row(backup: Backup) -> tuple[str, ...]:
    what = f"{backup.what} of {backup.site}"
    return (str(backup.id), what, when(backup.began), size(backup.stored), backup.state, proven(backup))


def chart(site: str, backups: Sequence[Backup]) -> Chart | None:
    """The newest first, as the store gives them. One alone shows nothing, nor does one that is not over yet."""
    bars = tuple(_bar(each) for each in reversed(backups) if not each.open)
    return Chart(f"The last {len(bars)} backups of {site}", bars) if len(bars) > 1 else None


def _bar(backup: Backup) -> Bar:
    """What was thrown away since counts as it was: what the store needs grows over months."""
    taken = replace(backup, gone=None)
    mark = Mark.INCOMPLETE if taken.sealed is None else Mark.PROVEN if taken.proven else Mark.UNPROVEN
    return Bar(taken.id, taken.began, taken.stored, taken.took.total_seconds(), mark, taken.what != ALL)


def described(drawn: Chart) -> str:
    """The chart for those who do not see it."""
    newest = drawn.bars[-1]
    marks = Counter(bar.mark for bar in drawn.bars)
    counted = "; ".join(f"{marks[mark]} {mark.value}" for mark in Mark if marks[mark])
    return (
        f"{drawn.title}, size and duration: {counted}. The newest, backup {newest.number}: {size(newest.stored)} in "
        f"{readable(newest.took)}, {newest.mark.value}."
    )


def when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def proven(backup: Backup) -> str:
    if proof := backup.proven:
        return f"{when(proof.at)} ({proof.by.value})"
    return "not yet" if backup.state == "being taken" else "never, or a proof failed"


def whole(backup: Backup) -> str:
    return "\n".join(_lines(backup))


def _lines(backup: Backup) -> Iterator[str]:
    yield f"{backup}, taken {when(backup.began)} UTC by run {backup.run}: {backup.state}, {size(backup.stored)}"
    yield f"last proven restorable: {proven(backup)}"
    for piece in backup.pieces:
        yield from _piece_lines(piece)
    if backup.manifest:
        yield f"manifest: `{backup.manifest}`"
    yield f"`backup verify {backup.id}` reads it back from the store; `restore {backup.id}` says how to restore it."


def _piece_lines(piece: Piece) -> Iterator[str]:
    packed = f", packed with {piece.packed}" if piece.packed else ""
    gone = ", no longer kept" if piece.gone else ""
    yield f"• {piece}: {size(piece.stored)} in {piece.took.total_seconds():.0f} s{packed}{gone}, `{piece.key}`"
    yield f"    SHA-256 before encryption: {piece.sha256}"
    for proof in piece.proofs:
        yield f"    {proof.by.value}, {when(proof.at)}: {'passed' if proof.passed else 'FAILED'}: {proof.said}"
    if not piece.proofs:
        yield "    nothing proves it yet"
    yield from (f"    warning: {warning}" for warning in piece.warnings)


def how_to_restore(backup: Backup, site: Site) -> str:
    """opsbot has no key that opens a backup, so it restores none; the way for a person."""
    if backup.state in ("gone", "being taken"):
        return f"Backup {backup.id} is {backup.state}; there is nothing to restore from it."
    if not backup.pieces:
        return f"Backup {backup.id} is {backup.state} and holds nothing; there is nothing to restore from it."
    held = [restore.Held(piece.kind, piece.name, f"STORE/{piece.key}", live=piece.live) for piece in backup.pieces]
    machine = next(iter(site.of(Role.PLATFORM)), Target("PLATFORM", Role.PLATFORM, site.name))
    steps = f"```\n{restore.script([*restore.whole(held, restore.Way(site, machine))])}\n```"
    return "\n".join(filter(None, (NOT_BY_ITSELF.format(number=backup.id), _doubt(backup), steps)))


def _doubt(backup: Backup) -> str:
    failed = [piece.name for piece in backup.pieces if piece.failed]
    if failed:
        return f"Beware: a proof of {listed(failed)} failed; `backup show {backup.id}` says which."
    if backup.state == "incomplete":
        return "Beware: this backup is incomplete; only what is listed here was stored."
    return "" if backup.proven else "Beware: nothing proves that this backup can be restored."


def backup_data(backup: Backup) -> dict[str, Any]:
    proof = backup.proven
    return {
        "backup": backup.id,
        "site": backup.site,
        "what": backup.what,
        "run": backup.run,
        "state": backup.state,
        "began": backup.began.isoformat(),
        "stored_bytes": backup.stored,
        "proven": {"by": proof.by.value, "at": proof.at.isoformat()} if proof else None,
        "manifest": backup.manifest,
        "pieces": [_piece_data(piece) for piece in backup.pieces],
    }


def _piece_data(piece: Piece) -> dict[str, Any]:
    return {
        "kind": piece.kind,
        "name": piece.name,
        "key": piece.key,
        "plain_bytes": piece.plain,
        "stored_bytes": piece.stored,
        "sha256": piece.sha256,
        "warnings": list(piece.warnings),
        "proofs": [
            {"by": each.by.value, "passed": each.passed, "said": each.said, "at": each.at.isoformat()}
            for each in piece.proofs
        ],
    }
