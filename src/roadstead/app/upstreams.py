"""Upstreams as settings name them: their clients, and what pulls through them."""

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from roadstead.app.plugs import CLOCK, Plugs
from roadstead.oci.descriptor import Platform
from roadstead.oci.pattern import Pattern
from roadstead.proxy.ports import Tally
from roadstead.proxy.retention import PulledRetention
from roadstead.proxy.service import PullThrough
from roadstead.proxy.spaces import Spaces, Upstream
from roadstead.registry.uploads import Uploads
from roadstead.settings.handover import Handover
from roadstead.settings.model import Settings, StorageDriver, UpstreamSettings
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


def build_upstreams(settings: Settings) -> tuple[Upstream, ...]:
    """Return the upstreams that settings name."""
    return tuple(_upstream(settings, upstream) for upstream in settings.upstreams.registries)


def _upstream(settings: Settings, upstream: UpstreamSettings) -> Upstream:
    return Upstream(
        host=upstream.host,
        default_for=tuple(Pattern.parse(text) for text in upstream.default_for),
        revalidate=upstream.revalidate,
        keep=None if settings.registry.read_only else upstream.keep or None,
        allow_push=upstream.allow_push,
        platforms=tuple(Platform.parse(text) for text in upstream.platforms),
    )


def arrivals(handover: Handover) -> Path:
    """Return the folder where blobs of upstreams lie until they are stored: beside the tree, if that is in files."""
    storage = handover.settings.storage
    root = storage.path if storage.driver is StorageDriver.FILESYSTEM else handover.run_directory
    return root / "arriving"


@asynccontextmanager
async def pulling_through(
    plugs: Plugs, handover: Handover, uploads: Uploads, tally: Tally
) -> AsyncGenerator[PullThrough | None, None]:
    """Give what has upstreams' images here, None where there are no upstreams; end its downloads at the end."""
    configured = handover.settings.upstreams.registries
    if not configured:
        yield None
        return
    async with AsyncExitStack() as stack:
        remotes = {}
        for upstream in configured:
            transport = await stack.enter_async_context(_transport(upstream))
            remotes[upstream.host] = _client(upstream, transport)
        is_frozen = handover.settings.registry.read_only
        proxy = PullThrough(
            Spaces(build_upstreams(handover.settings), plugs.database.pulled),
            _nobody if is_frozen else remotes.__getitem__,
            manifests=plugs.manifests,
            blobs=plugs.blobs,
            uploads=uploads,
            pulled=plugs.database.pulled,
            clock=CLOCK,
            directory=arrivals(handover),
            tally=tally,
        )
        try:
            yield proxy
        finally:
            await proxy.aclose()


def _nobody(host: str) -> RegistryClient:
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

    A proxy connects for us, unchecked; whoever has one decides there where it may connect to.
    """
    proxies = Proxies.from_environment(os.environ)
    url = _address(upstream).url
    own = {urlsplit(url).netloc.lower(), *(host.lower() for host in upstream.trusted_hosts)}
    egress = None if proxies.proxy_for(url) is not None else EgressPolicy(frozenset(own))
    return Transport(ca_file=upstream.ca, proxies=proxies, egress=egress, backoff=BACKOFF)


def _address(upstream: UpstreamSettings) -> RegistryAddress:
    if upstream.url is None:
        return RegistryAddress(upstream.host, RegistryAddress.parse(upstream.host).url)
    return RegistryAddress(upstream.host, upstream.url.rstrip("/"))


def pulled_retention(plugs: Plugs, settings: Settings) -> PulledRetention:
    """Return what removes images of upstreams that nobody pulls any more."""
    return PulledRetention(build_upstreams(settings), plugs.database.pulled, plugs.manifests, CLOCK)


RETENTION_EVERY = timedelta(hours=1)
