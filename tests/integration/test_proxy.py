"""Images of other registries, pulled through: real registries as upstreams, and one that misbehaves as it is told."""

import asyncio
import json
import os
import signal
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import bcrypt
import pytest
from aiohttp import web
from tests.integration.token_service import token_service

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import MANIFESTS
from roadstead.storage import keys
from roadstead.testing.client import Answer, Client, ConnectionBrokenError
from roadstead.testing.components import require
from roadstead.testing.images import TestImage, TestIndex, make_artifact, make_image, make_index
from roadstead.testing.registry_peer import RegistryPeer, open_registry_peer
from roadstead.testing.scripted_upstream import (
    PASSWORD,
    USER,
    Handler,
    answers,
    cuts,
    gives,
    scripted_upstream,
    stalls,
)
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

SPACE = "up.example"
ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS))}
LARGE = 3_000_000


def upstream_config(url: str, more: str = "", *, default: str = '["library/*"]') -> str:
    """Return settings with one upstream, whose tags are asked for at each pull."""
    return f'[[upstreams]]\nhost = "{SPACE}"\nurl = "{url}"\ndefault_for = {default}\nrevalidate = "0s"\n{more}\n'


@asynccontextmanager
async def serving(
    directory: Path, config: str, *, workers: int = 1, environment: Mapping[str, str] | None = None
) -> AsyncIterator[RoadsteadServer]:
    """Run a server beside the test's own loop, where its upstream answers."""
    server = RoadsteadServer(directory, config=config, workers=workers, environment=environment)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


def fetch(host: str, path: str, headers: Mapping[str, str] = ACCEPT, method: str = "GET") -> Answer:
    """Ask on a connection of its own."""
    with Client(host) as client:
        return client.request(method, path, None, headers)


async def ask(server: RoadsteadServer, path: str, headers: Mapping[str, str] = ACCEPT, method: str = "GET") -> Answer:
    """Ask from a thread."""
    return await asyncio.to_thread(fetch, server.host, path, headers, method)


def pull(host: str, name: str, reference: object) -> dict[str, bytes]:
    """Pull an image as engines do; return its blobs by digest, each checked."""
    with Client(host) as client:
        answer = client.get(f"/v2/{name}/manifests/{reference}", ACCEPT)
        assert answer.status == 200, answer.body
        document = answer.json()
        if "manifests" in document:
            return pull(host, name, document["manifests"][0]["digest"])
        got = {}
        for descriptor in (document["config"], *document["layers"]):
            blob = client.get(f"/v2/{name}/blobs/{descriptor['digest']}")
            assert blob.status == 200, blob.body
            assert str(Digest.of(blob.body)) == descriptor["digest"]
            got[descriptor["digest"]] = blob.body
        return got


def push(host: str, name: str, image: TestImage | TestIndex, tag: str | None = None) -> None:
    """Push an image, or an index with all that it lists."""
    with Client(host) as client:
        for one in image.children if isinstance(image, TestIndex) else ():
            push(host, name, one)
        for data in image.blobs.values() if isinstance(image, TestImage) else ():
            client.push_blob(name, data)
        client.push_manifest(name, tag or str(image.digest), image.raw, image.media_type)


# Names


async def test_names_lead_to_their_upstream(tmp_path: Path) -> None:
    """By its host, by a default pattern and by `?ns=`: one image, kept under the upstream's name."""
    image = make_image(layers=2, seed="names")
    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url)) as server:
        upstream.hold("library/app", image, "1")
        upstream.hold("team/app", image, "1")

        for path in (f"{SPACE}/library/app", "library/app", "as-pushed/library/app", f"{SPACE}/team/app"):
            answer = await ask(server, f"/v2/{path}/manifests/1")
            assert (answer.status, answer.body) == (200, image.raw), path
        named = await ask(server, f"/v2/team/app/manifests/1?ns={SPACE}")
        assert (named.status, named.headers.get("oci-namespace")) == (200, SPACE)

        for path in ("team/app", "library/deep/app", "other.example/library/app"):
            assert (await ask(server, f"/v2/{path}/manifests/1")).status == 404, path
        strange = await ask(server, "/v2/library/app/manifests/1?ns=quay.example")
        assert strange.status == 404, "another registry's image of that name is meant"
        assert (await ask(server, "/v2/_catalog")).json()["repositories"] == [
            f"{SPACE}/library/app",
            f"{SPACE}/team/app",
        ]


async def test_what_was_ever_hosted_stays_ours(tmp_path: Path) -> None:
    """A name that was pushed to isn't an upstream's afterwards, not even when all of it is deleted."""
    ours, theirs = make_image(seed="ours"), make_image(seed="theirs")
    config = upstream_config("http://URL", "allow_push = true")
    async with scripted_upstream() as upstream:
        upstream.hold("library/app", theirs, "1")
        async with serving(tmp_path, config.replace("http://URL", upstream.url)) as server:
            assert (await ask(server, "/v2/library/app/manifests/1")).body == theirs.raw
            await asyncio.to_thread(push, server.host, "library/app", ours, "1")
            assert (await ask(server, "/v2/library/app/manifests/1")).body == ours.raw

            deleted = await ask(server, f"/v2/library/app/manifests/{ours.digest}", method="DELETE")
            assert deleted.status == 202

            assert (await ask(server, "/v2/library/app/manifests/1")).status == 404
            assert (await ask(server, f"/v2/{SPACE}/library/app/manifests/1")).body == theirs.raw


