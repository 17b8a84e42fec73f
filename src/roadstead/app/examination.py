"""An installation, looked at from its settings: what is gathered, and in which order it is judged.

Only what is there is opened, so that nothing is made; all that is written is an object of a few KiB, removed again, and
a file of 4 KiB beside a SQLite database.
"""

import asyncio
import os
import re
import resource
import secrets
import socket
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from statistics import median

from sqlalchemy import literal_column, select

from roadstead.app.plugs import CLOCK, open_driver
from roadstead.app.sealed import Sealed
from roadstead.db.access import Access, Query
from roadstead.db.engine import open_database
from roadstead.db.errors import SchemaOutdatedError, SchemaTooNewError
from roadstead.db.schema import REVISIONS
from roadstead.db.sqlite import connect_for_reading
from roadstead.doctor import rules
from roadstead.doctor.facts import Certificate, Clock, Database, Failure, Localhost, Machine, Port, Space, Store
from roadstead.doctor.front import ask, clock_of, look_at_certificate, look_at_front, look_at_gate
from roadstead.doctor.verdict import Verdict
from roadstead.errors import RoadsteadError
from roadstead.settings.address import ListenAddress
from roadstead.settings.check import sqlite_path
from roadstead.settings.database_url import without_password
from roadstead.settings.model import OffloadMode, Settings, StorageDriver, StorageSettings
from roadstead.settings.mounts import filesystem_of, is_network
from roadstead.storage import keys
from roadstead.storage.ports import Driver, Key
from roadstead.tls.material import TlsInvalidError

TIMES = 5
"""How often what takes time is asked for its median."""

PATIENCE_S = 20.0
PROBE = b"roadstead doctor\n" * 240  # about 4 KiB
_AMAZON = "https://s3.amazonaws.com"

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

_NOW = Query(select(literal_column("extract(epoch from clock_timestamp())::float8")))
_ONE = Query(select(literal_column("1")))
_ALLOWED = Query(select(literal_column("current_setting('max_connections')::int")))
_DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


async def examine(settings: Settings, url: str | None) -> AsyncIterator[Verdict]:
    """Yield verdicts, what is nearest first: machine, disks, store, database, port, then what clients meet at `url`."""
    for verdict in rules.machine(_machine()):
        yield verdict
    for place in _spaces(settings):
        for verdict in rules.space(place):
            yield verdict
    for verdict in rules.store(await _store(settings.storage)):
        yield verdict
    database, clock = await _database(settings)
    for verdict in rules.database(database):
        yield verdict
    for verdict in [*rules.port(await asyncio.to_thread(_port, settings)), *_localhost(settings)]:
        yield verdict
    for verdict in [*_own_certificate(settings), *await asyncio.to_thread(_outside, settings, url)]:
        yield verdict
    for each in filter(None, (clock, await asyncio.to_thread(_clock_of_store, settings.storage))):
        for verdict in rules.clock(each):
            yield verdict


def _machine() -> Machine:
    backlog: int | None = None
    with suppress(OSError, ValueError):
        backlog = int(Path("/proc/sys/net/core/somaxconn").read_text(encoding="ascii"))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Machine(open_files=1 << 30 if soft == resource.RLIM_INFINITY else soft, backlog=backlog)


# Disks


