"""The management API of the simulated broker, in the form of RabbitMQ 3.10: lists, cut to the columns asked for."""

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from bot.sandbox.installation.broker import NODE, Broker

Entry = Mapping[str, Any]


def answer(broker: Broker, url: str) -> tuple[int, str]:
    """Status and body of a GET of this path; only while the broker runs does anybody listen."""
    asked = urlsplit(url)
    what, _, vhost = asked.path.removeprefix("/api/").partition("/")
    if what not in _LISTS or (vhost and unquote(vhost) not in broker.vhosts):
        return 404, '{"error":"Object Not Found","reason":"Not Found"}'
    columns = parse_qs(asked.query).get("columns", [""])[0].split(",")
    listed = [_cut(each, columns) for each in _LISTS[what](broker, unquote(vhost))]
    return 200, json.dumps(listed, separators=(",", ":"))


def _cut(entry: Entry, columns: list[str]) -> Entry:
    """`queue.name` of the columns keeps the name of the object `queue`."""
    kept: dict[str, Any] = {}
    for column in columns:
        first, _, rest = column.partition(".")
        if first in entry:
            kept[first] = _cut(entry[first], [rest]) | kept.get(first, {}) if rest else entry[first]
    return kept


def _queues(broker: Broker, vhost: str) -> list[Entry]:
    return [
        {
            "name": queue.name,
            "messages_ready": len(queue.ready),
            "messages_unacknowledged": queue.unacked,
            "consumers": len(queue.consumers),
            "state": "running",
        }
        for queue in broker.queues
        if queue.vhost == vhost
    ]


def _consumers(broker: Broker, vhost: str) -> list[Entry]:
    return [
        {
            "queue": {"name": consumer.queue.name},
            "channel_details": {"name": f"{consumer.channel.connection.name} ({consumer.channel.number})"},
            "consumer_tag": consumer.tag,
        }
        for consumer in broker.consumers()
        if consumer.queue.vhost == vhost
    ]


def _channels(broker: Broker, _vhost: str) -> list[Entry]:
    return [
        {
            "name": f"{channel.connection.name} ({channel.number})",
            "vhost": channel.connection.vhost,
            "consumer_count": len(channel.consumers),
            "messages_unacknowledged": sum(len(consumer.unacked) for consumer in channel.consumers),
        }
        for channel in broker.channels()
    ]


def _nodes(broker: Broker, _vhost: str) -> list[Entry]:
    return [_node(broker, name) for name in list(broker.split) or [NODE]]


def _node(broker: Broker, name: str) -> Entry:
    alarms = broker.alarms if name == NODE else set()
    return {
        "name": name,
        "running": True,
        "partitions": list(broker.split.get(name, ())),
        "mem_alarm": "memory" in alarms,
        "mem_used": 6_400_000_000 if "memory" in alarms else 144_900_000,
        "mem_limit": 6_293_100_000,
        "disk_free_alarm": "free disk space" in alarms,
        "disk_free": 31_200_000 if "free disk space" in alarms else 83_747_300_000,
        "disk_free_limit": 50_000_000,
    }


_LISTS: Mapping[str, Callable[[Broker, str], list[Entry]]] = {
    "queues": _queues,
    "consumers": _consumers,
    "channels": _channels,
    "nodes": _nodes,
}
