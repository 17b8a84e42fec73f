"""One writer for a bucket whose database is built at every start (``database.mode = "rebuildable"``).

On a machine the lock beside the database tells which server, or which command without a server, works with it; its
child processes hold that lock with it. Among machines the right in the bucket does (``storage.writer``). Whoever takes
the right and finds that the database isn't the one that was written with last puts it aside and begins a new one.

In every other mode all of this does nothing.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import structlog

from roadstead.app.plugs import CLOCK, TREE_SECRET, Plugs, open_driver, open_plugs, owner
from roadstead.db.engine import open_database
from roadstead.errors import ConflictError, RoadsteadError, UnavailableError
from roadstead.registry.importer import finish
from roadstead.registry.ports import ImportState
from roadstead.registry.tree import Tree
from roadstead.settings.check import sqlite_path
from roadstead.settings.model import Settings
from roadstead.storage import keys, writer
from roadstead.storage.file_lock import FileLockedError, hold_file
from roadstead.storage.ports import Driver, KeepsNotes, KeyUnknownError
from roadstead.storage.writer import Fence, Right, WriterLostError

RENEWALS = 6  # a lifetime: some may fail before the right isn't certain any more
TRUSTED = 2 / 3  # of a lifetime: then its holder stops writing; no request of a driver that is under way lives longer
_PATIENCE = timedelta(seconds=5)  # children of a server that was killed take a moment to end
_log = structlog.get_logger()


class DatabaseInUseError(ConflictError):
    """Another server or command of this machine works with the database."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"another Roadstead of this machine works with {path}")
        self.path = path


class NotesMissingError(UnavailableError):
    """The storage can't tell two writers apart."""

    def __init__(self) -> None:
        super().__init__("this storage has no conditional writes, so that one writer couldn't be kept from another")


def database_file(settings: Settings) -> Path:
    """Return the file of the SQLite database, which settings were checked to name."""
    path = sqlite_path(settings.database_url)
    assert path is not None  # noqa: S101 -- settings.check has refused anything else
    return path


def fence(settings: Settings) -> Fence | None:
    """Return what tells whether this machine may still write; None where there is nothing to tell."""
    return Fence(_beside(settings, ".writer")) if settings.is_rebuildable else None


@contextmanager
def working_alone(settings: Settings, *, patience: timedelta = _PATIENCE) -> Iterator[None]:
    """Hold the machine's lock while inside; raises DatabaseInUseError. Blocking."""
    if not settings.is_rebuildable:
        yield
        return
    try:
        with hold_file(_beside(settings, ".alone"), patience=patience):
            Fence(_beside(settings, ".writer")).close()  # what a machine's life before this one has left means nothing
            yield
    except FileLockedError as error:
        raise DatabaseInUseError(database_file(settings)) from error


@asynccontextmanager
async def taking_the_right(settings: Settings) -> AsyncGenerator[None, None]:
    """Take the right to write and renew it while inside; it is kept afterwards, for whoever goes on.

    Raises WriterPresentError. An error inside gives the right back.
    """
    if not settings.is_rebuildable:
        yield
        return
    driver = open_driver(settings.storage)
    try:
        await _take(settings, _notes(driver))
        try:
            async with keeping_the_right(settings, driver):
                yield
        except BaseException:
            await _give_back(settings, _notes(driver))
            raise
    finally:
        await driver.close()


@asynccontextmanager
async def keeping_the_right(settings: Settings, driver: Driver) -> AsyncGenerator[None, None]:
    """Renew the right while inside; what is inside is cancelled when it was lost, and WriterLostError raised."""
    if not settings.is_rebuildable:
        yield
        return
    try:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(_renew(settings, _notes(driver)))
            yield
            renewing.cancel()
    except BaseExceptionGroup as errors:
        lost = errors.subgroup(WriterLostError)
        if lost is not None:
            raise _first(lost) from errors
        raise _first(errors) from errors


async def give_the_right_back(settings: Settings) -> None:
    """Let the next server have the bucket at once: nobody here writes any more."""
    if not settings.is_rebuildable or _fence(settings).right() is None:
        return
    driver = open_driver(settings.storage)
    try:
        await _give_back(settings, _notes(driver))
    except RoadsteadError as error:
        _log.warning("the right to write into the bucket could not be given back", error=str(error))
    finally:
        await driver.close()


@asynccontextmanager
async def open_for_command(settings: Settings, *, migrate: bool) -> AsyncGenerator[Plugs, None]:
    """Open database and storage for a command: beside the server of this machine, or with the right of one's own."""
    try:
        alone = settings.is_rebuildable
        with working_alone(settings, patience=timedelta(0)):
            async with taking_the_right(settings), open_plugs(settings, migrate=migrate or alone) as plugs:
                yield plugs
            await give_the_right_back(settings)
    except DatabaseInUseError:
        async with open_plugs(settings, migrate=migrate) as plugs:
            yield plugs


