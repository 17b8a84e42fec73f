"""The audit log, put together: who writes it, and when its old lines go."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog

from roadstead.acts import Act, ActKind, ActStore, Asked, Outcome, Told
from roadstead.auth.refusals import Refusals
from roadstead.background import Loop
from roadstead.clock import Clock
from roadstead.db.engine import Database, open_database
from roadstead.errors import RoadsteadError, UnavailableError
from roadstead.settings.model import Settings
from roadstead.settings.plain import as_shown

PURGED_EVERY = timedelta(hours=1)

_log = structlog.get_logger()


@asynccontextmanager
async def written_down(acts: ActStore, asked: Asked, kind: ActKind, target: str) -> AsyncGenerator[Told, None]:
    """Write a line for what is done inside, which is more than one transaction; also where it fails.

    Raises what is raised inside, also where that can't be written either; else UnavailableError for a line that can't.
    """
    told = Told()
    try:
        yield told
    except BaseException as error:  # also Ctrl-C: some of it may have been done
        reason = str(error) if isinstance(error, RoadsteadError) else type(error).__name__
        await _try_to_record(acts, asked.act(kind, target, outcome=Outcome.FAILED, reason=reason))
        raise
    await acts.record([asked.act(kind, target, reason=told.reason)])


async def write_start(acts: ActStore, settings: Settings, clock: Clock) -> None:
    """Write down with which settings and policies the server starts; it starts without where that can't be written.

    A disk that is full keeps nobody from pulling.
    """
    started = Asked("server", clock.now())
    await _try_to_record(
        acts, started.act(ActKind.SERVER_START, str(settings.server.listen), reason=in_force(settings))
    )


async def _try_to_record(acts: ActStore, act: Act) -> None:
    """Write a line, or the warning that it couldn't be."""
    try:
        await acts.record([act])
    except UnavailableError as error:
        _log.warning(
            "a line of the audit log can't be written",
            action=act.kind.value, subject=act.by, target=act.target, outcome=act.outcome.value, reason=act.reason,
            error=str(error),
        )  # fmt: skip


def in_force(settings: Settings) -> str:
    """Return what can be compared later: digests of all settings and of the policies, and what limits writes. Pure.

    Secrets aren't part of the digest: whoever knows the rest could try short ones against it.
    """
    shown = as_shown(settings)
    said = [f"settings {_digest(shown)}", f"policies {_digest(shown['auth']['policies'])}"]
    said.append("access is controlled" if settings.auth.is_on else "everybody may do everything")
    if settings.registry.read_only:
        said.append("read-only")
    if not settings.storage.delete:
        said.append("deletes refused")
    return ", ".join(said)


def _digest(plain: object) -> str:
    text = json.dumps(plain, sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@asynccontextmanager
async def refusals_written(database: Database, clock: Clock) -> AsyncGenerator[Refusals, None]:
    """Give what takes note of a worker's refusals, and write them meanwhile."""
    refusals = Refusals(database.acts, clock)
    writing = asyncio.ensure_future(refusals.run())
    try:
        yield refusals
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        await refusals.flush()


def audit_loop(acts: ActStore, retention: timedelta, clock: Clock) -> Loop:
    """Return the loop that removes old lines."""

    async def purge() -> int:
        return await acts.purge(before=clock.now() - retention)

    return Loop("old lines of the audit log", PURGED_EVERY, purge)


@asynccontextmanager
async def open_acts(settings: Settings) -> AsyncGenerator[ActStore, None]:
    """Open the database for its audit log alone, beside a running server."""
    database = await open_database(settings.database_url, migrate=False, pool_size=settings.database.pool_size)
    try:
        yield database.acts
    finally:
        await database.close()
