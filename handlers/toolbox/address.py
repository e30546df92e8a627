"""Does an address in a worker's settings lead to this installation? One has more names than opsbot is told: a public
and an internal one, an IP address, a load balancer's.
"""

from bot.core.errors import Unknown
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import network, rabbitmq, settings, worker


def leads_here(look: Look, machine: Target, name: str, uri: str) -> bool:
    """Whether this address is right for that setting; `name` is AMQP_URI or BUILD_API_URI.

    What works is no fault, whatever it is called: a worker whose consumers this broker sees, and a host that serves
    build scripts to the worker, for those are made from what each request brings along.
    """
    host = settings.host_of(uri)
    platforms = look.site.of(Role.PLATFORM)
    if host in {look.site.domain.lower(), *(each.name for each in platforms), *(each.address for each in platforms)}:
        return True
    if host and _same_machine(look, machine, host):
        return True
    if name == settings.AMQP:
        return _seen(look, machine, host)
    page = network.uptime_page(uri)
    named = bool(page and look(settings.addresses_of(machine, host)))
    return named and look(network.status_of(machine, page)) == network.OK


def _same_machine(look: Look, machine: Target, host: str) -> bool:
    here, there = settings.addresses_of(machine, host), settings.addresses_of(machine, look.site.domain)
    look.together(here, there, *worker.asked(look, machine), *rabbitmq.ahead(look))
    known = (*look(there), *(each.address for each in look.site.of(Role.PLATFORM)))
    return any(address in known for address in look(here))


def _seen(look: Look, machine: Target, host: str) -> bool:
    """Nobody comes by a name that means nothing on the machine, whether RabbitMQ can be asked or not."""
    try:
        seen = rabbitmq.presences(look, rabbitmq.broker(look))
    except Unknown:
        if host and not look(settings.addresses_of(machine, host)):
            return False
        raise
    return any(seen[address].builds for address in look(worker.addresses(machine)) if address in seen)
