"""Layers from elsewhere: what is taken, what is refused and when, over real sockets."""

import asyncio
import base64
import gzip
import io
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard
from aiohttp import web

from roadstead.app.elsewhere import named_hosts, open_elsewhere
from roadstead.augment.includes import EMPTY_LAYER, EMPTY_TAR, IncludeInvalidError, Includes
from roadstead.augment.layer_sources import LayerBounds, LayerSources, LayerTooSlowError, everything, nothing
from roadstead.augment.locations import (
    MAX_INLINE,
    LayerClaim,
    LayerForbiddenError,
    LayerMismatchError,
    LocationInvalidError,
)
from roadstead.augment.plan import PlannedLayer, variant
from roadstead.augment.ports import MayPull
from roadstead.augment.sources.inline import InlineLayers
from roadstead.augment.sources.registries import KnownRegistries, RegistryLayers
from roadstead.augment.sources.web import WebLayers
from roadstead.clock import SystemClock
from roadstead.errors import RoadsteadError
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.layer import Compression, LayerInvalidError, LayerTooLargeError, measure
from roadstead.secret import Secret
from roadstead.settings.model import AugmentSettings, Settings, UpstreamSettings, UpstreamsSettings
from roadstead.settings.quantity import ByteSize
from roadstead.testing.images import make_artifact, make_attestation, make_image, make_index, make_layer
from roadstead.testing.memory_stores import MemoryLayers
from roadstead.testing.scripted_upstream import (
    PASSWORD,
    USER,
    Handler,
    ScriptedUpstream,
    answers,
    cuts,
    scripted_upstream,
    stalls,
)
from roadstead.upstream import wire
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.credentials import Given, Password
from roadstead.upstream.egress import EgressPolicy
from roadstead.upstream.errors import (
    AddressForbiddenError,
    UnreachableError,
    UpstreamDeniedError,
    UpstreamNotFoundError,
)
from roadstead.upstream.retry import Backoff
from roadstead.upstream.transport import Transport

LAYER = make_layer({"foo.txt": b"hello\n" * 100})
GZIP, SIZE, TAR = LAYER.digest, len(LAYER.raw), LAYER.diff_id
NOW = SystemClock().now()
BOUNDS = LayerBounds(max_bytes=1 << 20, max_unpacked_bytes=4 << 20, backoff=Backoff(attempts=2, first_s=0.01))


class House:
    """Layer sources over a store in memory; ``configured`` are upstreams, ``reachable`` hosts at private addresses."""

    def __init__(self, directory: Path, *, bounds: LayerBounds = BOUNDS) -> None:
        self.directory = directory
        self.layers = MemoryLayers()
        self.configured: dict[str, RegistryClient] = {}
        self.reachable: set[str] = set()
        self.bounds = bounds
        self.transport = Transport(egress=EgressPolicy())

    @property
    def sources(self) -> LayerSources:
        self.transport.egress = EgressPolicy(frozenset(self.reachable))
        web_layers = WebLayers(self.transport)
        kinds = {
            "data": InlineLayers(),
            "docker": RegistryLayers(self.registries),
            "http": web_layers,
            "https": web_layers,
        }
        return LayerSources(kinds, self.layers, self.directory, SystemClock(), bounds=self.bounds)

    @property
    def registries(self) -> KnownRegistries:
        return KnownRegistries(
            self.configured.get, lambda host: RegistryClient(RegistryAddress.parse(host), self.transport)
        )

    async def fetch(
        self,
        location: str,
        gzip_digest: Digest = GZIP,
        size: int = SIZE,
        tar: Digest = TAR,
        may_pull: MayPull = nothing,
    ) -> PlannedLayer:
        try:
            return await self.sources.fetch(location, gzip_digest, size, tar, may_pull=may_pull)
        finally:
            assert not self.directory.exists() or list(self.directory.iterdir()) == []


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "layers")
    async with made.transport:
        yield made


@pytest.fixture
async def upstream(house: House) -> AsyncIterator[ScriptedUpstream]:
    """A server at a private address that may be reached."""
    async with scripted_upstream() as server:
        house.reachable.add(server.host)
        yield server


