"""`backup verify 12`: read backup 12 back from the store and compare every object with what was recorded.

Without a number, as a schedule orders it, the backup that was read back the longest ago.
"""

from bot.core.handler import BackupSteps, job
from bot.core.look import Look


@job("backup verify", says="Read a backup back from the store, and compare it with what was stored", takes="backup")
def backup_verify(steps: BackupSteps, _look: Look) -> str:
    return steps.verify_backup()
