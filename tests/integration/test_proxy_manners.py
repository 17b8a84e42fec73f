"""How upstreams are asked: not again and again for what isn't there, few at a time, and little when they say so.

One server for all of it, with one scripted registry behind several hosts, each set in another way.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from tests.integration import mortal_registry
from tests.integration.test_proxy import ACCEPT, LARGE, ask, fetch, pull, serving

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_LAYER_ZSTD, OCI_MANIFEST
from roadstead.testing.client import ConnectionBrokenError
from roadstead.testing.images import make_attestation, make_image, make_index
from roadstead.testing.ports import free_port
from roadstead.testing.scripted_upstream import (
    PASSWORD,
    USER,
    Handler,
    Misdeed,
    ScriptedUpstream,
    cuts,
    scripted_upstream,
)
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import Process, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MISSING_S = 2
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

CONFIG = f"""
[[upstreams]]
host = "docker.io"
url = "URL"
default_for = ["library/*"]
revalidate = "0s"
missing_for = "0s"
platforms = ["linux/amd64"]

[[upstreams]]
host = "waiting.example"
url = "URL"
missing_for = "{MISSING_S}s"

[[upstreams]]
host = "narrow.example"
url = "URL"
downloads = 2

[[upstreams]]
host = "poor.example"
url = "URL"
revalidate = "0s"

[[upstreams]]
host = "signed.example"
url = "SIGNED"
username = "{USER}"
password = "{PASSWORD}"

[[upstreams]]
host = "mortal.example"
url = "http://127.0.0.1:PORT"
revalidate = "0s"