def served(upstream: ScriptedUpstream, body: bytes = LAYER.raw) -> str:
    """Have the upstream answer with this at an address, which is returned."""
    upstream.will("GET", "/layer", answers(200, body=body))
    return f"{upstream.url}/layer"


def inline(data: bytes = LAYER.raw) -> str:
    return f"data:{base64.b64encode(data).decode()}"


# What is taken


async def test_each_kind_of_location(house: House, upstream: ScriptedUpstream) -> None:
    """The layer is stored, as described; nothing that says who we are is sent."""
    upstream.blobs["org/tools", str(GZIP)] = LAYER.raw
    wanted = PlannedLayer(GZIP, SIZE, TAR)
    locations = [
        served(upstream),
        inline(),
        f"docker://{upstream.host}/v2/org/tools/blobs/{GZIP}",
        f"docker://{upstream.host}/org/tools@{GZIP}",
    ]
    for location in locations:
        house.layers.blobs.clear()

        assert await house.fetch(location) == wanted
        assert house.layers.blobs == {GZIP: LAYER.raw}

    assert len(upstream.requests) == 3
    assert not any("authorization" in request.headers for request in upstream.requests)


@pytest.mark.parametrize(
    ("pack", "compression"),
    [
        (lambda tar: tar, Compression.NONE),
        (gzip.compress, Compression.GZIP),
        (lambda tar: gzip.compress(tar[:600]) + gzip.compress(tar[600:]), Compression.GZIP),
        (zstandard.compress, Compression.ZSTD),
    ],
    ids=["tar", "gzip", "two gzip members", "zstd"],
)
async def test_every_compression(house: House, pack: Callable[[bytes], bytes], compression: Compression) -> None:
    """What it is, its bytes say; the plan keeps it, for the manifest has to."""
    tar = gzip.decompress(LAYER.raw)
    data = pack(tar)

    layer = await house.fetch(inline(data), Digest.of(data), len(data))

    assert layer == PlannedLayer(Digest.of(data), len(data), Digest.of(tar), compression=compression)


async def test_what_is_not_said_is_measured(house: House, upstream: ScriptedUpstream) -> None:
    """Of a rule's layer, whose digest is enough; a second time the stored one is read, and nobody is asked."""
    claim = LayerClaim(location=served(upstream), gzip_digest=GZIP)

    first = await house.sources.have(claim)
    second = await house.sources.have(claim)

    assert first == second == PlannedLayer(GZIP, SIZE, TAR)
    assert len(upstream.requests) == 1
    with pytest.raises(LayerMismatchError, match="tar inside"):
        await house.sources.have(LayerClaim(location=claim.location, gzip_digest=GZIP, tar_digest=GZIP))
    with pytest.raises(LayerMismatchError, match="bytes, not 7"):
        await house.sources.have(LayerClaim(location=claim.location, gzip_digest=GZIP, gzip_size=7))


async def test_a_server_that_stumbles_is_asked_again(house: House, upstream: ScriptedUpstream) -> None:
    """503 first, or a body that breaks off: the next try begins anew."""
    for misdeed in (answers(503), answers(429, {"Retry-After": "0"})):
        upstream.will("GET", "/layer", misdeed)
        assert await house.fetch(served(upstream)) == PlannedLayer(GZIP, SIZE, TAR)

    async def cut(request: web.Request, _: Handler) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = SIZE
        await response.prepare(request)
        await response.write(LAYER.raw[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    upstream.will("GET", "/layer", cut)
    assert await house.fetch(served(upstream)) == PlannedLayer(GZIP, SIZE, TAR)
    upstream.blobs["org/tools", str(GZIP)] = LAYER.raw
    upstream.will("GET", "/blobs/", cuts(100))
    assert await house.fetch(f"docker://{upstream.host}/org/tools@{GZIP}") == PlannedLayer(GZIP, SIZE, TAR)


# What isn't what was said


@pytest.mark.parametrize("kind", ["http", "data", "docker"])
@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"gzip_digest": Digest.of(b"other")}, "digest|location names"),
        ({"size": SIZE - 1}, "bytes"),
        ({"size": SIZE + 1}, "bytes"),
        ({"tar": Digest.of(b"other")}, "tar inside"),
    ],
    ids=["digest", "too long", "too short", "tar"],
)
async def test_every_number_is_checked(
    house: House, upstream: ScriptedUpstream, kind: str, claim: dict[str, Any], said: str
) -> None:
    """Whichever is wrong, and wherever it lies: nothing is stored."""
    upstream.blobs["org/tools", str(GZIP)] = LAYER.raw
    location = {
        "http": served(upstream),
        "data": inline(),
        "docker": f"docker://{upstream.host}/org/tools@{GZIP}",
    }[kind]

    with pytest.raises((LayerMismatchError, UnreachableError, RoadsteadError), match=said):
        await house.fetch(location, **claim)

    assert house.layers.blobs == {}


