"""The rights that backups need, tried before the first night: what a backup would put into the store and take from
where, and nothing durable is changed by it (`doctor`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Timer
from typing import Final

from bot.adapters.router import Router
from bot.adapters.ssh import Ssh
from bot.core.backup import BackupFailed, BackupStopped, Checking, Source
from bot.core.command import refuse_secrets
from bot.core.errors import Permanent
from bot.core.keeping import ALL
from bot.core.target import Site, Target
from bot.engine.rounds import AskingLook, Diagnoser
from bot.engine.shelter import apart
from bot.settings import Settings
from bot.settings.sections import Backups
from bot.wiring.reaching import checks_of, hosts_of, router_of
from handlers.toolbox import backup

WITHIN: Final = 60.0  # seconds for one source


def try_store(settings: Settings, given: Backups) -> None:
    """Raises BackupFailed where an object cannot be put and deleted, beside backups and beside encryption keys."""
    from bot.adapters.vault import objects, probe  # only where backups are configured, as in `vault_of`

    store = objects(given.store)
    for site in settings.sites():
        for place in (site.name, apart(site.name)):
            probe(store, place)


def try_sources(settings: Settings) -> str:
    """Everything that `backup all` takes is asked for as it will be. Raises Permanent, a sentence for each lack."""
    if settings.backups is None:
        return "none, since no backups are configured"
    ssh = Ssh(hosts_of(settings), refuse_secrets)
    try:
        router, checks = router_of(settings, ssh), checks_of(settings, ssh)
        lists = [_listed(site, router) for site in settings.sites()]
        lacks = [why for each in lists for why in each.lacks(checks)]
    finally:
        ssh.close()
    if lacks:
        raise Permanent("; ".join(dict.fromkeys(lacks)))
    kinds = dict.fromkeys(kind for each in lists for kind in each.kinds)
    return f"nothing is known to lack for {', '.join(kinds)}"


def _listed(site: Site, router: Router) -> "Listing":
    listing = Listing()
    backup.gather(listing, AskingLook(Diagnoser(site, router, lambda *_: None), Flag()), ALL)
    return listing


@dataclass
class Listing:
    """A `Taking` that takes nothing: what a backup would consist of, and why parts of it could not be begun."""

    sources: list[Source] = field(default_factory=list)
    kinds: dict[str, None] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)  # kinds by why

    def store(self, kind: str, source: Source) -> None:
        self.kinds[kind] = None
        self.sources.append(source)

    def store_key(self, target: Target) -> None:
        """Whoever may run programs in the container may read it; reading it only to try would be one secret more."""

    def skip(self, kind: str, why: str) -> None:
        self.skipped.setdefault(why.rstrip("."), []).append(kind)

    def finish(self) -> str:
        return ""

    def lacks(self, checks: Mapping[type, Checking]) -> Iterator[str]:
        """A sentence for each."""
        for why, kinds in self.skipped.items():
            yield f"{', '.join(kinds)} cannot be taken: {why}"
        for each in self.sources:
            if why := _lack(each, checks[type(each.origin)]):
                yield why


def _lack(source: Source, check: Checking) -> str:
    try:
        with _bounded() as abort:
            check.check(source, abort)
    except BackupStopped:
        return f"{source} gave no sign within {WITHIN:g} s"
    except BackupFailed as why:
        return _beforehand(str(why))
    return ""


@contextmanager
def _bounded() -> Iterator[Flag]:
    abort = Flag()
    timer = Timer(WITHIN, abort.set)
    timer.start()
    try:
        yield abort
    finally:
        timer.cancel()


def _beforehand(why: str) -> str:
    """What a backup says when it has failed, said before there was one."""
    said = why.replace(" was not taken:", " cannot be taken:", 1).removesuffix(" Nothing of it was kept.")
    return said.rstrip(".")
