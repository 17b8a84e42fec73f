"""Through which proxy a URL is asked: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from roadstead.upstream.address import is_loopback


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxies by the scheme of what is asked for, and the hosts that are asked without one."""

    by_scheme: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)  # it may hold passwords
    exceptions: str = ""
    """Domains, addresses and networks parted by commas, ``*`` for all; a domain includes those below it."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables that curl, Go and Python read; the lower-case ones win.

        In a CGI program ``HTTP_PROXY`` is a header of the request (CVE-2016-5385), so it doesn't count there.
        """

        def read(name: str) -> str:
            upper = (
                "" if name == "http_proxy" and "REQUEST_METHOD" in environment else environment.get(name.upper(), "")
            )
            return environment.get(name, "") or upper

        every = read("all_proxy")
        chosen = {scheme: read(f"{scheme}_proxy") or every for scheme in ("http", "https")}
        usable = {scheme: _with_scheme(proxy) for scheme, proxy in chosen.items() if proxy}
        return cls(usable, read("no_proxy"))

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy to ask *url* through, or None. This machine itself is never asked through one."""
        parts = urlsplit(url)
        proxy = self.by_scheme.get(parts.scheme)
        if proxy is None or is_loopback(parts.hostname or ""):
            return None
        return None if self._is_exception(parts.hostname or "", parts.port) else proxy

    def _is_exception(self, host: str, port: int | None) -> bool:
        """Tell whether a host is asked directly: named, below a named domain, in a named network, or all are."""
        for entry in self.exceptions.lower().split(","):
            name, _, its_port = entry.strip().rpartition(":") if entry.count(":") == 1 else (entry.strip(), "", "")
            name = name.removeprefix("*.").lstrip(".")
            if its_port and its_port != str(port):
                continue
            if name and (name == "*" or host == name or host.endswith(f".{name}") or _in_network(host, name)):
                return True
        return False


def _in_network(host: str, network: str) -> bool:
    try:
        return "/" in network and ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"
