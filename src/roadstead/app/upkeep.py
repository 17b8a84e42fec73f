"""The background process: what is collected, purged, leased and linked while nobody waits."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import structlog

from roadstead.app.adoption import build_links, links_mode, take_up_if_begun
from roadstead.app.auditing import audit_loop
from roadstead.app.plugs import CLOCK, Plugs, metered, open_plugs
from roadstead.app.services import build_uploads
from roadstead.app.telling import delivery_loops
from roadstead.app.upstreams import RETENTION_EVERY, arrivals, pulled_retention, tell_of_shadowed
from roadstead.app.writing import keeping_the_right
from roadstead.augment.containers import REMEMBERED_FOR
from roadstead.augment.kept_layers import RuleLayers
from roadstead.augment.rules import Rules
from roadstead.background import Background, Loop
from roadstead.oci.pattern import Pattern
from roadstead.proxy.locks import remove_abandoned
from roadstead.registry.gc import Collector, Policy, Untagged
from roadstead.registry.immutable import ImmutableTags
from roadstead.registry.links import Links
from roadstead.registry.retention import Retention, RetentionRule
from roadstead.registry.uploads import Uploads
from roadstead.registry.verify import Verifier
from roadstead.settings.handover import Handover
from roadstead.settings.model import LinksMode, RetentionSettings, Settings
from roadstead.storage.ports import PurgesTemporary
from roadstead.storage.writer import WriterLostError
from roadstead.supervisor import GiveUpError
from roadstead.telemetry.metrics import EventMetrics, Metrics

LINKS_EVERY = timedelta(seconds=0.5)
WORKERS_END_WITHIN = timedelta(milliseconds=200)  # what takes longer leaves notes, which the next start works off
_log = structlog.get_logger()


async def background(handover: Handover) -> None:
    """Do the work that nobody waits for, until cancelled."""
    settings = handover.settings
    async with open_plugs(settings, migrate=False) as opened:
        numbers = Metrics(handover.run_directory, "background")
        plugs = metered(opened, numbers)
        try:
            async with keeping_the_right(settings, plugs.driver):
                await _work(plugs, handover, EventMetrics(numbers))
        except WriterLostError as error:
            raise GiveUpError(str(error)) from error


async def _work(plugs: Plugs, handover: Handover, tally: EventMetrics) -> None:
    settings = handover.settings
    await take_up_if_begun(plugs, settings)
    uploads = await build_uploads(plugs, settings)
    rules = Rules.from_json(handover.rules_json)
    layers = RuleLayers(plugs.database.layers, rules.layers(), CLOCK)
    everywhere = [Loop("leases of the rules' layers", settings.gc.grace / 4, layers.keep)]
    loops = [] if settings.registry.read_only else _removing(plugs, settings, uploads)
    if settings.upstreams.registries:
        await tell_of_shadowed(plugs, settings)
        everywhere.append(Loop("broken downloads", timedelta(hours=1), _remove_abandoned(arrivals(handover))))
        if not settings.registry.read_only:
            loops.append(Loop("images of upstreams", RETENTION_EVERY, pulled_retention(plugs, settings).run))
    links = None
    if await links_mode(plugs, settings) is not LinksMode.OFF and not settings.registry.read_only:
        links = build_links(plugs, settings)
        loops.append(Loop("links", LINKS_EVERY, _quietly(links)))
    if not settings.registry.read_only:
        loops.append(_tokens_loop(plugs))
    loops.append(audit_loop(plugs.database.acts, settings.audit.retention, CLOCK))
    try:
        async with delivery_loops(plugs.database, settings, tally, CLOCK) as delivery:
            loops += delivery
            await Background(loops, plugs.database.leases, _owner(handover), CLOCK, everywhere=everywhere).run()
    finally:
        if links is not None:
            await _finish_links(links)


def _owner(handover: Handover) -> str:
    """Return the name of a server's one background process: the same for the next one, where this one is killed.

    The supervisor starts another when the last is gone, so that nobody has to wait until a lease of the dead is over.
    """
    return f"{socket.gethostname()}:{handover.run_directory.name}"


def _tokens_loop(plugs: Plugs) -> Loop:
    """Return the loop that removes what container tokens have left behind that have ended."""
    store = plugs.database.containers

    async def purge() -> int:
        now = CLOCK.now()
        return await store.purge(now=now, forget_before=now - REMEMBERED_FOR)

    return Loop("container tokens", timedelta(hours=1), purge)


def _remove_abandoned(directory: Path) -> Callable[[], Awaitable[int]]:
    async def remove() -> int:
        return await asyncio.to_thread(remove_abandoned, directory)

    return remove


def _quietly(links: Links) -> Callable[[], Awaitable[int]]:
    """Return the loop's work, which has nothing to tell: it follows every push."""

    async def catch_up() -> int:
        await links.catch_up()
        return 0

    return catch_up


async def _finish_links(links: Links) -> None:
    """Write the links of what is acknowledged while the workers end, so that the tree is whole when we are gone."""
    await links.catch_up()
    await asyncio.sleep(WORKERS_END_WITHIN.total_seconds())
    if await links.catch_up():
        await links.catch_up()
    _log.info("the tree's links are written")


def collector(plugs: Plugs, settings: Settings) -> Collector:
    """Return what collects, with the policy that settings give."""
    policy = Policy(
        untagged=Untagged(settings.gc.untagged.value),
        untagged_after=settings.gc.untagged_after,
        stray_after=settings.gc.grace,
        staged_after=settings.registry.upload_max_age + timedelta(days=1),
        retention=Retention(
            tuple(_retention_rule(rule) for rule in settings.gc.retention),
            ImmutableTags.parse(settings.registry.immutable),
        ),
    )
    database = plugs.database
    return Collector(database.collection, database.catalog, plugs.driver, CLOCK, policy, imports=database.imports)


def _retention_rule(rule: RetentionSettings) -> RetentionRule:
    return RetentionRule(
        match=Pattern.parse(rule.match),
        keep_newest=rule.keep_newest,
        keep_younger=rule.keep_younger,
        keep_matching=rule.keep_matching,
    )


def verifier(plugs: Plugs, settings: Settings, *, repair: bool) -> Verifier:
    """Return what checks everything."""
    database = plugs.database
    return Verifier(
        database.audit,
        database.blobs,
        database.collection,
        plugs.driver,
        CLOCK,
        repair=repair,
        stray_after=settings.gc.grace,
    )


def _removing(plugs: Plugs, settings: Settings, uploads: Uploads) -> list[Loop]:
    """Return the loops that remove what nobody needs any more."""
    loops = []
    if settings.registry.purge_uploads:
        loops.append(Loop("abandoned uploads", settings.registry.upload_purge_interval, uploads.purge))
        if isinstance(plugs.driver, PurgesTemporary):
            loops.append(Loop("temporary files", timedelta(hours=1), _purge_temporary(plugs.driver, settings)))
    if settings.gc.enabled:
        loops += _collection(collector(plugs, settings), settings)
    return loops


def _collection(collector: Collector, settings: Settings) -> list[Loop]:
    async def collect() -> int:
        return (await collector.run()).total

    return [
        Loop("collection", settings.gc.interval, collect),
        Loop("bytes without a row", settings.gc.sweep_interval, collector.sweep),
    ]


def _purge_temporary(driver: PurgesTemporary, settings: Settings) -> Callable[[], Awaitable[int]]:
    # In an object store an upload that goes on looks like one whose writer died: only their age tells.
    age = settings.registry.upload_max_age + timedelta(days=1)

    async def purge() -> int:
        return await driver.purge_temporary(CLOCK.now() - age)

    return purge
