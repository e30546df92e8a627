"""`restore 12 because …`: the way back from a backup, step by step; `restore over 12 because …` where data is already.

opsbot has no key that opens a backup. It looks, takes a backup of what is there, stops and starts the app, and proves
the end; a person loads each object and says so.
"""

from bot.core.fix import Fix, Risk
from bot.core.handler import action
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import restore

PROOF = "platform app not ready"


@action(
    "restore",
    each=Role.PLATFORM,
    says="Restore a backup step by step into a platform that has no data",
    risk=Risk.DATA,
    makes="platform.restore",
    proof=PROOF,
    takes="backup",
)
def restore_backup(look: Look, machine: Target, number: str) -> Fix:
    return restore.onto_nothing(look, machine, number)


@action(
    "restore over",
    each=Role.PLATFORM,
    says="Restore a backup step by step over the data that is there, which is backed up first",
    risk=Risk.DATA,
    makes="platform.restore-over",
    proof=PROOF,
    takes="backup",
)
def restore_over(look: Look, machine: Target, number: str) -> Fix:
    return restore.over_what_is_there(look, machine, number)
