"""The names by which this server may be called: ``server.hosts``.

A client that isn't told a fixed address is sent to one that is made of its own Host header, to get a token there. So
whoever can choose that header for somebody (a cache that is shared, a name that is pointed here: DNS rebinding) chooses
where they go. With a list of names nobody is answered who calls us otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from roadstead.errors import InvalidError
from roadstead.http.asgi import Request


class HostUnknownError(InvalidError):
    """The request is for another host than those that are served here (421, RFC 9110 §15.5.20)."""

    def __init__(self, host: str) -> None:
        super().__init__(f"the host {host[:255]!r} is not served here")

    def advice(self) -> str:
        """Say where names are given."""
        return "If clients are to use this name, its operator adds it to server.hosts."


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names in lower case, ``registry.example.com`` with any port, ``registry.example.com:5000`` with that one."""

    names: frozenset[str]

    @classmethod
    def parse(cls, texts: Sequence[str], public_url: str | None = None) -> Self | None:
        """Read what settings name, to which the public address belongs; None where any name is good."""
        if not texts:
            return None
        public = urlsplit(public_url or "").netloc
        return cls(frozenset(text.lower() for text in (*texts, public) if text))

    def check(self, request: Request) -> None:
        """Raise HostUnknownError for a request that calls us by another name, or by none."""
        host = (request.header(b"host") or "").lower()
        if host not in self.names and _without_port(host) not in self.names:
            raise HostUnknownError(host)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