async def test_an_endless_layer_is_cut_at_once(house: House, upstream: ScriptedUpstream) -> None:
    """At the first byte more than was declared; the server is hung up on."""
    ended = asyncio.Event()

    async def endless(request: web.Request, _: Handler) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(64 << 10))
        finally:
            ended.set()

    upstream.will("GET", "/layer", endless)
    with pytest.raises(LayerMismatchError, match=f"more than the {SIZE} bytes"):
        await house.fetch(f"{upstream.url}/layer")
    async with asyncio.timeout(10):
        await ended.wait()


async def test_a_layer_that_never_comes(tmp_path: Path) -> None:
    """A server that trickles holds nobody longer than there is time for it."""
    slow = House(tmp_path / "layers", bounds=LayerBounds(patience_s=0.2))
    async with scripted_upstream() as upstream, slow.transport:
        slow.reachable.add(upstream.host)
        upstream.blobs["org/tools", str(GZIP)] = LAYER.raw
        upstream.will("GET", "/blobs/", stalls(10))
        with pytest.raises(LayerTooSlowError):
            await slow.fetch(f"docker://{upstream.host}/org/tools@{GZIP}")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
async def test_a_bomb_ends_after_what_is_allowed(house: House, compress: Callable[[bytes], bytes]) -> None:
    """A few kilobytes of zeros that unpack to more than a layer may; counted while they unpack."""
    bomb = compress(bytes(64 << 20))

    with pytest.raises(LayerTooLargeError):
        await house.fetch(inline(bomb), Digest.of(bomb), len(bomb), Digest.of(b"any"))

    assert len(bomb) < 1 << 20
    assert house.layers.blobs == {}


async def test_a_window_larger_than_engines_have_is_refused(house: House) -> None:
    """A zstd frame that asks for gigabytes of memory before the first byte."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=30, enable_ldm=True)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = writer.compress(os.urandom(1 << 12)) + writer.flush()

    with pytest.raises(LayerInvalidError, match="zstd"):
        await house.fetch(inline(frame), Digest.of(frame), len(frame), Digest.of(b"any"))


@pytest.mark.parametrize(
    "data",
    [b"no tar, " * 200, gzip.compress(b"no tar, " * 200, mtime=0), LAYER.raw[:-4], b"\x28\xb5\x2f\xfd"],
    ids=["text", "a gzip of text", "half a gzip", "half a zstd"],
)
async def test_what_is_no_layer(house: House, data: bytes) -> None:
    """It is read to its end, and has to be a tar to its end."""
    with pytest.raises(LayerInvalidError):
        await house.fetch(inline(data), Digest.of(data), len(data))


async def test_more_than_a_layer_may_be_is_refused_unread(house: House, upstream: ScriptedUpstream) -> None:
    """What is declared larger than the setting allows isn't asked for."""
    with pytest.raises(LayerMismatchError, match="declared"):
        await house.fetch(f"{upstream.url}/layer", size=BOUNDS.max_bytes + 1)
    with pytest.raises(LayerMismatchError, match="a layer may have"):
        await house.sources.fetch_claimed(
            LayerClaim(location=served(upstream, bytes(BOUNDS.max_bytes + 1)), gzip_digest=GZIP)
        )
    assert len(upstream.requests) == 1


# Where layers may lie


