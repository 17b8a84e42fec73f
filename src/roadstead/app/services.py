"""The services of one process, built from its plugs and the settings."""

from functools import partial

from roadstead.app.access import Entrance, build_entrance
from roadstead.app.callers import LayersOfCallers
from roadstead.app.hosted import HostedImages
from roadstead.app.limits import build_limits, shared_marks
from roadstead.app.outward import ASKING, OutwardRequests
from roadstead.app.plugs import CLOCK, Plugs
from roadstead.app.readiness import check
from roadstead.app.signing import build_admission, build_derivations, build_reading
from roadstead.app.writing import fence
from roadstead.augment.containers import Containers
from roadstead.augment.kept_layers import KeptLayers
from roadstead.augment.plan import Profile
from roadstead.augment.rules import Rules
from roadstead.augment.service import Augmenter
from roadstead.auth.refusals import Refusals
from roadstead.db.engine import Database
from roadstead.http.api.administration import Administration
from roadstead.http.context import Services
from roadstead.http.offload import XAccel
from roadstead.http.wave.door import ContainerDoor, Creators
from roadstead.limits.guesses import Guesses, Paced
from roadstead.oci.pattern import Pattern
from roadstead.proxy.images import ImagesPulledThrough
from roadstead.proxy.service import PullThrough
from roadstead.registry.blobs import Blobs
from roadstead.registry.catalog import Catalog
from roadstead.registry.content_cache import ContentCache
from roadstead.registry.history import TagHistory
from roadstead.registry.images import Images
from roadstead.registry.immutable import ImmutableTags
from roadstead.registry.importer import open_gate
from roadstead.registry.manifests import Manifests
from roadstead.registry.quotas import Quota, Quotas
from roadstead.registry.upload_ids import UploadIds, UploadLifetimes
from roadstead.registry.uploads import Uploads
from roadstead.registry.validation import Sparseness
from roadstead.settings.handover import Handover
from roadstead.settings.model import AcceptRule, OffloadMode, ServerSettings, Settings
from roadstead.storage.ports import OpensFile, PresignsUrl
from roadstead.telemetry.metrics import RequestMetrics

UPLOADS_SECRET = "uploads"  # noqa: S105 -- the name of the secret


async def build_services(
    plugs: Plugs,
    handover: Handover,
    metrics: RequestMetrics,
    *,
    refusals: Refusals | None = None,
    uploads: Uploads | None = None,
    proxy: PullThrough | None = None,
) -> Services:
    """Return what answers requests over these plugs."""
    settings, database, driver = handover.settings, plugs.database, plugs.driver
    manifests, blobs = build_contents(plugs, settings)
    kept = fence(settings)
    catalog = Catalog(
        database.catalog,
        max_tags=settings.registry.tags_page_max,
        default_repositories=settings.registry.catalog_page,
        max_repositories=settings.registry.catalog_page_max,
        max_referrers=settings.registry.referrers_page_max,
    )
    images = Images(manifests, blobs)
    layers = KeptLayers(driver, database.layers)
    reading = build_reading(database, images, proxy)
    admission = build_admission(settings, reading)
    augmenter = Augmenter(
        Rules.from_json(handover.rules_json),
        images if proxy is None else ImagesPulledThrough(images, proxy),
        build_derivations(settings, plugs, layers, admission),
        layers,
        CLOCK,
    )
    entrance = build_entrance(settings, database, shared_marks(handover.run_directory), refusals)
    return Services(
        manifests=manifests,
        blobs=blobs,
        uploads=uploads or await build_uploads(plugs, settings),
        proxy=proxy,
        catalog=catalog,
        reading=reading,
        history=tag_history(plugs, settings),
        administration=_administration(settings, database),
        augmenter=augmenter,
        files=driver if isinstance(driver, OpensFile) else None,
        gate=await open_gate(database.imports, guard=None if kept is None else kept.check),
        check=partial(check, database, driver, settings.server.down_files),
        render_metrics=metrics.render,
        quotas=_quotas(settings, database),
        guard=entrance.guard,
        tokens=entrance.tokens,
        people=entrance.people,
        containers=_containers(
            handover, database, augmenter, layers, entrance, HostedImages(manifests, blobs, admission)
        ),
        limits=build_limits(settings.limits, database, handover.run_directory),
        max_blob_bytes=settings.limits.max_blob_bytes,
        metrics_open=settings.metrics.open_to_network,
        strict_accept=settings.registry.accept is AcceptRule.DISTRIBUTION,
        offload=_offload(settings.server),
        admission=admission,
        lineage=database.lineage if settings.signatures.key is not None else None,
        presigner=driver if settings.storage.redirect and isinstance(driver, PresignsUrl) else None,
    )


