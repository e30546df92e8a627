"""Facts about the security group of a platform that runs in AWS, and the fix that adds one inbound rule.

Source: https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html
"""

import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bot.core.aws import AwsCall, aws
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk, Wait, equals
from bot.core.look import Look
from bot.core.question import Output
from bot.core.target import Role, Target
from handlers.toolbox import network

ALL, TCP = "-1", "tcp"  # a rule for every protocol; one for TCP
OPEN_WITHIN = timedelta(minutes=1)  # a rule takes effect within seconds


@dataclass(frozen=True)
class Rule:
    """One inbound rule: ports (None: all of them), and who may come: networks, groups, or a prefix list."""

    ports: tuple[int, int] | None
    networks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()

    def is_about(self, port: int) -> bool:
        return self.ports is None or self.ports[0] <= port <= self.ports[1]

    def lets_in(self, source: str, groups: Iterable[str]) -> bool:
        address = ipaddress.ip_address(source)
        inside = any(address in ipaddress.ip_network(each, strict=False) for each in self.networks)
        return inside or not set(groups).isdisjoint(self.groups)


def configured(look: Look) -> str:
    """The id of the platform's security group, empty when the platform is not known to be in AWS."""
    return look.site.option("aws.security_group", "")


# ---------------------------------------------------------------- facts


@fact
def inbound(group: str) -> Fact[tuple[Rule, ...]]:
    """The inbound rules of the platform's security group."""
    question = aws("ec2", "describe_security_groups", {"GroupIds": [group]})
    return Fact(f"What does the security group {group} let in?", Role.PLATFORM, question, _inbound)


def _inbound(said: Output) -> tuple[Rule, ...]:
    groups = _answer(said).get("SecurityGroups", [])
    if len(groups) != 1:
        raise Unknown(f"AWS knows {len(groups)} security groups of that id, not one")
    return tuple(_rule(each) for each in groups[0].get("IpPermissions", []) if each["IpProtocol"] in (TCP, ALL))


def _rule(given: Mapping[str, Any]) -> Rule:
    ports = None if given["IpProtocol"] == ALL else (int(given["FromPort"]), int(given["ToPort"]))
    four = (each["CidrIp"] for each in given.get("IpRanges", ()))
    six = (each["CidrIpv6"] for each in given.get("Ipv6Ranges", ()))
    groups = tuple(each["GroupId"] for each in given.get("UserIdGroupPairs", ()))
    lists = tuple(each["PrefixListId"] for each in given.get("PrefixListIds", ()))
    return Rule(ports, (*four, *six), groups, lists)


@fact
def groups_of(machine: Target) -> Fact[tuple[str, ...]]:
    """The security groups of a machine by its address; none when AWS has no such private address, so when it is
    elsewhere.
    """
    addresses = {"Name": "addresses.private-ip-address", "Values": [machine.address]}
    question = aws("ec2", "describe_network_interfaces", {"Filters": [addresses]})
    return Fact(f"Which security groups has {machine}?", Role.PLATFORM, question, _groups)


def _groups(said: Output) -> tuple[str, ...]:
    found = _answer(said).get("NetworkInterfaces", [])
    return tuple(dict.fromkeys(each["GroupId"] for one in found for each in one.get("Groups", ())))


def _answer(said: Output) -> dict[str, Any]:
    if not said.ok:
        raise Unknown(f"AWS did not tell: {said.err.strip()[:300] or 'no words'}")
    return dict(json.loads(said.out))


@fact
def shuts_out(group: str, source: str, port: int) -> Fact[bool]:
    """Is there no rule for exactly this address yet?"""

    def missing(said: Output) -> bool:
        return not any(each.is_about(port) and each.lets_in(source, ()) for each in _inbound(said))

    return Fact(f"{group} does not let {source} in to port {port}", Role.PLATFORM, inbound(group).question, missing)


# ---------------------------------------------------------------- putting facts together


@dataclass(frozen=True)
class Verdict:
    """What the security group has to do with it: the ports that it keeps shut, or a sentence when it says no more."""

    shut: tuple[int, ...] = ()
    says: str = ""


def verdict(look: Look, machine: Target, ports: Iterable[int]) -> Verdict:
    """Does the group keep this machine out of these ports?"""
    group = configured(look)
    if not network.is_address(machine.address):
        return Verdict(says=f"The security group {group} goes by addresses, and that of {machine} is not known.")
    try:
        look.together(inbound(group), groups_of(machine))
        rules, own = look(inbound(group)), look(groups_of(machine))
    except Unknown as why:
        return Verdict(says=f"The security group {group} could not be read: {why}.")
    shut = tuple(port for port in ports if not _is_let_in(rules, machine.address, own, port))
    lists = sorted({name for rule in rules if any(map(rule.is_about, shut)) for name in rule.lists})
    if lists:
        return Verdict(says=f"{group} goes by the prefix list {', '.join(lists)}: look whether {machine} is in it.")
    if not shut:
        return Verdict(says=f"{group} lets it in, so look at network ACLs, routes, and the firewalls of both machines.")
    return Verdict(shut)


def _is_let_in(rules: Iterable[Rule], source: str, groups: Iterable[str], port: int) -> bool:
    return any(rule.is_about(port) and rule.lets_in(source, groups) for rule in rules)


# ---------------------------------------------------------------- the fix


def allow(group: str, machine: Target, ports: Iterable[int]) -> AwsCall:
    """The call that lets one address in to these ports, and nobody else to nothing more."""
    return aws("ec2", "authorize_security_group_ingress", _permissions(group, machine, ports))


def _permissions(group: str, machine: Target, ports: Iterable[int]) -> dict[str, Any]:
    return {"GroupId": group, "IpPermissions": [_permission(machine, port) for port in ports]}


def _permission(machine: Target, port: int) -> dict[str, Any]:
    address = ipaddress.ip_address(machine.address)
    network_of_one = f"{address}/{address.max_prefixlen}"
    kind, key = ("IpRanges", "CidrIp") if address.version == 4 else ("Ipv6Ranges", "CidrIpv6")
    source = {key: network_of_one, "Description": f"opsbot: {machine.name}"}
    return {"IpProtocol": TCP, "FromPort": port, "ToPort": port, kind: [source]}


def let_in(look: Look, machine: Target, roads: Iterable[network.Road]) -> Fix:
    """One rule for each port that is shut, each a change of its own; proven by trying again from the worker."""
    group = configured(look)
    wanted = tuple(roads)
    changes = tuple(
        Change(
            f"Let {machine.address} in to TCP {road.port}",
            allow(group, machine, [road.port]),
            needed=shuts_out(group, machine.address, road.port),
            within=timedelta(minutes=1),
        )
        for road in wanted
    )
    waits = tuple(
        Wait(network.lets_through(machine, road.host, road.port), equals(True), OPEN_WITHIN) for road in wanted
    )
    undo = aws("ec2", "revoke_security_group_ingress", _permissions(group, machine, [road.port for road in wanted]))
    return Fix(
        id="aws.let-in",
        title=f"Add the inbound rule that is missing in {group}",
        target=machine,
        steps=(*changes, *waits),
        risk=Risk.DATA,
        undo=str(undo),
    )