def _spaces(settings: Settings) -> Iterator[Space]:
    places: dict[Path, str] = {}
    if settings.storage.driver is StorageDriver.FILESYSTEM:
        places[_nearest(settings.storage.path)] = "storage"
    file = sqlite_path(settings.database_url)
    if file is not None:
        places.setdefault(_nearest(file.parent), "database")
    seen: set[int] = set()
    for path, purpose in places.items():
        with suppress(OSError):
            device = path.stat().st_dev
            if device not in seen:
                seen.add(device)
                yield _space(path, purpose)


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above that is there, as far as this user may look."""
    return next((each for each in (path, *path.absolute().parents) if _is_seen(each)), Path("/"))


def _is_seen(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False


def _space(path: Path, purpose: str) -> Space:
    found = os.statvfs(path)
    kind = filesystem_of(path)
    return Space(
        path=str(path),
        purpose=purpose,
        total=found.f_blocks * found.f_frsize,
        free=found.f_bavail * found.f_frsize,
        inodes=found.f_files,
        inodes_free=found.f_favail,
        kind=kind,
        is_network=kind is not None and is_network(kind),
    )


# Bytes


async def _store(storage: StorageSettings) -> Store:
    is_folder = storage.driver is StorageDriver.FILESYSTEM
    where = str(storage.path) if is_folder else f"s3://{storage.bucket}/{storage.prefix}".rstrip("/")
    # The driver makes its folders; here nothing is to be made.
    try:
        is_there = not is_folder or (storage.path / keys.TEMPORARY).is_dir()
    except PermissionError:
        advice = f"Run this as the user who runs the server, or give {storage.path} to this one."
        return Store(where=where, failure=Failure(message="this user may not look into it", advice=advice))
    if not is_there:
        return Store(where=where, is_there=False, can_be_made=os.access(_nearest(storage.path), os.W_OK | os.X_OK))
    try:
        driver = open_driver(storage)
        try:
            async with asyncio.timeout(PATIENCE_S):
                took_s = await _probe(driver)
        finally:
            await driver.close()
    except TimeoutError:
        return Store(where=where, failure=Failure(message=f"no answer within {PATIENCE_S:g} s"))
    except RoadsteadError as error:
        return Store(where=where, failure=_failure(error))
    return Store(where=where, took_s=took_s, devices=_devices(storage.path) if is_folder else {})


async def _probe(driver: Driver) -> float:
    """Write, read and remove an object where collection would purge it, if we were killed meanwhile."""
    key = Key(f"{keys.TEMPORARY}doctor-{secrets.token_hex(8)}")
    began = time.perf_counter()
    async with driver.write(key) as handle:
        await handle.append(PROBE)
        await handle.commit()
    try:
        if b"".join([piece async for piece in driver.read(key)]) != PROBE:
            raise ProbeChangedError
    finally:
        await driver.delete(key)
    return time.perf_counter() - began


class ProbeChangedError(RoadsteadError):
    """Other bytes came back than were written."""

    def __init__(self) -> None:
        super().__init__("other bytes came back than were written")


def _devices(path: Path) -> Mapping[str, int]:
    folders = [path / name for name in (keys.BLOBS, keys.UPLOADS, keys.TEMPORARY)]
    return {str(folder): folder.stat().st_dev for folder in folders if folder.is_dir()}


def _clock_of_store(storage: StorageSettings) -> Clock | None:
    if storage.driver is not StorageDriver.S3:
        return None
    return clock_of(storage.endpoint or _AMAZON, "the bucket's server", CLOCK.now())


# Facts


async def _database(settings: Settings) -> tuple[Database, Clock | None]:
    where = without_password(settings.database_url)
    file = sqlite_path(settings.database_url)
    try:
        if file is not None:
            facts = await asyncio.to_thread(_sqlite, file, where)
            if facts.revision != REVISIONS[-1]:
                return facts, None
            sealed = await asyncio.to_thread(Sealed.in_file, file)
            return replace(facts, unopened=await sealed.objection(settings)), None
        async with asyncio.timeout(PATIENCE_S):
            return await _postgresql(settings, where)
    except TimeoutError:
        return Database(where=where, failure=Failure(message=f"no answer within {PATIENCE_S:g} s")), None
    except (SchemaTooNewError, SchemaOutdatedError) as error:
        return Database(where=where, revision=error.found, known=REVISIONS), None
    except (RoadsteadError, sqlite3.Error, OSError) as error:
        return Database(where=where, failure=_failure(error)), None


def _sqlite(file: Path, where: str) -> Database:
    if not file.exists():
        if not os.access(_nearest(file.parent), os.W_OK | os.X_OK):
            return Database(where=where, failure=Failure(message=f"this user may not make it in {file.parent}"))
        return Database(where=where, is_there=False)
    if not os.access(file, os.W_OK) or not os.access(file.parent, os.W_OK | os.X_OK):
        advice = f"Give {file.parent} and what is in it to the user who runs the server."
        return Database(where=where, failure=Failure(message="this user may not write to it", advice=advice))
    with closing(connect_for_reading(file)) as connection:
        named = "SELECT name FROM sqlite_master WHERE name = 'alembic_version'"
        has_table = connection.execute(named).fetchone() is not None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if has_table else None
        took_s = _median_s(lambda: connection.execute("SELECT count(*) FROM sqlite_master").fetchone())
    log = file.with_name(f"{file.name}-wal")
    return Database(
        where=where,
        revision=None if row is None else str(row[0]),
        known=REVISIONS,
        took_s=took_s,
        flush_s=_flush_s(file.parent),
        wal_bytes=log.stat().st_size if log.exists() else 0,
        mode=file.stat().st_mode & 0o777,
    )


def _flush_s(folder: Path) -> float:
    path = folder / f".doctor-{secrets.token_hex(8)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:

        def flush() -> None:
            os.pwrite(descriptor, PROBE, 0)
            os.fsync(descriptor)

        return _median_s(flush)
    finally:
        os.close(descriptor)
        path.unlink()


def _median_s(action: Callable[[], object]) -> float:
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return median(taken)


async def _postgresql(settings: Settings, where: str) -> tuple[Database, Clock]:
    pool_size = settings.database.pool_size
    database = await open_database(settings.database_url, migrate=False, pool_size=1)
    try:
        taken: list[float] = []
        for _ in range(TIMES):
            began = time.perf_counter()
            await database.access.row(_ONE)
            taken.append(time.perf_counter() - began)
        found = await database.access.row(_NOW)
        ours = CLOCK.now()
        allowed = await database.access.row(_ALLOWED)
        unsafe = [f"{name} = off" for name in _DURABLE if await _is_off(database.access, name)]
        unopened = await (await Sealed.in_database(database)).objection(settings)
    finally:
        await database.close()
    each = pool_size + max(1, pool_size // 2)  # for reads, and for writes
    processes = settings.server.workers + 1 + (settings.metrics.listen is not None)
    facts = Database(
        where=where,
        revision=REVISIONS[-1],
        known=REVISIONS,
        took_s=median(taken),
        unsafe=unsafe,
        unopened=unopened,
        connections=each * processes,
        connections_allowed=None if allowed is None else int(allowed[0]),
    )
    theirs = ours if found is None else datetime.fromtimestamp(float(found[0]), UTC)
    return facts, Clock(whose="the database", theirs=theirs, ours=ours, exact_s=median(taken))


async def _is_off(access: Access, name: str) -> bool:
    row = await access.row(Query(select(literal_column(f"current_setting('{name}')"))))
    return row is not None and row[0] == "off"


# The port, and what clients meet


def _port(settings: Settings) -> Port:
    listen = settings.server.listen
    if not listen.port:
        return Port(address=str(listen))
    scheme = "https" if settings.speaks_tls else "http"
    base = f"{scheme}://{ListenAddress(_reachable(listen.host), listen.port)}{settings.server.prefix.rstrip('/')}"
    with suppress(OSError, HTTPException):
        answer = ask(base, "GET", "/v2/")
        if "docker-distribution-api-version" in answer.headers:
            return Port(address=str(listen), is_registry=True, ready=ask(base, "GET", "/readyz"))
    gate = look_at_gate(base) if settings.tls.client_ca else None
    if gate is not None:
        ours = _own_shown(settings)
        return Port(address=str(listen), wants_certificate=True, shows_ours=ours is not None and ours == gate.shown)
    reason = _why_not(listen)
    return Port(address=str(listen), is_free=reason is None, reason=reason or "")


def _own_shown(settings: Settings) -> bytes | None:
    """Return the certificate that a server with these settings shows (DER); None where it isn't in a file."""
    path = settings.tls.certificate
    if path is None and settings.storage.driver is StorageDriver.FILESYSTEM:
        path = settings.storage.path / "tls" / "certificate.pem"  # made by `tls.self_signed`
    if path is None:
        return None
    try:
        first = _PEM.search(path.read_text(encoding="ascii", errors="replace"))
        return None if first is None else ssl.PEM_cert_to_DER_cert(first[0])
    except (OSError, ValueError):
        return None


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _why_not(listen: ListenAddress) -> str | None:
    """Return why an address can't be listened at, None where it can."""
    try:
        family, _, _, _, target = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _localhost(settings: Settings) -> Iterator[Verdict]:
    listen = settings.server.listen
    if not listen.port or listen.host not in ("127.0.0.1", "::1"):
        return
    names: list[str] = []
    with suppress(OSError):
        found = socket.getaddrinfo("localhost", listen.port, type=socket.SOCK_STREAM)
        names = list(dict.fromkeys(str(each[4][0]) for each in found))
    other = "::1" if listen.host == "127.0.0.1" else "127.0.0.1"
    taken = other in names and _answers(other, listen.port)
    yield from rules.localhost(Localhost(host=listen.host, port=listen.port, names=names, other_taken=taken))


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def _own_certificate(settings: Settings) -> Iterator[Verdict]:
    tls = settings.tls
    if tls.certificate is None or tls.key is None:
        return
    # Reading certificates takes a library that nobody else needs.
    from roadstead.tls.reading import read_material

    with suppress(TlsInvalidError):  # told as what is wrong with the settings
        material = read_material(tls.certificate, tls.key)
        facts = Certificate(host=str(tls.certificate), begins=material.begins_at, expires=material.expires_at)
        yield from rules.certificate(facts, CLOCK.now())


def _outside(settings: Settings, url: str | None) -> list[Verdict]:
    url = url or settings.server.public_url
    if url is None:
        return []
    server = settings.server
    base = url.rstrip("/") + server.prefix.rstrip("/")
    internal = server.offload_location if server.offload is OffloadMode.X_ACCEL else None
    verdicts = list(rules.front(look_at_front(base, internal=internal)))
    certificate = look_at_certificate(url)
    if certificate is not None:
        verdicts += rules.certificate(certificate, CLOCK.now())
    clock = clock_of(url, url, CLOCK.now())
    return verdicts if clock is None else [*verdicts, *rules.clock(clock)]


def _failure(error: Exception) -> Failure:
    advice = error.advice() if isinstance(error, RoadsteadError) else None
    return Failure(message=str(error), advice=advice)
