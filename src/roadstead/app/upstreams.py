"""Upstreams as settings name them, and what pulls through them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import structlog

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

RETENTION_EVERY = timedelta(hours=1)
MOST_TOLD = 20
_log = structlog.get_logger()


def build_upstreams(settings: Settings) -> tuple[Upstream, ...]:
    """Return the upstreams that settings name."""
    return tuple(_upstream(settings, upstream) for upstream in settings.upstreams.registries)


def _upstream(settings: Settings, upstream: UpstreamSettings) -> Upstream:
    return Upstream(
        host=upstream.host,
        default_for=tuple(Pattern.parse(text) for text in upstream.default_for),
        revalidate=upstream.revalidate,
        missing_for=upstream.missing_for,
        downloads=upstream.downloads,
        keep=None if settings.registry.read_only else upstream.keep or None,
        allow_push=upstream.allow_push,
        whole=upstream.whole,
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
    # What talks to other registries is loaded only where there are some.
    from roadstead.app.remotes import nobody, open_remotes

    async with open_remotes(configured, trace=handover.settings.upstreams.trace) as remotes:
        proxy = PullThrough(
            Spaces(build_upstreams(handover.settings), plugs.database.pulled),
            nobody if handover.settings.registry.read_only else remotes.__getitem__,
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


async def tell_of_shadowed(plugs: Plugs, settings: Settings) -> None:
    """Log which repositories were pushed under names that are an upstream's now: nobody can pull them."""
    for upstream in settings.upstreams.registries:
        shadowed = await plugs.database.pulled.shadowed(upstream.host, limit=MOST_TOLD)
        if shadowed:
            _log.warning(
                "repositories that were pushed here can't be pulled: their names are an upstream's",
                host=upstream.host,
                repositories=[str(repository) for repository in shadowed],
                advice="take the upstream out of the settings, and copy them to other names",
            )


def pulled_retention(plugs: Plugs, settings: Settings) -> PulledRetention:
    """Return what removes images of upstreams that nobody pulls any more."""
    return PulledRetention(build_upstreams(settings), plugs.database.pulled, plugs.manifests, CLOCK)
