"""RabbitMQ refuses a worker's login: the password in its settings is not the broker's.

The password itself is neither read nor compared here: the worker's log has the broker's own words.
"""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import settings, worker

PAGE = "https://docs.travis-ci.com/user/enterprise/worker-configuration/"


@diagnosis(
    "worker password refused",
    of="builds not starting",
    each=Role.WORKER,
    says="Does RabbitMQ accept the worker's password?",
    unless=("broker.down",),
    runbook=PAGE,
)
def worker_password_refused(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), settings.written(machine))
    init = look(worker.init_system(machine))
    now = worker.service(look, machine, settings.refusal(machine, init))
    if not (words := look(settings.refusal(machine, init))):
        return
    if not (now.running or now.turning or worker.ended(look, machine)):
        return
    written = settings.settings(look(settings.written(machine)), init)
    yield Finding(
        "worker.amqp-auth",
        Severity.BROKEN,
        machine,
        f"RabbitMQ refuses the login of {machine}",
        evidence=f"its log says: Exception (403) Reason: {words}; {_place(written)}",
        person=_access(look) if "vhost" in words else _password(look, machine, written),
        link=PAGE,
    )


def _place(written: settings.Settings) -> str:
    entry = _line(written)
    if entry is None:
        return "no file says with which password it logs in"
    ignored = not written.sourced and written.winner(settings.TOKEN)
    also = f"; {settings.TOKEN} in {settings.ENTERPRISE} has no effect on this machine" if ignored else ""
    return f"it logs in with the password in {entry.key}, {entry.place}{also}"


def _line(written: settings.Settings) -> settings.Entry | None:
    """Where the password stands: on 14.04 it is mostly a setting of its own, which the address is put together from."""
    address = written.winner(settings.AMQP)
    apart = written.sourced and (address is None or written.from_parts(address))
    return (written.winner(settings.TOKEN) if apart else None) or address


def _password(look: Look, machine: Target, written: settings.Settings) -> str:
    entry = _line(written)
    place = f"{entry.key} in {entry.file} (line {entry.line})" if entry else f"{settings.AMQP} in {settings.MAIN}"
    return (
        f"Get the password of RabbitMQ's user `travis`: {_owner(look)}. Put it into {place} on {machine}; "
        f"{settings.ENCODING}. Then `restart {machine} because the password was corrected`."
    )


def _owner(look: Look) -> str:
    if not look.site.version.startswith("2."):
        return (
            "on 3.x it stands under `amqp:` in /app/config/travis.yml of a travis-api pod, and with a broker of your "
            "own it is that broker's"
        )
    if look.site.option("rabbitmq.via", "container") == "container":
        return (
            f"it is `RabbitMQ Password` on https://{look.site.domain}:8800/settings, and with a broker of your own "
            "(high availability) that broker's, not the dashboard's"
        )
    return "this installation has a broker of its own, so it is that broker's, not the one of the dashboard"


def _access(look: Look) -> str:
    vhost = look.site.option("rabbitmq.vhost", "travis")
    return (
        f"The password is right, but the user may not use the vhost `{vhost}`. On the broker, grant it: "
        f"`rabbitmqctl set_permissions -p {vhost} travis '.*' '.*' '.*'`; and see that AMQP_URI ends in /{vhost}."
    )