@pytest.mark.parametrize("name", [f"{SPACE}/library/app", "library/app"])
async def test_pushes_to_an_upstreams_names_are_refused(tmp_path: Path, name: str) -> None:
    """405, as from distribution's cache; elsewhere pushes go on."""
    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url)) as server:
        for method, path in (("POST", "blobs/uploads/"), ("PUT", "manifests/1")):
            refused = await ask(server, f"/v2/{name}/{path}", {"Content-Type": "a/b"}, method)
            assert (refused.status, refused.code) == (405, "UNSUPPORTED")
        await asyncio.to_thread(push, server.host, "team/app", make_image(seed="elsewhere"), "1")


async def test_an_upstreams_blobs_are_not_taken_for_ours(tmp_path: Path) -> None:
    """Who pushes an image that the upstream has under the same name is told to send everything, and has it here."""
    image = make_image(layers=2, seed="both")
    async with scripted_upstream() as upstream:
        upstream.hold("library/app", image, "1")
        async with serving(tmp_path, upstream_config(upstream.url, "allow_push = true")) as server:
            assert await asyncio.to_thread(pull, server.host, "library/app", "1")
            for digest in image.blobs:
                assert (await ask(server, f"/v2/library/app/blobs/{digest}", method="HEAD")).status == 404
                assert (await ask(server, f"/v2/{SPACE}/library/app/blobs/{digest}", method="HEAD")).status == 200
            await asyncio.to_thread(push, server.host, "library/app", image, "2")
            upstream.requests.clear()
            assert await asyncio.to_thread(pull, server.host, "library/app", "2")
            assert not upstream.requests


SIGNED = """
[auth]
htpasswd = "users"

[auth.issue]
service = "registry.test"

[[auth.policies]]
subjects = ["user:ana"]
repositories = ["up.example/library/*"]
actions = ["pull", "catalog"]

[[auth.policies]]
subjects = ["user:bo"]
repositories = ["up.example/secret/**"]
actions = ["pull", "catalog"]
"""


async def test_policies_and_tokens_for_an_upstreams_images(tmp_path: Path) -> None:
    """Policies are about the name with the host; clients ask for tokens by the name that they know."""
    accounts = (("ana", b"right"), ("bo", b"wrong"))
    lines = [f"{name}:{bcrypt.hashpw(secret, bcrypt.gensalt(4)).decode()}\n" for name, secret in accounts]
    (tmp_path / "users").write_text("".join(lines))
    ana = {"Authorization": f"Basic {b64encode(b'ana:right').decode()}"}
    image = make_image(seed="tokens for all")
    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url) + SIGNED) as server:
        upstream.hold("library/app", image, "1")
        for path in ("library/app", f"{SPACE}/library/app", "as-pushed/library/app"):
            manifest = f"/v2/{path}/manifests/1"
            nobody = await ask(server, manifest)
            assert nobody.status == 401, path
            assert f'scope="repository:{path.removeprefix("as-pushed/")}:pull"' in nobody.headers["www-authenticate"]
            assert not upstream.requests, "nobody in particular causes nothing"
            assert (await ask(server, manifest, ACCEPT | ana)).body == image.raw, path
            asked = f"/auth/token?service=registry.test&scope=repository:{path}:pull,push"
            for signed, status in ((ana, 200), ({}, 401)):
                token = (await ask(server, asked, signed)).json()["token"]
                answer = await ask(server, manifest, ACCEPT | {"Authorization": f"Bearer {token}"})
                assert answer.status == status, (path, signed)
            upstream.requests.clear()
        other = (await ask(server, "/auth/token?scope=repository:library/other:pull", ana)).json()["token"]
        refused = await ask(server, "/v2/library/app/manifests/1", ACCEPT | {"Authorization": f"Bearer {other}"})
        assert refused.status == 401
        upstream.hold("secret/app", image, "1")
        hidden = f"/v2/{SPACE}/secret/app/manifests/1"
        assert (await ask(server, hidden, ACCEPT | ana)).status == 403
        assert not upstream.requests, "what somebody may not see isn't asked for"
        bo = {"Authorization": f"Basic {b64encode(b'bo:wrong').decode()}"}
        assert (await ask(server, hidden, ACCEPT | bo)).body == image.raw
        for who, listed in ((ana, [f"{SPACE}/library/app"]), (bo, [f"{SPACE}/secret/app"])):
            assert (await ask(server, "/v2/_catalog", who)).json()["repositories"] == listed
        named = await ask(server, f"/v2/library/app/manifests/1?ns={SPACE}")
        assert f'scope="repository:{SPACE}/library/app:pull"' in named.headers["www-authenticate"]