def _containers(
    handover: Handover,
    database: Database,
    augmenter: Augmenter,
    layers: KeptLayers,
    entrance: Entrance,
    here: HostedImages,
) -> ContainerDoor:
    settings, marks = handover.settings, shared_marks(handover.run_directory)
    keys = database.accounts if settings.auth.accounts else None
    callers = LayersOfCallers(settings, layers, handover.run_directory, here)
    return ContainerDoor(
        containers=Containers(database.containers, augmenter, callers, CLOCK, lifetime=settings.augment.token_lifetime),
        creators=Creators(entrance.access, entrance.identities, keys, CLOCK),
        guesses=Guesses(marks),
        asking=Paced(marks, "asking others", ASKING),
        outward=OutwardRequests(settings.upstreams.registries),
        anonymous=settings.gives_anonymous_tokens,
        profile=Profile(settings.augment.profile.value),
        origin=(settings.server.public_url or "").rstrip("/"),
    )


def _administration(settings: Settings, database: Database) -> Administration:
    return Administration(
        accounts=database.accounts,
        outbox=database.outbox,
        acts=database.acts,
        usage=database.usage,
        endpoints=tuple(endpoint.name for endpoint in settings.events.endpoints),
        origin=(settings.server.public_url or "").rstrip("/"),
        keeps_accounts=not settings.is_rebuildable,
        knows_accounts=bool(settings.auth.accounts),
        read_only=settings.registry.read_only,
    )


def _quotas(settings: Settings, database: Database) -> Quotas | None:
    quotas = [Quota(Pattern.parse(quota.repositories), quota.max_bytes) for quota in settings.registry.quotas]
    return Quotas(quotas, database.usage, CLOCK) if quotas else None


def build_contents(plugs: Plugs, settings: Settings) -> tuple[Manifests, Blobs]:
    """Return what holds manifests and blobs, as settings say; both keep small contents in one cache."""
    cache = ContentCache()
    delete_enabled = settings.storage.delete
    immutable = ImmutableTags.parse(settings.registry.immutable)
    manifests = Manifests(
        plugs.manifests,
        CLOCK,
        cache=cache,
        max_bytes=settings.registry.max_manifest_bytes,
        max_tags_per_push=settings.registry.max_tags_per_push,
        sparse=Sparseness(indexes=settings.registry.sparse_indexes, images=settings.registry.sparse_images),
        delete_enabled=delete_enabled,
        immutable=immutable,
    )
    blobs = Blobs(plugs.blobs, plugs.driver, CLOCK, cache=cache, delete_enabled=delete_enabled, immutable=immutable)
    return manifests, blobs


def _offload(server: ServerSettings) -> XAccel | None:
    if server.offload is OffloadMode.OFF or server.offload_secret is None:
        return None
    return XAccel(server.offload_location, server.offload_secret)


def tag_history(plugs: Plugs, settings: Settings) -> TagHistory:
    """Return what reads the journal of tags, and puts tags back."""
    immutable = ImmutableTags.parse(settings.registry.immutable)
    return TagHistory(plugs.database.journal, plugs.manifests, CLOCK, immutable=immutable)


async def build_uploads(plugs: Plugs, settings: Settings) -> Uploads:
    """Return what takes blobs in; every process of every replica makes and reads the same upload ids."""
    return Uploads(
        plugs.uploads,
        plugs.blobs,
        plugs.driver,
        UploadIds(await plugs.database.instance.secret(UPLOADS_SECRET)),
        CLOCK,
        lifetimes=UploadLifetimes.with_open(settings.registry.upload_max_age),
    )
