"""What people type, read: one grammar for slash command, mention and command line. Pure.

diagnose SITUATION [MACHINE …] [on SITE]         SITUATION alone is enough
ACTION MACHINE [MACHINE …] because TEXT [on SITE]
ACTION NAME because TEXT [on SITE]               for an action about a login or the like
JOB [on SITE] · JOB N [on SITE]                 N for a job about the number of a backup, which may do without
status [on SITE] · runs · show N · cancel N · approve N [PLAN] · decline N because TEXT
can @PERSON "ACTION MACHINE" [on SITE] · help [WORD]
backups [on SITE] · backup show N · backup cancel N · restore N [because TEXT] · restore over N because TEXT
"""

import difflib
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from bot.core.approval import SHORTEST_DIGEST
from bot.core.errors import NotUnderstood
from bot.core.request import A_BACKUP, EVERYTHING, Ask, Request, Vocabulary

LONGEST_TEXT: Final = 2_000  # characters; a reason that needs more belongs into the incident's thread
LONGEST_REASON: Final = 500
ECHO: Final = 60
QUESTION: Final = "builds not starting"  # what most people come with
EXAMPLE: Final = "restart"  # the action that everybody knows
MOST_NAMES: Final = 12  # named in one sentence; more are counted

_QUOTES: Final = str.maketrans({**dict.fromkeys("“”„‟«»″", '"'), **dict.fromkeys("‘’‚‛′`´", "'"), "…": "..."})
_PERSON: Final = re.compile(r"<@([UW][A-Z0-9]{1,30})(?:\|[^<>]*)?>")
_NAMED: Final = re.compile(r"<(?:[#!]|https?:|mailto:)[^<>|]*\|([^<>]*)>")
_BARE: Final = re.compile(r"<(?:[#!](?:subteam\^)?|mailto:)?((?:https?:)?[^<>|@\s]*)>")
_TAIL: Final = " \t.,;:!?"
_FILLERS: Final = ("please", "run")


@dataclass(frozen=True)
class _Sentence:
    """A text in words: those that say what to do, the reason after `because`, the site after `on`."""

    words: tuple[str, ...]
    because: str
    site: str
    vocabulary: Vocabulary
    default_site: str | None

    @property
    def verb(self) -> str:
        return self.words[0].lower()

    @property
    def head(self) -> str:
        return " ".join(self.words)


def read(text: str, vocabulary: Vocabulary, default_site: str | None = None) -> Request:
    """What the text asks for; raises NotUnderstood with a sentence that says what would have been understood."""
    sentence = _sentence(_plain(text, vocabulary), vocabulary, default_site)
    if (verb := _VERBS.get(sentence.verb)) and not _is_name(sentence.head, vocabulary):
        return verb(sentence)
    return _order(sentence)


# ---------------------------------------------------------------- from what was typed to words


def _plain(text: str, vocabulary: Vocabulary) -> str:
    """Without Slack's escapes, a client's quotes and spaces, or anything that cannot be seen."""
    if len(text) > LONGEST_TEXT:
        raise NotUnderstood(
            f"That is {len(text):,} characters long; I read at most {LONGEST_TEXT:,}. {_examples(vocabulary)}"
        )
    text = _unlinked(text).translate(_QUOTES)
    if any(unicodedata.category(char) == "Cc" and char not in "\n\r\t" for char in text):
        raise NotUnderstood(f"There are control characters in that; please type it anew. {_examples(vocabulary)}")
    text = "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Cs", "Co"))
    if plain := " ".join(text.split()).lstrip(_TAIL).rstrip(" \t,;:"):
        return plain
    raise NotUnderstood(f"Say what to do. {_examples(vocabulary)}")


def _unlinked(text: str) -> str:
    """Slack's own forms as people see them; a mention of a person stays, by id, since only `can` needs it."""
    text = _PERSON.sub(r"<@\1>", text)
    text = _BARE.sub(r"\1", _NAMED.sub(r"\1", text))
    return html.unescape(text) if "&" in text else text