@pytest.mark.parametrize(
    "location",
    [
        "data:",
        "data:%%%%",
        "data:application/gzip;base64,AAAA",
        "data:AAB=",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://example.com/layer",
        "gzip:AAAA",
        "http://",
        "http:///layer",
        "https://user:password@example.com/layer",
        "https://example.com/layer#part",
        "https://example.com:99999/layer",
        "https://example.com/a layer",
        "https://example.com/\nHost: other",
        pytest.param("data:" + "A" * MAX_INLINE, id="a data: too long"),
        pytest.param("https://example.com/" + "a" * 10_000, id="a URL too long"),
        "docker://example.com/app:latest",
        f"docker://example.com/app:latest@{GZIP}",
        f"docker://app@{GZIP}",
        f"docker://example.com/v2/app/manifests/{GZIP}",
        "docker://example.com/v2/app/blobs/sha256:beef",
        f"docker://example.com/v2/../app/blobs/{GZIP}",
    ],
)
async def test_what_is_no_location(house: House, location: str) -> None:
    """Each says what is wrong, and what the forms are; no password is repeated, nor megabytes."""
    with pytest.raises((LocationInvalidError, LayerMismatchError)) as caught:
        await house.fetch(location)

    assert len(str(caught.value)) < 400
    assert "password@" not in str(caught.value)
    assert caught.value.advice()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:1",
        "localhost:1",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
        "[64:ff9b::7f00:1]:1",
        "0.0.0.0:1",
    ],
)
async def test_private_addresses(house: House, host: str) -> None:
    """Not one of them is connected to because a caller says so, and no client of a registry is the way round it."""
    locations = [f"http://{host}/layer", f"https://{host}/layer"]
    if not host.startswith("["):
        locations.append(f"docker://{host if ':' in host else host + ':80'}/org/tools@{GZIP}")
    for location in locations:
        with pytest.raises((AddressForbiddenError, UnreachableError), match=r"this machine|public address|link-local"):
            await house.fetch(location)


async def test_a_name_that_leads_elsewhere_the_second_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the look-up gives a public address, the connection a private one, and that is what counts."""
    monkeypatch.setattr(wire._PublicResolver, "resolve", wire.aiohttp.ThreadedResolver.resolve)
    monkeypatch.setattr(wire._PublicResolver, "_loop", property(lambda self: asyncio.get_running_loop()), raising=False)
    async with scripted_upstream() as stranger:
        port = stranger.host.rpartition(":")[2]
        for location in (f"http://localhost:{port}/layer", f"docker://localhost:{port}/org/tools@{GZIP}"):
            with pytest.raises((AddressForbiddenError, UnreachableError), match="this machine"):
                await house.fetch(location)
        assert stranger.requests == []


async def test_redirects_are_checked_again(house: House, upstream: ScriptedUpstream) -> None:
    """To a public host they are followed; where they lead to a private one, nobody there hears of it."""
    async with scripted_upstream() as stranger:
        for target in (f"{stranger.url}/layer", "http://169.254.169.254/latest/meta-data", "file:///etc/passwd"):
            upstream.will("GET", "/layer", answers(302, {"Location": target}))
            with pytest.raises(RoadsteadError, match=r"may not be connected|address we follow"):
                await house.fetch(f"{upstream.url}/layer")
        assert stranger.requests == []
        house.reachable.add(stranger.host)
        upstream.will("GET", "/layer", answers(307, {"Location": served(stranger)}))
        assert await house.fetch(f"{upstream.url}/layer") == PlannedLayer(GZIP, SIZE, TAR)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, UpstreamNotFoundError),
        (410, UpstreamNotFoundError),
        (403, UpstreamDeniedError),
        (401, UpstreamDeniedError),
    ],
)
async def test_refusals(house: House, upstream: ScriptedUpstream, status: int, error: type[Exception]) -> None:
    """What the server says is told; a page for people isn't taken for a layer."""
    upstream.will("GET", "/layer", answers(status))
    with pytest.raises(error, match="layer"):
        await house.fetch(f"{upstream.url}/layer?signature=secret")


async def test_bytes_that_are_here_are_no_proof(house: House, upstream: ScriptedUpstream) -> None:
    """Who names the digest of a private layer that is stored here still has to be able to fetch it."""
    house.layers.blobs[GZIP] = LAYER.raw
    upstream.will("GET", "/layer", answers(404))

    with pytest.raises(UpstreamNotFoundError):
        await house.fetch(f"{upstream.url}/layer")
    with pytest.raises(LayerMismatchError):
        await house.fetch(inline(b"nothing"))


