"""Everything put together from settings: the one module that knows every plug.

``prepare`` runs once, in the supervisor, before any process is started. ``worker_application`` makes the ASGI
application of one worker, ``background`` is the life of the process beside them.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from secrets import token_hex

import structlog

from roadstead.augment.kept_layers import KeptLayers, RuleLayers
from roadstead.augment.ports import DerivationStore
from roadstead.augment.rules import LayerSpec, Rules, RuleSpec
from roadstead.augment.service import Augmenter
from roadstead.background import Background, Loop
from roadstead.clock import SystemClock
from roadstead.db.engine import Database, open_database
from roadstead.errors import UnavailableError
from roadstead.http.application import Application
from roadstead.http.context import Services
from roadstead.http.health import side_table
from roadstead.http.offload import XAccel
from roadstead.http.outside import Outside
from roadstead.http.routes import Router
from roadstead.http.v2.table import ROUTES as API
from roadstead.http.v2.table import read_only
from roadstead.lease import hold
from roadstead.oci.descriptor import Platform
from roadstead.oci.pattern import Pattern
from roadstead.registry.blobs import Blobs
from roadstead.registry.catalog import Catalog
from roadstead.registry.content_cache import ContentCache
from roadstead.registry.foreign_writes import repositories_written_since
from roadstead.registry.gc import Collector, Policy, Untagged
from roadstead.registry.history import TagHistory
from roadstead.registry.images import Images
from roadstead.registry.immutable import ImmutableTags
from roadstead.registry.importer import (
    Importer,
    ImportUnderWayError,
    Report,
    TreeMissingError,
    finish,
    must_rebuild,
    open_gate,
)
from roadstead.registry.links import LinkedBlobs, LinkedManifests, Links
from roadstead.registry.manifests import Manifests
from roadstead.registry.ports import BlobStore, ImportState, ManifestStore, UploadStore
from roadstead.registry.retention import Retention, RetentionRule
from roadstead.registry.tree import Tree
from roadstead.registry.upload_ids import UploadIds, UploadLifetimes
from roadstead.registry.uploads import Uploads
from roadstead.registry.validation import Sparseness
from roadstead.registry.verify import Verifier
from roadstead.settings.handover import Handover
from roadstead.settings.model import (
    AcceptRule,
    LinksMode,
    OffloadMode,
    RetentionSettings,
    RuleSettings,
    ServerSettings,
    Settings,
    StorageDriver,
    StorageSettings,
)
from roadstead.storage import keys
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.storage.ports import Driver, Key, OpensFile, PresignsUrl, PurgesTemporary, StorageUnavailableError
from roadstead.storage.tree_lock import hold_tree
from roadstead.telemetry.metered import MeteredBlobs, MeteredDerivations, MeteredManifests, MeteredUploads
from roadstead.telemetry.metrics import Metrics, RegistryMetrics, RequestMetrics
from roadstead.telemetry.observer import RequestObserver
from roadstead.web.table import ROUTES as PAGES

CLOCK = SystemClock()
STORAGE_PATIENCE_S = 5.0
"""How long storage may take to answer whether it is there: probes wait about as long."""

UPLOADS_SECRET = "uploads"  # noqa: S105 -- the name of the secret
TREE_SECRET = "tree"  # noqa: S105 -- the name of the secret
IMPORT_LEASE = "import"
LINKS_EVERY = timedelta(seconds=0.5)
PROGRESS_EVERY = timedelta(seconds=5)
WORKERS_END_WITHIN = timedelta(milliseconds=200)  # what takes longer leaves notes, which the next start works off
CLOCKS_DIFFER_BY = timedelta(seconds=5)  # what a file server's clock may be off, and a write may take

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Plugs:
    """A process's way to the facts and to the bytes."""

    database: Database
    driver: Driver
    manifests: ManifestStore
    blobs: BlobStore
    uploads: UploadStore
    derivations: DerivationStore


