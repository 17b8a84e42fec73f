"""Other registries, asked for a caller (``/validate-creds``, ``/v1alpha1/inspect``): where we may connect to.

Configured registries are reached wherever they are, others at public addresses only, checked when a socket connects.
What a caller hears of one that can't be reached is always the same: whether a name or a port of a network behind us is
there isn't theirs to find out.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from roadstead.http.wave.door import Outward
from roadstead.http.wave.errors import HostRefusedError, ImageUnknownError
from roadstead.limits.rates import Rate
from roadstead.oci.digest import Digest
from roadstead.oci.reference import DEFAULT_TAG, ImageReference, Tag
from roadstead.secret import Secret
from roadstead.settings.model import UpstreamSettings
from roadstead.upstream.address import AddressInvalidError, RegistryAddress
from roadstead.upstream.credentials import Given, Password
from roadstead.upstream.egress import EgressPolicy
from roadstead.upstream.errors import (
    UpstreamDeniedError,
    UpstreamError,
    UpstreamNotFoundError,
    UpstreamRefusedError,
)
from roadstead.upstream.ports import FetchedManifest
from roadstead.upstream.retry import Backoff

if TYPE_CHECKING:
    # For its types only: it is loaded with the first question.
    from roadstead.upstream.client import RegistryClient

ASKING = Rate(per_second=0.5, burst=30)
"""How often one client may have us ask somebody: people try a few times, scripts check a list of registries."""

_PATIENCE_S = 20.0
_ONCE = Backoff(attempts=1)


class OutwardRequests:
    """Asks registries; connections are made for one question and then closed."""

    def __init__(self, upstreams: Sequence[UpstreamSettings]) -> None:
        self._upstreams = upstreams

    async def accepts(self, registry: str, username: str, password: str) -> bool:
        """Say whether a registry takes a name and a password; raises HostRefusedError where it can't be asked."""
        address, upstream = self._address(registry)
        try:
            async with _client(address, upstream, Password(username, Secret(password))) as client:
                await client.ping()
        except (UpstreamDeniedError, UpstreamRefusedError, UpstreamNotFoundError):
            return False
        except (UpstreamError, TimeoutError) as error:
            raise HostRefusedError(address.host) from error
        return True

    async def manifest(self, image: ImageReference, digest: Digest | None = None) -> FetchedManifest:
        """Return an image's manifest, or another one of its repository; ImageUnknownError, HostRefusedError."""
        address, upstream = self._address(image.host)
        wanted = digest or image.digest or image.tag or Tag(DEFAULT_TAG)
        async with _asked(image, address, upstream) as client:
            return await client.manifest(image.repository, wanted)

    async def blob(self, image: ImageReference, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob of an image's repository; raises the same."""
        address, upstream = self._address(image.host)
        data = bytearray()
        async with _asked(image, address, upstream) as client:
            async for piece in client.blob(image.repository, digest):
                data += piece
                if len(data) > max_bytes:
                    raise ImageUnknownError(str(image))
        return bytes(data)

    def _address(self, text: str) -> tuple[RegistryAddress, UpstreamSettings | None]:
        """Return where a registry is that is named by its host, or by an address of whatever path."""
        scheme, separator, rest = text.partition("://")
        host = (rest if separator else scheme).partition("/")[0]
        try:
            address = RegistryAddress.parse(f"{scheme}://{host}" if separator else host)
        except AddressInvalidError as error:
            raise HostRefusedError(text) from error
        for upstream in self._upstreams:
            url = upstream.url or RegistryAddress.parse(upstream.host).url
            if address.host in (upstream.host, urlsplit(url).netloc.lower()):
                return RegistryAddress(upstream.host, url.rstrip("/")), upstream
        return address, None


@asynccontextmanager
async def _asked(
    image: ImageReference, address: RegistryAddress, upstream: UpstreamSettings | None
) -> AsyncGenerator["RegistryClient", None]:
    try:
        async with _client(address, upstream, None) as client:
            yield client
    except (UpstreamNotFoundError, UpstreamDeniedError, UpstreamRefusedError) as error:
        raise ImageUnknownError(str(image)) from error
    except (UpstreamError, TimeoutError) as error:
        raise HostRefusedError(address.host) from error


@asynccontextmanager
async def _client(
    address: RegistryAddress, upstream: UpstreamSettings | None, password: Password | None
) -> AsyncGenerator["RegistryClient", None]:
    # What talks to other registries is loaded with the first question.
    from roadstead.upstream.client import RegistryClient

    # The same.
    from roadstead.upstream.transport import Transport

    own = set() if upstream is None else {urlsplit(address.url).netloc.lower(), *map(str.lower, upstream.trusted_hosts)}
    ca: Path | None = None if upstream is None else upstream.ca
    trusted = frozenset(() if upstream is None else upstream.trusted_hosts)
    async with (
        asyncio.timeout(_PATIENCE_S),
        Transport(ca_file=ca, egress=EgressPolicy(frozenset(own)), backoff=_ONCE) as transport,
    ):
        yield RegistryClient(address, transport, credentials=Given(password), trusted_realms=trusted)


if TYPE_CHECKING:
    _: type[Outward] = OutwardRequests
