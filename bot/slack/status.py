"""The one message about a run, edited in place. Pure.

Worst first, consequences under their cause, then what was checked, the plan and the progress.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from bot.core.fix import readable
from bot.core.outcome import Outcome
from bot.core.run import Run
from bot.core.story import Event, fixes, moment, text
from bot.engine import words
from bot.slack import mrkdwn
from bot.slack.blocks import Message, Paper, fitted, people_of
from bot.slack.story import ENDLESS, Done, Picture, Trouble, needs, picture

INDENT: Final = "\u2003\u2003"  # wide spaces: ordinary ones are folded on some screens
MOST_TROUBLES: Final = 14
MOST_CONSEQUENCES: Final = 5
MOST_DONE: Final = 10
LISTED_HEALTHY: Final = 8  # checks named when all is well
LISTED: Final = 3  # and when something is wrong
MOMENT: Final = timedelta(seconds=1)  # nothing takes `0 s`
BECAUSE: Final = ": not known, because "  # in the engine's sentence for a check that could not look
SAID: Final = 90  # characters of what a step says while it goes on: bytes, rate and time left fit
SENTENCE: Final = 800  # characters of the outcome's sentence
BY_HAND: Final = 300  # characters of what was seen, and of what a person must do, that there is always room for
WHOLE_BY_HAND: Final = 900  # and where few have to do much: a command that is cut off helps nobody
WHOLE_EVIDENCE: Final = 500  # characters of what was seen, where there is room; else BY_HAND
ALL_BY_HAND: Final = 3_600  # of all of them in one message

_SIGNS: Final = {
    Outcome.HEALTHY: "✅",
    Outcome.FIXED: "✅",
    Outcome.DONE: "✅",
    Outcome.PARTLY_FIXED: "🟠",
    Outcome.UNFIXED: "🔴",
    Outcome.FOUND: "🟠",
    Outcome.FAILED: "🔴",
    Outcome.COULD_NOT_LOOK: "⚠️",
    Outcome.DECLINED: "⛔",
    Outcome.EXPIRED: "⌛",
    Outcome.CANCELLED: "⏹️",
    Outcome.IN_DOUBT: "❓",
    Outcome.REFUSED: "⛔",
}
_SEVERITY: Final = {
    "HEALED": ("✅", "Healed"),
    "STALE": ("⚪", "Not seen again"),
    "BROKEN": ("🔴", "Broken"),
    "WARN": ("🟠", "Warning"),
    "INFO": ("🔵", "Note"),
}
_RESULTS: Final = {
    "done": "✅",
    "healed": "✅",
    "as it should be": "✅",
    "not needed": "✅",
    "sent": "⏳",
    "waiting": "⏳",
    "under way": "⏳",
    "failed": "🔴",
    "not healed": "🔴",
    "not sent": "⛔",
    "given up": "⏹️",
    "in doubt": "❓",
}
_VERDICTS: Final = {
    "approve": "Approved",
    "decline": "Declined",
    "expire": "Expired: nobody decided in time",
    "cancel": "Cancelled",
    "done": "Said to be done",
    "again": "To be sent again",
    "stop": "Stopped",
}


def status(run: Run, story: Sequence[Event], now: datetime) -> Message:
    """Everything that matters about a run, in one message; what finds no room is counted, and whole in `document`."""
    seen = picture(run, story)
    paper = Paper(f"r{run.id}.{story[-1].no if story else 0}", people_of(run, more=seen.people))
    paper.header(headline(run, seen))
    for body in _sentence(seen, paper):
        paper.section(body)
    after = [*_checked(seen, paper), *_plan(seen, paper, now), *_progress(seen, paper)]
    footer = _footer(run, seen, story, paper)
    for body in _troubles(seen, paper, keep=sum(map(len, after)) + len(footer) + 300):
        paper.section(body)
    for body in after:
        paper.section(body)
    paper.context(footer)
    if paper.omitted:
        file = ", and so has the file below" if seen.outcome else ""
        paper.context(f"Not everything fits here: `show {run.id}` has all of it{file}.")
    elif not _unlisted(seen):
        return Message(_fallback(run, seen, paper), tuple(paper.blocks))
    return Message(_fallback(run, seen, paper), tuple(paper.blocks), whole(run, story), f"run-{run.id}.txt")


def headline(run: Run, seen: Picture) -> str:
    """`🔴 Not fixed: builds not starting on prod`."""
    sign = _SIGNS[seen.outcome] if seen.outcome else "⏳"
    return f"{sign} {_word(seen)}: {_about(run)}"


def _word(seen: Picture) -> str:
    """The outcome as it is meant here: machines that answered were looked at, and what none can cure was not tried."""
    if seen.outcome is None:
        return seen.phase
    if seen.outcome is Outcome.COULD_NOT_LOOK and seen.checked:
        return "Could not look everywhere" if seen.troubles else "Not all is known"
    if seen.outcome is Outcome.UNFIXED and not seen.plan and seen.troubles:
        return "For a person"
    return seen.outcome.words.capitalize()


def _about(run: Run) -> str:
    order = run.order
    where = f" {', '.join(order.targets)}" if order.targets else ""
    what = f"{order.subject} {order.argument}" if order.argument else order.subject
    return f"{mrkdwn.clip(what, 60)}{mrkdwn.clip(where, 50)} on {mrkdwn.clip(order.site, 30)}"


def _fallback(run: Run, seen: Picture, paper: Paper) -> str:
    """The notification: the outcome or phase, and how bad it is, in one sentence."""
    counted = _counted([each for each in seen.troubles if each.open])
    rest = f" {fitted(seen.sentence, 200, paper.known)}" if seen.sentence else f" {counted} so far." if counted else ""
    return f"{mrkdwn.escape(headline(run, seen))} (run {run.id}).{rest}"


def _counted(troubles: Sequence[Trouble]) -> str:
    count = Counter(each.severity for each in troubles)
    words = {"BROKEN": ("broken", "broken"), "WARN": ("warning", "warnings"), "INFO": ("note", "notes")}
    return ", ".join(f"{count[key]} {words[key][count[key] > 1]}" for key in words if count[key])


# ---------------------------------------------------------------- the parts, each a few sections


def _sentence(seen: Picture, paper: Paper) -> Iterator[str]:
    if seen.outcome and seen.sentence:
        yield paper.fit(seen.sentence, SENTENCE)


def _troubles(seen: Picture, paper: Paper, keep: int) -> Iterator[str]:
    """A section for each cause while there is room; `keep` is what the parts after them need."""
    roots = seen.roots()
    shown, most = 0, _most_by_hand([root for root, _ in roots[:MOST_TROUBLES]])
    for root, under in roots[:MOST_TROUBLES]:
        bodies = ("\n".join(_trouble(root, under, paper, each)) for each in (most, BY_HAND))
        body = next((each for each in bodies if paper.fits(each, keep)), "")
        if not body:
            break
        yield body
        shown += 1
    if left := roots[shown:]:
        paper.omitted += len(left)
        yield f"… and {len(left)} more: {_counted([root for root, _ in left if root.open]) or 'healed'}"


def _most_by_hand(roots: Sequence[Trouble]) -> int:
    """How long what a person must do may be for each trouble, by how many of them have much to say."""
    wordy = sum(1 for root in roots if root.open and len(root.person) > BY_HAND)
    return max(BY_HAND, min(WHOLE_BY_HAND, ALL_BY_HAND // max(1, wordy)))


def _trouble(root: Trouble, under: Sequence[Trouble], paper: Paper, by_hand: int) -> Iterator[str]:
    sign, word = _SEVERITY["HEALED" if root.healed else "STALE" if root.stale else root.severity]
    yield f"{sign} *{word}* · {'before: ' if root.healed else ''}{_what(root, paper, 300)}"
    if not root.open:  # its evidence was true then, and would be read as true now
        yield from _consequences([each for each in under if each.open], paper)
        return
    if root.evidence:
        yield f">{paper.fit(root.evidence, min(by_hand, WHOLE_EVIDENCE))}"
    if root.fixes:  # what a person does comes after them
        shown, left = paper.fold(root.fixes, 3)
        more = f" and {left} more" if left else ""
        yield f"🔧 Can be tried: {', then '.join(paper.fit(fix, 150) for fix in shown)}{more}"
    if root.person:
        yield f"👤 *For a person:* {paper.fit(root.person, by_hand)}"
    if root.link:
        yield mrkdwn.link(root.link, "Read more") if len(root.link) <= 200 else paper.fit(root.link, 200)
    yield from _consequences(under, paper)


def _consequences(under: Sequence[Trouble], paper: Paper) -> Iterator[str]:
    shown, left = paper.fold(under, MOST_CONSEQUENCES)
    for each in shown:
        yield f"{INDENT}↳ so also · {_what(each, paper, 150)}"
    if left:
        yield f"{INDENT}↳ and {left} more consequence{'s' if left > 1 else ''}"


def _what(each: Trouble, paper: Paper, most: int) -> str:
    """`worker-2: has no consumer`; a title that names its machine says so itself."""
    title = paper.fit(each.title, most)
    return title if not each.target or each.target in each.title else f"{paper.fit(each.target, 60)}: {title}"


def _checked(seen: Picture, paper: Paper) -> Iterator[str]:
    if unknown := _untold(seen):
        broken = any(each.open and each.severity == "BROKEN" for each in seen.troubles)
        shown, left = paper.fold(unknown, 2 if broken else 5)  # much is not told because of what is broken
        lines = [f"• {paper.fit(each, 150)}" for each in shown] + ([f"• and {left} more"] if left else [])
        yield "⚠️ *Could not be told:*\n" + "\n".join(lines)
    if not seen.checked:
        return
    listed = " ".join(paper.fit(each, 100) for each in seen.checked[: _listed(seen)])
    more = f" … and {left} more" if (left := _unlisted(seen)) else ""
    checks = f" · {len(seen.checked)} check{'s' if len(seen.checked) > 1 else ''}"
    asked = f" on {len(seen.asked)} machines" if len(seen.asked) > 1 else ""
    told = seen.sentence.startswith("Nothing is wrong: ")  # then the sentence has the numbers
    yield f"*In order*{'' if told else checks + asked}: {listed}{more}"


def _untold(seen: Picture) -> list[str]:
    """What could not be told and is not said elsewhere in the message: many checks may miss it for the same reason."""
    said = [each.title.rstrip(".") for each in seen.troubles if each.open]
    left = [
        each for each in seen.unknown if each not in seen.sentence[:SENTENCE] and not any(why in each for why in said)
    ]
    same = Counter(each.partition(BECAUSE)[2] for each in left)
    lines = (
        f"{same[why]} checks{BECAUSE.lstrip(':')}{why}" if why and same[why] > 1 else each
        for each, why in ((each, each.partition(BECAUSE)[2]) for each in left)
    )
    return list(dict.fromkeys(lines))


def _listed(seen: Picture) -> int:
    """How many checks are named: few, since what is wrong is what people read for; the file has all."""
    return LISTED_HEALTHY if seen.outcome is Outcome.HEALTHY else LISTED


def _unlisted(seen: Picture) -> int:
    return max(0, len(seen.checked) - _listed(seen))


def _plan(seen: Picture, paper: Paper, now: datetime) -> Iterator[str]:
    if not seen.plan:
        return
    shown, left = paper.fold(fixes(seen.plan), 4)
    named = "; ".join(paper.fit(f"{text(each.get('target'))}: {text(each.get('title'))}", 160) for each in shown)
    risk = paper.fit(text(seen.plan.get("risk")), 40)
    lines = [f"*Plan* ({risk}): {named}{f'; and {left} more' if left else ''}"]
    decided = dict.fromkeys(_decided(each, paper) for each in seen.decisions[-3:])  # steps by hand are all alike
    lines += decided or _open(seen, now)
    yield "\n".join(lines)


def _open(seen: Picture, now: datetime) -> list[str]:
    wanted, expires = needs(seen.plan), moment(seen.plan.get("expires"))
    if not wanted or seen.outcome or (expires and expires <= now):
        return []
    who = "another person" if wanted == 1 else f"{wanted} other people"
    return [f"⏳ Waiting for {who} to approve{f', until {mrkdwn.date(expires)}' if expires else ''}"]


def _decided(data: Mapping[str, Any], paper: Paper) -> str:
    verdict = text(data.get("verdict"))
    by, reason = text(data.get("by")), text(data.get("reason"))
    user = by.removeprefix("<@").removesuffix(">")
    who = f" by {mrkdwn.person(user)}" if user and verdict != "expire" else ""
    return f"{_VERDICTS.get(verdict, paper.fit(verdict, 40))}{who}{f': {paper.fit(reason, 200)}' if reason else ''}"


def _progress(seen: Picture, paper: Paper) -> Iterator[str]:
    left = max(0, len(seen.done) - MOST_DONE)  # the newest matter, so the oldest are folded
    paper.omitted += left
    lines = [f"… {left} earlier steps"] if left else []
    over = seen.outcome not in (None, Outcome.IN_DOUBT)
    ended = [replace(each, result="given up") if over and each.result in ENDLESS else each for each in seen.done]
    lines += [_did(each, paper) for each in ended[left:]]
    if seen.waiting and not seen.outcome:
        lines.append(_waits(seen.waiting, paper))
    if lines:
        yield "\n".join(lines)


def _did(each: Done, paper: Paper) -> str:
    where = f"{paper.fit(each.target, 40)}: " if each.target else ""
    said = f" ({paper.fit(each.said, SAID)})" if each.said and each.result != "done" else ""
    return f"{_RESULTS.get(each.result, '•')} {where}{paper.fit(each.does, 150)}: {paper.fit(each.result, 30)}{said}"


def _waits(waiting: Mapping[str, Any], paper: Paper) -> str:
    until = moment(waiting.get("until"))
    at_most = f", at most until {mrkdwn.date(until)}" if until else ""
    return f"⏳ Waiting for {paper.fit(text(waiting.get('for')), 200)}{at_most}"


def _footer(run: Run, seen: Picture, story: Sequence[Event], paper: Paper) -> str:
    order = run.order
    why = f" · because: {paper.fit(order.because, 160)}" if order.because else ""
    took = f" · took {readable(max(MOMENT, story[-1].at - run.created))}" if seen.outcome and story else ""
    stopped = f" · cancelled by {mrkdwn.person(run.cancelled_by.user)}" if run.cancelled_by else ""
    return f"run {run.id} · asked by {mrkdwn.person(order.actor.user)} {mrkdwn.date(run.created)}{took}{why}{stopped}"


# ---------------------------------------------------------------- the whole, as plain text


def whole(run: Run, story: Sequence[Event]) -> str:
    """All of a run's story as plain text, nothing left out: the file, and what `show` prints."""
    seen = picture(run, story)
    lines = [headline(run, seen), f"run {run.id}, asked by {run.order.actor.user} at {mrkdwn.utc(run.created)}"]
    lines += [f"because: {run.order.because}"] if run.order.because else []
    lines += [seen.sentence] if seen.sentence else []
    for root, under in seen.roots():
        lines += ["", *_in_full(root, ""), *(line for each in under for line in _in_full(each, "    so also: "))]
    for title, items in (("Could not be told", seen.unknown), ("Checked", seen.checked)):
        lines += ["", f"{title}:", *(f"  {each}" for each in items)] if items else []
    lines += ["", *(line for event in story for line in _told(event))]
    return "\n".join(lines) + "\n"


def _in_full(each: Trouble, before: str) -> Iterator[str]:
    healed = "healed, was " if each.healed else "not seen again, was " if each.stale else ""
    yield f"{before}{healed}{each.severity} {each.target}: {each.title} [{each.cause}]"
    for label, said in (("evidence", each.evidence), ("for a person", each.person), ("see", each.link)):
        if said:
            yield f"    {label}: {said}"
    yield from (f"    can be tried: {fix}" for fix in each.fixes)


def _told(event: Event) -> Iterator[str]:
    """What happened, and when; looks and what they found stand above, as they are now."""
    if event.kind in ("look", "finding") or not (line := words.event_line(event)):
        return
    yield f"{event.at:%H:%M:%S} {mrkdwn.unmarked(line)}"
    if event.kind == "plan":
        yield from words.fixes_lines(event.data)
