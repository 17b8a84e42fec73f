"""Which machines may be connected to when a caller, or another registry, says where to go (design decision 11).

A name is no proof: it may lead to a private address, or lead elsewhere the next time (DNS rebinding). So the check is
made on the address of each socket, when it is about to connect.
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from roadstead.upstream.errors import AddressForbiddenError

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Configured hosts may be anywhere; all others must have public addresses, or may not be reached at all."""

    configured: frozenset[str] = frozenset()
    """Hosts in lower case, with the port if the address has one: ``registry.internal:5000``."""

    public: bool = True
    """Whether hosts that aren't configured may be reached when their address is public."""

    def trusts(self, url: str) -> bool:
        """Tell whether a URL's host is a configured one, whatever its address."""
        return urlsplit(url).netloc.rpartition("@")[2].lower() in self.configured

    def check_host(self, host: str) -> None:
        """Raise AddressForbiddenError if a host that isn't configured may not be reached, as far as its name tells."""
        if not self.public:
            raise AddressForbiddenError(host, host, "it isn't configured")
        if is_address(host):
            check_public(host, host)


def is_address(host: str) -> bool:
    """Tell whether *host* is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_machine_local(address: str) -> bool:
    """Tell whether an address is loopback, link-local (where clouds keep credentials) or the unspecified one. Pure."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified


def check_public(host: str, address: str) -> None:
    """Raise AddressForbiddenError unless *address* is one of the public internet; *host* is for the message. Pure."""
    if reason := _objection(ipaddress.ip_address(address.partition("%")[0])):
        raise AddressForbiddenError(host, address, reason)


def _objection(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    if isinstance(address, ipaddress.IPv6Address):
        # Addresses that stand for an IPv4 address reach what that reaches.
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _objection(inner)
        if address.teredo is not None or address in _SITE_LOCAL:
            return "it isn't a public address"
    if address.is_loopback:
        return "it is this machine"
    if address.is_link_local:
        return "it is link-local, where clouds keep their credentials"
    if address.is_multicast or address.is_unspecified or address.is_reserved or not address.is_global:
        return "it isn't a public address"
    return None