def _sentence(text: str, vocabulary: Vocabulary, default_site: str | None) -> _Sentence:
    head, reason = _split_reason(text)
    head, site = _split_site(head, vocabulary)
    reason, site = _reason(reason, site, vocabulary)
    words = tuple(word for word in _tokens(head) if word)
    if len(words) > 1 and words[0].lower() in _FILLERS:
        words = words[1:]
    if not words:
        raise NotUnderstood(f"Say what to do. {_examples(vocabulary)}")
    return _Sentence(words, reason, site, vocabulary, default_site)


def _split_reason(text: str) -> tuple[str, str]:
    found = re.search(r"(?i)(?:^|(?<=\s))because(?=\s|:|$):?", text)
    return (text[: found.start()], text[found.end() :].strip()) if found else (text, "")


def _split_site(head: str, vocabulary: Vocabulary) -> tuple[str, str]:
    """The site after the last `on`; an `on` that no site follows is a word like any other, unless it ends the text."""
    found = re.fullmatch(r"(?is)(.*?)\s*\bon\s+(\S+)", head.strip(_TAIL))
    if not found:
        return head, ""
    if (site := _known(found[2].strip("\"'" + _TAIL), vocabulary.sites)) is not None:
        return found[1], site
    if _is_name(head.partition(" ")[2] if head.lower().startswith("diagnose ") else head, vocabulary):
        return head, ""
    raise NotUnderstood(f"I know no installation {echo(found[2])}; there is {names(vocabulary.sites)}.")


def _reason(reason: str, site: str, vocabulary: Vocabulary) -> tuple[str, str]:
    """A reason in quotes ends there; one without may end in `on SITE`, which then also stays in the reason."""
    if quoted := re.fullmatch(r"""(["'])(.+)\1\s*(?:on\s+(\S+?))?[.!]*""", reason, re.I | re.S):
        reason, tail = quoted[2].strip(), quoted[3]
    else:
        trailing = re.search(r"(?i)\son\s+(\S+?)[.!]*$", f" {reason}")
        tail = trailing[1] if trailing and _known(trailing[1], vocabulary.sites) else None
    if len(reason) > LONGEST_REASON:
        raise NotUnderstood(f"The reason has {len(reason):,} characters; at most {LONGEST_REASON} fit. Shorten it.")
    return reason, site or (_known(tail, vocabulary.sites) if tail else None) or ""


def _tokens(text: str) -> Iterable[str]:
    return (word.strip("\"'" + _TAIL) for word in re.split(r"[\s,]+", text))


# ---------------------------------------------------------------- verbs


def _order(sentence: _Sentence, needs_reason: bool = True) -> Request:
    """A run: the longest name that the words begin with, and the machines after it."""
    kind, name, rest = _longest_name(sentence)
    site = _site(sentence)
    request = Request(Ask.RUN, kind, name, site=site, because=sentence.because)
    if kind == "act":
        return _action(request, rest, sentence.vocabulary, needs_reason)
    if kind == "job" and rest and (takes := dict(sentence.vocabulary.job_takes).get(name)):
        return replace(request, argument=_number_of(name, takes, rest))
    machines = _machines(rest, site, sentence.vocabulary, after=name)
    if kind == "job" and machines:
        raise NotUnderstood(f"`{name}` is about the whole of {site}: ask for it without {names(machines)}.")
    return replace(request, targets=machines)


def _longest_name(sentence: _Sentence) -> tuple[str, str, tuple[str, ...]]:
    vocabulary = sentence.vocabulary
    only_diagnoses = sentence.verb in ("diagnose", "diagnosis") and len(sentence.words) > 1
    words = sentence.words[1:] if only_diagnoses else sentence.words
    shelves = [("diagnose", vocabulary.diagnoses)]
    shelves += [] if only_diagnoses else [("act", vocabulary.actions), ("job", vocabulary.jobs)]
    for length in range(len(words), 0, -1):
        for kind, shelf in shelves:
            if name := _known(" ".join(words[:length]), shelf):
                return kind, name, words[length:]
    if words == ("diagnose",):
        raise NotUnderstood(f"Diagnose what? Such as {names(vocabulary.diagnoses[:MOST_NAMES], ' or ')}.")
    verbs = () if only_diagnoses else tuple(_VERBS)
    raise _unknown(" ".join(words), [*(name for _, shelf in shelves for name in shelf), *verbs], vocabulary)


