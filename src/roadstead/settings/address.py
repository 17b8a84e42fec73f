"""Where the server listens: ``HOST:PORT``."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from roadstead.errors import InvalidError

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PORT = re.compile(r"[0-9]{1,5}")
_MAX_PORT = 65_535


class AddressInvalidError(InvalidError):
    """A text isn't an address to listen at."""

    def __init__(self, text: str, expected: str = "HOST:PORT such as 127.0.0.1:5000 or [::1]:5000") -> None:
        super().__init__(f"{text!r} is not an address to listen at: expected {expected}")
        self.text = text


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A host (name, IPv4 or IPv6 address without brackets) and a port; port 0 lets the system choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``HOST:PORT`` or ``[IPV6]:PORT``; raises AddressInvalidError."""
        host, colon, port = text.rpartition(":")
        if not colon:
            raise AddressInvalidError(text)
        if not _PORT.fullmatch(port) or int(port) > _MAX_PORT:
            raise AddressInvalidError(text, f"a port from 0 to {_MAX_PORT} behind the colon")
        if not host:
            raise AddressInvalidError(text, f"a host before the colon (0.0.0.0:{port} is every interface)")
        return cls(_host(host, text), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Say whether only this machine can reach it; a name other than ``localhost`` counts as reachable."""
        return is_this_machine(self.host)


def is_this_machine(host: str) -> bool:
    """Say whether a host is reached by this machine alone; a name other than ``localhost`` counts as another. Pure."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise AddressInvalidError(text, "an IPv6 address between the brackets") from error
    if not _HOST.fullmatch(host):
        raise AddressInvalidError(text)
    return host