[[augment.rules]]
match = "docker.io/library/attested*"
env = ["ADDED=yes"]
"""


@dataclass(frozen=True, slots=True)
class Harbour:
    """A server, and the registry behind it, once open to all and once for the signed in."""

    server: RoadsteadServer
    upstream: ScriptedUpstream
    signed: ScriptedUpstream
    mortal_port: int

    async def ask(self, path: str, headers: Mapping[str, str] = ACCEPT, method: str = "GET") -> Any:
        """Ask the server."""
        return await ask(self.server, path, headers, method)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def harbour(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Harbour]:
    """The server that all tests here share; each takes repositories of its own."""
    directory = tmp_path_factory.mktemp("harbour")
    async with scripted_upstream() as upstream, scripted_upstream(auth="bearer") as signed:
        port = free_port()
        config = CONFIG.replace("URL", upstream.url).replace("SIGNED", signed.url).replace("PORT", str(port))
        async with serving(directory, config) as server:
            yield Harbour(server, upstream, signed, port)


def with_headers(headers: Mapping[str, str]) -> Misdeed:
    """Answer as a registry should, and say this too."""

    async def answer(request: web.Request, behave: Handler) -> web.StreamResponse:
        response = await behave(request)
        response.headers.update(headers)
        return response

    return answer


@pytest.mark.parametrize("kind", ["tag", "digest", "blob"])
async def test_what_is_not_there_is_not_asked_for_again_at_once(harbour: Harbour, kind: str) -> None:
    """For `missing_for` it is believed; what comes meanwhile is found after that, and not later."""
    name, image = f"team/missing-{kind}", make_image(seed=f"missing {kind}")
    layer = image.layers[0]
    path = {"tag": "manifests/1", "digest": f"manifests/{image.digest}", "blob": f"blobs/{layer.digest}"}[kind]
    asked = f"/v2/waiting.example/{name}/{path}"
    began = monotonic()
    assert [(await harbour.ask(asked)).status for _ in range(5)] == [404] * 5
    assert len([one for one in harbour.upstream.requests if name in one.path]) == 1
    assert monotonic() - began < MISSING_S, "the machine is too slow to tell"

    harbour.upstream.hold(name, image, "1")
    # Another kind of question about the same digest was never answered, so it is asked.
    if kind == "digest":
        assert (await harbour.ask(f"/v2/waiting.example/{name}/blobs/{layer.digest}")).status == 200

    def is_there() -> bool:
        return fetch(harbour.server.host, asked).status == 200

    assert await asyncio.to_thread(wait_until, is_there, timeout=timedelta(seconds=20))


async def test_downloads_take_turns(harbour: Harbour) -> None:
    """No more than `downloads` blobs come at a time, and all come."""
    name = "team/narrow"
    image = make_image(layers=6, size=400_000, seed="narrow")
    harbour.upstream.hold(name, image, "1")
    running = most = 0

    async def counted(request: web.Request, behave: Handler) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            response = await behave(request)
            assert isinstance(response, web.Response)
            assert isinstance(response.body, bytes)
            streamed = web.StreamResponse(headers={"Content-Length": str(len(response.body))})
            await streamed.prepare(request)
            await streamed.write(response.body[:200_000])
            await asyncio.sleep(0.05)  # so long that others would come, were they let
            await streamed.write(response.body[200_000:])
            return streamed
        finally:
            running -= 1

    harbour.upstream.will("GET", f"{name}/blobs/", *[counted] * 7)
    paths = [f"/v2/narrow.example/{name}/blobs/{layer.digest}" for layer in image.layers]
    with ThreadPoolExecutor(len(paths)) as threads:
        loop = asyncio.get_running_loop()
        got = await asyncio.gather(
            *(loop.run_in_executor(threads, fetch, harbour.server.host, path, {}) for path in paths)
        )

    assert [Digest.of(answer.body) for answer in got] == [layer.digest for layer in image.layers]
    assert most == 2


async def test_a_budget_near_its_end_is_kept(harbour: Harbour) -> None:
    """Where few requests are left a tag stays where it was; what isn't here at all is still had."""
    name, upstream = "library/budget", harbour.upstream
    old, new = make_image(seed="budget old"), make_image(seed="budget new")
    upstream.hold(name, old, "1")
    manifest = f"/v2/poor.example/{name}/manifests/1"
    plenty, few = (
        with_headers({"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": f"{left};w=21600"}) for left in (90, 4)
    )
    upstream.will("GET", f"{name}/manifests/", plenty)
    assert (await harbour.ask(manifest)).body == old.raw

    upstream.hold(name, new, "1")
    upstream.will("HEAD", f"{name}/manifests/", few)
    upstream.requests.clear()
    assert (await harbour.ask(manifest)).body == old.raw, "fetching where it has moved to would cost one of the last"
    assert (await harbour.ask(manifest)).body == old.raw
    assert [one.method for one in upstream.requests] == ["HEAD"], "and then it isn't even asked"
    told = "it has moved, and few of the requests that we may send are left"
    assert await asyncio.to_thread(wait_until, lambda: told in harbour.server.log, timeout=timedelta(seconds=20))
    metrics = (await harbour.ask("/metrics")).body.decode()
    assert 'roadstead_upstream_stale_total{host="poor.example"} 2.0' in metrics

    upstream.hold("library/other", make_image(seed="budget other"), "1")
    assert (await harbour.ask("/v2/poor.example/library/other/manifests/1")).status == 200


async def test_docker_hubs_names(harbour: Harbour) -> None:
    """Docker Hub by any of its hosts, and with its short names: one image, kept once; none of them is pushed to."""
    image = make_image(seed="hub")
    harbour.upstream.hold("library/hub", image, "1")
    paths = ["docker.io/library/hub", "docker.io/hub", "index.docker.io/hub", "registry-1.docker.io/library/hub"]
    for path in (*paths, "library/hub", "as-pushed/docker.io/hub"):
        assert (await harbour.ask(f"/v2/{path}/manifests/1")).body == image.raw, path
    for namespace in ("docker.io", "registry-1.docker.io"):
        assert (await harbour.ask(f"/v2/library/hub/manifests/1?ns={namespace}")).body == image.raw
    listed = (await harbour.ask("/v2/_catalog")).json()["repositories"]
    assert [name for name in listed if name.endswith("hub")] == ["docker.io/library/hub"]
    for path in paths:
        refused = await harbour.ask(f"/v2/{path}/blobs/uploads/", {}, "POST")
        assert (refused.status, refused.code) == (405, "UNSUPPORTED"), path


