"""`backup rabbitmq`: store RabbitMQ's users, vhosts, queues and policies, encrypted; messages are not in it."""

from bot.core.handler import BackupSteps, job
from bot.core.look import Look
from handlers.toolbox import backup


@job("backup rabbitmq", says="Store RabbitMQ's users, vhosts, queues and policies, encrypted; messages are not in it")
def backup_rabbitmq(steps: BackupSteps, look: Look) -> str:
    return backup.take(steps, look, "rabbitmq")