def _action(request: Request, rest: Sequence[str], vocabulary: Vocabulary, needs_reason: bool) -> Request:
    action, site = request.subject, request.site
    role = dict(vocabulary.action_roles).get(action, "")
    machines = _of_site(site, vocabulary)
    if takes := dict(vocabulary.action_takes).get(action):
        request, rest = _about_what(request, takes, rest)
    fitting = [name for name, its in machines if role in ("", its)]
    no_reason = needs_reason and not request.because
    if no_reason and rest and rest[0].casefold() in {name.casefold() for name in fitting}:
        rest = rest[:1]  # what follows may be the reason itself, without `because`
    targets = _machines(rest, site, vocabulary, role, after=action) or tuple(fitting[:1] if takes else ())
    if not targets:
        raise NotUnderstood(f"{action.capitalize()} which {role or 'machine'}? On {site} there is {names(fitting)}.")
    if wrong := next((target for target in targets if target not in fitting), None):
        other = dict(machines)[wrong]
        instead = _instead(action, other, vocabulary)
        raise NotUnderstood(
            f"`{action}` is for a {role}; {wrong} is a {other}.{instead} On {site} there is {names(fitting)}."
        )
    if no_reason:
        said = request.argument or targets[0]
        raise NotUnderstood(f"Say why, since the approver reads it: `{action} {said} because …`.")
    return replace(request, targets=targets)


def _instead(action: str, role: str, vocabulary: Vocabulary) -> str:
    """The action of the same word that is for this role: `restart platform` for `restart`."""
    near = [name for name, its in vocabulary.action_roles if its == role and name.startswith(f"{action} ")]
    return f" For a {role} there is {names(near, ' or ')}." if near else ""


def _about_what(request: Request, takes: str, rest: Sequence[str]) -> tuple[Request, Sequence[str]]:
    """The word that an action is about, such as a login; it is foreign text, and only its shape is looked at here."""
    if not rest:
        raise NotUnderstood(f"{request.subject.capitalize()} which {takes}? `{request.subject} NAME because …`.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", rest[0]):
        raise NotUnderstood(f"{echo(rest[0])} is no {takes}: it has letters, digits, dots and hyphens.")
    return replace(request, argument=rest[0]), rest[1:]


def _status(sentence: _Sentence) -> Request:
    _nothing_after(sentence)
    return Request(Ask.STATUS, site=_site(sentence))


def _diagnose(sentence: _Sentence) -> Request:
    """`diagnose everything` is what a run of `status` is called, so it is one."""
    if sentence.head.lower() == f"diagnose {EVERYTHING}":
        return Request(Ask.STATUS, site=_site(sentence))
    return _order(sentence)


def _runs(sentence: _Sentence) -> Request:
    _nothing_after(sentence)
    return Request(Ask.RUNS, site=sentence.site)


def _numbered(sentence: _Sentence) -> Request:
    ask = Ask(sentence.verb)
    said = [each for each in sentence.words[1:] if each.lower() != "run"]
    digest = said.pop().lower() if ask is Ask.APPROVE and len(said) == 2 else ""
    if digest and not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_DIGEST},64}}", digest):
        raise NotUnderstood(f"{echo(digest)} is no plan: type the first characters of the one that you read.")
    number = said[0].removeprefix("#") if len(said) == 1 else ""
    if not re.fullmatch(r"[0-9]{1,9}", number):
        raise NotUnderstood(f"Which run? Say its number: `{ask.value} 12`. `runs` lists them.")
    if ask is Ask.DECLINE and not sentence.because:
        raise NotUnderstood(f"Say why, since the requester reads it: `{ask.value} {int(number)} because …`.")
    return Request(ask, number=int(number), because=sentence.because, argument=digest)