# What passes through as it is


async def test_zstd_and_foreign_layers_pass(harbour: Harbour) -> None:
    """The manifest is the upstream's to the byte, a zstd layer isn't unpacked, a foreign one stays where it is."""
    image = make_image(layers=1, size=400_000, seed="zstd")
    zstd = b"\x28\xb5\x2f\xfd" + image.layers[0].raw
    document = json.loads(image.raw)
    url = "https://layers.example/base"
    document["layers"] = [
        {"mediaType": OCI_LAYER_ZSTD, "digest": str(Digest.of(zstd)), "size": len(zstd)},
        {"mediaType": FOREIGN, "digest": str(Digest.of(b"base")), "size": 4, "urls": [url]},
    ]
    raw = json.dumps(document).encode()
    harbour.upstream.manifests["library/zstd", "1"] = (raw, OCI_MANIFEST)
    harbour.upstream.blobs["library/zstd", str(Digest.of(zstd))] = zstd

    assert (await harbour.ask("/v2/library/zstd/manifests/1")).body == raw
    for headers in ({}, {"Accept-Encoding": "zstd;q=1.0, gzip;q=0.8"}):
        got = await harbour.ask(f"/v2/library/zstd/blobs/{Digest.of(zstd)}", headers)
        assert (got.body, "content-encoding" in got.headers) == (zstd, False)
    assert (await harbour.ask(f"/v2/library/zstd/blobs/{Digest.of(b'base')}")).status == 404


async def test_attestations_are_kept(harbour: Harbour) -> None:
    """An index that a rule adds to keeps what speaks of the images that are left in it, and can be pulled whole."""
    name = "library/attested"
    images = [make_image(platform=platform, seed=platform) for platform in ("linux/amd64", "linux/s390x")]
    index = make_index([*images, *(make_attestation(image) for image in images)])
    harbour.upstream.hold(name, index, "1")

    listed = (await harbour.ask(f"/v2/{name}/manifests/1")).json()["manifests"]

    kinds = [one["platform"]["architecture"] for one in listed]
    assert "amd64" in kinds
    assert "unknown" in kinds
    assert "s390x" not in kinds
    for one in listed:
        child = await harbour.ask(f"/v2/{name}/manifests/{one['digest']}")
        assert child.status == 200
        for blob in (child.json()["config"], *child.json()["layers"]):
            assert (await harbour.ask(f"/v2/{name}/blobs/{blob['digest']}")).status == 200
    assert (await harbour.ask(f"/v2/as-pushed/{name}/manifests/1")).body == index.raw


# What goes wrong


async def test_a_token_that_ends_in_the_middle(harbour: Harbour) -> None:
    """A download that is cut when the token has ended too goes on with a new one; the client sees nothing of it."""
    image = make_image(layers=1, size=LARGE, seed="token")
    harbour.signed.hold("team/token", image, "1")

    async def end(request: web.Request, behave: Handler) -> web.StreamResponse:
        harbour.signed.tokens.clear()
        return await cuts(1_000_000)(request, lambda _: _whole(image.layers[0].raw))

    harbour.signed.will("GET", f"/blobs/{image.layers[0].digest}", end)
    before = harbour.signed.tokens_issued

    assert await asyncio.to_thread(pull, harbour.server.host, "signed.example/team/token", "1")

    assert harbour.signed.tokens_issued > before
    assert harbour.signed.seen("GET", "/blobs/")[-1].headers.get("range", "").startswith("bytes=")


async def _whole(data: bytes) -> web.StreamResponse:
    return web.Response(body=data)


