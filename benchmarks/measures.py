"""How one figure is taken: a `Measure` runs once against one server and gives a `Sample`."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks import processes
from benchmarks.contents import (
    Blob,
    Image,
    LargeBlobs,
    Road,
    make_blob,
    make_image,
    pull_image,
    push_blob,
    push_image,
    push_images,
)
from benchmarks.load import ab_head, wrk
from benchmarks.servers import BENCH_PASSWORD, BENCH_SERVICE, BENCH_USER, ROOT, SPACE, Server, Servers
from benchmarks.wire import Link
from roadstead.db.sqlite import connect_for_reading
from roadstead.testing.processes import listeners

MIB = 1 << 20
GIB = 1 << 30
HELD = "bench/held"
_SMALL_BLOBS = 64
_SETTLED_S = 0.7
_FILES = ("bare", "nginx")


class Way(Enum):
    """How somebody signs in."""

    PASSWORD = "a password of htpasswd"
    KEY = "an API key"
    TOKEN = "a token of ours"


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure, and the server's processor seconds for one unit of work (a request, a GiB, an image)."""

    figure: float
    cpu_s: float | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """What measures work with. Everything is shorter when it is `quick`."""

    servers: Servers
    scratch: Path
    quick: bool
    held: "dict[str, Held]" = field(default_factory=dict)
    credentials: "dict[Way, str]" = field(default_factory=dict)
    serial: Iterator[int] = field(default_factory=count)

    @property
    def seconds(self) -> int:
        """Return how long small requests are repeated."""
        return 1 if self.quick else 2

    @property
    def large(self) -> int:
        """Return the size of a large blob, in bytes."""
        return (32 if self.quick else 256) * MIB

    def holding(self, name: str) -> "tuple[Server, Held]":
        """Return a running server and what it holds for being pulled, pushed there the first time."""
        server = self.servers[name]
        if name not in self.held:
            self.held[name] = _hold_files(server, self.large) if name in _FILES else _hold(server, self.large)
        return server, self.held[name]

    def authorization(self, server: Server, way: Way) -> str:
        """Return what says who one is; a token is a new one each time, since it doesn't last."""
        if way is Way.PASSWORD:
            return basic(BENCH_USER, BENCH_PASSWORD)
        if way is Way.TOKEN:
            return f"Bearer {_token(server)}"
        if way not in self.credentials:
            self.credentials[way] = basic("robot", _key(server))
        return self.credentials[way]

    def new_repository(self) -> str:
        """Return a name that was never used."""
        return f"bench/new-{next(self.serial)}"


@dataclass(frozen=True, slots=True)
class Held:
    """Targets of GET at one server."""

    by_tag: str
    by_digest: str
    small: Sequence[str]
    large: str


Measure = Callable[[Bench], Sample]


def manifests(server: str, *, by: str, method: str = "GET") -> Measure:
    """Ask for one manifest, 16 clients: requests a second, processor time a request."""

    def measure(bench: Bench) -> Sample:
        target, held = bench.holding(server)
        path = held.by_tag if by == "tag" else held.by_digest
        with _cpu(target) as used:
            if method == "HEAD":
                load = ab_head(target.port, path, clients=16, seconds=bench.seconds)
            else:
                load = wrk(target.port, [path], clients=16, seconds=bench.seconds, scratch=bench.scratch)
        return Sample(load.rate, used() / load.count)

    return measure


def manifests_signed_in(way: Way | None) -> Measure:
    """Ask for one manifest that everybody may have, as somebody or (None) as nobody, 16 clients."""

    def measure(bench: Bench) -> Sample:
        target, held = bench.holding("guarded")
        who = None if way is None else bench.authorization(target, way)
        wrk(target.port, [held.by_tag], clients=16, seconds=1, scratch=bench.scratch, authorization=who)  # seen by both
        with _cpu(target) as used:
            count, rate = _bursts(bench, target, held.by_tag, 2 * bench.seconds, authorization=who)
        return Sample(rate, used() / count)

    return measure


def manifests_told(server: str) -> Measure:
    """Ask for one manifest at a server of its own, 16 clients; processor time of the workers alone.

    What is told is delivered by the background process, later.
    """

    def measure(bench: Bench) -> Sample:
        with ExitStack() as stack:
            target = bench.servers.start(server, stack=stack)
            path = _hold(target, MIB).by_tag
            workers = listeners(target.port) - {target.pid}  # their parent keeps the sockets open
            wrk(target.port, [path], clients=16, seconds=2, scratch=bench.scratch)  # pulls were written once
            before = sum(map(processes.cpu_s, workers))
            count, rate = _bursts(bench, target, path, 4 * bench.seconds)
            used = sum(map(processes.cpu_s, workers)) - before
        return Sample(rate, used / count)

    return measure