async def note_own_tree(plugs: Plugs, settings: Settings) -> None:
    """Remember of a bucket without images that all which will be in it is ours: then nobody goes back."""
    if not settings.is_rebuildable or (await plugs.database.imports.status()).state is not ImportState.NONE:
        return
    if not await Tree(plugs.driver).is_there() and not await _is_finished(plugs.driver):
        await keep_finished(plugs, settings)


async def keep_finished(plugs: Plugs, settings: Settings) -> None:
    """Remember in the bucket that the adoption has ended, since the database won't last."""
    if settings.is_rebuildable:
        async with plugs.driver.write(keys.FINISHED) as handle:
            await handle.append(CLOCK.now().isoformat().encode())
            await handle.commit()


async def finish_if_kept(plugs: Plugs, settings: Settings) -> None:
    """End the adoption again in a database that was built anew, where it had ended before."""
    if settings.is_rebuildable and await _is_finished(plugs.driver):
        await finish(plugs.database.imports)


async def _is_finished(driver: Driver) -> bool:
    try:
        await driver.size(keys.FINISHED)
    except KeyUnknownError:
        return False
    return True


async def _take(settings: Settings, notes: KeepsNotes) -> None:
    found, own = await writer.look(notes), await _installation(settings)
    is_ours = found is not None and own is not None and found.right.installation == own
    if own is None or not is_ours:
        own = await _new_database(settings)
    # A holder of this machine's present life is gone: we hold its lock.
    dead = found.right if found is not None and is_ours and found.right.boot == _boot() else None
    wanted = Right(owner(), own, _boot(), 0)
    if found is not None and not found.released and dead is None:
        _log.info("waiting whether another server writes into the bucket", owner=found.right.owner)
    right = await writer.take(notes, wanted, settings.database.writer_lease, dead=dead)
    # Taking it may have meant waiting; from when on it counts says a request that doesn't.
    good_until = Fence.moment(settings.database.writer_lease * TRUSTED)
    renewed = await writer.renew(notes, right)
    await writer.check_conditions(notes, right)
    _fence(settings).keep(renewed, good_until)
    _log.info("this server alone writes into the bucket", token=right.token, database_kept=is_ours)


async def _installation(settings: Settings) -> str | None:
    """Return the name of the database that is here; None where there is none that can be opened."""
    if not database_file(settings).exists():
        return None
    try:
        database = await open_database(settings.database_url, migrate=True)
    except RoadsteadError as error:
        _log.warning("the database can't be used; another is built from storage", error=str(error))
        return None
    try:
        return (await database.instance.secret(TREE_SECRET)).hex()
    finally:
        await database.close()


async def _new_database(settings: Settings) -> str:
    """Put aside what is here, which others have written after, and return the name of an empty database."""
    path = database_file(settings)
    for suffix in ("", "-wal", "-shm"):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.replace(path.with_name(f"{path.name}.before{suffix}"))
    database = await open_database(settings.database_url, migrate=True)
    try:
        return (await database.instance.secret(TREE_SECRET)).hex()
    finally:
        await database.close()


async def _renew(settings: Settings, notes: KeepsNotes) -> None:
    """Renew the right until cancelled; raises WriterLostError. While storage doesn't answer, go on trying."""
    kept, lifetime = _fence(settings), settings.database.writer_lease
    while True:
        await asyncio.sleep(lifetime.total_seconds() / RENEWALS)
        right = kept.right()
        if right is None:
            raise WriterLostError("unknown: it was given up on this machine")
        good_until = Fence.moment(lifetime * TRUSTED)
        try:
            kept.keep(await writer.renew(notes, right), good_until)
        except WriterLostError:
            kept.close()
            raise
        except UnavailableError as error:
            _log.warning("the right to write into the bucket could not be renewed yet", error=str(error))


async def _give_back(settings: Settings, notes: KeepsNotes) -> None:
    kept = _fence(settings)
    right = kept.right()
    if right is not None:
        kept.close()
        await writer.give_back(notes, right)


def _fence(settings: Settings) -> Fence:
    return Fence(_beside(settings, ".writer"))


def _beside(settings: Settings, suffix: str) -> Path:
    path = database_file(settings)
    return path.with_name(path.name + suffix)


def _notes(driver: Driver) -> KeepsNotes:
    if not isinstance(driver, KeepsNotes):
        raise NotesMissingError
    return driver


def _boot() -> str:
    """Return what names this run of this machine: processes with the same one see the same locks."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
