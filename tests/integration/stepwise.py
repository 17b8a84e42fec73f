"""Collection step by step beside a running server, and clients whose scripts go one request at a time.

The collector is this process's: on the server's own database and storage, with a clock days ahead, so that no lease
protects anything. Clients begin again where they are sent away, as real ones do.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations, cycle

from roadstead.db.engine import Database
from roadstead.oci.digest import Digest
from roadstead.registry.errors import StoreBusyError
from roadstead.registry.gc import CONDEMNED_FOR, Collector, Policy, Tally, Untagged
from roadstead.registry.ports import BlobState, DoomedBlob
from roadstead.storage import keys
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.client import Answer, Client, with_query
from roadstead.testing.clock import FrozenClock
from roadstead.testing.images import TestImage, TestIndex, make_artifact, make_index
from roadstead.testing.server import RoadsteadServer

BLOB_STEPS = ("condemn", "take", "remove", "forget")
ALL_STEPS = ("manifests", *BLOB_STEPS)
AHEAD = timedelta(days=10)
ABANDONED = timedelta(minutes=20)  # longer than whoever took a blob may be waited for
ATTEMPTS = 20

Content = TestImage | TestIndex


def orders(requests: int, steps: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every order of a client's requests ("ask") and collection's steps that keeps each one's own."""
    total = requests + len(steps)
    for places in combinations(range(total), requests):
        rest = iter(steps)
        yield tuple("ask" if place in places else next(rest) for place in range(total))


# Collection


class Stepwise:
    """A collector that does one step when it is told to."""

    def __init__(self, database: Database, driver: FilesystemDriver) -> None:
        self.clock = FrozenClock(datetime.now(UTC) + AHEAD)
        self._database = database
        self._driver = driver
        policy = Policy(untagged=Untagged.DELETE, untagged_after=timedelta(0), stray_after=timedelta(0))
        self.collector = Collector(database.collection, database.catalog, driver, self.clock, policy)
        self._taken: Sequence[DoomedBlob] = ()
        self._gone: Sequence[DoomedBlob] = ()

    async def step(self, name: str) -> bool:
        """Do one step; return False where the database was locked: it is left to a later pass then."""
        steps = {
            "sweep": self._sweep,
            "manifests": self._manifests,
            "condemn": self._condemn,
            "take": self._take,
            "remove": self._remove,
            "forget": self._forget,
        }
        with suppress(StoreBusyError):
            await steps[name]()
            return True
        return False

    async def finish(self) -> None:
        """Finish what was begun, whoever began it; nothing more is condemned."""
        self._taken = self._gone = ()
        self.clock.advance(ABANDONED)
        await self.collector.remove(Tally())

    async def to_the_end(self) -> None:
        """Collect until nothing is left to do: what lies in storage without a row goes, too."""
        self._taken = self._gone = ()
        await self.collector.sweep()
        for _ in range(3):
            await self.collector.run()
            self.clock.advance(timedelta(hours=2))

    async def state(self, digest: Digest) -> BlobState | None:
        """Return how far collection is with a blob, None where it has no row."""
        after = ""
        while page := await self._database.collection.blobs(after=after, limit=500):
            for facts in page:
                if facts.digest == digest:
                    return facts.state
            after = str(page[-1].digest)
        return None

    async def stored(self) -> set[Digest]:
        """Return the digests that storage has."""
        found = {keys.parse_blob_key(info.key) async for info in self._driver.iter_keys(keys.BLOBS)}
        return {digest for digest in found if digest is not None}

    async def damaged(self) -> set[Digest]:
        """Return the digests whose bytes in storage are not theirs."""
        found = set()
        for digest in await self.stored():
            data = b"".join([piece async for piece in self._driver.read(keys.blob(digest))])
            if Digest.of(data) != digest:
                found.add(digest)
        return found

    async def _sweep(self) -> None:
        await self.collector.sweep()

    async def _manifests(self) -> None:
        await self.collector.collect_manifests(Tally())

    async def _condemn(self) -> None:
        await self.collector.condemn(Tally())
        self.clock.advance(CONDEMNED_FOR)

    async def _take(self) -> None:
        self._taken = await self.collector.take()

    async def _remove(self) -> None:
        self._gone = await self.collector.remove_bytes(self._taken)

    async def _forget(self) -> None:
        await self._database.collection.forget(self._gone)


# Clients


class SentAwayError(Exception):
    """The server told the client to come back, or that a blob is missing: it begins again."""