def _bursts(
    bench: Bench, target: Server, path: str, bursts: int, *, authorization: str | None = None
) -> tuple[int, float]:
    """Ask for one manifest in bursts of a second, 16 clients: how many requests, and how many a second.

    Each has connections of its own, which the kernel spreads over the workers by chance: of one server, a request of
    one second costs up to half as much again as one of another second.
    """
    loads = [
        wrk(target.port, [path], clients=16, seconds=1, scratch=bench.scratch, authorization=authorization)
        for _ in range(bursts)
    ]
    return sum(load.count for load in loads), sum(load.rate for load in loads) / bursts


def small_blobs(server: str) -> Measure:
    """Ask for blobs of 64 KiB, 64 different ones by turns, 16 clients."""

    def measure(bench: Bench) -> Sample:
        target, held = bench.holding(server)
        with _cpu(target) as used:
            load = wrk(target.port, held.small, clients=16, seconds=bench.seconds, scratch=bench.scratch)
        return Sample(load.rate, used() / load.count)

    return measure


def large_blob(server: str, *, streams: int, times: int = 1) -> Measure:
    """Pull one large blob in as many streams at once, `times` in each: MiB a second, processor time a GiB."""

    def measure(bench: Bench) -> Sample:
        target, held = bench.holding(server)
        with _cpu(target) as used, _clock() as passed, ThreadPoolExecutor(streams) as clients:
            pulls = clients.map(lambda _: [_pull(target, held.large) for _ in range(times)], range(streams))
            sizes = [size for each in pulls for size in each]
        return Sample(sum(sizes) / passed() / MIB, used() / sum(sizes) * GIB)

    return measure


def large_push(server: str, *, layers: int, road: Road) -> Measure:
    """Push large blobs at the same time, 256 MiB in all or, in parallel, 64 MiB each."""

    def measure(bench: Bench) -> Sample:
        target = bench.servers[server]
        size = bench.large if layers == 1 else bench.large // 4
        source = LargeBlobs(size)
        blobs = [source.make() for _ in range(layers)]
        repository = bench.new_repository()
        push = _drain_into_bare if server == "bare" else push_blob
        with ExitStack() as stack:
            links = [stack.enter_context(Link(target.port)) for _ in blobs]
            with _cpu(target) as used, _clock() as passed, ThreadPoolExecutor(layers) as clients:
                list(clients.map(lambda pair: push(pair[0], repository, pair[1], road), zip(links, blobs, strict=True)))
        return Sample(layers * size / passed() / MIB, used() / (layers * size) * GIB)

    return measure


