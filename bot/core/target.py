"""Machines and what they are: how to reach one is the transport's business."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property


class Role(Enum):
    """What a machine is in an installation; a fact or fix made for one role never goes to another."""

    PLATFORM = "platform"
    WORKER = "worker"


@dataclass(frozen=True, order=True)
class Target:
    """One machine of one installation."""

    name: str
    role: Role = field(compare=False)
    installation: str
    address: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.name

    @property
    def key(self) -> str:
        """Its name in locks and journals, unique over all installations."""
        return f"{self.installation}/{self.name}"


@dataclass(frozen=True)
class Site:
    """One installation of Travis CI Enterprise: its machines, and how its services are reached."""

    name: str
    domain: str
    version: str
    targets: tuple[Target, ...]
    options: tuple[tuple[str, str], ...] = ()

    def of(self, role: Role) -> tuple[Target, ...]:
        return self._by_role[role]

    def find(self, name: str) -> Target | None:
        return next((target for target in self.targets if target.name == name), None)

    def option(self, name: str, default: str) -> str:
        """A setting of this installation such as `rabbitmq.vhost`; the default is what the vendor installs."""
        return self._options.get(name, default)

    def __iter__(self) -> Iterator[Target]:
        return iter(self.targets)

    @cached_property
    def _by_role(self) -> Mapping[Role, tuple[Target, ...]]:
        return {role: tuple(target for target in self.targets if target.role is role) for role in Role}

    @cached_property
    def _options(self) -> Mapping[str, str]:
        return dict(self.options)