# Whose credentials


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_our_credentials_are_for_those_who_may(house: House, auth: str) -> None:
    """A configured upstream's private layer: without the right to pull it here, the upstream isn't even asked."""
    async with scripted_upstream(auth=auth) as private, Transport() as transport:
        private.blobs["org/secret", str(GZIP)] = LAYER.raw
        house.configured["up.example"] = RegistryClient(
            RegistryAddress("up.example", private.url), transport, credentials=Given(Password(USER, Secret(PASSWORD)))
        )
        asked: list[str] = []

        def allowed(name: str) -> bool:
            asked.append(name)
            return name == "up.example/org/secret"

        location = f"docker://up.example/org/secret@{GZIP}"
        with pytest.raises(LayerForbiddenError, match=r"up\.example/org/secret"):
            await house.fetch(location)
        with pytest.raises(LayerForbiddenError, match=r"up\.example/org/other"):
            await house.fetch(f"docker://up.example/org/other@{GZIP}", may_pull=allowed)
        assert private.requests == []
        assert await house.fetch(location, may_pull=allowed) == PlannedLayer(GZIP, SIZE, TAR)
        assert asked == ["up.example/org/other", "up.example/org/secret"]


async def test_a_registry_that_is_not_configured_is_asked_as_nobody(house: House) -> None:
    """Its own refusal is the answer."""
    async with scripted_upstream(auth="basic") as private:
        house.reachable.add(private.host)
        private.blobs["org/secret", str(GZIP)] = LAYER.raw
        with pytest.raises(UpstreamDeniedError):
            await house.fetch(f"docker://{private.host}/org/secret@{GZIP}", may_pull=everything)
        assert all("authorization" not in request.headers for request in private.requests)


# Images that are included


async def included(
    house: House, name: str, *, below: Mapping[str, PlannedLayer] | None = None, platforms: tuple[Platform, ...] = ()
) -> tuple[PlannedLayer, ...]:
    return await Includes(house.registries, house.layers).layers(
        name,
        house.sources.have,
        below=tuple((below or {}).values()),
        platforms=platforms,
        may_pull=everything,
        now=NOW,
    )


AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


async def test_an_image_s_layers_are_added_for_its_platform(house: House, upstream: ScriptedUpstream) -> None:
    """In their order, with its diff_ids; they are stored."""
    image = make_image(layers=2)
    upstream.hold("org/tools", image, "1")

    layers = await included(house, f"{upstream.host}/org/tools:1")

    assert layers == tuple(PlannedLayer(one.digest, len(one.raw), one.diff_id, AMD64) for one in image.layers)
    assert set(house.layers.blobs) == {one.digest for one in image.layers}
    assert await included(house, f"{upstream.host}/org/tools@{image.digest}") == layers


async def test_platforms_with_different_numbers_of_layers(house: House, upstream: ScriptedUpstream) -> None:
    """Each gets its own, and an empty one on top where it has fewer: none is left out for that."""
    small, large = make_image(layers=1), make_image(layers=2, platform="linux/arm64", seed="arm")
    upstream.hold("org/tools", make_index([small, large, make_attestation(small)]), "1")
    name = f"{upstream.host}/org/tools:1"

    layers = await included(house, name)

    amd, arm = variant(layers, AMD64), variant(layers, ARM64)
    assert amd is not None
    assert arm is not None
    assert [layer.gzip_digest for layer in amd] == [small.layers[0].digest, Digest.of(EMPTY_LAYER)]
    assert [layer.gzip_digest for layer in arm] == [layer.digest for layer in large.layers]
    assert variant(layers, Platform("linux", "s390x")) is None
    assert await included(house, name, platforms=(ARM64,)) == arm
    own = {"own": PlannedLayer(GZIP, SIZE, TAR, AMD64)}
    assert {layer.platform for layer in await included(house, name, below=own)} == {AMD64}


