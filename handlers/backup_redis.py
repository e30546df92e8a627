"""`backup redis`: store a copy of redis, which holds background jobs and feature flags, encrypted."""

from bot.core.handler import BackupSteps, job
from bot.core.look import Look
from handlers.toolbox import backup


@job("backup redis", says="Store a copy of redis, which holds background jobs and feature flags, encrypted")
def backup_redis(steps: BackupSteps, look: Look) -> str:
    return backup.take(steps, look, "redis")
