"""What a task may reach: hosts by name and port through a proxy of ours, and ports of this machine by name."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ....errors import ConfigError

WEB_PORTS = (80, 443)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)+[a-z][a-z0-9-]{{0,61}}[a-z0-9]")
"""Of two labels or more, the last of which no IP address has."""
_PORT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")


def host_name(text: str) -> str | None:
    """A host's name in the form that is compared (small letters, no dot at its end); None where it is no DNS name: an
    IP address in whatever spelling, one label, not ASCII."""
    name = text.lower().removesuffix(".") if text.isascii() else ""
    return name if _NAME.fullmatch(name) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One entry of an allow-list.

    Attributes:
        name: of the host; with ``below`` the hosts below it, and not itself.
        ports: that may be asked for.
    """

    name: str
    ports: tuple[int, ...] = WEB_PORTS
    below: bool = False

    @classmethod
    def parse(cls, text: str) -> "Host":
        """Read "pypi.org", "pypi.org:8443" or "*.pythonhosted.org".

        Raises:
            ConfigError: it is none of these; IP addresses and a lone "*" are not.
        """
        rest, _, port = text.partition(":")
        name = host_name(rest.removeprefix("*."))
        if name is None or (port and not _is_port(port)) or text.endswith(":"):
            raise ConfigError(
                f"{text!r} is no host of an allow-list; give NAME, NAME:PORT or *.NAME with a DNS name of two labels "
                "or more (no IP address; ports of this machine go under 'ports')"
            )
        return cls(name=name, ports=(int(port),) if port else WEB_PORTS, below=rest.startswith("*."))

    def __str__(self) -> str:
        """An entry that ``parse`` reads again, of one port or the web's."""
        port = "" if self.ports == WEB_PORTS else f":{self.ports[0]}"
        return ("*." if self.below else "") + self.name + port

    def covers(self, name: str, port: int) -> bool:
        """Whether a host's name, as ``host_name`` gives it, and port are of this entry."""
        fits = name.endswith("." + self.name) if self.below else name == self.name
        return fits and port in self.ports

    def within(self, other: "Host") -> bool:
        """Whether all that this entry allows is allowed by another one."""
        if self.below and not other.below:
            return False
        same = self.below and self.name == other.name
        return set(self.ports) <= set(other.ports) and (same or other.covers(self.name, other.ports[0]))


class Asked(BaseModel):
    """``network`` of a task or of an environment's settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: tuple[str, ...] = ()
    """As ``Host.parse`` takes them."""
    ports: dict[str, int] = Field(default_factory=dict)
    """Name -> port of 127.0.0.1 on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """What a sandbox may reach; nothing by default.

    Attributes:
        hosts: by name and port, through the proxy.
        ports: name -> port of this machine's 127.0.0.1, which the sandbox has under the same number on its own.
    """

    hosts: tuple[Host, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: "Mapping[str, Any] | NetworkPolicy | None") -> "NetworkPolicy":
        """Read {"hosts": ["pypi.org", …], "ports": {"db": 5432}}; None and {} are nothing.

        Raises:
            ConfigError: it is something else.
        """
        if isinstance(value, NetworkPolicy):
            return value
        try:
            asked = Asked.model_validate(value or {})
        except ValidationError as error:
            told = error.errors()[0]
            raise ConfigError(
                f"network: {'.'.join(map(str, told['loc']))}: {told['msg']}; "
                "give hosts = [NAME, …] and ports = {NAME = N}"
            ) from None
        for name, port in asked.ports.items():
            if not _PORT_NAME.fullmatch(name) or not _is_port(str(port)):
                raise ConfigError(f"network: {name!r} = {port} is no port by name; give letters and 1 to 65535")
        return cls(hosts=tuple(map(Host.parse, asked.hosts)), ports=dict(asked.ports))

    def __bool__(self) -> bool:
        return bool(self.hosts or self.ports)

    def allows(self, name: str, port: int) -> bool:
        """Whether a host may be asked, by its ``host_name``."""
        return any(host.covers(name, port) for host in self.hosts)

    def of(self, hosts: Iterable[str], ports: Iterable[str] = ()) -> "tuple[NetworkPolicy, tuple[str, ...]]":
        """What a task gets of what it asks for, where this is what its user allows.

        Args:
            hosts: entries of the task's own allow-list.
            ports: names of ports.
        Returns:
            (the policy, what was asked for and is not allowed, or is no entry at all).
        """
        given, denied, ports = [], [], list(ports)
        for text in hosts:
            host = _parsed(text)
            if host is not None and any(host.within(one) for one in self.hosts):
                given.append(host)
            else:
                denied.append(text)
        denied += [name for name in ports if name not in self.ports]
        named = {name: self.ports[name] for name in ports if name in self.ports}
        return NetworkPolicy(hosts=tuple(given), ports=named), tuple(denied)


def _parsed(text: str) -> Host | None:
    try:
        return Host.parse(text)
    except ConfigError:
        return None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535