async def test_what_was_pushed_before_the_name_was_an_upstreams(tmp_path: Path) -> None:
    """It isn't served any more, which is logged; and it isn't removed: without the upstream it is there again."""
    image = make_image(seed="pushed before")
    async with serving(tmp_path, "") as server:
        await asyncio.to_thread(push, server.host, f"{SPACE}/team/app", image, "1")
    async with scripted_upstream() as upstream:
        config = upstream_config(upstream.url, 'keep = "1s"')
        async with serving(tmp_path, config) as server:
            assert (await ask(server, f"/v2/{SPACE}/team/app/manifests/1")).status == 404
            told = "repositories that were pushed here can't be pulled"
            assert await asyncio.to_thread(wait_until, lambda: told in server.log, timeout=timedelta(seconds=20))
    async with serving(tmp_path, "") as server:
        assert (await ask(server, f"/v2/{SPACE}/team/app/manifests/1")).body == image.raw


# Pulls


async def test_a_pull_brings_everything_once(tmp_path: Path) -> None:
    """The second pull asks only where the tag is; with the upstream gone all of it is still here."""
    index = make_index([make_image(layers=2, size=LARGE, seed="once"), make_image(layers=1, seed="other")])
    async with scripted_upstream() as upstream:
        upstream.hold("library/app", index, "1")
        async with serving(tmp_path, upstream_config(upstream.url)) as server:
            first = await asyncio.to_thread(pull, server.host, "library/app", "1")
            assert first == {str(digest): data for digest, data in index.children[0].blobs.items()}
            wait_stored = len(first)
            assert len(upstream.seen("GET", "/blobs/")) == wait_stored
            upstream.requests.clear()

            assert await asyncio.to_thread(pull, server.host, "library/app", "1") == first
            assert [(one.method, one.path) for one in upstream.requests] == [("HEAD", "/v2/library/app/manifests/1")]

            upstream.will("HEAD", "", *[answers(503)] * 50)
            upstream.will("GET", "", *[answers(503)] * 50)
            assert await asyncio.to_thread(pull, server.host, "library/app", "1") == first
            assert "a tag is served as it was" in server.log
            metrics = (await ask(server, "/metrics")).body.decode()
            assert f'roadstead_upstream_stale_total{{host="{SPACE}"}} 1.0' in metrics


async def test_a_tag_that_moves_is_followed_and_one_that_goes_goes(tmp_path: Path) -> None:
    """By HEAD each time; within `revalidate` nobody is asked."""
    old, new = make_image(seed="old"), make_image(seed="new")
    async with scripted_upstream() as upstream:
        upstream.hold("library/app", old, "1")
        lazy = upstream_config(upstream.url).replace('"0s"', '"1h"')
        async with (
            serving(tmp_path / "eager", upstream_config(upstream.url)) as eager,
            serving(tmp_path / "lazy", lazy) as patient,
        ):
            for server in (eager, patient):
                assert (await ask(server, "/v2/library/app/manifests/1")).body == old.raw
            upstream.hold("library/app", new, "1")
            upstream.requests.clear()
            assert (await ask(patient, "/v2/library/app/manifests/1")).body == old.raw
            assert not upstream.requests
            head = await ask(eager, "/v2/library/app/manifests/1", method="HEAD")
            assert head.headers["docker-content-digest"] == str(new.digest)
            assert (await ask(eager, "/v2/library/app/manifests/1")).body == new.raw
            upstream.hold("library/app", old, "1")
            upstream.requests.clear()
            assert (await ask(eager, "/v2/library/app/manifests/1")).body == old.raw
            assert not upstream.seen("GET"), "it is here already"
            del upstream.manifests["library/app", "1"]
            assert (await ask(eager, "/v2/library/app/manifests/1")).status == 404
            assert (await ask(eager, f"/v2/library/app/manifests/{old.digest}")).status == 200


async def test_heads_ranges_and_lists(tmp_path: Path) -> None:
    """HEAD of what isn't here asks there; a range of what arrives is cut out; lists are the upstream's."""
    image = make_image(layers=1, size=LARGE, seed="parts")
    sbom = make_artifact(subject=image.descriptor(), content=b"sbom")
    layer = image.layers[0]
    data = image.blobs[layer.digest]
    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url)) as server:
        upstream.hold("library/app", image, "1", "2", "3")
        upstream.hold("library/app", sbom)
        blob = f"/v2/library/app/blobs/{layer.digest}"
        head = await ask(server, blob, method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(len(data)))
        assert not upstream.seen("GET", "/blobs/")
        for span, expected in (("bytes=10-19", data[10:20]), ("bytes=-7", data[-7:])):
            part = await ask(server, blob, {"Range": span})
            assert (part.status, part.body) == (206, expected)
        beyond = await ask(server, blob, {"Range": f"bytes={len(data)}-"})
        assert beyond.status == 416
        missing = f"/v2/library/app/blobs/sha256:{'0' * 64}"
        for method in ("HEAD", "GET"):
            assert (await ask(server, missing, method=method)).status == 404

        tags = (await ask(server, "/v2/library/app/tags/list")).json()
        assert tags == {"name": "library/app", "tags": ["1", "2", "3"]}
        page = await ask(server, "/v2/library/app/tags/list?n=2")
        assert page.json()["tags"] == ["1", "2"]
        assert "last=2" in page.headers["link"]
        listed = (await ask(server, f"/v2/library/app/referrers/{image.digest}")).json()
        assert [one["digest"] for one in listed["manifests"]] == [str(sbom.digest)]
        assert (await ask(server, "/v2/library/nothing/tags/list")).status == 404


