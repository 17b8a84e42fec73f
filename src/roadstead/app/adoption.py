"""Trees that others wrote: taken up, kept true by links, given back."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from roadstead.acts import ActKind, Asked
from roadstead.app.auditing import written_down
from roadstead.app.plugs import CLOCK, Plugs, owner
from roadstead.app.upstreams import build_upstreams
from roadstead.app.writing import fence, finish_if_kept, keep_finished, open_for_command
from roadstead.http.names import RESERVED
from roadstead.lease import hold
from roadstead.proxy.collisions import collisions
from roadstead.registry.foreign_writes import repositories_written_since
from roadstead.registry.importer import (
    Importer,
    ImportUnderWayError,
    Report,
    TreeMissingError,
    WrittenMeanwhileError,
    finish,
    must_rebuild,
)
from roadstead.registry.links import LinkedBlobs, LinkedManifests, Links
from roadstead.registry.ports import ImportState
from roadstead.registry.tree import Tree
from roadstead.settings.model import LinksMode, Settings, StorageDriver, StorageSettings
from roadstead.storage import keys

IMPORT_LEASE = "import"
PROGRESS_EVERY = timedelta(seconds=5)
CLOCKS_DIFFER_BY = timedelta(seconds=5)  # what a file server's clock may be off, and a write may take
_log = structlog.get_logger()


async def take_up_if_begun(plugs: Plugs, settings: Settings) -> None:
    """Take up the tree where that was begun and isn't through; of several replicas one does it, the others wait."""
    imports = plugs.database.imports
    while (await imports.status()).state is ImportState.RUNNING:
        async with hold(plugs.database.leases, IMPORT_LEASE, owner(), CLOCK) as lease:
            if lease is not None:
                report = await Importer(imports, plugs.driver, CLOCK, progress=logged_progress()).run()
                _log.info("the images in storage are taken up", **_facts(report))
                await set_links(plugs, settings, complete=True)
                await finish_if_kept(plugs, settings)
        await asyncio.sleep(0 if lease else 1)


@asynccontextmanager
async def taking_up(
    settings: Settings, *, asked: Asked, verify: bool, progress: Callable[[str, Report], None]
) -> AsyncGenerator[Callable[[], Awaitable[Report]], None]:
    """Open what an import by hand needs, and return what runs it; raises TreeMissingError, ImportUnderWayError."""
    storage = settings.storage
    if storage.driver is StorageDriver.FILESYSTEM and not (storage.path / keys.REPOSITORIES).is_dir():
        raise TreeMissingError(_where(storage))  # before anything is made there
    async with open_for_command(settings, migrate=True) as plugs:

        async def run() -> Report:
            if not await Tree(plugs.driver).is_there():
                raise TreeMissingError(_where(storage))
            async with hold(plugs.database.leases, IMPORT_LEASE, owner(), CLOCK) as lease:
                if lease is None:
                    raise ImportUnderWayError
                async with written_down(plugs.database.acts, asked, ActKind.IMPORT_RUN, _where(storage)) as told:
                    report = await Importer(
                        plugs.database.imports,
                        plugs.driver,
                        CLOCK,
                        verify=verify,
                        progress=progress,
                        collides=collisions(build_upstreams(settings), RESERVED),
                    ).run()
                    await set_links(plugs, settings, complete=True)
                    told.reason = f"{report.repositories} repositories, {report.tags} tags, {report.blobs} blobs"
                    return report

        yield run


async def finish_import(settings: Settings, asked: Asked) -> None:
    """End the adoption; raises NotImportedError, WrittenMeanwhileError."""
    async with open_for_command(settings, migrate=True) as plugs:
        # A database that doesn't last begins empty each time; any other says so if nothing was taken up yet.
        if settings.is_rebuildable and await must_rebuild(plugs.database.imports, plugs.driver, CLOCK.now()):
            await take_up_if_begun(plugs, settings)
        # What the database doesn't know has no row, and from then on collection takes such bytes for a crash's.
        _, changed = await _foreign_writes(plugs)
        if changed:
            raise WrittenMeanwhileError(changed)
        async with written_down(plugs.database.acts, asked, ActKind.IMPORT_FINISH, _where(settings.storage)):
            await finish(plugs.database.imports)
            await keep_finished(plugs, settings)


