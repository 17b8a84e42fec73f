"""Images from files on their way into the storage that settings name, beside a server or without one."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog

from roadstead.acts import ActKind, Asked
from roadstead.app.adoption import build_links, linked, links_mode, set_links, take_up_if_begun
from roadstead.app.auditing import written_down
from roadstead.app.plugs import CLOCK
from roadstead.app.readiness import check_storage
from roadstead.app.services import build_contents, build_uploads
from roadstead.app.upstreams import build_upstreams
from roadstead.app.writing import note_own_tree, open_for_command
from roadstead.http.names import RESERVED, parse_name
from roadstead.oci.reference import RepositoryName
from roadstead.proxy.collisions import collisions
from roadstead.proxy.errors import NameTakenError
from roadstead.registry.collision import Collides
from roadstead.registry.errors import ReadOnlyError
from roadstead.registry.importer import must_rebuild
from roadstead.registry.loader import Loader, LoadReport, Progress
from roadstead.registry.saved_images import Saved
from roadstead.settings.model import LinksMode, Settings

_log = structlog.get_logger()

Load = Callable[[Saved, RepositoryName | None], Awaitable[LoadReport]]


@asynccontextmanager
async def loading(settings: Settings, asked: Asked, progress: Progress) -> AsyncGenerator[Load, None]:
    """Open what loading needs, and give what does it; raises ReadOnlyError."""
    if settings.registry.read_only:
        raise ReadOnlyError
    async with open_for_command(settings, migrate=True) as opened:
        await check_storage(opened.driver)
        # A database that knows nothing of a full tree has to learn of it first: with one image in it, it never would.
        if await must_rebuild(opened.database.imports, opened.driver, CLOCK.now()):
            _log.warning("the database knows nothing of the images in storage: it is built from them first")
            await take_up_if_begun(opened, settings)
        else:
            await set_links(opened, settings)
            await note_own_tree(opened, settings)
        plugs = await linked(opened, settings)
        manifests, blobs = build_contents(plugs, settings)
        collides = collisions(build_upstreams(settings), RESERVED)
        loader = Loader(
            manifests,
            blobs,
            await build_uploads(plugs, settings),
            check_name=partial(_check_name, collides),
            progress=progress,
            collides=collides,
        )

        async def load(saved: Saved, repository: RepositoryName | None) -> LoadReport:
            async with written_down(opened.database.acts, asked, ActKind.IMPORT_RUN, "images from files") as told:
                report = await loader.run(saved, repository)
                told.reason = f"{len(report.images)} images"
                return report

        try:
            yield load
        finally:
            if await links_mode(opened, settings) is not LinksMode.OFF:
                # There may be no server whose background process would write them.
                await build_links(opened, settings).catch_up()


def _check_name(collides: Collides, repository: RepositoryName) -> None:
    parse_name(str(repository)).writable()
    collision = collides(repository)
    if collision is not None and not collision.reachable:
        raise NameTakenError(collision)