@pytest.mark.parametrize("workers", [1, 2])
async def test_many_clients_cost_one_download(tmp_path: Path, workers: int) -> None:
    """Fifty pull a new image at once, from one worker or two: the upstream gives each thing once."""
    image = make_image(layers=2, size=LARGE, seed=f"many{workers}")
    async with scripted_upstream() as upstream:
        upstream.hold("library/app", image, "1")
        config = upstream_config(upstream.url).replace('"0s"', '"1m"')
        async with serving(tmp_path, config, workers=workers) as server:
            with ThreadPoolExecutor(50) as threads:
                loop = asyncio.get_running_loop()
                pulls = [loop.run_in_executor(threads, pull, server.host, "library/app", "1") for _ in range(50)]
                for pulled in await asyncio.gather(*pulls):
                    assert pulled == {str(digest): data for digest, data in image.blobs.items()}

        assert len(upstream.seen("GET", "/manifests/")) == 1
        assert len(upstream.seen("HEAD", "/blobs/")) <= workers * len(image.blobs) * 2, "sizes are asked together, too"
        got = sorted(one.path for one in upstream.seen("GET", "/blobs/"))
        assert got == sorted(f"/v2/library/app/blobs/{digest}" for digest in image.blobs)


async def test_bytes_come_as_they_arrive(tmp_path: Path) -> None:
    """A client has the beginning of a layer while the upstream still holds back its end; what arrives is the very file
    that the blob is afterwards.
    """
    image = make_image(layers=1, size=LARGE, seed="tail")
    layer = image.layers[0]
    data = image.blobs[layer.digest]
    go_on = asyncio.Event()

    async def pause(request: Any, behave: Handler) -> Any:
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        await go_on.wait()
        await response.write(data[len(data) // 2 :])
        return response

    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url), workers=2) as server:
        upstream.hold("library/app", image, "1")
        upstream.will("GET", "/blobs/", pause)
        host, port = server.host.split(":")
        streams = []
        for _ in range(6):  # both workers, likely
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"GET /v2/library/app/blobs/{layer.digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head
            begun = await reader.readexactly(500_000)
            streams.append((reader, writer, begun))
        assert not go_on.is_set()
        [arriving] = [path.stat().st_ino for path in (server.data / "arriving").glob("*.part")]
        go_on.set()
        for reader, writer, begun in streams:
            assert begun + await reader.readexactly(len(data) - len(begun)) == data
            writer.close()
        assert len(upstream.seen("GET", "/blobs/")) == 1
        blob = server.data / keys.blob(layer.digest)
        assert await asyncio.to_thread(wait_until, blob.exists, timeout=timedelta(seconds=20))
        assert blob.stat().st_ino == arriving


# An upstream that misbehaves


async def test_a_cut_download_goes_on(tmp_path: Path) -> None:
    """The client sees nothing of a connection that broke: the rest is asked for by range."""
    image = make_image(layers=1, size=LARGE, seed="cut")
    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url)) as server:
        upstream.hold("library/app", image, "1")
        upstream.will("GET", f"/blobs/{image.layers[0].digest}", cuts(1_000_000), cuts(1_000_000))

        pulled = await asyncio.to_thread(pull, server.host, "library/app", "1")

        assert pulled == {str(digest): data for digest, data in image.blobs.items()}


WRONG = {
    "other bytes": lambda data: gives(b"x" * len(data)),
    "shorter": lambda data: gives(data[:-1]),
    "longer": lambda data: gives(data + b"x"),
    "refused": lambda _: answers(403),
    "failing": lambda _: answers(500),
}


async def test_nothing_unverified_is_served_as_whole(tmp_path: Path) -> None:
    """An error, or a connection that is cut before the end; nothing is kept, and the next pull may go well."""
    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url)) as server:
        arriving = server.data / "arriving"

        def nothing_arrives() -> bool:
            return not list(arriving.iterdir())

        for kind, size in [(kind, size) for kind in WRONG for size in (1000, LARGE)]:
            image = make_image(layers=1, size=size, seed=f"{kind}{size}")
            layer = image.layers[0]
            data = image.blobs[layer.digest]
            upstream.hold("library/app", image, "1")
            upstream.will("GET", f"/blobs/{layer.digest}", *[WRONG[kind](data)] * 20)

            try:
                answer = await ask(server, f"/v2/library/app/blobs/{layer.digest}")
            except ConnectionBrokenError:
                pass
            else:
                assert answer.status in {403, 503}, (kind, answer)
            upstream._misdeeds.clear()
            assert await asyncio.to_thread(wait_until, nothing_arrives, timeout=timedelta(seconds=20))
            assert (await ask(server, f"/v2/library/app/blobs/{layer.digest}")).body == data, kind