def _number_of(name: str, takes: str, rest: Sequence[str]) -> str:
    number = rest[0].removeprefix("#") if len(rest) == 1 else ""
    if not re.fullmatch(r"[0-9]{1,9}", number):
        raise NotUnderstood(f"Which {takes}? Say its number: `{name} 12`. `backups` lists them.")
    return str(int(number))


def _backups(sentence: _Sentence) -> Request:
    _nothing_after(sentence)
    return Request(Ask.BACKUPS, site=sentence.site)


def _backup(sentence: _Sentence) -> Request:
    """`backup show 12`, `backup cancel 12`, or the beginning of a job's name."""
    head = sentence.head.lower()
    if head.startswith("backup show"):
        return Request(Ask.BACKUP, number=int(_number_of("backup show", "backup", sentence.words[2:])))
    if head.startswith("backup cancel"):
        number = _number_of("backup cancel", "backup", sentence.words[2:])
        return Request(Ask.CANCEL, number=int(number), argument=A_BACKUP)
    return _order(sentence)


def _restore(sentence: _Sentence) -> Request:
    """`restore 12` says how; with a reason, or over what is there, it is an order like any other."""
    if sentence.because or sentence.head.lower().startswith("restore over"):
        return _order(sentence)
    return Request(Ask.RESTORE, number=int(_number_of("restore", "backup", sentence.words[1:])))


def _can(sentence: _Sentence) -> Request:
    example = _can_example(sentence.vocabulary)
    if len(sentence.words) < 3:
        raise NotUnderstood(f"Say who, and what: {example}.")
    who = sentence.words[1]
    person = re.fullmatch(r"<@([UW][A-Z0-9]+)>|@?([UW][A-Z0-9]{2,30})", who)
    if not person and who.lower() not in ("i", "me"):
        raise NotUnderstood(
            f"I do not know who {echo(who)} is: in Slack type @ and choose the person; in a terminal say their id, "
            f"such as U012AB3CD (in Slack: their profile, Copy member ID). {example}"
        )
    asked = replace(sentence, words=sentence.words[2:])
    if _VERBS.get(asked.verb, _diagnose) is not _diagnose and not _begins_with_name(asked):
        raise NotUnderstood(f"No rule is about `{asked.verb}`; ask about a diagnosis, an action or a job: {example}.")
    wish = _order(asked, needs_reason=False)
    return replace(wish, ask=Ask.CAN, who=(person[1] or person[2]) if person else "")


def _help(sentence: _Sentence) -> Request:
    return Request(Ask.HELP, subject=" ".join(sentence.words[1:])[:ECHO])


_VERBS: Final[dict[str, Callable[[_Sentence], Request]]] = {
    "diagnose": _diagnose,
    "status": _status,
    "runs": _runs,
    "show": _numbered,
    "cancel": _numbered,
    "approve": _numbered,
    "decline": _numbered,
    "done": _numbered,
    "again": _numbered,
    "stop": _numbered,
    "can": _can,
    "help": _help,
    "backups": _backups,
    "backup": _backup,
    "restore": _restore,
}


# ---------------------------------------------------------------- names


def _known(said: str, known: Iterable[str]) -> str | None:
    """The name as it is spelt in the catalogue, whatever its case, hyphens or trailing punctuation here."""
    wanted = _folded(said)
    return next((name for name in known if _folded(name) == wanted), None)


@lru_cache(maxsize=4096)  # every name of the vocabulary is compared with what was said
def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").strip(_TAIL).split())


def _is_name(text: str, vocabulary: Vocabulary) -> bool:
    return _known(text, (*vocabulary.diagnoses, *vocabulary.actions, *vocabulary.jobs)) is not None


def _begins_with_name(sentence: _Sentence) -> bool:
    words = sentence.words
    return any(_is_name(" ".join(words[:length]), sentence.vocabulary) for length in range(1, len(words) + 1))