class OutOfRotationError(UnavailableError):
    """A file is there that says not to send requests here."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path.name} exists, which takes this server out of rotation (server.down_files)")
        self.path = path


async def prepare(settings: Settings, run_directory: Path) -> Handover:
    """Bring the database up to date, store the layers of all rules, and return what the processes start with."""
    # Packing and hashing layers is the supervisor's work; the workers need not carry it.
    from roadstead.augment.layers import prepare_rules

    async with open_plugs(settings, migrate=True) as plugs:
        await _check_storage(plugs.driver)
        if await must_rebuild(plugs.database.imports, plugs.driver, CLOCK.now()):
            _log.warning("the database knows nothing of the images in storage: it is built from them now")
        else:
            await warn_of_foreign_writes(plugs)
            await set_links(plugs, settings)
        layers = KeptLayers(plugs.driver, plugs.database.layers)
        specs = [_rule_spec(rule) for rule in settings.augment.rules]
        rules = await prepare_rules(specs, layers, run_directory, CLOCK.now())
    return Handover(settings=settings, rules_json=rules.to_json(), run_directory=run_directory)


def worker_application(handover: Handover, process: str) -> Application:
    """Return the ASGI application of one worker, ``worker-1`` and so on; it opens its plugs when it starts."""
    numbers = Metrics(handover.run_directory, process)
    metrics = RequestMetrics(numbers)

    @asynccontextmanager
    async def open_services() -> AsyncGenerator[Services, None]:
        async with open_plugs(handover.settings, migrate=False) as plugs:
            plugs = await _linked(_metered(plugs, numbers), handover.settings)
            services = await _services(plugs, handover, metrics)
            try:
                yield services
            finally:
                await services.augmenter.aclose()

    settings = handover.settings
    routes = read_only(API) if settings.registry.read_only else API
    observer = RequestObserver(metrics, access=settings.log.access)
    return Application(Router([*routes, *PAGES]), open_services, observer, _outside(settings.server))


def side_application(handover: Handover) -> Application:
    """Return the ASGI application of the address that is for numbers and health alone."""
    numbers = Metrics(handover.run_directory, "side")
    metrics = RequestMetrics(numbers)

    @asynccontextmanager
    async def open_services() -> AsyncGenerator[Services, None]:
        async with open_plugs(handover.settings, migrate=False) as plugs:
            services = await _services(plugs, handover, metrics)
            try:
                yield replace(services, metrics_open=True)
            finally:
                await services.augmenter.aclose()

    routes = side_table(handover.settings.metrics.path)
    return Application(Router(routes), open_services, RequestObserver(metrics, access=False))


async def background(handover: Handover) -> None:
    """Do the work that nobody waits for, until cancelled."""
    settings = handover.settings
    async with open_plugs(settings, migrate=False) as opened:
        plugs = _metered(opened, Metrics(handover.run_directory, "background"))
        await take_up_if_begun(plugs, settings)
        uploads = await _uploads(plugs, settings)
        rules = Rules.from_json(handover.rules_json)
        layers = RuleLayers(plugs.database.layers, rules.layers(), CLOCK)
        everywhere = [Loop("leases of the rules' layers", settings.gc.grace / 4, layers.keep)]
        loops = [] if settings.registry.read_only else _removing(plugs, settings, uploads)
        links = None
        if await links_mode(plugs, settings) is not LinksMode.OFF and not settings.registry.read_only:
            links = Links(plugs.database.links, plugs.driver, CLOCK)
            loops.append(Loop("links", LINKS_EVERY, _quietly(links)))
        try:
            await Background(loops, plugs.database.leases, _owner(), CLOCK, everywhere=everywhere).run()
        finally:
            if links is not None:
                await _finish_links(links)


async def take_up_if_begun(plugs: Plugs, settings: Settings) -> None:
    """Take up the tree where that was begun and isn't through; of several replicas one does it, the others wait."""
    imports = plugs.database.imports
    while (await imports.status()).state is ImportState.RUNNING:
        async with hold(plugs.database.leases, IMPORT_LEASE, _owner(), CLOCK) as lease:
            if lease is not None:
                report = await Importer(imports, plugs.driver, CLOCK, progress=logged_progress()).run()
                _log.info("the images in storage are taken up", **_facts(report))
                await set_links(plugs, settings, complete=True)
        await asyncio.sleep(0 if lease else 1)


@asynccontextmanager
async def taking_up(
    settings: Settings, *, verify: bool, progress: Callable[[str, Report], None]
) -> AsyncGenerator[Callable[[], Awaitable[Report]], None]:
    """Open what an import by hand needs, and return what runs it; raises TreeMissingError, ImportUnderWayError."""
    storage = settings.storage
    if storage.driver is StorageDriver.FILESYSTEM and not (storage.path / keys.REPOSITORIES).is_dir():
        raise TreeMissingError(_where(storage))  # before anything is made there
    async with open_plugs(settings, migrate=True) as plugs:

        async def run() -> Report:
            if not await Tree(plugs.driver).is_there():
                raise TreeMissingError(_where(storage))
            async with hold(plugs.database.leases, IMPORT_LEASE, _owner(), CLOCK) as lease:
                if lease is None:
                    raise ImportUnderWayError
                report = await Importer(
                    plugs.database.imports, plugs.driver, CLOCK, verify=verify, progress=progress
                ).run()
                await set_links(plugs, settings, complete=True)
                return report

        yield run


