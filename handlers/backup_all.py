"""`backup all`: store everything that a new platform is restored from, encrypted, as one backup."""

from bot.core.handler import BackupSteps, job
from bot.core.look import Look
from handlers.toolbox import backup


@job("backup all", says="Store everything that a new platform is restored from, encrypted, as one backup")
def backup_all(steps: BackupSteps, look: Look) -> str:
    return backup.take(steps, look, "all")
