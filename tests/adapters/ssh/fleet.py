"""What tests of the SSH adapter have in common."""

from collections.abc import Callable

from bot.adapters.ssh import Ssh
from bot.core.command import Secret
from bot.core.question import Answer, Unanswered
from bot.core.target import Role, Target
from tests.rigs.sshd import LOGINS

MACHINES = [f"{login}-{shell}" for login in LOGINS for shell in ("bash", "dash")]
PASSWORD = "hunter2 'quoted'\n$HOME"
Reach = Callable[..., Ssh]


def target(name: str) -> Target:
    return Target(name, Role.WORKER, "prod")


def resolve(secret: Secret) -> str:
    return {"password": PASSWORD}[secret.name]


def only(answers: list[Answer | Unanswered]) -> Answer | Unanswered:
    (answer,) = answers
    return answer