async def finish_import(settings: Settings) -> None:
    """End the adoption; raises NotImportedError."""
    async with open_plugs(settings, migrate=True) as plugs:
        await finish(plugs.database.imports)


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
    if settings.storage.links is not None:
        return settings.storage.links
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
    written = await plugs.database.links.last_written()
    taken_up = (await plugs.database.imports.status()).done_at
    last = max((moment for moment in (written, taken_up) if moment is not None), default=None)
    if last is None or await plugs.database.links.changes(limit=1):
        return
    changed = await repositories_written_since(plugs.driver, last + CLOCKS_DIFFER_BY)
    if changed:
        _log.warning(
            "somebody else has written into the tree (docker-registry?); roadstead import takes it up",
            since=last.isoformat(),
            repositories=changed,
        )


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


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"


def collector(plugs: Plugs, settings: Settings) -> Collector:
    """Return what collects, with the policy that settings give."""
    policy = Policy(
        untagged=Untagged(settings.gc.untagged.value),
        untagged_after=settings.gc.untagged_after,
        stray_after=settings.gc.grace,
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


def tag_history(plugs: Plugs, settings: Settings) -> TagHistory:
    """Return what reads the journal of tags, and puts tags back."""
    immutable = ImmutableTags.parse(settings.registry.immutable)
    return TagHistory(plugs.database.journal, plugs.database.manifests, CLOCK, immutable=immutable)


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


@asynccontextmanager
async def open_plugs(settings: Settings, *, migrate: bool) -> AsyncGenerator[Plugs, None]:
    """Open database and storage, and close both at the end."""
    driver = open_driver(settings.storage)
    try:
        database = await open_database(
            settings.database_url,
            migrate=migrate,
            pool_size=settings.database.pool_size,
            blob_lease=settings.gc.grace,
        )
        try:
            with ExitStack() as held:
                if isinstance(driver, OpensFile):
                    installation = (await database.instance.secret(TREE_SECRET)).hex()
                    held.enter_context(hold_tree(driver.path(Key(keys.LOCK)), installation))
                yield Plugs(
                    database, driver, database.manifests, database.blobs, database.uploads, database.derivations
                )
        finally:
            await database.close()
    finally:
        await driver.close()


def open_driver(settings: StorageSettings) -> Driver:
    """Return the storage that settings name."""
    if settings.driver is StorageDriver.FILESYSTEM:
        return FilesystemDriver(settings.path)
    # An optional part: its absence is named where it is asked for.
    from roadstead.storage.drivers.s3 import S3Driver

    return S3Driver(
        settings.bucket or "",
        prefix=settings.prefix,
        region=settings.region,
        endpoint=settings.endpoint,
        path_style=settings.path_style,
        access_key=settings.access_key.reveal() if settings.access_key else None,
        secret_key=settings.secret_key,
        encrypt=settings.encrypt,
        kms_key=settings.kms_key,
        storage_class=settings.storage_class,
        presign_endpoint=settings.redirect_endpoint,
    )


async def _check(database: Database, driver: Driver, down_files: Sequence[Path]) -> None:
    """Raise what is in the way of serving."""
    for path in down_files:
        if path.exists():
            raise OutOfRotationError(path)
    await database.check()
    await _check_storage(driver)


async def _check_storage(driver: Driver) -> None:
    """Raise unless the storage answers: one listing of a folder that is nearly always empty."""
    if isinstance(driver, OpensFile) and not (folder := driver.path(Key(keys.TEMPORARY[:-1]))).is_dir():
        raise StorageUnavailableError(f"{folder} is gone: is the volume mounted?")
    try:
        async with asyncio.timeout(STORAGE_PATIENCE_S), aclosing(driver.iter_keys(keys.TEMPORARY)) as listing:
            async for _ in listing:
                break
    except TimeoutError as error:
        raise StorageUnavailableError(f"the storage didn't answer within {STORAGE_PATIENCE_S:g} s") from error


def _outside(server: ServerSettings) -> Outside:
    return Outside(
        prefix=server.prefix,
        origin="" if server.relative_urls else (server.public_url or "").rstrip("/"),
        headers=[(name.lower().encode(), value.encode("latin-1")) for name, value in server.headers.pairs],
    )


def _offload(server: ServerSettings) -> XAccel | None:
    if server.offload is OffloadMode.OFF or server.offload_secret is None:
        return None
    return XAccel(server.offload_location, server.offload_secret)


async def _services(plugs: Plugs, handover: Handover, metrics: RequestMetrics) -> Services:
    settings, database, driver = handover.settings, plugs.database, plugs.driver
    cache = ContentCache()
    delete_enabled = settings.storage.delete
    manifests = Manifests(
        plugs.manifests,
        CLOCK,
        cache=cache,
        max_bytes=settings.registry.max_manifest_bytes,
        max_tags_per_push=settings.registry.max_tags_per_push,
        sparse=Sparseness(indexes=settings.registry.sparse_indexes, images=settings.registry.sparse_images),
        delete_enabled=delete_enabled,
        immutable=ImmutableTags.parse(settings.registry.immutable),
    )
    blobs = Blobs(plugs.blobs, driver, CLOCK, cache=cache, delete_enabled=delete_enabled)
    catalog = Catalog(
        database.catalog,
        max_tags=settings.registry.tags_page_max,
        default_repositories=settings.registry.catalog_page,
        max_repositories=settings.registry.catalog_page_max,
        max_referrers=settings.registry.referrers_page_max,
    )
    augmenter = Augmenter(
        Rules.from_json(handover.rules_json),
        Images(manifests, blobs),
        plugs.derivations,
        KeptLayers(driver, database.layers),
        CLOCK,
    )
    return Services(
        manifests=manifests,
        blobs=blobs,
        uploads=await _uploads(plugs, settings),
        catalog=catalog,
        augmenter=augmenter,
        files=driver if isinstance(driver, OpensFile) else None,
        gate=await open_gate(database.imports),
        check=partial(_check, database, driver, settings.server.down_files),
        render_metrics=metrics.render,
        metrics_open=settings.metrics.open_to_network,
        strict_accept=settings.registry.accept is AcceptRule.DISTRIBUTION,
        offload=_offload(settings.server),
        presigner=driver if settings.storage.redirect and isinstance(driver, PresignsUrl) else None,
    )


def _metered(plugs: Plugs, numbers: Metrics) -> Plugs:
    """Return the plugs with stores that count."""
    counters = RegistryMetrics(numbers)
    return replace(
        plugs,
        manifests=MeteredManifests(plugs.manifests, counters),
        blobs=MeteredBlobs(plugs.blobs, counters),
        uploads=MeteredUploads(plugs.uploads, counters),
        derivations=MeteredDerivations(plugs.derivations, counters),
    )


async def _linked(plugs: Plugs, settings: Settings) -> Plugs:
    """Return the plugs with stores that write links before they return, where settings want that."""
    if settings.storage.links is not LinksMode.SYNC:
        return plugs
    links = Links(plugs.database.links, plugs.driver, CLOCK)
    return replace(plugs, manifests=LinkedManifests(plugs.manifests, links), blobs=LinkedBlobs(plugs.blobs, links))


async def _uploads(plugs: Plugs, settings: Settings) -> Uploads:
    return Uploads(
        plugs.uploads,
        plugs.blobs,
        plugs.driver,
        UploadIds(await plugs.database.instance.secret(UPLOADS_SECRET)),
        CLOCK,
        lifetimes=UploadLifetimes.with_open(settings.registry.upload_max_age),
    )


def _purge_temporary(driver: PurgesTemporary, settings: Settings) -> Callable[[], Awaitable[int]]:
    # In an object store an upload that goes on looks like one whose writer died: only their age tells.
    age = settings.registry.upload_max_age + timedelta(days=1)

    async def purge() -> int:
        return await driver.purge_temporary(CLOCK.now() - age)

    return purge


def _rule_spec(rule: RuleSettings) -> RuleSpec:
    layers = [
        LayerSpec(layer.path, Platform.parse(layer.platform) if layer.platform else None) for layer in rule.layers
    ]
    return RuleSpec(
        match=rule.match, layers=layers, env=rule.env, entrypoint=rule.entrypoint, cmd=rule.cmd, workdir=rule.workdir
    )