async def test_a_manifest_that_lies_is_refused(tmp_path: Path) -> None:
    """Bytes that aren't what the digest or the header says are never served, nor kept."""
    image, other = make_image(seed="true"), make_image(seed="false")
    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url)) as server:
        upstream.hold("library/app", image, "1")
        lie = answers(200, {"Content-Type": other.media_type, "Docker-Content-Digest": str(image.digest)}, other.raw)
        upstream.will("GET", "/manifests/", lie, lie, answers(200, {"Content-Type": other.media_type}, b"{}"))
        assert (await ask(server, f"/v2/library/app/manifests/{image.digest}")).status == 503
        assert (await ask(server, "/v2/library/app/manifests/1")).status == 503
        assert (await ask(server, "/v2/library/app/manifests/1")).status == 503
        assert (await ask(server, "/v2/library/app/manifests/1")).body == image.raw


async def says_nothing(request: web.Request, behave: Handler) -> web.StreamResponse:
    """Answer after a long while."""
    await asyncio.sleep(30)
    return await behave(request)


async def test_limits_stalls_and_denials(tmp_path: Path) -> None:
    """429 is told with its Retry-After where nothing is known, and hidden where the tag is; so is silence."""
    image = make_image(seed="limits")
    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url)) as server:
        upstream.hold("library/app", image, "1")
        limited = answers(429, {"Retry-After": "77"})
        upstream.will("GET", "/manifests/", limited)
        told = await ask(server, "/v2/library/app/manifests/1")
        assert (told.status, told.code, told.headers["retry-after"]) == (429, "TOOMANYREQUESTS", "77")
        assert (await ask(server, "/v2/library/app/manifests/1")).body == image.raw
        upstream.will("HEAD", "/manifests/", says_nothing)
        assert (await ask(server, "/v2/library/app/manifests/1")).body == image.raw
        assert "it didn't answer within 5 s" in server.log
        denied = make_image(seed="denied")
        upstream.hold("library/secret", denied, "1")
        upstream.will("GET", "/library/secret/", answers(403))
        assert (await ask(server, "/v2/library/secret/manifests/1")).status == 403


async def test_a_killed_server_leaves_nothing_half_made(tmp_path: Path) -> None:
    """kill -9 during a download: after the next start no part of it is there, and the blob is pulled anew."""
    image = make_image(layers=1, size=LARGE, seed="killed")
    layer = image.layers[0]
    async with scripted_upstream() as upstream:
        upstream.hold("library/app", image, "1")
        upstream.will("GET", "/blobs/", stalls(1_000_000, 30))
        server = RoadsteadServer(tmp_path, config=upstream_config(upstream.url), workers=1)
        await asyncio.to_thread(server.start)
        begun = asyncio.ensure_future(ask(server, f"/v2/library/app/blobs/{layer.digest}"))
        arriving = server.data / "arriving"
        assert await asyncio.to_thread(
            wait_until,
            lambda: any(file.stat().st_size >= 500_000 for file in arriving.glob("*.part")),
            timeout=timedelta(seconds=20),
        )
        await asyncio.to_thread(server.kill)
        with pytest.raises((ConnectionBrokenError, OSError)):
            await begun
        assert list(arriving.glob("*.part"))

        await asyncio.to_thread(server.start)
        try:
            assert await asyncio.to_thread(
                wait_until, lambda: not list(arriving.iterdir()), timeout=timedelta(seconds=20)
            )
            assert (await ask(server, f"/v2/library/app/blobs/{layer.digest}")).body == image.blobs[layer.digest]
        finally:
            await asyncio.to_thread(server.stop)


async def test_a_worker_that_is_killed_breaks_off_what_others_read(tmp_path: Path) -> None:
    """Who reads behind it in another worker gets no whole of a part; the next pull is whole."""
    image = make_image(layers=1, size=LARGE, seed="worker")
    layer = image.layers[0]
    blob = f"/v2/library/app/blobs/{layer.digest}"
    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url), workers=2) as server:
        upstream.hold("library/app", image, "1")
        upstream.will("GET", "/blobs/", stalls(2_000_000, 50))
        writer, reader = server.workers
        clients = [await asyncio.to_thread(server.client_of, worker) for worker in (writer, reader)]
        reading = []
        for client, worker in zip(clients, (writer, reader), strict=True):
            reading.append(asyncio.ensure_future(asyncio.to_thread(client.get, blob)))
            assert await asyncio.to_thread(
                wait_until, lambda worker=worker: arrives_at(worker), timeout=timedelta(seconds=20)
            )
        assert len(upstream.seen("GET", "/blobs/")) == 1

        os.kill(writer, signal.SIGKILL)
        for each in reading:
            with pytest.raises((ConnectionBrokenError, OSError)):
                await each
        assert (await ask(server, blob)).body == image.blobs[layer.digest]


