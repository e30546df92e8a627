"""`backup cold platform-1 because …`: the only consistent copy of all files, taken while the app is stopped.

Source: https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/#backups; PostgreSQL's manual, "File
System Level Backup", says why a copy of a running database is none.
"""

from bot.core.fix import Fix, Risk, TakeBackup
from bot.core.handler import action
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import replicated


@action(
    "backup cold",
    each=Role.PLATFORM,
    says="Stop the platform's app, copy all its files while nothing writes, start it again",
    risk=Risk.INTERRUPTS,
    makes="platform.cold-copy",
    proof="platform app not ready",
)
def backup_cold(_look: Look, machine: Target) -> Fix:
    return Fix(
        id="platform.cold-copy",
        title="Copy the platform's files while its app is stopped",
        target=machine,
        steps=(*replicated.stopping(machine), TakeBackup("data"), *replicated.starting(machine)),
        risk=Risk.INTERRUPTS,
        ensure=(replicated.start_app(machine),),
        undo="nothing to undo: builds that ran are queued again, and nobody can use Travis CI meanwhile",
        one_at_a_time=True,
    )