def test_the_empty_layer_is_a_layer() -> None:
    """An empty tar, in a gzip that is the same on every machine."""
    assert gzip.decompress(EMPTY_LAYER) == EMPTY_TAR
    assert str(Digest.of(EMPTY_TAR)).startswith("sha256:5f70bf18a086")
    assert measure(io.BytesIO(EMPTY_LAYER)).tar_digest == Digest.of(EMPTY_TAR)


@pytest.mark.parametrize("name", ["busybox", "org/tools:1", "example.com", "Example.com/UPPER", "example.com/a:b:c"])
async def test_names_that_include_nothing(house: House, name: str) -> None:
    """The registry has to be named: what Docker Hub would be asked for is for Docker Hub's name to say."""
    with pytest.raises(IncludeInvalidError) as caught:
        await included(house, name)
    assert name in str(caught.value)


async def test_images_that_cannot_be_included(house: House, upstream: ScriptedUpstream) -> None:
    """Artifacts, schema 1, what is for no platform of the rule's own layers, what isn't there."""
    upstream.hold("org/tools", make_artifact(), "artifact")
    upstream.hold("org/tools", make_image(platform="linux/s390x"), "other")
    schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    upstream.manifests["org/tools", "old"] = (b'{"schemaVersion":1}', schema1)
    own = {"own": PlannedLayer(GZIP, SIZE, TAR, AMD64)}
    for tag, said in (("artifact", "artifact"), ("old", "schema 1"), ("other", "platform")):
        with pytest.raises(IncludeInvalidError, match=said):
            await included(house, f"{upstream.host}/org/tools:{tag}", below=own)
    with pytest.raises(UpstreamNotFoundError):
        await included(house, f"{upstream.host}/org/tools:none")


# As a server has them


async def test_callers_reach_what_settings_name_and_no_more(tmp_path: Path) -> None:
    """A private address by `augment.location_hosts` alone, a configured upstream with its credentials, rules anywhere.

    Neither a caller nor a rule is led from there to another private address.
    """
    async with scripted_upstream(auth="basic") as upstream, scripted_upstream() as store, scripted_upstream() as other:
        upstream.blobs["org/tools", str(GZIP)] = LAYER.raw
        registry = UpstreamSettings(host="up.example", url=upstream.url, username=USER, password=Secret(PASSWORD))
        augment = AugmentSettings(location_hosts=(store.host,), max_layer_bytes=ByteSize(SIZE))
        settings = Settings(augment=augment, upstreams=UpstreamsSettings(registries=(registry,)))
        blob = f"docker://up.example/org/tools@{GZIP}"

        async with open_elsewhere(settings, MemoryLayers(), tmp_path) as callers:
            fetch = callers.sources.fetch
            assert await fetch(served(store), GZIP, SIZE, TAR) == PlannedLayer(GZIP, SIZE, TAR)
            assert await fetch(blob, GZIP, SIZE, TAR, may_pull=everything) == PlannedLayer(GZIP, SIZE, TAR)
            with pytest.raises(LayerForbiddenError):
                await fetch(blob, GZIP, SIZE, TAR)
            with pytest.raises(AddressForbiddenError):
                await fetch(f"{other.url}/layer", GZIP, SIZE, TAR)
            with pytest.raises(AddressForbiddenError):  # the upstream is one to read blobs of, and not to be probed
                await fetch(f"{upstream.url}/v2/", GZIP, SIZE, TAR)
            with pytest.raises(LayerMismatchError):
                await fetch(served(store), GZIP, SIZE + 1, TAR)

        location = f"{other.url}/layer"
        trusted = named_hosts([location, blob, inline()], ["up.example/org/tools:1"])
        assert trusted == {other.host, "up.example"}
        async with open_elsewhere(settings, MemoryLayers(), tmp_path, trusted=trusted) as rules:
            served(other)
            assert await rules.sources.have(LayerClaim(location=location, gzip_digest=GZIP))
            async with scripted_upstream() as stranger:
                other.will("GET", "/layer", answers(302, {"Location": f"{stranger.url}/layer"}))
                with pytest.raises(AddressForbiddenError):
                    await rules.sources.fetch(location, GZIP, SIZE, TAR)
                assert stranger.requests == []