def _where(storage: StorageSettings) -> str:
    if storage.driver is StorageDriver.FILESYSTEM:
        return str(storage.path)
    return f"s3://{storage.bucket}/{storage.prefix}".rstrip("/")


def logged_progress() -> Callable[[str, Report], None]:
    """Return what tells of an import's progress: it writes a line of the log now and then."""
    due = CLOCK.now() + PROGRESS_EVERY

    def tell(where: str, report: Report) -> None:
        nonlocal due
        if CLOCK.now() >= due:
            due = CLOCK.now() + PROGRESS_EVERY
            _log.info("taking up the images in storage", at=where, **_facts(report))

    return tell


def _facts(report: Report) -> dict[str, int]:
    findings = sum(report.findings.values())
    return {
        "repositories": report.repositories,
        "manifests": report.manifests,
        "tags": report.tags,
        "blobs": report.blobs,
        "findings": findings,
    }


async def links_mode(plugs: Plugs, settings: Settings) -> LinksMode:
    """Return when links are written: as settings say, else where somebody may want to go back."""
    if settings.links is not None:
        return settings.links
    if settings.storage.driver is StorageDriver.FILESYSTEM:
        return LinksMode.ASYNC
    adopted = (await plugs.database.imports.status()).state is not ImportState.NONE
    return LinksMode.ASYNC if adopted else LinksMode.OFF


async def set_links(plugs: Plugs, settings: Settings, *, complete: bool = False) -> None:
    """Have changes noted, or not; of a `complete` tree only what changes from now on."""
    store = plugs.database.links
    if await links_mode(plugs, settings) is LinksMode.OFF:
        await store.switch_off()
        return
    await store.switch_on(complete=complete)


async def warn_of_foreign_writes(plugs: Plugs) -> None:
    """Say so if somebody else has written into the tree behind our last link."""
    since, changed = await _foreign_writes(plugs)
    if since is not None and changed:
        _log.warning(
            "somebody else has written into the tree (docker-registry?); roadstead import takes it up",
            since=since.isoformat(),
            repositories=changed,
        )


async def _foreign_writes(plugs: Plugs) -> tuple[datetime | None, Sequence[str]]:
    """Return when we wrote into the tree or read it last, and some of the repositories that changed since."""
    written = await plugs.database.links.last_written()
    taken_up = (await plugs.database.imports.status()).done_at
    last = max((moment for moment in (written, taken_up) if moment is not None), default=None)
    if last is None or await plugs.database.links.changes(limit=1):
        return last, ()
    return last, await repositories_written_since(plugs.driver, last + CLOCKS_DIFFER_BY)


async def linked(plugs: Plugs, settings: Settings) -> Plugs:
    """Return the plugs with stores that write links before they return, where settings want that."""
    if settings.links is not LinksMode.SYNC:
        return plugs
    links = build_links(plugs, settings)
    return replace(plugs, manifests=LinkedManifests(plugs.manifests, links), blobs=LinkedBlobs(plugs.blobs, links))


def build_links(plugs: Plugs, settings: Settings) -> Links:
    """Return what writes links, as long as this machine may write."""
    kept = fence(settings)
    if kept is None:
        return Links(plugs.database.links, plugs.driver, CLOCK)
    return Links(plugs.database.links, plugs.driver, CLOCK, guard=kept.check)


@asynccontextmanager
async def open_taken_up(settings: Settings, *, migrate: bool = False) -> AsyncGenerator[Plugs, None]:
    """Open database and storage for a command that wants to find everything in the database."""
    async with open_for_command(settings, migrate=migrate) as plugs:
        if settings.is_rebuildable and await must_rebuild(plugs.database.imports, plugs.driver, CLOCK.now()):
            await take_up_if_begun(plugs, settings)
        yield plugs