def sha256(bench: Bench) -> Sample:
    """Hash as much as is pushed, on one core, in pieces of 1 MiB."""
    piece = bytes(MIB)
    running = hashlib.sha256()
    with _clock() as passed:
        for _ in range(bench.large // MIB):
            running.update(piece)
    return Sample(bench.large / passed() / MIB)


def small_images(server: str, *, road: Road, all_there: bool = False) -> Measure:
    """Push images of a config and two layers of 8 KiB, 8 at a time; with `all_there` a second time, to other tags."""

    def measure(bench: Bench) -> Sample:
        target = bench.servers[server]
        images: list[Image] = [make_image([8192, 8192]) for _ in range(40 if bench.quick else 200)]
        repository = bench.new_repository()
        if all_there:
            push_images(target.port, repository, images, at_once=8, tag="first", road=road)
        with _cpu(target) as used, _clock() as passed:
            push_images(target.port, repository, images, at_once=8, tag="tag", road=road)
        return Sample(len(images) / passed(), used() / len(images))

    return measure


def collected_images(*, collecting: bool) -> Measure:
    """Push small images, 8 at a time, beside a registry of many blobs that nothing needs; with `collecting` they go."""

    def measure(bench: Bench) -> Sample:
        target = bench.servers["collected"]
        images = [make_image([8192, 8192]) for _ in range(40 if bench.quick else 200)]
        repository = bench.new_repository()
        with _collection(target) if collecting else nullcontext(), _clock() as passed:
            push_images(target.port, repository, images, at_once=8, tag="tag", road=Road.PUT)
        return Sample(len(images) / passed())

    return measure


@contextmanager
def _collection(server: Server) -> Iterator[None]:
    """Have ``roadstead gc`` at work while inside, from the first blob it condemns on."""
    data = server.files / "data"
    command = [sys.executable, "-m", "roadstead", "gc", "--data", data]
    began = time.time_ns() // 1000
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with (
        closing(connect_for_reading(data / "roadstead.db")) as database,
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as collector,
    ):
        try:
            while database.execute(_CONDEMNED_SINCE, (began,)).fetchone() is None:
                if collector.poll() is not None:
                    raise CollectionOverError
                time.sleep(0.01)
            yield
            if collector.poll() is not None:
                raise CollectionOverError
        finally:
            collector.kill()


class CollectionOverError(Exception):
    """There was too little to collect: the figure would be of a registry at rest."""


_CONDEMNED_SINCE = "SELECT 1 FROM blobs WHERE state = 'condemned' AND state_since >= ? LIMIT 1"


def listing(server: str, target: str) -> Measure:
    """Ask for one page by one client: median time of an answer, in milliseconds."""

    def measure(bench: Bench) -> Sample:
        with Link(bench.servers[server].port) as link:
            return Sample(_median_ms(lambda: link.ask("GET", target, expect=200), 30 if bench.quick else 200))

    return measure


def start(server: str) -> Measure:
    """Start a server over an empty directory: seconds to the first answer."""

    def measure(bench: Bench) -> Sample:
        with ExitStack() as stack:
            return Sample(bench.servers.start(server, stack=stack).start_s)

    return measure


def worker_memory(server: str) -> Measure:
    """Start a server, pull and push a little: MiB resident in its largest process."""

    def measure(bench: Bench) -> Sample:
        with ExitStack() as stack:
            target = bench.servers.start(server, stack=stack)
            images = [make_image([8192, 8192]) for _ in range(20)]
            push_images(target.port, HELD, images, at_once=8, tag="tag", road=Road.PATCH)
            wrk(target.port, [f"/v2/{HELD}/manifests/tag-0"], clients=16, seconds=1, scratch=bench.scratch)
            return Sample(processes.memory(target.pid)[0].now / MIB)

    return measure


def pull(repository: str) -> Measure:
    """Pull an image of three layers of 1 MiB by its tag, by one client: median, in milliseconds."""

    def measure(bench: Bench) -> Sample:
        server = bench.servers["augmenting"]
        with Link(server.port) as link:
            if repository not in bench.held:
                push_image(link, repository, "v1", make_image([MIB] * 3), Road.PATCH)
                bench.held[repository] = Held("", "", (), "")
                pull_image(link, repository, "v1")  # prepares what is added
            return Sample(_median_ms(lambda: pull_image(link, repository, "v1"), 20 if bench.quick else 100))

    return measure


def pulled_through(server: str, *, warm: bool, clients: int = 1) -> Measure:
    """Pull an image of four layers from another registry's cache, by clients at the same time: MiB/s of each, s/GiB.

    Cold: the cache has never seen it. Processor time is taken until a moment after, for it may still be stored.
    """

    def measure(bench: Bench) -> Sample:
        target = bench.servers[server]
        repository = bench.new_repository()
        image = make_image([bench.large // 16] * 4)
        with Link(bench.servers["upstream"].port) as link:
            push_image(link, repository, "v1", image, Road.PATCH)
        name = f"{SPACE}/{repository}" if server == "Roadstead-proxy" else repository
        if warm:
            _pull_images(target, name, 1)
            time.sleep(_SETTLED_S)
        with _cpu(target) as used, _clock() as passed:
            size = _pull_images(target, name, clients)
        time.sleep(_SETTLED_S)
        return Sample(size / passed() / MIB, used() / size * GIB)

    return measure


def _pull_images(server: Server, repository: str, clients: int) -> int:
    def pull_one(_: int) -> int:
        with Link(server.port) as link:
            return pull_image(link, repository, "v1")

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(pull_one, range(clients)))


def first_pull(repository: str) -> Measure:
    """Ask for the manifest of an image that was pushed a moment ago, for the first time: median, in milliseconds."""

    def measure(bench: Bench) -> Sample:
        server = bench.servers["augmenting"]
        images = [make_image([8192] * 3) for _ in range(20 if bench.quick else 100)]
        tag = f"first-{next(bench.serial)}"
        push_images(server.port, repository, images, at_once=4, tag=tag, road=Road.PATCH)
        numbers = iter(range(len(images)))
        with Link(server.port) as link:

            def ask() -> None:
                link.ask("GET", f"/v2/{repository}/manifests/{tag}-{next(numbers)}", expect=200)

            return Sample(_median_ms(ask, len(images)))

    return measure


def manifest_by_rule(repository: str) -> Measure:
    """Ask for the manifest of an image that a rule may match, 16 clients."""

    def measure(bench: Bench) -> Sample:
        pull(repository)(bench)
        server = bench.servers["augmenting"]
        path = f"/v2/{repository}/manifests/v1"
        with _cpu(server) as used:
            load = wrk(server.port, [path], clients=16, seconds=bench.seconds, scratch=bench.scratch)
        return Sample(load.rate, used() / load.count)

    return measure


def patience(server: str, *, pushes: int, clients: int = 16) -> Measure:
    """Ask for a manifest while blobs of 64 MiB are pushed without pause: ms, the 99th percentile; idle: the median."""

    def measure(bench: Bench) -> Sample:
        target, held = bench.holding(server)
        stop = threading.Event()
        with ThreadPoolExecutor(max(pushes, 1)) as pushers:
            running = [pushers.submit(_push_until, stop, bench, target) for _ in range(pushes)]
            try:
                load = wrk(target.port, [held.by_tag], clients=clients, seconds=bench.seconds, scratch=bench.scratch)
            finally:
                stop.set()
            for each in running:
                each.result()
        return Sample((load.p99_s if pushes else load.p50_s) * 1000)

    return measure


def _push_until(stop: threading.Event, bench: Bench, server: Server) -> None:
    source = LargeBlobs(bench.large // 4)
    repository = bench.new_repository()
    with Link(server.port) as link:
        while not stop.is_set():
            push_blob(link, repository, source.make(), Road.PATCH)


def basic(name: str, password: str) -> str:
    """Return credentials as they stand behind `Authorization`."""
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


def _token(server: Server) -> str:
    target = f"/auth/token?service={BENCH_SERVICE}&scope=repository:{HELD}:pull"
    headers = f"Authorization: {basic(BENCH_USER, BENCH_PASSWORD)}\r\n"
    with Link(server.port) as link:
        return str(json.loads(link.ask("GET", target, expect=200, headers=headers).body)["token"])


def _key(server: Server) -> str:
    _roadstead(server, "user", "add", "robot", "--robot")
    return str(json.loads(_roadstead(server, "key", "create", "robot", "--json"))["key"])


def _roadstead(server: Server, *words: str) -> str:
    place = (server.files / "roadstead.toml", "--data", server.files / "data")
    command = [sys.executable, "-m", "roadstead", *words, *place]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def _hold(server: Server, large: int) -> Held:
    image = make_image([8192, 8192])
    small = [make_blob(64 << 10) for _ in range(_SMALL_BLOBS)]
    whole = LargeBlobs(large).make()
    with Link(server.port) as link:
        push_image(link, HELD, "v1", image, Road.PATCH)
        for blob in (*small, whole):
            push_blob(link, HELD, blob, Road.PATCH)
    blobs = f"/v2/{HELD}/blobs"
    return Held(
        f"/v2/{HELD}/manifests/v1",
        f"/v2/{HELD}/manifests/{image.digest}",
        [f"{blobs}/{blob.digest}" for blob in small],
        f"{blobs}/{whole.digest}",
    )


def _hold_files(server: Server, large: int) -> Held:
    (server.files / "file-64k").write_bytes(make_blob(64 << 10).parts[0])
    with (server.files / "file-large").open("wb") as file:
        file.writelines(LargeBlobs(large).make().parts)
    return Held("/manifest", "/manifest", ["/file-64k"], "/file-large")


def _pull(server: Server, target: str) -> int:
    with Link(server.port) as link:
        return link.ask("GET", target, expect=200, keep=False).size


def _drain_into_bare(link: Link, _: str, blob: Blob, road: Road) -> None:
    link.ask("PUT", "/", blob.parts, expect=201, chunked=road is Road.PATCH)


def _median_ms(action: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1000


@contextmanager
def _cpu(server: Server) -> Iterator[Callable[[], float]]:
    def used() -> float:
        return sum(map(processes.cpu_s, (server.pid, *server.behind)))

    before = used()
    yield lambda: used() - before


@contextmanager
def _clock() -> Iterator[Callable[[], float]]:
    """Yield what tells the seconds since; it stands still when the block is left."""
    began = time.perf_counter()
    ended: list[float] = []
    try:
        yield lambda: (ended[0] if ended else time.perf_counter()) - began
    finally:
        ended.append(time.perf_counter())
