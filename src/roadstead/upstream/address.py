"""Where a registry is: its host as names have it, and the address of its API (registry spec, Docker Hub's naming)."""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from roadstead.errors import InvalidError
from roadstead.oci.reference import DEFAULT_HOST, ImageReference, ReferenceInvalidError, RepositoryName

HUB_API = "https://registry-1.docker.io"
HUB_CREDENTIALS_KEY = "https://index.docker.io/v1/"
"""Under which ``docker login`` keeps Docker Hub's credentials."""

HUB_HOSTS = frozenset({DEFAULT_HOST, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
"""By which Docker Hub is known."""


class AddressInvalidError(InvalidError):
    """A text isn't a registry's host or address."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text[:120]!r} isn't a registry's address: {reason}")
        self.text = text

    def advice(self) -> str:
        """Show what an address looks like."""
        return "Write it as HOST[:PORT], or as http://HOST[:PORT] for one without TLS."


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """One registry: ``host`` as it stands before names, ``url`` as it is asked, without ``/v2/``."""

    host: str
    url: str

    @classmethod
    def parse(cls, text: str, *, plain_http: Collection[str] = (), tls_on_loopback: bool = False) -> Self:
        """Read ``HOST[:PORT]`` or ``http(s)://HOST[:PORT]``. Raises AddressInvalidError.

        Without a scheme it is https, but http for the hosts in *plain_http* and on loopback, unless *tls_on_loopback*.
        """
        scheme, host = _parts(text)
        if host in HUB_HOSTS:
            return cls(DEFAULT_HOST, HUB_API)
        if scheme is None:
            plain = host in plain_http or (is_loopback(urlsplit(f"//{host}").hostname or "") and not tls_on_loopback)
            scheme = "http" if plain else "https"
        return cls(host, f"{scheme}://{host}")

    @property
    def is_hub(self) -> bool:
        """Whether it is Docker Hub."""
        return self.host == DEFAULT_HOST

    @property
    def credentials_key(self) -> str:
        """Return the name under which Docker's helpers and files keep its credentials."""
        return HUB_CREDENTIALS_KEY if self.is_hub else self.host

    def repository(self, name: str) -> RepositoryName:
        """Return the repository that *name* means there: ``busybox`` is ``library/busybox`` on Docker Hub."""
        return RepositoryName.parse(f"library/{name}" if self.is_hub and "/" not in name else name)

    def __str__(self) -> str:
        return self.host


def is_loopback(name: str) -> bool:
    """Tell whether a host's name, without a port, is this machine itself. Nothing is resolved."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _parts(text: str) -> tuple[str | None, str]:
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    elif scheme.lower() not in {"http", "https"}:
        raise AddressInvalidError(text, f"the scheme is {scheme!r}, expected http or https")
    host = rest.rstrip("/").removesuffix("/v2").lower()
    if not host:
        raise AddressInvalidError(text, "the host is missing")
    if "/" in host:
        raise AddressInvalidError(text, "a path follows the host")
    try:
        # The grammar of hosts is the references'; a single word is a host here, for nothing else can be meant.
        ImageReference.parse(f"{host if _is_marked(host) else f'{host}:80'}/name")
    except ReferenceInvalidError as error:
        raise AddressInvalidError(text, error.reason) from error
    return scheme.lower() or None, host


def _is_marked(host: str) -> bool:
    return host == "localhost" or "." in host or ":" in host