def arrives_at(worker: int) -> bool:
    """Say whether a process has a blob open that is on its way."""
    names = []
    for link in Path(f"/proc/{worker}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in this moment
            names.append(link.readlink().name)
    return any(name.endswith(".part") for name in names)


async def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """A blob that doesn't fit is cut off, told in the log, and leaves nothing; what fits is served."""
    large, small = make_image(layers=1, size=LARGE, seed="too large"), make_image(layers=1, seed="small")
    async with scripted_upstream() as upstream:
        upstream.hold("library/app", large, "large")
        upstream.hold("library/app", small, "small")
        limited = ("prlimit", "--fsize=2000000")
        server = RoadsteadServer(tmp_path, config=upstream_config(upstream.url), workers=1, command=limited)
        await asyncio.to_thread(server.start)
        try:
            with pytest.raises(ConnectionBrokenError):
                await ask(server, f"/v2/library/app/blobs/{large.layers[0].digest}")
            assert "a download can't be kept: File too large" in server.log
            assert not list((server.data / "arriving").iterdir())
            assert await asyncio.to_thread(pull, server.host, "library/app", "small")
        finally:
            await asyncio.to_thread(server.stop)


async def test_a_list_is_asked_for_once(tmp_path: Path) -> None:
    """However many want it at a time; one without an end is given up, and what is here is listed."""
    image = make_image(seed="list")
    go_on = asyncio.Event()

    async def pause(request: web.Request, behave: Handler) -> web.StreamResponse:
        await go_on.wait()
        return await behave(request)

    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url)) as server:
        upstream.hold("library/app", image, "1", "2")
        assert await asyncio.to_thread(pull, server.host, "library/app", "1")
        upstream.will("GET", "/tags/list", pause)
        asking = [asyncio.ensure_future(ask(server, "/v2/library/app/tags/list")) for _ in range(5)]
        assert await asyncio.to_thread(
            wait_until, lambda: bool(upstream.seen("GET", "/tags/list")), timeout=timedelta(seconds=20)
        )
        await asyncio.wait(asking, timeout=0.2)
        go_on.set()
        for each in asking:
            assert (await each).json()["tags"] == ["1", "2"]
        assert len(upstream.seen("GET", "/tags/list")) == 1

        page = json.dumps({"tags": [f"t{number}" for number in range(250_000)]}).encode()
        endless = [
            answers(200, {"Link": f'</v2/library/app/tags/list?last={number}>; rel="next"'}, page)
            for number in range(6)
        ]
        upstream.will("GET", "/tags/list", *endless)
        assert (await ask(server, "/v2/library/app/tags/list")).json()["tags"] == ["1"]
        assert "a list of more than 1000000 tags" in server.log


# Where it connects to


@pytest.mark.parametrize("trusted", [False, True])
async def test_an_upstream_sends_us_nowhere_else(tmp_path: Path, trusted: bool) -> None:
    """Neither by a redirect nor for a token to addresses that aren't public, unless they are named; never signed."""
    image = make_image(layers=1, size=LARGE, seed="elsewhere")
    layer = image.layers[0]
    signed = f'username = "{USER}"\npassword = "{PASSWORD}"'
    async with scripted_upstream() as elsewhere, scripted_upstream(auth="basic") as upstream:
        upstream.hold("library/app", image, "1")
        elsewhere.hold("library/app", image)
        there = elsewhere.host.replace("127.0.0.1", "localhost")
        config = upstream_config(upstream.url, signed + (f'\ntrusted_hosts = ["{there}"]' if trusted else ""))
        async with serving(tmp_path, config) as server:
            assert (await ask(server, "/v2/library/app/manifests/1")).status == 200
            moved = answers(307, {"Location": f"http://{there}/v2/library/app/blobs/{layer.digest}"})
            upstream.will("GET", "/blobs/", *[moved] * 9)
            answer = await ask(server, f"/v2/library/app/blobs/{layer.digest}")
            assert (answer.body == image.blobs[layer.digest]) is trusted
            assert bool(elsewhere.requests) is trusted
            assert not any("authorization" in one.headers for one in elsewhere.requests)
            assert trusted or "it is this machine" in answer.body.decode()


async def test_a_realm_elsewhere_gets_no_password(tmp_path: Path) -> None:
    """A registry that asks for tokens to be had from a stranger is refused before the stranger hears anything."""
    image = make_image(seed="realm")
    async with scripted_upstream() as stranger, scripted_upstream(auth="bearer") as upstream:
        upstream.hold("library/app", image, "1")
        upstream.realm = f"http://localhost:{stranger.host.rpartition(':')[2]}/token"
        signed = f'username = "{USER}"\npassword = "{PASSWORD}"'
        async with serving(tmp_path, upstream_config(upstream.url, signed)) as server:
            refused = await ask(server, "/v2/library/app/manifests/1")
            assert refused.status in {403, 502, 503}
            assert not stranger.requests


