"""Who really asks, behind proxies: ``Forwarded`` (RFC 7239) and ``X-Forwarded-…``, from proxies that settings name.

Anybody can send these headers, so they count only as far as they were written by proxies that are trusted: the list is
read from its end, where the nearest proxy writes, up to the first address that isn't one of them. And only one kind
counts: proxies write one, and hand on what a client wrote in the other. Where any of ``X-Forwarded-…`` came, it is
those, since nginx, Caddy and Traefik write them; a proxy that writes ``Forwarded`` has to take them away.
"""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import takewhile
from typing import Any, Self

Address = IPv4Address | IPv6Address

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PAIR = re.compile(r'[ \t]*+(?:([A-Za-z]++)=(?:"((?:[^"\\]|\\.)*+)"|([^\s;,"]++)))?[ \t]*+([;,]|\Z)')
_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+))(?::[0-9]{1,5})?")
_MOST_HOPS = 32
_MOST_CHARACTERS = 4096  # of a header, from its end


@dataclass(frozen=True, slots=True)
class Hop:
    """What one proxy says of whoever asked it."""

    address: Address | None
    scheme: str | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The networks whose word counts."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Self:
        """Read addresses and networks (``127.0.0.1``, ``10.0.0.0/8``); ValueError."""
        return cls(tuple(ip_network(text) for text in texts))

    def __bool__(self) -> bool:
        return bool(self.networks)

    def see_through(self, scope: MutableMapping[str, Any]) -> None:
        """Put the real client, scheme and host into an ASGI scope, where a trusted proxy tells them."""
        client = scope.get("client")
        peer = parse_address(str(client[0])) if client else None
        if peer is None or not self._trusts(peer):
            return
        found = self._outermost(_hops(scope["headers"]))
        if found is None:
            return
        if found.address is not None:
            scope["client"] = (str(found.address), 0)
        if found.scheme is not None:
            scope["scheme"] = found.scheme
        if found.host is not None:
            others = [pair for pair in scope["headers"] if pair[0] != b"host"]
            scope["headers"] = [(b"host", found.host.encode()), *others]

    def _outermost(self, hops: Sequence[Hop]) -> Hop | None:
        """Return what the outermost trusted proxy says: behind its word nobody else's counts."""
        found = None
        for hop in reversed(hops[-_MOST_HOPS:]):
            found = hop
            if hop.address is None or not self._trusts(hop.address):
                break
        return found

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def parse_address(text: str) -> Address | None:
    """Return an address, with or without a port, IPv6 in brackets or not; None for anything else."""
    with_port = _PORT.fullmatch(text)
    try:
        address = ip_address((with_port["six"] or with_port["four"]) if with_port else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _hops(headers: Sequence[tuple[bytes, bytes]]) -> Sequence[Hop]:
    """Return what the proxies have written, the nearest one's word last."""
    addresses = _listed(headers, b"x-forwarded-for")
    schemes, hosts = _listed(headers, b"x-forwarded-proto"), _listed(headers, b"x-forwarded-host")
    count = max(len(addresses), 1 if schemes or hosts else 0)
    if not count:
        return _forwarded(_values(headers, b"forwarded"))
    return [
        Hop(
            parse_address(addresses[at]) if at < len(addresses) else None,
            _scheme(_beside(schemes, at, count)),
            parse_host(_beside(hosts, at, count)),
        )
        for at in range(count)
    ]


def _beside(values: Sequence[str], at: int, count: int) -> str | None:
    """Return what stands beside the address at that place; of a list of another length the last one, the nearest's."""
    if not values:
        return None
    return values[at] if len(values) == count else values[-1]


def _forwarded(text: str) -> Sequence[Hop]:
    """Read ``Forwarded``; where something in it is against the rules, what was written after that.

    Somebody may open a quote that the first one of the next proxy closes, to have its word inside: then what follows
    is no pair, and each word counts by itself as far as it is one, from the end.
    """
    hops = _elements(text)
    if hops is None:
        words = map(_elements, reversed(text.split(",")))
        hops = [hop for word in takewhile(lambda word: word is not None, words) for hop in word or ()][::-1]
    return hops


def _elements(text: str) -> Sequence[Hop] | None:
    """Read a list of elements (RFC 7239, section 4), in one go; None where it isn't one."""
    hops: list[Hop] = []
    pairs: dict[str, str] = {}
    at = 0
    while (match := _PAIR.match(text, at)) is not None:
        name, quoted, plain, end = match.groups()
        if name is not None:
            pairs[name.lower()] = plain if quoted is None else quoted
        if end != ";" and pairs:
            hops.append(_of_pairs(pairs))
            pairs = {}
        if not end:
            return hops
        at = match.end()
    return None


def _of_pairs(pairs: Mapping[str, str]) -> Hop:
    address = parse_address(pairs["for"]) if "for" in pairs else None
    return Hop(address, _scheme(pairs.get("proto")), parse_host(pairs.get("host")))


def _values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    """Return what a header says, its lines as one; of a long one the end, where the nearest proxy writes."""
    text = ",".join(str(value, "latin-1") for key, value in headers if key == name)
    return text if len(text) <= _MOST_CHARACTERS else text[-_MOST_CHARACTERS:].partition(",")[2]


def _listed(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> Sequence[str]:
    text = _values(headers, name)
    return [part.strip() for part in text.split(",")] if text else []


def _scheme(text: str | None) -> str | None:
    lowered = text.lower() if text else None
    return lowered if lowered in ("http", "https") else None


def parse_host(text: str | None) -> str | None:
    """Return a name or an address with or without a port (RFC 3986 §3.2.2); None where it isn't one. Pure."""
    return text if text and _HOST.fullmatch(text) else None
