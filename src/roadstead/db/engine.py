"""A database, opened: every store over one process's way to it."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, literal_column, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from roadstead.acts import ActStore
from roadstead.augment.container_token import ContainerTokenStore
from roadstead.augment.ports import DerivationStore, LayerRecords
from roadstead.auth.ports import AccountStore, PeopleStore
from roadstead.db import sqlite
from roadstead.db.access import Access, Query
from roadstead.db.errors import DatabaseUrlError, SchemaOutdatedError, SchemaTooNewError
from roadstead.db.schema import HEAD, REVISIONS
from roadstead.db.stores.accounts import DatabaseAccounts
from roadstead.db.stores.acts import DatabaseActs
from roadstead.db.stores.audit import DatabaseAudit
from roadstead.db.stores.blobs import DatabaseBlobs, DatabaseLayers
from roadstead.db.stores.catalog import DatabaseCatalog
from roadstead.db.stores.collection import DatabaseCollection
from roadstead.db.stores.container_tokens import DatabaseContainerTokens
from roadstead.db.stores.derivations import DatabaseDerivations
from roadstead.db.stores.importing import DatabaseImports
from roadstead.db.stores.instance import DatabaseInstance
from roadstead.db.stores.leases import DatabaseLeases
from roadstead.db.stores.lineage import DatabaseLineage
from roadstead.db.stores.links import DatabaseLinks
from roadstead.db.stores.manifests import DatabaseManifests
from roadstead.db.stores.outbox import NOWHERE, Announcer, DatabaseOutbox
from roadstead.db.stores.people import DatabasePeople
from roadstead.db.stores.pulls import DatabasePulls
from roadstead.db.stores.tokens import DatabaseTokens
from roadstead.db.stores.uploads import DatabaseUploads
from roadstead.db.stores.upstreams import DatabasePulled
from roadstead.db.stores.usage import DatabaseUsage
from roadstead.events.event import Source
from roadstead.events.ports import OutboxStore
from roadstead.events.rules import NOBODY, Interests
from roadstead.lease import LeaseStore
from roadstead.limits.ports import PullStore
from roadstead.proxy.ports import PulledStore
from roadstead.registry.ports import (
    AuditStore,
    BlobStore,
    CatalogStore,
    CollectionStore,
    ImportStore,
    InstanceStore,
    JournalStore,
    LineageStore,
    LinkStore,
    ManifestStore,
    UploadStore,
)
from roadstead.registry.quotas import UsageStore

DEFAULT_POOL_SIZE = 8
"""Connections a process keeps to PostgreSQL at most: these for reads, and half as many for writes."""

BLOB_LEASE = timedelta(hours=24)
"""Longer than any client goes on between asking for a blob and pushing the manifest that needs it."""

_PROBE = Query(select(literal_column("1")))


class OpenAccess(Access, Protocol):
    """An `Access` that somebody has to close."""

    async def close(self) -> None:
        """Finish what is under way and let go of connections and threads."""
        ...


class Database:
    """All stores of one process. It belongs to the event loop that opened it."""

    manifests: ManifestStore
    catalog: CatalogStore
    journal: JournalStore
    uploads: UploadStore
    blobs: BlobStore
    layers: LayerRecords
    derivations: DerivationStore
    lineage: LineageStore
    collection: CollectionStore
    audit: AuditStore
    instance: InstanceStore
    leases: LeaseStore
    imports: ImportStore
    links: LinkStore
    accounts: AccountStore
    people: PeopleStore
    usage: UsageStore
    tokens: DatabaseTokens
    outbox: OutboxStore
    acts: ActStore
    pulled: PulledStore
    pulls: PullStore
    containers: ContainerTokenStore

    def __init__(
        self,
        access: OpenAccess,
        *,
        blob_lease: timedelta = BLOB_LEASE,
        interests: Interests = NOBODY,
        source: Source = NOWHERE,
    ) -> None:
        self.access = access
        announcer = Announcer(access, interests, source)
        catalog = DatabaseCatalog(access)
        self.manifests = DatabaseManifests(access, announcer)
        self.catalog = catalog
        self.journal = catalog
        self.uploads = DatabaseUploads(access)
        self.blobs = DatabaseBlobs(access, blob_lease, announcer)
        self.layers = DatabaseLayers(access, blob_lease)
        self.derivations = DatabaseDerivations(access, blob_lease)
        self.lineage = DatabaseLineage(access)
        self.collection = DatabaseCollection(access, announcer)
        self.audit = DatabaseAudit(access)
        self.instance = DatabaseInstance(access)
        self.leases = DatabaseLeases(access)
        self.imports = DatabaseImports(access)
        self.links = DatabaseLinks(access)
        self.accounts = DatabaseAccounts(access)
        self.people = DatabasePeople(access)
        self.usage = DatabaseUsage(access)
        self.tokens = DatabaseTokens(access)
        self.outbox = DatabaseOutbox(access, announcer)
        self.acts = DatabaseActs(access)
        self.pulled = DatabasePulled(access)
        self.pulls = DatabasePulls(access)
        self.containers = DatabaseContainerTokens(access)

    async def check(self) -> None:
        """Raise StoreBusyError or StoreFailedError unless the database can be read and written."""
        await self.access.row(_PROBE)
        await self.access.write(_nothing)

    async def close(self) -> None:
        """Finish the writes under way and let go of the database; nothing else may be called afterwards."""
        await self.access.close()


async def open_database(
    url: str,
    *,
    migrate: bool,
    busy_timeout: timedelta = sqlite.BUSY_TIMEOUT,
    pool_size: int = DEFAULT_POOL_SIZE,
    blob_lease: timedelta = BLOB_LEASE,
    interests: Interests = NOBODY,
    source: Source = NOWHERE,
) -> Database:
    """Open the database at ``sqlite:///path`` or ``postgresql://…``.

    With *migrate* it is brought to this release's schema first, made where there is none; any number of processes
    may do that at once. Without, it has to be there, which costs a worker next to nothing.

    `blob_lease` is how long collection leaves a blob alone after somebody was told that it is here. What happens is
    told to `interests`, as happening at `source`.

    Raises DatabaseUrlError, SchemaTooNewError, SchemaOutdatedError, StoreBusyError and
    StoreFailedError.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        access: OpenAccess = await _open_sqlite(_sqlite_path(parsed), migrate=migrate, busy_timeout=busy_timeout)
    else:
        access = await _open_postgres(url, migrate=migrate, busy_timeout=busy_timeout, pool_size=pool_size)
    return Database(access, blob_lease=blob_lease, interests=interests, source=source)