# Rules


@pytest.mark.parametrize("match", ["library/*:1", f"{SPACE}/library/*"])
async def test_rules_apply_to_an_upstreams_images(tmp_path: Path, match: str) -> None:
    """By the name it was asked for or the one it has here; only the platforms that are set are fetched and served."""
    index = make_index([make_image(platform=name, seed=name) for name in ("linux/amd64", "linux/arm64", "linux/s390x")])
    rule = f'[[augment.rules]]\nmatch = "{match}"\nenv = ["ADDED=yes"]\n'
    config = upstream_config("URL", 'platforms = ["linux/amd64", "linux/arm64"]') + rule
    async with scripted_upstream() as upstream:
        upstream.hold("library/app", index, "1")
        async with serving(tmp_path, config.replace("URL", upstream.url)) as server:
            answer = await ask(server, "/v2/library/app/manifests/1")
            listed = answer.json()["manifests"]
            assert [one["platform"]["architecture"] for one in listed] == ["amd64", "arm64"]
            assert len(upstream.seen("GET", "/blobs/")) == 2, "the configs of two platforms, and no layer"
            for one, child in zip(listed, index.children, strict=False):
                image = (await ask(server, f"/v2/library/app/manifests/{one['digest']}")).json()
                config_blob = await ask(server, f"/v2/library/app/blobs/{image['config']['digest']}")
                assert "ADDED=yes" in config_blob.json()["config"]["Env"]
                layer = child.layers[0]
                got = await ask(server, f"/v2/library/app/blobs/{layer.digest}")
                assert got.body == child.blobs[layer.digest]
            assert (await ask(server, "/v2/as-pushed/library/app/manifests/1")).body == index.raw
            again = await ask(server, "/v2/library/app/manifests/1", method="HEAD")
            assert again.headers["docker-content-digest"] == answer.headers["docker-content-digest"]


# Real registries


def pulls_through(directory: Path, config: str, image: TestImage, name: str) -> None:
    """Pull an image through a new server."""
    with RoadsteadServer(directory, config=config, workers=2) as server:
        pulled = pull(server.host, f"{SPACE}/{name}", "1")
        assert pulled == {str(digest): data for digest, data in image.blobs.items()}


def test_docker_registry(tmp_path: Path, registry_peer: RegistryPeer) -> None:
    """Debian's docker-registry, open to all."""
    image, name = make_image(layers=2, size=LARGE, seed="peer"), f"team/{uuid4().hex[:12]}"
    push(registry_peer.host, name, image, "1")
    pulls_through(tmp_path, upstream_config(registry_peer.url), image, name)


def test_docker_registry_with_passwords(tmp_path: Path) -> None:
    """Debian's docker-registry with htpasswd; the wrong password is told as such."""
    htpasswd = require("htpasswd", install="apt-get install apache2-utils")
    hashed = subprocess.run([htpasswd, "-Bbn", "-C", "4", USER, PASSWORD], capture_output=True, check=True).stdout
    (tmp_path / "htpasswd").write_bytes(hashed)
    image = make_image(layers=2, seed="htpasswd")
    root = tmp_path / "root"
    with open_registry_peer(root) as open_peer:
        push(open_peer.host, "team/app", image, "1")
    with open_registry_peer(
        root, more={"auth": {"htpasswd": {"realm": "r", "path": str(tmp_path / "htpasswd")}}}
    ) as peer:
        signed = upstream_config(peer.url, f'username = "{USER}"\npassword = "{PASSWORD}"')
        pulls_through(tmp_path / "right", signed, image, "team/app")
        with RoadsteadServer(tmp_path / "nobody", config=upstream_config(peer.url), workers=1) as server:
            refused = fetch(server.host, f"/v2/{SPACE}/team/app/manifests/1")
            assert refused.status == 403


async def test_docker_registry_with_tokens(tmp_path: Path) -> None:
    """Debian's docker-registry that believes a token service: tokens are had as they are asked for."""
    image = make_image(layers=2, seed="tokens")
    root = tmp_path / "root"
    with open_registry_peer(root) as open_peer:
        await asyncio.to_thread(push, open_peer.host, "team/app", image, "1")
    async with token_service(tmp_path, USER, PASSWORD) as service:
        with open_registry_peer(root, more={"auth": service.trust()}) as peer:
            more = f'username = "{USER}"\npassword = "{PASSWORD}"\ntrusted_hosts = ["{service.url[7:]}"]'
            await asyncio.to_thread(
                pulls_through, tmp_path / "data", upstream_config(peer.url, more), image, "team/app"
            )
    assert any(asked.startswith(f"{USER} repository:team/app:pull") for asked in service.asked)


