"""The clients of upstreams: who we are there, and where they may connect to."""

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from roadstead.settings.model import UpstreamSettings
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.credentials import Given, Password
from roadstead.upstream.egress import EgressPolicy
from roadstead.upstream.errors import UnreachableError
from roadstead.upstream.proxies import Proxies
from roadstead.upstream.retry import Backoff
from roadstead.upstream.transport import Transport

BACKOFF = Backoff(attempts=3, first_s=0.3, patience_s=5)
"""A client waits meanwhile, and tries again itself."""


@asynccontextmanager
async def open_remotes(upstreams: Sequence[UpstreamSettings]) -> AsyncGenerator[Mapping[str, RegistryClient], None]:
    """Give a client for each upstream, by its host; close their connections at the end."""
    async with AsyncExitStack() as stack:
        remotes = {}
        for upstream in upstreams:
            transport = await stack.enter_async_context(_transport(upstream))
            remotes[upstream.host] = _client(upstream, transport)
        yield remotes


def nobody(host: str) -> RegistryClient:
    """Raise: what is here is served, and nothing may change (``registry.read_only``)."""
    raise UnreachableError(host, "nothing is fetched while this registry is set to be read only", lasting=True)


def _client(upstream: UpstreamSettings, transport: Transport) -> RegistryClient:
    given = None
    if upstream.username is not None and upstream.password is not None:
        given = Password(upstream.username, upstream.password)
    return RegistryClient(
        _address(upstream),
        transport,
        credentials=Given(given),
        trusted_realms=frozenset(upstream.trusted_hosts),
    )


def _transport(upstream: UpstreamSettings) -> Transport:
    """Return how it is reached: through the environment's proxies, else nowhere but there and to public addresses.

    A proxy connects for us, unchecked; whoever has one decides there where it may connect to. What `NO_PROXY` names is
    connected to by us, and checked.
    """
    proxies = Proxies.from_environment(os.environ)
    own = {urlsplit(_address(upstream).url).netloc.lower(), *(host.lower() for host in upstream.trusted_hosts)}
    egress = EgressPolicy(frozenset(own))
    return Transport(ca_file=upstream.ca, proxies=proxies, egress=egress, by_proxy=True, backoff=BACKOFF)


def _address(upstream: UpstreamSettings) -> RegistryAddress:
    if upstream.url is None:
        return RegistryAddress(upstream.host, RegistryAddress.parse(upstream.host).url)
    return RegistryAddress(upstream.host, upstream.url.rstrip("/"))
