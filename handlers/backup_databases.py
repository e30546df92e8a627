"""`backup databases`: store a consistent dump of each database, encrypted, and restore it for a try."""

from bot.core.handler import BackupSteps, job
from bot.core.look import Look
from handlers.toolbox import backup


@job("backup databases", says="Store a consistent dump of each database, encrypted, and restore it for a try")
def backup_databases(steps: BackupSteps, look: Look) -> str:
    return backup.take(steps, look, "databases")
