"""rabbitmqctl and rabbitmq-diagnostics inside te-main, in the words of RabbitMQ 3.10 (tests/installation/recorded/)."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.sandbox.installation.broker import NODE, PORT, Broker, Channel, Connection, Consumer, Queue
from bot.sandbox.installation.programs import Call, Options, Reply, Usage, in_te_main, options, program, unsupported

_DOWN = f"""\
Error: unable to perform an operation on node '{NODE}'. Please see diagnostics information and suggestions below.

DIAGNOSTICS
===========

attempted to contact: ['{NODE}']

{NODE}:
  * connected to epmd (port 4369) on te-main
  * epmd reports: node 'rabbit' not running at all
                  no other nodes on te-main
  * suggestion: start the node

"""
_STOPPED = """\
Error: this command requires the 'rabbit' app to be running on the target node. Start it with 'rabbitmqctl start_app'.
Arguments given:
\t{words}

\x1b[1mUsage\x1b[0m

rabbitmqctl [--node <node>] [--longnames] [--quiet] {command} [--timeout <timeout>]
"""
_LONGS = {
    "vhost": True, "node": True, "timeout": True, "formatter": True, "quiet": False, "silent": False,
    "no-table-headers": False, "online": False, "offline": False, "local": False,
}  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """One `list_…` command: what it lists, its columns, and which of them it shows unasked."""

    what: str
    rows: Callable[[Call, str], Sequence[Any]]
    columns: Mapping[str, Callable[[Any], Any]]
    shown: tuple[str, ...]
    per_vhost: bool = False


def _broker(call: Call) -> Broker:
    return call.context.installation.broker


_QUEUES: dict[str, Callable[[Queue], Any]] = {
    "name": lambda q: q.name,
    "durable": lambda q: q.durable,
    "auto_delete": lambda _q: False,
    "exclusive": lambda q: q.owner is not None,
    "owner_pid": lambda q: q.owner.pid if q.owner else "",
    "messages": lambda q: len(q.ready) + q.unacked,
    "messages_ready": lambda q: len(q.ready),
    "messages_unacknowledged": lambda q: q.unacked,
    "consumers": lambda q: len(q.consumers),
    "state": lambda _q: "running",
    "type": lambda _q: "classic",
    "vhost": lambda q: q.vhost,
}
_CONSUMERS: dict[str, Callable[[Consumer], Any]] = {
    "queue_name": lambda c: c.queue.name,
    "channel_pid": lambda c: c.channel.pid,
    "consumer_tag": lambda c: c.tag,
    "ack_required": lambda c: c.ack_required,
    "prefetch_count": lambda c: c.prefetch,
    "active": lambda _c: True,
    "arguments": lambda c: c.arguments,
}
_CHANNELS: dict[str, Callable[[Channel], Any]] = {
    "pid": lambda c: c.pid,
    "connection": lambda c: c.connection.pid,
    "name": lambda c: f"{c.connection.name} ({c.number})",
    "number": lambda c: c.number,
    "user": lambda c: c.connection.user,
    "vhost": lambda c: c.connection.vhost,
    "consumer_count": lambda c: len(c.consumers),
    "messages_unacknowledged": lambda c: sum(len(consumer.unacked) for consumer in c.consumers),
    "prefetch_count": lambda c: max((consumer.prefetch for consumer in c.consumers), default=0),
}


def _connections(call: Call) -> dict[str, Callable[[Connection], Any]]:
    broker, timeline = _broker(call), call.machine.timeline
    return {
        "name": lambda c: c.name,
        "pid": lambda c: c.pid,
        "peer_host": lambda c: c.peer_host,
        "peer_port": lambda c: c.peer_port,
        "host": lambda c: c.host,
        "port": lambda _c: PORT,
        "user": lambda c: c.user,
        "vhost": lambda c: c.vhost,
        "state": lambda _c: "blocking" if broker.alarms else "running",
        "channels": lambda c: len(c.channels),
        "connected_at": lambda c: int(timeline.date(c.connected_at).timestamp() * 1000),
        "client_properties": lambda _c: '[{"product","Travis Worker"},{"version","v6.2.2"},{"platform","golang"}]',
        "protocol": lambda _c: "{0,9,1}",
        "ssl": lambda _c: False,
    }


def _listing(call: Call, name: str) -> Listing | None:
    broker = _broker(call)
    listings = {
        "list_queues": Listing(
            "queues", lambda _, vhost: [q for q in broker.queues if q.vhost == vhost], _QUEUES,
            ("name", "messages"), True,
        ),
        "list_consumers": Listing(
            "consumers", lambda _, vhost: [c for c in broker.consumers() if c.queue.vhost == vhost], _CONSUMERS,
            tuple(_CONSUMERS), True,
        ),
        "list_channels": Listing(
            "channels", lambda _, _vhost: broker.channels(), _CHANNELS,
            ("pid", "user", "consumer_count", "messages_unacknowledged"),
        ),
        "list_connections": Listing(
            "connections", lambda _, _vhost: broker.connections, _connections(call),
            ("user", "peer_host", "peer_port", "state"),
        ),
        "list_vhosts": Listing("vhosts", lambda _, _vhost: broker.vhosts, {"name": lambda name: name}, ("name",)),
        "list_users": Listing(
            "users", lambda _, _vhost: list(broker.users),
            {"user": lambda name: name, "tags": lambda name: broker.tags.get(name, "[]")}, ("user", "tags"),
        ),
        "list_permissions": Listing(
            "permissions for vhost", lambda _, vhost: ["travis"] if vhost == "travis" else ["guest"],
            {"user": str, "configure": lambda _: ".*", "write": lambda _: ".*", "read": lambda _: ".*"},
            ("user", "configure", "write", "read"), True,
        ),
    }  # fmt: skip
    return listings.get(name)


@program("rabbitmqctl", where=in_te_main)
def rabbitmqctl(call: Call) -> Reply:
    try:
        read = options(call.words, flags="qsl", values="pnt", longs=_LONGS)
    except Usage as usage:
        return unsupported(call, str(usage))
    if not read.words:
        return unsupported(call, "help")
    command, *words = read.words
    if not _broker(call).running:
        return Reply(69, err=_DOWN)
    if _broker(call).stopped and command != "start_app":
        return Reply(64, err=_STOPPED.format(words=" ".join(call.words), command=command))
    listing = _listing(call, command)
    if listing is not None:
        return _list(call, listing, command, words, read)
    simple = _COMMANDS.get(command)
    if simple is not None:
        return simple(call, words)
    call.machine.unknown.append(f"rabbitmqctl {command}")
    return Reply(64, err=f"\nCommand '{command}' not found. \n\n")


def _list(call: Call, listing: Listing, _command: str, words: list[str], read: Options) -> Reply:
    vhost = read.get("p", "vhost") or "/"
    columns = words or list(listing.shown)
    bogus = [name for name in columns if name not in listing.columns]
    if bogus:
        return Reply(64, err=f"Error (argument validation): Info key(s) {','.join(bogus)} are not supported\n")
    values = [[listing.columns[name](row) for name in columns] for row in listing.rows(call, vhost)]
    quiet = any(flag in read for flag in ("q", "quiet", "s", "silent"))
    head = "" if quiet else f"Listing {listing.what}{f' in vhost {vhost}' if listing.per_vhost else ''} ...\n"
    if read.get("formatter") == "json":
        return Reply(out=_json(columns, values))
    # RabbitMQ writes the header with the first row: no rows, no header.
    bare = any(flag in read for flag in ("s", "silent", "no-table-headers"))
    rows = ([] if bare or not values else [columns]) + [[_text(value) for value in row] for row in values]
    return Reply(out=head + "".join("\t".join(row) + "\n" for row in rows))


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _json(columns: list[str], values: list[list[Any]]) -> str:
    rows = [
        json.dumps({k: _jsonable(k, v) for k, v in zip(columns, row, strict=True)}, separators=(",", ":"))
        for row in values
    ]
    return "[\n" + "\n,".join(rows) + "\n]\n"


def _jsonable(column: str, value: Any) -> Any:
    if column == "peer_host":
        return [int(part) for part in value.split(".")]
    if column == "arguments":
        return [["x-priority", "signedint", 0]] if "x-priority" in value else []
    if isinstance(value, str) and value.startswith(f"<{NODE}."):
        return f"#PID<12575.{value.rstrip('>').split('.', 2)[2]}>"
    return value


def _authenticate(call: Call, words: list[str]) -> Reply:
    name, password = (*words, "", "")[:2]
    if _broker(call).users.get(name) == password:
        return Reply(out="Success\n")
    return Reply(
        65, err=f"Error:\nError: failed to authenticate user \"{name}\"\nuser '{name}' - invalid credentials\n"
    )


# ---------------------------------------------------------------- the node itself

_ALARMS = {"memory": "Memory", "free disk space": "Free disk space"}


def _cluster_status(call: Call, _words: list[str]) -> Reply:
    broker = _broker(call)
    lost = [f"Node {node} cannot communicate with {', '.join(others)}" for node, others in broker.split.items()]
    sections = {
        "Basics": [f"Cluster name: {NODE}"],
        "Disk Nodes": list(broker.split) or [NODE],
        "Running Nodes": [NODE],
        "Versions": [f"{NODE}: RabbitMQ 3.10.8 on Erlang 25.2.3"],
        "Maintenance status": [f"Node: {NODE}, status: not under maintenance"],
        "Alarms": _alarms(broker),
        "Network Partitions": lost or ["(none)"],
        "Listeners": [f"Node: {NODE}, interface: [::], port: {PORT}, protocol: amqp, purpose: AMQP 0-9-1 and AMQP 1.0"],
    }
    return Reply(out="".join(_section(name, lines) for name, lines in sections.items()))


def _alarms(broker: Broker) -> list[str]:
    return [f"{_ALARMS[alarm]} alarm on node {NODE}" for alarm in sorted(broker.alarms)] or ["(none)"]


def _section(name: str, lines: list[str]) -> str:
    return f"\x1b[1m{name}\x1b[0m\n\n" + "".join(f"{line}\n" for line in lines) + "\n"


def _status(call: Call, _words: list[str]) -> Reply:
    broker = _broker(call)
    memory = 6.4 if "memory" in broker.alarms else 0.1449
    free = 0.0312 if "free disk space" in broker.alarms else 83.7473
    sections = {
        "Runtime": ["OS PID: 8", "RabbitMQ version: 3.10.8", f"Node name: {NODE}"],
        "Alarms": _alarms(broker),
        "Memory": [
            f"Total memory used: {memory} gb",
            "Calculation strategy: rss",
            "Memory high watermark setting: 0.4 of available memory, computed to: 6.2931 gb",
        ],
        "Free Disk Space": ["Low free disk space watermark: 0.05 gb", f"Free disk space: {free} gb"],
    }
    return Reply(out="".join(_section(name, lines) for name, lines in sections.items()))


def _start_app(call: Call, _words: list[str]) -> Reply:
    call.changes()
    _broker(call).start()
    return Reply()


def _stop_app(call: Call, _words: list[str]) -> Reply:
    call.changes()
    _broker(call).stop_app()
    return Reply()


def _export(call: Call, words: list[str]) -> Reply:
    """Definitions on standard output, as JSON."""
    if words != ["-"]:
        return unsupported(call, "export_definitions to a file")
    broker = _broker(call)
    queues = [{"name": q.name, "vhost": q.vhost, "durable": q.durable, "auto_delete": False} for q in broker.queues]
    users = [{"name": name, "password_hash": "(simulated)", "tags": broker.tags.get(name, "")} for name in broker.users]
    vhosts = [{"name": name} for name in broker.vhosts]
    said = {"rabbit_version": "3.10.8", "users": users, "vhosts": vhosts, "queues": queues, "policies": []}
    return Reply(out=json.dumps(said))


_COMMANDS: dict[str, Callable[[Call, list[str]], Reply]] = {
    "authenticate_user": _authenticate,
    "ping": lambda _call, _words: Reply(out="Ping succeeded\n"),
    "await_startup": lambda _call, _words: Reply(),
    "cluster_status": _cluster_status,
    "status": _status,
    "export_definitions": _export,
    "start_app": _start_app,
    "stop_app": _stop_app,
}


@program("rabbitmq-diagnostics", where=in_te_main)
def rabbitmq_diagnostics(call: Call) -> Reply:
    try:
        read = options(call.words, flags="q", values="nt", longs=_LONGS)
    except Usage as usage:
        return unsupported(call, str(usage))
    check, *words = read.words or [""]
    broker = _broker(call)
    if check not in _CHECKS:
        return unsupported(call, check)
    if not broker.running or (broker.stopped and check != "ping"):
        return Reply(69, err=f"Error:\nFailed to connect and authenticate to {NODE} in 60000 ms\n")
    if "alarms" in check and broker.alarms:
        said = "".join(f"{alarm.capitalize()} alarm on node {NODE}\n" for alarm in sorted(broker.alarms))
        if check == "alarms":
            return Reply(out=said)
        return Reply(69, err=("Error:\n" if check == "check_local_alarms" else "") + said)
    return Reply(out=_CHECKS[check].format(node=NODE, port=words[0] if words else PORT) + "\n")


_CHECKS = {
    "ping": "Ping succeeded",
    "check_running": "RabbitMQ on node {node} is fully booted and running",
    "check_local_alarms": "Node {node} reported no local alarms",
    "check_alarms": "Node {node} reported no alarms, local or clusterwide",
    "alarms": "Node {node} reported no alarms, local or clusterwide",
    "check_port_connectivity": "Successfully connected to ports 5672, 25672 on node {node}.",
    "check_port_listener": "A listener for port {port} is running on node {node}.",
    "check_virtual_hosts": "Node {node} reported all vhosts as running",
}
