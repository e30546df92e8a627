"""The words of OpenSSH's client: no configuration is read, nobody is asked, nothing unknown is trusted."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Login(Protocol):
    """How to log in to a machine; the hosts of the SSH adapter are such."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def user(self) -> str: ...
    @property
    def key_file(self) -> Path: ...
    @property
    def known_hosts(self) -> Path: ...
    @property
    def jump(self) -> "Login | None": ...


CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr"  # GCM carries 2.5 times what CTR does
OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "GlobalKnownHostsFile": "/dev/null",
    "UpdateHostKeys": "no",
    "VerifyHostKeyDNS": "no",
    "CheckHostIP": "no",
    "HostKeyAlgorithms": "-*-cert-v01@openssh.com",  # an authority in the file pins nothing, as for every other login
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "PreferredAuthentications": "publickey",
    "ControlMaster": "no",
    "ControlPath": "none",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
    "Compression": "no",
    "Ciphers": CIPHERS,
    "LogLevel": "ERROR",
}
FORWARDING = {"ClearAllForwardings": "no"}  # or the bastion's `-W` would be cleared, too


def words(login: Login, command: str, connect: float, alive: tuple[int, int], program: str = "ssh") -> list[str]:
    """The client that runs the command there, through the bastion if there is one."""
    more = {"ProxyCommand": _proxy(login.jump, login, connect, alive, program)} if login.jump else {}
    return [*_client(login, connect, alive, program, more), *_where(login), command]


def _proxy(jump: Login, to: Login, connect: float, alive: tuple[int, int], program: str) -> str:
    """`-J` would give the bastion neither our key nor our pins, so its client is named in full. `%` is ssh's."""
    more = {**FORWARDING, **({"ProxyCommand": _proxy(jump.jump, jump, connect, alive, program)} if jump.jump else {})}
    target = f"[{to.host}]:{to.port}" if ":" in to.host else f"{to.host}:{to.port}"
    line = [*_client(jump, connect, alive, program, more), "-W", target, *_where(jump)]
    return shlex.join(line).replace("%", "%%")


def _client(login: Login, connect: float, alive: tuple[int, int], program: str, more: dict[str, str]) -> list[str]:
    every, count = alive
    own = {
        "UserKnownHostsFile": _path(login.known_hosts),
        "IdentityFile": _path(login.key_file),
        "Port": str(login.port),
        "User": login.user.replace("%", "%%"),
        "ConnectTimeout": str(max(1, round(connect))),
        "ServerAliveInterval": str(every),
        "ServerAliveCountMax": str(count),
    }
    return [program, "-F", "none", *_options({**OPTIONS, **own, **more})]


def _where(login: Login) -> Sequence[str]:
    return ("--", login.host)


def _options(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def _path(path: Path) -> str:
    """As its configuration reads it: quoted for blanks, `%` doubled."""
    return '"{}"'.format(str(path.absolute()).replace("%", "%%"))
