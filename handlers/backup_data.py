"""`backup data`: store the platform's files and certificates, encrypted."""

from bot.core.handler import BackupSteps, job
from bot.core.look import Look
from handlers.toolbox import backup


@job(
    "backup data",
    says="Store the platform's files and certificates, encrypted; the database's own files are not consistent",
)
def backup_data(steps: BackupSteps, look: Look) -> str:
    return backup.take(steps, look, "data")
