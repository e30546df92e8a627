"""`backup key`: store the encryption key, encrypted and apart from everything else; nobody gets to see it."""

from bot.core.handler import BackupSteps, job
from bot.core.look import Look
from handlers.toolbox import backup


@job("backup key", says="Store the encryption key, encrypted and apart from everything else; nobody gets to see it")
def backup_key(steps: BackupSteps, look: Look) -> str:
    return backup.take(steps, look, "key")
