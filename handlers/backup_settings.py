"""`backup settings`: store what was typed into Replicated's settings, passwords too, encrypted."""

from bot.core.handler import BackupSteps, job
from bot.core.look import Look
from handlers.toolbox import backup


@job("backup settings", says="Store what was typed into Replicated's settings, passwords too, encrypted")
def backup_settings(steps: BackupSteps, look: Look) -> str:
    return backup.take(steps, look, "settings")
