"""Which token services our credentials for a registry may go to (CVE-2026-33540: any realm got them)."""

from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from roadstead.upstream.egress import is_address
from roadstead.upstream.errors import BadAnswerError
from roadstead.upstream.transport import check_hop, masked

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


def check_realm(host: str, registry_url: str, realm: str) -> None:
    """Raise unless *realm* is an address that a token may be asked for at all. Pure.

    It's http or https, and https if the registry is asked that way. Raises BadAnswerError, AddressForbiddenError.
    """
    try:
        parts = urlsplit(realm)
        name, _ = parts.hostname, parts.port  # the port is checked when it's read
    except ValueError as error:
        raise BadAnswerError(host, "its token service's address can't be read") from error
    if parts.scheme not in {"http", "https"} or not name or parts.username is not None:
        raise BadAnswerError(host, f"its token service {masked(realm)[:120]!r} isn't an address we ask")
    if parts.scheme == "http" and registry_url.startswith("https:"):
        raise BadAnswerError(host, f"its token service {masked(realm)[:120]} has no TLS, though it has itself")
    check_hop(host, registry_url, realm)


def belongs(registry_url: str, realm: str, trusted: Collection[str] = ()) -> bool:
    """Tell whether credentials for a registry may go to a token service. Pure.

    They may where both have one host or one owner: the part of the name that somebody registered is the same, as for
    ``registry-1.docker.io`` and ``auth.docker.io``. *trusted* are other hosts that were named as right.
    """
    here, there = urlsplit(registry_url).hostname or "", urlsplit(realm).hostname or ""
    if here == there or there in trusted or urlsplit(realm).netloc.lower() in trusted:
        return True
    if is_address(here) or is_address(there):
        return False
    owner = _suffixes().privatesuffix(here)
    return owner is not None and owner == _suffixes().privatesuffix(there)


@cache
def _suffixes() -> "PublicSuffixList":
    # A tenth of a second and some MiB, for those only whose token service has another name.
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()