def test_another_roadstead(tmp_path: Path) -> None:
    """A second Roadstead as upstream, and rules only in the first."""
    image = make_image(layers=2, size=LARGE, seed="roadstead")
    with RoadsteadServer(tmp_path / "there", workers=1) as there:
        push(there.host, "team/app", image, "1")
        pulls_through(tmp_path / "here", upstream_config(there.url), image, "team/app")


def test_distributions_own_section(tmp_path: Path, registry_peer: RegistryPeer) -> None:
    """`proxy.remoteurl` of a distribution file: every name is the upstream's, and nothing can be pushed."""
    image, name = make_image(seed="distribution"), f"team/{uuid4().hex[:12]}"
    push(registry_peer.host, name, image, "1")
    config = json.dumps(
        {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(tmp_path / "root")}},
            "proxy": {"remoteurl": registry_peer.url, "ttl": "24h"},
        }
    )
    with RoadsteadServer(tmp_path, config=config, file="config.yml", workers=1) as server:
        assert pull(server.host, name, "1")
        refused = fetch(server.host, f"/v2/{name}/blobs/uploads/", {}, "POST")
        assert (refused.status, refused.code) == (405, "UNSUPPORTED")


def test_a_cache_of_distributions_is_taken_over(tmp_path: Path, registry_peer: RegistryPeer) -> None:
    """Its tree and its file: names mean what they did, and are asked for, whatever was kept of them."""
    old, new, name = make_image(seed="kept"), make_image(seed="moved on"), f"team/{uuid4().hex[:12]}"
    proxy = {"proxy": {"remoteurl": registry_peer.url}}
    root = tmp_path / "root"
    push(registry_peer.host, name, old, "1")
    with open_registry_peer(root, more=proxy) as cache:
        assert pull(cache.host, name, "1")
    push(registry_peer.host, name, new, "1")
    config = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": str(root)}}, **proxy}
    with RoadsteadServer(tmp_path, config=json.dumps(config), file="config.yml", workers=1) as server:
        answer = fetch(server.host, f"/v2/{name}/manifests/1")
        assert (answer.status, answer.body) == (200, new.raw)
        assert pull(server.host, name, "1")
        with Client(server.host) as client:
            refused = client.post(f"/v2/{name}/blobs/uploads/")
        assert (refused.status, refused.code) == (405, "UNSUPPORTED")


def test_in_a_bucket_with_postgresql(tmp_path: Path, seaweedfs: SeaweedFS, postgres_url: str) -> None:
    """As with files; what one replica has pulled is there for the other, with the upstream gone."""
    image = make_image(layers=2, size=LARGE, seed="bucket")
    expected = {str(digest): data for digest, data in image.blobs.items()}
    config = (
        f'[storage]\ndriver = "s3"\nbucket = "{seaweedfs.create_bucket()}"\nregion = "{seaweedfs.region}"\n'
        f'endpoint = "{seaweedfs.endpoint}"\naccess_key = "{seaweedfs.access_key}"\n'
        f'secret_key = "{seaweedfs.secret_key}"\n[database]\nurl = "{postgres_url}"\n'
    )
    with ExitStack() as replicas:
        with open_registry_peer(tmp_path / "peer") as peer:
            push(peer.host, "team/app", image, "1")
            config += upstream_config(peer.url)
            one, two = (
                replicas.enter_context(RoadsteadServer(tmp_path / name, config=config)) for name in ("one", "two")
            )
            assert pull(one.host, f"{SPACE}/team/app", "1") == expected

        def is_stored() -> bool:
            paths = [f"/v2/{SPACE}/team/app/blobs/{digest}" for digest in expected]
            return all(fetch(two.host, path, method="HEAD").status == 200 for path in paths)

        assert wait_until(is_stored, timeout=timedelta(seconds=30))
        assert pull(two.host, f"{SPACE}/team/app", "1") == expected


# Retention


async def test_what_nobody_pulls_goes(tmp_path: Path) -> None:
    """An image that wasn't pulled for `keep` is unlinked by the background process; one that was stays."""
    image = make_image(seed="idle")
    async with scripted_upstream() as upstream:
        upstream.hold("library/app", image, "1")
        config = upstream_config(upstream.url, 'keep = "1s"')
        async with serving(tmp_path, config) as server:
            assert await asyncio.to_thread(pull, server.host, "library/app", "1")
        assert await asyncio.to_thread(wait_until, _later(1.1), timeout=timedelta(seconds=5))
        async with serving(tmp_path, config) as server:  # which looks at its start

            def is_gone() -> bool:
                return fetch(server.host, "/v2/_catalog").json()["repositories"] == []

            assert await asyncio.to_thread(wait_until, is_gone, timeout=timedelta(seconds=20))
            assert (await ask(server, "/v2/library/app/manifests/1")).body == image.raw, "it comes back when asked for"


def _later(seconds: float) -> Callable[[], bool]:
    until = monotonic() + seconds
    return lambda: monotonic() >= until
