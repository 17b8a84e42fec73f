"""What has layers that lie elsewhere, and reads images that are included: for rules, and for callers' plans.

Who named a place decides where connections may lead. Settings are believed, so the hosts that rules name may be
anywhere. A caller reaches the public internet and `augment.location_hosts`, and never by a proxy of the environment,
which would connect for us to where we don't. Configured upstreams are read as settings say, by either.
"""

import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from roadstead.app.plugs import CLOCK
from roadstead.app.remotes import open_remotes
from roadstead.augment.includes import Includes, parse_include
from roadstead.augment.layer_sources import LayerBounds, LayerSources
from roadstead.augment.layers import Elsewhere
from roadstead.augment.locations import BlobAddress, WebAddress, kind_of
from roadstead.augment.ports import LayerStore, ReadableRegistry
from roadstead.augment.sources.inline import InlineLayers
from roadstead.augment.sources.registries import KnownRegistries, RegistryLayers
from roadstead.augment.sources.web import WebLayers
from roadstead.settings.model import Settings
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.egress import EgressPolicy
from roadstead.upstream.proxies import Proxies
from roadstead.upstream.transport import Transport


@asynccontextmanager
async def open_elsewhere(
    settings: Settings,
    layers: LayerStore,
    directory: Path,
    *,
    trusted: frozenset[str] | None = None,
    here: ReadableRegistry | None = None,
) -> AsyncGenerator[Elsewhere, None]:
    """Give it, and close its connections at the end. `trusted` are the hosts that settings name; None for callers.

    Layers lie below `directory` while they arrive. `here` reads our own images.
    """
    own = urlsplit(settings.server.public_url or "").netloc.lower()
    hosts = {host.lower() for host in settings.augment.location_hosts} | (trusted or frozenset())
    transport = Transport(
        proxies=Proxies() if trusted is None else Proxies.from_environment(os.environ),
        egress=EgressPolicy(frozenset(hosts)),
        by_proxy=trusted is not None,
    )
    async with transport, open_remotes(settings.upstreams.registries) as remotes:
        registries = KnownRegistries(
            remotes.get,
            lambda host: RegistryClient(RegistryAddress.parse(host), transport),
            here,
            {own} - {""},
        )
        web = WebLayers(transport)
        sources = LayerSources(
            {"data": InlineLayers(), "docker": RegistryLayers(registries), "http": web, "https": web},
            layers,
            directory / "layers",
            CLOCK,
            bounds=LayerBounds(
                max_bytes=settings.augment.max_layer_bytes,
                max_unpacked_bytes=settings.augment.max_layer_unpacked_bytes,
                patience_s=settings.augment.layer_patience.total_seconds(),
            ),
        )
        yield Elsewhere(sources, Includes(registries, layers))


def named_hosts(locations: Iterable[str], images: Iterable[str]) -> frozenset[str]:
    """Return the hosts that locations and names of images lead to. Pure; raises what is wrong with them."""
    hosts = set()
    for location in locations:
        kind = kind_of(location)
        if kind == "docker":
            hosts |= _registry_hosts(BlobAddress.parse(location).host)
        elif kind != "data":
            hosts.add(WebAddress.parse(location).host)
    for image in images:
        hosts |= _registry_hosts(parse_include(image).host)
    return frozenset(hosts)


def _registry_hosts(host: str) -> set[str]:
    return {host, RegistryAddress.parse(host).url.partition("://")[2]}
