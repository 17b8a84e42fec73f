"""What handlers work on: the services of one worker."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from roadstead.augment.service import Augmenter
from roadstead.http.access import Guard
from roadstead.http.api.administration import Administration
from roadstead.http.causes import Telling
from roadstead.http.limits import Counter
from roadstead.http.offload import XAccel
from roadstead.http.people import People
from roadstead.http.token_routes import Door
from roadstead.http.wave.door import ContainerDoor
from roadstead.proxy.service import PullThrough
from roadstead.registry.blobs import Blobs
from roadstead.registry.catalog import Catalog
from roadstead.registry.history import TagHistory
from roadstead.registry.importer import Gate
from roadstead.registry.manifests import Manifests
from roadstead.registry.ports import LineageStore
from roadstead.registry.quotas import Quotas
from roadstead.registry.uploads import Uploads
from roadstead.signatures.ports import Admission, SignedImages
from roadstead.storage.ports import OpensFile, PresignsUrl


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that a request can need.

    ``files`` is the storage where it can be opened as files; ``offload`` names them to the proxy in front, where one is
    to send them. ``presigner`` is the storage where clients are sent to it.
    """

    manifests: Manifests
    blobs: Blobs
    uploads: Uploads
    catalog: Catalog
    reading: SignedImages  # with all that is said of images
    history: TagHistory
    administration: Administration
    augmenter: Augmenter
    files: OpensFile | None
    gate: Gate  # closed while the database is built from the tree
    check: Callable[[], Awaitable[None]]
    render_metrics: Callable[[], bytes]
    quotas: Quotas | None = None  # None where there is no limit
    guard: Guard | None = None  # None where everybody may do everything
    tokens: Door | None = None  # where tokens are given out
    people: People | None = None  # where they sign in with a browser
    containers: ContainerDoor | None = None  # where container tokens are issued and pulled by
    limits: Counter | None = None  # None where clients may ask as often as they like
    max_blob_bytes: int = 0  # 0: without limit
    metrics_open: bool = False
    strict_accept: bool = False
    offload: XAccel | None = None
    presigner: PresignsUrl | None = None
    proxy: PullThrough | None = None  # where there are upstreams
    admission: Admission | None = None  # where images have to be signed
    lineage: LineageStore | None = None  # where signatures are made here
    telling: Telling | None = None  # where somebody wants to hear of what happens