@pytest.mark.parametrize("told", [-1, 1], ids=["too small", "too large"])
async def test_a_size_that_is_a_lie(harbour: Harbour, told: int) -> None:
    """A HEAD that says another size than the blob has: an error, and never an answer of that size."""
    name = f"library/size{told}"
    image = make_image(layers=1, size=LARGE, seed=name)
    layer = image.layers[0]
    harbour.upstream.hold(name, image, "1")
    path = f"/v2/{name}/blobs/{layer.digest}"

    async def lie(request: web.Request, behave: Handler) -> web.StreamResponse:
        return web.Response(body=bytes(len(layer.raw) + told))  # of which a HEAD's answer has the length alone

    harbour.upstream.will("HEAD", f"{name}/blobs/", lie)
    try:
        answer = await harbour.ask(path)
    except ConnectionBrokenError:
        pass
    else:
        assert answer.status == 503
    assert (await harbour.ask(path)).body == layer.raw


async def test_an_upstream_that_dies(harbour: Harbour, tmp_path: Path) -> None:
    """In the middle of a blob: clients' connections end, nothing is kept, tags are served as they were; then it's back.

    The registry is a process of its own, and is killed.
    """
    image = mortal_registry.IMAGE
    layer = image.layers[0]
    path = f"/v2/mortal.example/{mortal_registry.NAME}"
    arriving = harbour.server.data / "arriving"
    with mortal(harbour.mortal_port, tmp_path, "stalls") as registry:
        assert (await harbour.ask(f"{path}/manifests/1")).body == image.raw
        pulls = [asyncio.ensure_future(harbour.ask(f"{path}/blobs/{layer.digest}")) for _ in range(3)]
        assert await asyncio.to_thread(wait_until, lambda: has_begun(arriving), timeout=timedelta(seconds=20))
        os.kill(registry.pid, signal.SIGKILL)
        for each in pulls:
            with pytest.raises(ConnectionBrokenError):
                await each
    assert not list(arriving.glob("*.part"))
    assert (await harbour.ask(f"{path}/manifests/1")).body == image.raw
    assert (await harbour.ask(f"{path}/blobs/{layer.digest}")).status == 503

    with mortal(harbour.mortal_port, tmp_path, "behaves"):
        assert (await harbour.ask(f"{path}/blobs/{layer.digest}")).body == layer.raw


@contextmanager
def mortal(port: int, directory: Path, how: str) -> Iterator[Process]:
    """Run a registry in a process of its own, that says no more in the middle of a blob, or behaves."""
    command = [sys.executable, "-m", "tests.integration.mortal_registry", str(port), how]
    with Process(command, log=directory / "mortal.log") as process:
        process.wait_ready(lambda: is_listened_at(port))
        yield process


def is_listened_at(port: int) -> bool:
    """Say whether somebody takes connections."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def has_begun(arriving: Path) -> bool:
    """Say whether the beginning of the blob is here."""
    return any(file.stat().st_size >= mortal_registry.BEGINNING // 2 for file in arriving.glob("*.part"))


async def test_a_range_begins_with_what_has_arrived(harbour: Harbour) -> None:
    """A part of a blob that arrives is given but for its last byte, which waits until all is known to be right."""
    image = make_image(layers=1, size=LARGE, seed="range")
    data = image.layers[0].raw
    harbour.upstream.hold("library/range", image, "1")
    go_on = asyncio.Event()

    async def pause(request: web.Request, behave: Handler) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[:1_000_000])
        await go_on.wait()
        await response.write(data[1_000_000:])
        return response

    harbour.upstream.will("GET", "library/range/blobs/", pause)
    reader, writer = await asyncio.open_connection("127.0.0.1", harbour.server.port)
    path = f"/v2/library/range/blobs/{image.layers[0].digest}"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=10-5009\r\n\r\n".encode())
    assert b" 206 " in await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(4999) == data[10:5009]
    last = asyncio.ensure_future(reader.readexactly(1))
    await asyncio.wait([last], timeout=0.1)
    assert not last.done()
    go_on.set()
    assert await last == data[5009:5010]
    writer.close()
