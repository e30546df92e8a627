"""A worker ends and is started again, over and over: its init system hides that it cannot work.

It ends with status 0 when it cannot connect to RabbitMQ, so no unit ever counts as failed.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import rabbitmq, settings, worker
from handlers.worker_settings_password import BEFORE_START

SHORT_LIFE = timedelta(minutes=2)  # one that ends sooner after its start was hardly stopped by somebody

REMEDIES: Final = {  # what the error says -> what a person has to do
    r"^docker: .*permission denied": "Its user may not speak to docker: `sudo usermod -aG docker travis` on the "
    "machine, then restart it.",
    r"^docker: ": "Docker does not start its container, and says why. A missing image is pulled by `sudo docker pull` "
    "of what TRAVIS_WORKER_SELF_IMAGE names, in /etc/systemd/system/travis-worker.service.d/env.conf.",
    r"x509:|tls:": "It does not trust RabbitMQ's certificate: put its authority's into a file under /var/tmp, and "
    "`export TRAVIS_WORKER_AMQP_TLS_CERT_PATH=` that file into /etc/default/travis-worker; then restart it.",
    r"home node '[^']*' of durable queue": "Its queue lies on a node of RabbitMQ's cluster that is down: start that "
    "node again. Nothing has to be done on the worker.",
    r"invalid (?:port|URL escape|userinfo)|invalid character": f"Its AMQP_URI is no address: {BEFORE_START}. "
    f"Correct it in {settings.MAIN}.",
    "inequivalent arg": "Somebody has declared its queue with other arguments than a worker does (as a quorum queue, "
    "mostly). When nothing waits in it, delete it on the broker; the worker declares it again.",
}


@diagnosis(
    "worker keeps ending",
    of="builds not starting",
    each=Role.WORKER,
    says="Does travis-worker stay up?",
    unless=(*rabbitmq.SPOILS, "net.*", "tls.*@BROKEN", "docker.hung", *settings.ENDS_BY),
    runbook="https://docs.travis-ci.com/user/enterprise/worker-cli-commands/",
)
def worker_keeps_ending(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), worker.addresses(machine))
    now = worker.service(look, machine)
    if not now.turning:
        return
    if now.state.startswith(("deactivating", "stop/")) and (now.since is None or now.since > SHORT_LIFE):
        raise Unknown("travis-worker is being stopped just now, perhaps to be restarted; look again in a minute")
    error = look(worker.last_error(machine, look(worker.init_system(machine))))
    yield Finding(
        "worker.crash-loop",
        Severity.BROKEN,
        machine,
        f"travis-worker does not stay up on {machine}: it is {now.state}",
        evidence=f"the last error in its log: {error}" if error else "its log has no error",
        person=_person(machine, error),
    )


def _person(machine: Target, error: str) -> str:
    why = f"Find out why it ends: its log on {machine} says so."
    known = next((advice for pattern, advice in REMEDIES.items() if re.search(pattern, error)), why)
    return f"{known} It is started again by itself, so starting or rebooting it would not help."