def _site(sentence: _Sentence) -> str:
    sites = sentence.vocabulary.sites
    if known := sentence.site or sentence.default_site:
        return known
    if len(sites) == 1:
        return sites[0]
    if not sites:
        raise NotUnderstood("No installation is configured yet: add one under `installations:` in the configuration.")
    raise NotUnderstood(f"On which installation? Add `on {sites[0]}`; there is {names(sites)}.")


def _of_site(site: str, vocabulary: Vocabulary) -> tuple[tuple[str, str], ...]:
    return dict(vocabulary.machines).get(site, ())


def _machines(
    said: Sequence[str], site: str, vocabulary: Vocabulary, role: str = "", after: str = ""
) -> tuple[str, ...]:
    machines = _of_site(site, vocabulary)
    found: dict[str, None] = {}
    for word in said:
        if word.lower().removesuffix("s") in ("and", "machine", *{its for _, its in machines}):
            continue
        name = next((name for name, _ in machines if name.casefold() == word.casefold()), None)
        if name is None:
            fitting = [name for name, its in machines if role in ("", its)]
            nearest = _nearest(word, fitting)
            raise NotUnderstood(
                f"I understood `{after}`, but there is no {role or 'machine'} {echo(word)} on {site}"
                f"{f': did you mean `{nearest[0]}`?' if nearest else '.'} There is {names(fitting)}."
            )
        found[name] = None
    return tuple(found)


def _nothing_after(sentence: _Sentence) -> None:
    if len(sentence.words) > 1:
        hint = f"`{sentence.verb}` stands alone, or with `on` and a site."
        raise _unknown(sentence.head, _all_names(sentence.vocabulary), sentence.vocabulary, hint)


def _unknown(said: str, known: Sequence[str], vocabulary: Vocabulary, hint: str = "") -> NotUnderstood:
    nearest = _nearest(said, known) or _nearest(said.partition(" ")[0], known)
    did_you = f"Did you mean {names(nearest, ' or ')}?" if nearest else ""
    parts = (f"I did not understand {echo(said)}.", hint, did_you, _examples(vocabulary))
    return NotUnderstood(" ".join(part for part in parts if part))


def _nearest(said: str, known: Sequence[str]) -> list[str]:
    by_folded = {_folded(name): name for name in known}
    found = difflib.get_close_matches(_folded(said)[:200], by_folded, n=3, cutoff=0.5)
    return [by_folded[name] for name in found]


def _all_names(vocabulary: Vocabulary) -> list[str]:
    return [*vocabulary.diagnoses, *vocabulary.actions, *vocabulary.jobs, *_VERBS]


# ---------------------------------------------------------------- sentences


def echo(said: str) -> str:
    """A few of the person's own words in a sentence of ours, so that they cannot shape it."""
    plain = "".join(char if char.isprintable() and char not in "`<>" else " " for char in said).strip()
    return f"`{plain[: ECHO - 1]}…`" if len(plain) > ECHO else f"`{plain}`"


def names(known: Sequence[str], last: str = " and ") -> str:
    """`a, b and c`, or the first of them and how many more."""
    if not known:
        return "none"
    shown = [f"`{name}`" for name in known[:MOST_NAMES]]
    if len(known) > MOST_NAMES:
        return f"{', '.join(shown)}{last}{len(known) - MOST_NAMES} more"
    return f"{', '.join(shown[:-1])}{last}{shown[-1]}" if len(shown) > 1 else shown[0]


def guide(vocabulary: Vocabulary, word: str = "") -> str:
    """The answer to `help`: what can be said here, or what one word means."""
    wanted = _known(word, _all_names(vocabulary)) if word else None
    if wanted in _MEANINGS:
        return f"`{vocabulary.command} {_USAGE[wanted]}`: {_MEANINGS[wanted]}."
    if word and wanted is None:
        return f"I know no word {echo(word)}. `{vocabulary.command} help` lists what I know."
    return "\n".join(_about(wanted, vocabulary) if wanted else _overview(vocabulary))