class Front:
    """The server as clients see it: each request goes to another worker than the one before."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self.clients = clients
        self.kept: dict[tuple[str, str], Content] = {}  # what was acknowledged, by repository and reference
        self.sent_away = 0
        self._turns = cycle(clients)

    @classmethod
    def of(cls, server: RoadsteadServer) -> "Front":
        """Return the front of a server with a connection to each of its workers."""
        return cls([server.client_of(worker) for worker in server.workers])

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *,
        expect: tuple[int, ...],
    ) -> Answer:  # fmt: skip
        """Send a request; raises SentAwayError for the answers after which a client begins again."""
        answer = next(self._turns).request(method, f"/v2/{path}", body, headers)
        if answer.status in expect:
            return answer
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) > 0
        else:
            assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN"), (method, path, answer)
        self.sent_away += 1
        raise SentAwayError

    def put_manifest(self, repository: str, reference: str, content: Content) -> None:
        """Push a manifest, and note that it is there."""
        headers = {"Content-Type": content.media_type}
        self.ask("PUT", f"{repository}/manifests/{reference}", content.raw, headers, expect=(201,))
        self.kept[repository, reference] = content

    def push(self, repository: str, tag: str, image: TestImage) -> None:
        """Push an image when all is quiet."""
        for data in image.blobs.values():
            self.clients[0].push_blob(repository, data)
        self.put_manifest(repository, tag, image)

    def check(self, repository: str, reference: str, content: Content) -> None:
        """Pull an image whole from every worker."""
        for client in self.clients:
            _pull(client, repository, reference, content)

    def check_all(self, prefix: str = "") -> None:
        """Pull everything that was acknowledged in repositories whose names begin so."""
        for (repository, reference), content in self.kept.items():
            if repository.startswith(prefix):
                self.check(repository, reference, content)

    @property
    def needed(self) -> set[Digest]:
        """Return the digests of all blobs that can be reached."""
        return {digest for content in self.kept.values() for digest in _blobs(content)}


def _pull(client: Client, repository: str, reference: str, content: Content) -> None:
    answer = client.get(f"/v2/{repository}/manifests/{reference}")
    assert (answer.status, answer.body) == (200, content.raw), (repository, reference, answer)
    if isinstance(content, TestIndex):
        for child in content.children:
            _pull(client, repository, str(child.digest), child)
        return
    for digest, data in content.blobs.items():
        answer = client.get(f"/v2/{repository}/blobs/{digest}")
        assert (answer.status, answer.body == data) == (200, True), (repository, reference, digest, answer.status)


def _blobs(content: Content) -> set[Digest]:
    if isinstance(content, TestIndex):
        return {digest for child in content.children for digest in _blobs(child)}
    return set(content.blobs)


@dataclass
class Case:
    """One order's content and names, which no other order has."""

    front: Front
    name: str
    number: int
    size: int
    image: TestImage = field(init=False)

    def __post_init__(self) -> None:
        """Make the image: of the blobs it needs one is its own, the other is everybody's and never idle."""
        self.image = self.made("image")

    def made(self, what: str) -> TestImage:
        """Return an image of this order's own."""
        content = f"{self.name} {self.number} {what} ".encode()
        return make_artifact(content=content * (self.size // len(content) + 1))

    @property
    def home(self) -> str:
        """Return the repository where it begins."""
        return f"{self.name}/home"

    @property
    def away(self) -> str:
        """Return another repository."""
        return f"{self.name}/away"

    @property
    def tag(self) -> str:
        """Return the tag."""
        return f"order-{self.number}"

    @property
    def data(self) -> bytes:
        """Return the bytes of the blob that is pushed, mounted and asked for."""
        return self.image.layers[0].raw

    @property
    def digest(self) -> Digest:
        """Return their digest."""
        return self.image.layers[0].digest

    def idle(self) -> None:
        """Begin with the blob pushed at home, and in no manifest."""
        self.front.clients[0].push_blob(self.home, self.data)

    def absent(self) -> None:
        """Begin with nothing."""

    def tagged(self) -> None:
        """Begin with the image pushed at home."""
        self.front.push(self.home, self.tag, self.image)

    def check(self) -> None:
        """Pull what was acknowledged in this order."""
        for (repository, reference), content in self.front.kept.items():
            if repository in (self.home, self.away) and reference in (self.tag, f"{self.tag}-other"):
                self.front.check(repository, reference, content)

    def leave(self) -> None:
        """Delete what was acknowledged in this order: the next collection has it to remove."""
        for (repository, reference), content in list(self.front.kept.items()):
            if repository in (self.home, self.away) and reference in (self.tag, f"{self.tag}-other"):
                assert self.front.clients[0].delete(f"/v2/{repository}/manifests/{content.digest}").status == 202
                del self.front.kept[repository, reference]

    # One request each

    def send(self, repository: str) -> None:
        """Push the blob in one request."""
        self.front.ask("POST", f"{repository}/blobs/uploads/?digest={self.digest}", self.data, expect=(201,))

    def head(self, repository: str) -> bool:
        """Ask whether the blob is there."""
        return self.front.ask("HEAD", f"{repository}/blobs/{self.digest}", expect=(200, 404)).status == 200

    def mount(self) -> str:
        """Mount the blob from home; return where to upload it instead, or nothing."""
        path = f"{self.away}/blobs/uploads/?mount={self.digest}&from={self.home}"
        answer = self.front.ask("POST", path, expect=(201, 202))
        return "" if answer.status == 201 else answer.headers["location"]

    def finish(self, location: str, rest: bytes) -> None:
        """End an upload session with what is left of the blob."""
        path = with_query(location, f"digest={self.digest}").partition("/v2/")[2]
        self.front.ask("PUT", path, rest, expect=(201,))

    def delete(self) -> None:
        """Delete the image at home, and with it its tag."""
        self.front.kept.pop((self.home, self.tag), None)
        self.front.ask("DELETE", f"{self.home}/manifests/{self.image.digest}", expect=(202, 404))

    def refer(self, repository: str) -> None:
        """Push the manifest."""
        self.front.put_manifest(repository, self.tag, self.image)


def ground(case: Case) -> None:
    """Give both repositories an image that stays: what all images share is never idle."""
    for repository in (case.home, case.away):
        case.front.push(repository, "ground", make_artifact(content=repository.encode()))


# Scripts: a request between two yields


def push(case: Case) -> Iterator[None]:
    """Push the blob in one request, then the manifest."""
    case.send(case.home)
    yield
    case.refer(case.home)


def push_in_chunks(case: Case) -> Iterator[None]:
    """Push the blob by POST, PATCH and PUT, then the manifest."""
    half = len(case.data) // 2
    answer = case.front.ask("POST", f"{case.home}/blobs/uploads/", expect=(202,))
    yield
    path = answer.headers["location"].partition("/v2/")[2]
    answer = case.front.ask("PATCH", path, case.data[:half], {"Content-Range": f"0-{half - 1}"}, expect=(202,))
    yield
    case.finish(answer.headers["location"], case.data[half:])
    yield
    case.refer(case.home)


def ask_first(case: Case) -> Iterator[None]:
    """Ask for the blob, push it only if it isn't there, then the manifest."""
    if not case.head(case.home):
        yield
        case.send(case.home)
    yield
    case.refer(case.home)


def mount(case: Case) -> Iterator[None]:
    """Mount the blob in another repository, or upload it if it can't be; then the manifest there."""
    location = case.mount()
    if location:
        yield
        case.finish(location, case.data)
    yield
    case.refer(case.away)


def delete_and_push(case: Case) -> Iterator[None]:
    """Delete the image, then push it again as clients do that ask first."""
    case.delete()
    yield
    yield from ask_first(case)


def delete_and_mount(case: Case) -> Iterator[None]:
    """Delete the image, then mount its blob elsewhere."""
    case.delete()
    yield
    yield from mount(case)


def with_another(case: Case) -> None:
    """Begin with the image, and another that has a tag of its own."""
    case.tagged()
    case.front.push(case.home, f"{case.tag}-other", case.made("other"))


def move_tag_and_back(case: Case) -> Iterator[None]:
    """Move the tag to another image, and back: whether the first one's manifest is still there, nobody knows."""
    case.front.put_manifest(case.home, case.tag, case.made("other"))
    yield
    try:
        case.refer(case.home)
    except SentAwayError:
        yield
        case.send(case.home)
        yield
        case.refer(case.home)


def push_index(case: Case) -> Iterator[None]:
    """Push the blob, a manifest without a tag, and the index that keeps it."""
    child = str(case.image.digest)
    case.send(case.home)
    yield
    headers = {"Content-Type": case.image.media_type}
    case.front.ask("PUT", f"{case.home}/manifests/{child}", case.image.raw, headers, expect=(201,))
    yield
    case.front.put_manifest(case.home, case.tag, make_index([case.image]))


@dataclass(frozen=True, slots=True)
class Script:
    """What a client does, beginning where `begin` leaves things, in so many requests if all goes well."""

    talk: Callable[[Case], Iterator[None]]
    begin: Callable[[Case], None]
    requests: int
    steps: Sequence[str] = BLOB_STEPS

    def __str__(self) -> str:
        """Return its name."""
        return f"{self.talk.__name__}-{self.begin.__name__}".replace("_", "-")


SCRIPTS = (
    Script(push, Case.absent, 2),
    Script(push, Case.idle, 2),
    Script(push_in_chunks, Case.idle, 4),
    Script(ask_first, Case.idle, 3),
    Script(mount, Case.idle, 3),
    Script(delete_and_push, Case.tagged, 3),
    Script(delete_and_mount, Case.tagged, 3),
    Script(move_tag_and_back, with_another, 2, ALL_STEPS),
    Script(push_index, Case.idle, 3, ALL_STEPS),
)


def persist(script: Script, case: Case) -> Iterator[None]:
    """Go through a script, a request at each turn; begin again where the client is sent away."""
    for _ in range(ATTEMPTS):
        try:
            yield from script.talk(case)
        except SentAwayError:
            yield
        else:
            return
    raise AssertionError(f"{script} was sent away again and again")


async def run(case: Case, script: Script, order: Sequence[str], collection: Stepwise) -> None:
    """Go through one order, let the client get to its end, and ask whether all is as it was told."""
    script.begin(case)
    talk = persist(script, case)
    for turn in order:
        if turn == "ask":
            next(talk, None)
        else:
            await collection.step(turn)
    await collection.finish()
    for _ in talk:
        pass
    case.check()