async def _open_sqlite(path: Path, *, migrate: bool, busy_timeout: timedelta) -> OpenAccess:
    if migrate:
        await asyncio.to_thread(sqlite.migrate, path)
    elif not path.exists():
        raise SchemaOutdatedError(None, HEAD)
    access = sqlite.SqliteAccess.open(path, busy_timeout=busy_timeout)
    try:
        _require_head(access.revision())
    except BaseException:
        await access.close()
        raise
    return access


def _require_head(found: str | None) -> None:
    if found == HEAD:
        return
    if found is not None and found not in REVISIONS:
        raise SchemaTooNewError(found, HEAD)
    raise SchemaOutdatedError(found, HEAD)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # the latter of a port that is no number
        raise DatabaseUrlError("it isn't an address") from error
    if parsed.drivername not in ("sqlite", "postgresql", "postgres"):
        raise DatabaseUrlError(f"{parsed.drivername!r} is neither sqlite nor postgresql")
    return parsed


def _sqlite_path(url: URL) -> Path:
    if not url.database or url.database == ":memory:" or url.host:
        raise DatabaseUrlError("SQLite wants a file, which several processes can open: sqlite:///path/to/file.db")
    return Path(url.database)


def _nothing(_: Connection) -> None:
    """Write nothing: it shows that a transaction can be begun and committed."""


async def _open_postgres(url: str, *, migrate: bool, busy_timeout: timedelta, pool_size: int) -> OpenAccess:
    # A tenth of what a worker imports, for those who have PostgreSQL.
    from roadstead.db import postgres

    access = await postgres.PostgresAccess.open(url, busy_timeout=busy_timeout, pool_size=pool_size)
    try:
        if migrate:
            await access.migrate()
        _require_head(await access.revision())
    except BaseException:
        await access.close()
        raise
    return access