def _overview(vocabulary: Vocabulary) -> Iterable[str]:
    yield f"Say it as `{vocabulary.command} …`, or mention me in a thread."
    shelves = (
        ("Diagnose (looks, changes nothing)", vocabulary.diagnoses),
        ("Act (asks another person first)", vocabulary.actions),
        ("Jobs", vocabulary.jobs),
    )
    yield from (f"• {title}: {names(shelf)}" for title, shelf in shelves if shelf)
    yield from (f"• `{_USAGE[verb]}`: {meaning}" for verb, meaning in _MEANINGS.items())
    if len(vocabulary.sites) > 1:
        yield f"Add `on SITE`: {names(vocabulary.sites)}."


def _about(name: str, vocabulary: Vocabulary) -> Iterable[str]:
    if name in vocabulary.actions:
        role = dict(vocabulary.action_roles).get(name, "machine")
        fitting = [m for _, machines in vocabulary.machines for m, its in machines if role in ("machine", its)]
        takes = dict(vocabulary.action_takes).get(name, "").upper()
        yield f"`{vocabulary.command} {name} {takes or (fitting[0] if fitting else role.upper())} because …`"
        yield f"For a {role}: {names(fitting)}. Another person approves the plan before anything is changed."
    elif name in vocabulary.diagnoses:
        yield f"`{vocabulary.command} diagnose {name}`: looks and says what is wrong; it changes nothing by itself."
    else:
        yield f"`{vocabulary.command} {name}`: starts this job."


_USAGE: Final = {
    "status": "status [on SITE]",
    "runs": "runs",
    "show": "show N",
    "cancel": "cancel N",
    "approve": "approve N",
    "decline": "decline N because TEXT",
    "done": "done N, again N or stop N",
    "can": 'can @PERSON "ACTION MACHINE"',
    "help": "help [WORD]",
    "backups": "backups [on SITE]",
    "backup": "backup show N or backup cancel N",
    "restore": "restore N [because TEXT]",
}
_MEANINGS: Final = {
    "status": "how the installation is now; looks, and changes nothing",
    "runs": "what is running and what ran last",
    "show": "everything that run N found and did",
    "cancel": "stops run N; what it holds is released",
    "approve": "approves the plan that run N waits with (the requester cannot)",
    "decline": "declines the plan of run N, and says why",
    "done": "answers a run that waits for what somebody does by hand, or that does not know whether a change happened",
    "can": "whether that person may do it, and which rule says so",
    "help": "this, or what one word means",
    "backups": "which backups there are, and when each was last proven restorable",
    "backup": "everything about backup N: its objects, and what proves them; or stops it while it is taken",
    "restore": "how to restore backup N; with `because …` step by step, after an approval",
}


def _examples(vocabulary: Vocabulary) -> str:
    return f"For example: {names(_example_lines(vocabulary), ' or ')}."


def _example_lines(vocabulary: Vocabulary) -> list[str]:
    known = sorted(vocabulary.diagnoses, key=lambda name: name != QUESTION)
    lines = [f"{vocabulary.command} diagnose {name}" for name in known[:1]]
    lines += [_action_example(vocabulary)] if vocabulary.actions else []
    return [*lines, f"{vocabulary.command} status", f"{vocabulary.command} help"][:2]


def _action_example(vocabulary: Vocabulary) -> str:
    takes = dict(vocabulary.action_takes)
    plain = [name for name in vocabulary.actions if name not in takes]
    action = EXAMPLE if EXAMPLE in plain else (plain or vocabulary.actions)[0]
    role = dict(vocabulary.action_roles).get(action, "")
    fitting = [name for _, machines in vocabulary.machines for name, its in machines if role in ("", its)]
    return f"{vocabulary.command} {action} {fitting[0] if fitting else 'MACHINE'} because it hangs"


def _can_example(vocabulary: Vocabulary) -> str:
    who = "@ana" if vocabulary.command.startswith("/") else "U012AB3CD"  # a terminal knows nobody by name
    example = _action_example(vocabulary) if vocabulary.actions else "ACTION MACHINE"
    wish = example.removeprefix(f"{vocabulary.command} ").partition(" because ")[0]
    return f'`{vocabulary.command} can {who} "{wish}"`'
