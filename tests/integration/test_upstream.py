"""The client against a registry that misbehaves: cuts, stalls, lies, limits, expired tokens, redirects to strangers."""

import asyncio
import base64
import itertools
import json
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.secret import Secret
from roadstead.testing.images import make_artifact, make_image
from roadstead.testing.scripted_upstream import (
    PASSWORD,
    USER,
    ScriptedUpstream,
    answers,
    cuts,
    cuts_upload,
    error,
    gives,
    scripted_upstream,
    stalls,
)
from roadstead.tls.self_signed import self_signed
from roadstead.upstream import wire
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.credentials import (
    BearerKey,
    Credentials,
    CredentialSource,
    DockerConfig,
    Given,
    IdentityToken,
    Password,
)
from roadstead.upstream.egress import EgressPolicy
from roadstead.upstream.errors import (
    AddressForbiddenError,
    BadAnswerError,
    ContentMismatchError,
    CredentialsError,
    RateLimitedError,
    RealmUntrustedError,
    UnreachableError,
    UpstreamDeniedError,
    UpstreamNotFoundError,
    UpstreamRefusedError,
)
from roadstead.upstream.ports import PushOutcome, Source
from roadstead.upstream.proxies import Proxies
from roadstead.upstream.retry import Backoff
from roadstead.upstream.transport import Exchange, Transport

REPOSITORY = RepositoryName("team/app")
IMAGE = make_image(layers=1, size=3_000_000)
LAYER = IMAGE.layers[0]
ANA = Given(Password(USER, Secret(PASSWORD)))


class Waits:
    """What the client would have slept, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def waits() -> Waits:
    """The client's clock: it waits for nothing, and tells for how long it would have."""
    return Waits()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A registry with one image, ``team/app:1``."""
    async with scripted_upstream() as upstream:
        upstream.hold("team/app", IMAGE, "1")
        yield upstream


@pytest.fixture
async def transport(waits: Waits) -> AsyncIterator[Transport]:
    """A transport without patience of its own: waits take no time."""
    async with Transport(sleep=waits) as transport:
        yield transport


def client_of(
    upstream: ScriptedUpstream, transport: Transport, credentials: CredentialSource | None = None
) -> RegistryClient:
    """Return a client for the scripted registry."""
    return RegistryClient(RegistryAddress.parse(upstream.host), transport, credentials=credentials)


async def read(client: RegistryClient, *, start: int = 0, size: int | None = None) -> bytes:
    """Return the layer as the client gives it."""
    return b"".join([piece async for piece in client.blob(REPOSITORY, LAYER.digest, start=start, size=size)])


def source_of(data: bytes, piece: int = 100_000) -> Source:
    """Return a source of these bytes, in pieces."""

    async def pieces(start: int) -> AsyncGenerator[bytes, None]:
        for position in range(start, len(data), piece):
            yield data[position : position + piece]

    return pieces


# Reading


async def test_manifests_are_read_and_found(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A manifest comes by tag and digest, byte for byte; what isn't there is None, or an error that names it."""
    client = client_of(upstream, transport)

    assert (await client.manifest(REPOSITORY, Tag("1"))).raw == IMAGE.raw
    assert (await client.manifest(REPOSITORY, IMAGE.digest)).digest == IMAGE.digest
    found = await client.find_manifest(REPOSITORY, Tag("1"))
    assert found is not None
    assert (found.digest, found.size) == (IMAGE.digest, len(IMAGE.raw))
    assert await client.find_manifest(REPOSITORY, Tag("2")) is None
    with pytest.raises(UpstreamNotFoundError, match=r"team/app:2 isn't there"):
        await client.manifest(REPOSITORY, Tag("2"))


@pytest.mark.parametrize("missing", ["Docker-Content-Digest", "method"])
async def test_a_head_that_tells_too_little(upstream: ScriptedUpstream, transport: Transport, missing: str) -> None:
    """A registry whose HEAD has no digest, or that has no HEAD, is asked by GET."""
    bare = answers(200, {"Content-Type": IMAGE.media_type}) if missing != "method" else answers(405)
    upstream.will("HEAD", "/manifests/1", bare)

    found = await client_of(upstream, transport).find_manifest(REPOSITORY, Tag("1"))

    assert found is not None
    assert found.digest == IMAGE.digest


async def test_a_cut_pull_is_resumed(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A blob that is cut twice is asked for from where it stopped, and its digest still matches."""
    upstream.will("GET", "/blobs/", cuts(1_000_000), cuts(500_000))

    assert await read(client_of(upstream, transport), size=len(LAYER.raw)) == LAYER.raw

    first, *resumed = [one.headers.get("range") for one in upstream.seen("GET", "/blobs/")]
    assert first is None
    starts = [int(span.removeprefix("bytes=").removesuffix("-")) for span in resumed if span]
    # What was still on its way when the connection broke may be lost with it.
    assert 0 < starts[0] <= 1_000_000
    assert starts[0] <= starts[1] <= starts[0] + 500_000


async def test_a_resumed_pull_whose_range_is_ignored(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A registry that answers a range with the whole blob is read past what was there already."""

    async def whole(request: object, behave: object) -> object:
        from aiohttp import web

        return web.Response(body=LAYER.raw)

    upstream.will("GET", "/blobs/", cuts(1_000_000), whole)  # type: ignore[arg-type]

    assert await read(client_of(upstream, transport)) == LAYER.raw


async def test_a_blob_from_an_offset(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A blob can be read from an offset on."""
    assert await read(client_of(upstream, transport), start=2_900_000) == LAYER.raw[2_900_000:]


async def test_a_stalled_pull_is_resumed(
    upstream: ScriptedUpstream, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is a cut."""
    monkeypatch.setattr(wire, "READ_TIMEOUT_S", 0.3)
    upstream.will("GET", "/blobs/", stalls(1_000_000))

    assert await read(client_of(upstream, transport)) == LAYER.raw


async def test_a_registry_that_always_cuts_is_given_up(
    upstream: ScriptedUpstream, transport: Transport, waits: Waits
) -> None:
    """A pull that doesn't get on ends with an error after a bounded number of tries, each later than the last."""
    upstream.will("GET", "/blobs/", *[cuts(10)] * 20)

    with pytest.raises(UnreachableError, match="broke off"):
        await read(client_of(upstream, transport))

    assert len(upstream.seen("GET", "/blobs/")) == Backoff().attempts
    assert all(later > earlier for earlier, later in itertools.pairwise(waits.seconds))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (LAYER.raw[:-1] + b"!", "has the digest"),
        (LAYER.raw[:-10], "bytes, not"),
        (LAYER.raw + b"more", "bytes, not"),
    ],
    ids=["other bytes", "shorter", "longer"],
)
async def test_lies_are_found(upstream: ScriptedUpstream, transport: Transport, data: bytes, told: str) -> None:
    """Other bytes, or another number of them, end in an error, and never in a whole blob."""
    upstream.will("GET", "/blobs/", gives(data))
    got = bytearray()

    async def take() -> None:
        async for piece in client_of(upstream, transport).blob(REPOSITORY, LAYER.digest, size=len(LAYER.raw)):
            got.extend(piece)

    with pytest.raises(ContentMismatchError, match=told):
        await take()

    assert len(got) < len(LAYER.raw)


async def test_a_manifest_that_lies(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A manifest asked for by digest is compared with it, one asked for by tag with what its answer says."""
    upstream.manifests["team/app", str(IMAGE.digest)] = (b'{"schemaVersion":2}', IMAGE.media_type)
    with pytest.raises(ContentMismatchError):
        await client_of(upstream, transport).manifest(REPOSITORY, IMAGE.digest)

    claimed = {"Docker-Content-Digest": str(Digest.of(b"other")), "Content-Type": IMAGE.media_type}
    upstream.will("GET", "/manifests/1", answers(200, claimed, IMAGE.raw))
    with pytest.raises(ContentMismatchError):
        await client_of(upstream, transport).manifest(REPOSITORY, Tag("1"))


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"[]", b'{"tags": "1"}', b'{"tags": [1]}'])
async def test_lists_that_are_none(upstream: ScriptedUpstream, transport: Transport, body: bytes) -> None:
    """What isn't a list of names is an error of the registry's."""
    upstream.will("GET", "/tags/list", answers(200, body=body))

    with pytest.raises(BadAnswerError):
        [tag async for tag in client_of(upstream, transport).tags(REPOSITORY)]


async def test_an_endless_manifest_is_not_read(
    upstream: ScriptedUpstream, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest beyond the limit is given up, however long it goes on."""
    monkeypatch.setattr("roadstead.upstream.client.MAX_MANIFEST", 1000)
    upstream.will("GET", "/manifests/", answers(200, body=b" " * 5000))

    with pytest.raises(BadAnswerError, match="more than 1000 bytes"):
        await client_of(upstream, transport).manifest(REPOSITORY, Tag("1"))


# Lists


async def test_pages_are_followed(
    upstream: ScriptedUpstream, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags and repositories come from all pages, whatever host the links name; odd tags are told of."""
    monkeypatch.setattr("roadstead.upstream.client.PAGE_SIZE", 2)
    upstream.hold("team/app", IMAGE, "2", "3", "4", "-odd")
    upstream.hold("other", IMAGE)
    odd: list[str] = []
    client = client_of(upstream, transport)

    assert [str(tag) async for tag in client.tags(REPOSITORY, invalid=odd.append)] == ["1", "2", "3", "4"]
    assert odd == ["-odd"]
    assert [str(name) async for name in client.repositories()] == ["other", "team/app"]


async def test_null_is_no_tags(upstream: ScriptedUpstream, transport: Transport) -> None:
    """Nexus says null where there are none."""
    upstream.will("GET", "/tags/list", answers(200, body=b'{"name": "team/app", "tags": null}'))

    assert [tag async for tag in client_of(upstream, transport).tags(REPOSITORY)] == []


async def test_pages_in_a_circle(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A list that leads back to itself ends in an error."""
    loop = answers(200, {"Link": '</v2/team/app/tags/list?n=1000>; rel="next"'}, b'{"tags": ["1"]}')
    upstream.will("GET", "/tags/list", loop, loop, loop)

    with pytest.raises(BadAnswerError, match="has no end"):
        [tag async for tag in client_of(upstream, transport).tags(REPOSITORY)]


async def test_a_page_size_that_is_refused(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A registry that allows smaller pages only is asked without a size."""

    async def refuse(request: object, behave: object) -> object:
        return error(400, "PAGINATION_NUMBER_INVALID")

    upstream.will("GET", "/_catalog", refuse)  # type: ignore[arg-type]

    assert [str(name) async for name in client_of(upstream, transport).repositories()] == ["team/app"]


@pytest.mark.parametrize("native", [True, False])
async def test_referrers(upstream: ScriptedUpstream, transport: Transport, native: bool) -> None:
    """Referrers come from the API, or from the fallback tag where there is none."""
    sbom = make_artifact(subject=IMAGE.descriptor())
    upstream.hold("team/app", sbom)
    upstream.referrers_api = native
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [sbom.descriptor().as_json()],
    }
    upstream.manifests["team/app", str(IMAGE.digest).replace(":", "-")] = (
        json.dumps(index).encode(),
        "application/vnd.oci.image.index.v1+json",
    )

    found = await client_of(upstream, transport).referrers(REPOSITORY, IMAGE.digest)

    assert [one.digest for one in found.descriptors] == [sbom.digest]
    assert found.native is native


# Slowing down, and trying again


async def test_retry_after_is_kept_to(upstream: ScriptedUpstream, transport: Transport, waits: Waits) -> None:
    """Asked to come back later the client waits as long, not less, and every other request to that registry too."""
    upstream.will("GET", "/manifests/", answers(429, {"Retry-After": "7"}), answers(503, {"Retry-After": "3"}))
    client = client_of(upstream, transport)

    await client.manifest(REPOSITORY, Tag("1"))

    assert 7 <= waits.seconds[0] < 8
    assert sum(waits.seconds) >= 10
    before = len(waits.seconds)
    await client.find_blob(REPOSITORY, LAYER.digest)
    assert waits.seconds[before] > 0


async def test_a_limit_for_hours_is_told(upstream: ScriptedUpstream, transport: Transport, waits: Waits) -> None:
    """A registry that asks for more patience than there is ends in an error that says how long."""
    upstream.will("GET", "/manifests/", answers(429, {"Retry-After": "3600"}))

    with pytest.raises(RateLimitedError, match="3600 s") as caught:
        await client_of(upstream, transport).manifest(REPOSITORY, Tag("1"))

    assert caught.value.retry_after_s == 3600
    assert waits.seconds == []


async def test_the_budget_is_read(upstream: ScriptedUpstream, transport: Transport) -> None:
    """What Docker Hub tells of its limits can be asked for."""
    told = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600", "Content-Type": IMAGE.media_type}
    upstream.will("GET", "/manifests/", answers(200, told, IMAGE.raw))
    client = client_of(upstream, transport)

    await client.manifest(REPOSITORY, Tag("1"))

    assert client.budget is not None
    assert (client.budget.remaining, client.budget.limit, client.budget.window_s) == (76, 100, 21600)


async def test_trouble_passes(upstream: ScriptedUpstream, transport: Transport) -> None:
    """5xx and refused connections are tried again; 4xx aren't."""
    upstream.will("GET", "/manifests/", answers(500), answers(502))
    client = client_of(upstream, transport)
    await client.manifest(REPOSITORY, Tag("1"))

    upstream.will("GET", "/tags/list", answers(418))
    with pytest.raises(UpstreamRefusedError, match="418"):
        [tag async for tag in client.tags(REPOSITORY)]
    assert len(upstream.seen("GET", "/tags/list")) == 1


async def test_tries_do_not_multiply(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A blob whose registry only has trouble is asked for as often as anything else."""
    upstream.will("GET", "/blobs/", *[answers(503)] * 50)

    with pytest.raises(UnreachableError, match="answered 503"):
        await read(client_of(upstream, transport))

    assert len(upstream.seen("GET", "/blobs/")) == Backoff().attempts


async def test_a_name_that_does_not_exist(transport: Transport, waits: Waits) -> None:
    """A name that nobody has is told at once."""
    with pytest.raises(UnreachableError):
        await RegistryClient(RegistryAddress.parse("nobody.invalid"), transport).ping()
    assert len(waits.seconds) < Backoff().attempts


async def test_nobody_is_there(transport: Transport, unused_tcp_port: int) -> None:
    """A registry that isn't there is an error that says so."""
    client = RegistryClient(RegistryAddress.parse(f"127.0.0.1:{unused_tcp_port}"), transport)

    with pytest.raises(UnreachableError, match="no connection"):
        await client.ping()


# Signing in


async def test_tokens_are_asked_for_once(upstream: ScriptedUpstream, transport: Transport) -> None:
    """Sixteen requests at once share one token, and the next ones too."""
    upstream.auth = "bearer"
    client = client_of(upstream, transport, ANA)
    await client.ping()

    await asyncio.gather(*(client.manifest(REPOSITORY, Tag("1")) for _ in range(16)))

    assert [("scope=" in one.path) for one in upstream.seen("GET", "/token")].count(True) == 1
    assert all(one.headers["authorization"].startswith("Basic ") for one in upstream.seen("GET", "/token"))


async def test_a_token_that_ended(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A token that isn't valid any more is replaced once, a second refusal is final."""
    upstream.auth = "bearer"
    client = client_of(upstream, transport, ANA)
    await client.manifest(REPOSITORY, Tag("1"))

    upstream.tokens.clear()
    await client.manifest(REPOSITORY, Tag("1"))

    upstream.will(
        "GET", "/manifests/", *[answers(401, {"WWW-Authenticate": f'Bearer realm="{upstream.url}/token"'})] * 9
    )
    with pytest.raises(UpstreamDeniedError):
        await client.manifest(REPOSITORY, Tag("1"))


async def test_short_lived_tokens_are_renewed_in_time(
    upstream: ScriptedUpstream, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token isn't used beyond what its service said that it lives."""
    now = [1000.0]
    monkeypatch.setattr("roadstead.upstream.tokens.monotonic", lambda: now[0])
    upstream.auth = "bearer"
    client = client_of(upstream, transport, ANA)
    await client.manifest(REPOSITORY, Tag("1"))
    now[0] += upstream.token_lifetime_s / 2
    await client.manifest(REPOSITORY, Tag("1"))
    assert upstream.tokens_issued == 1

    now[0] += upstream.token_lifetime_s / 2
    await client.manifest(REPOSITORY, Tag("1"))

    assert upstream.tokens_issued == 2
    assert len(upstream.seen("GET", "/manifests/")) == 4  # of which the very first met the challenge


async def test_an_identity_token_is_exchanged(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A refresh token goes to the token service by POST, in a body."""
    upstream.auth = "bearer"
    upstream.identity_tokens.add("refresh-me")
    client = client_of(upstream, transport, Given(IdentityToken(Secret("refresh-me"))))

    await client.manifest(REPOSITORY, Tag("1"))

    assert upstream.seen("POST", "/token")
    assert not any("refresh-me" in one.path for one in upstream.requests)


async def test_a_token_service_that_knows_post_only(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A password goes by POST where GET isn't known."""
    upstream.auth = "bearer"
    upstream.will("GET", "/token", answers(405))

    await client_of(upstream, transport, ANA).manifest(REPOSITORY, Tag("1"))

    assert upstream.seen("POST", "/token")


async def test_basic(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A registry that asks for Basic gets it; wrong words are sent once, and none without credentials."""
    upstream.auth = "basic"
    await client_of(upstream, transport, ANA).manifest(REPOSITORY, Tag("1"))

    with pytest.raises(UpstreamDeniedError, match="scripted unauthorized") as caught:
        await client_of(upstream, transport).manifest(REPOSITORY, Tag("1"))
    assert caught.value.anonymous

    before = len(upstream.requests)
    with pytest.raises(UpstreamDeniedError):
        await client_of(upstream, transport, Given(Password(USER, Secret("wrong")))).manifest(REPOSITORY, Tag("1"))
    sent = [one.headers.get("authorization") for one in upstream.requests[before:]]
    assert len(sent) == 2
    assert sent[0] is None


async def test_wrong_credentials_at_the_token_service(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A token service's refusal is a denial, not a reason to try again."""
    upstream.auth = "bearer"
    with pytest.raises(UpstreamDeniedError, match="token service answered 401"):
        await client_of(upstream, transport, Given(Password(USER, Secret("wrong")))).ping()
    assert len(upstream.seen("GET", "/token")) == 1


async def test_credentials_do_not_go_to_a_strangers_token_service(transport: Transport) -> None:
    """A realm on another host gets no credentials, and a token without any; named as trusted it gets them."""
    async with scripted_upstream() as stranger, scripted_upstream(auth="bearer") as upstream:
        upstream.hold("team/app", IMAGE, "1")
        upstream.realm = f"http://localhost:{stranger.host.rpartition(':')[2]}/token"
        stranger.tokens = upstream.tokens
        with pytest.raises(RealmUntrustedError):
            await client_of(upstream, transport, ANA).manifest(REPOSITORY, Tag("1"))
        assert stranger.requests == []

        await client_of(upstream, transport).manifest(REPOSITORY, Tag("1"))
        assert "authorization" not in stranger.requests[-1].headers

        address = RegistryAddress.parse(upstream.host)
        vouched = RegistryClient(address, transport, credentials=ANA, trusted_realms={"localhost"})
        await vouched.manifest(REPOSITORY, Tag("1"))
        assert stranger.requests[-1].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_a_key_goes_to_the_registry_itself(transport: Transport, auth: str) -> None:
    """One that the registry takes as it is: whichever way it asks, it is sent once, and to no token service."""
    async with scripted_upstream() as stranger, scripted_upstream(auth=auth) as upstream:
        upstream.hold("team/app", IMAGE, "1")
        upstream.realm = f"http://localhost:{stranger.host.rpartition(':')[2]}/token"

        with pytest.raises(UpstreamDeniedError) as caught:
            await client_of(upstream, transport, Given(BearerKey(Secret("a-key")))).manifest(REPOSITORY, Tag("1"))

        assert [one.headers.get("authorization") for one in upstream.requests] == [None, "Bearer a-key"]
        assert stranger.requests == []
        assert not caught.value.anonymous


# Redirects


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_credentials_do_not_follow_to_another_host(transport: Transport, auth: str) -> None:
    """A blob elsewhere is read from there, without our credentials, resumed there too, and checked."""
    async with scripted_upstream() as storage, scripted_upstream(auth=auth) as upstream:
        upstream.hold("team/app", IMAGE, "1")
        storage.hold("team/app", IMAGE)
        location = f"{storage.url}/v2/team/app/blobs/{LAYER.digest}?X-Amz-Signature=a%2Fb+c"
        client = client_of(upstream, transport, ANA)
        await client.manifest(REPOSITORY, Tag("1"))
        upstream.will("GET", "/blobs/", *[answers(307, {"Location": location})] * 2)
        storage.will("GET", "/blobs/", cuts(1_000_000))

        assert await read(client) == LAYER.raw

        assert [one.path.partition("?")[2] for one in storage.requests] == ["X-Amz-Signature=a%2Fb+c"] * 2
        assert not any("authorization" in one.headers for one in storage.requests)
        assert upstream.seen("GET", "/blobs/")[-1].headers["authorization"]


async def test_a_storage_address_that_ended(transport: Transport) -> None:
    """Where the storage says 403 of a signed address, the registry is asked for another."""
    async with scripted_upstream() as storage, scripted_upstream() as upstream:
        storage.hold("team/app", IMAGE)
        storage.will("GET", "/blobs/", answers(403))
        location = f"{storage.url}/v2/team/app/blobs/{LAYER.digest}"
        upstream.will("GET", "/blobs/", *[answers(307, {"Location": location})] * 2)

        assert await read(client_of(upstream, transport)) == LAYER.raw


async def test_redirects_in_a_circle(upstream: ScriptedUpstream, transport: Transport) -> None:
    """Redirects without end are given up."""
    upstream.will("GET", "/v2/", *[answers(302, {"Location": "/v2/"})] * 20)

    with pytest.raises(BadAnswerError, match="redirects"):
        await client_of(upstream, transport).ping()


# Who may be reached


async def test_only_public_addresses(upstream: ScriptedUpstream) -> None:
    """With a policy private addresses aren't connected to, by address or by name; configured hosts are."""
    name = f"localhost:{upstream.host.rpartition(':')[2]}"
    async with Transport(egress=EgressPolicy()) as transport:
        for host in (upstream.host, name):
            with pytest.raises(AddressForbiddenError, match="this machine"):
                await RegistryClient(RegistryAddress.parse(host), transport).ping()
    assert upstream.requests == []

    async with Transport(egress=EgressPolicy(configured=frozenset({upstream.host}))) as transport:
        await client_of(upstream, transport).ping()
        upstream.will("GET", "/v2/", answers(307, {"Location": f"http://{name}/v2/"}))
        with pytest.raises(AddressForbiddenError):
            await client_of(upstream, transport).ping()


async def test_the_socket_is_checked_too(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere between the look-up and the connection (DNS rebinding) connects to nothing."""
    monkeypatch.setattr(wire._PublicResolver, "resolve", wire.aiohttp.ThreadedResolver.resolve)
    monkeypatch.setattr(wire._PublicResolver, "_loop", property(lambda self: asyncio.get_running_loop()), raising=False)
    name = f"localhost:{upstream.host.rpartition(':')[2]}"
    async with Transport(egress=EgressPolicy(), backoff=Backoff(attempts=1)) as transport:
        with pytest.raises((AddressForbiddenError, UnreachableError), match="this machine"):
            await RegistryClient(RegistryAddress.parse(name), transport).ping()
    assert upstream.requests == []


# TLS


async def test_an_authority_of_ones_own(tmp_path: Path, waits: Waits) -> None:
    """A certificate that isn't trusted is refused at once; with its authority in a file it's fine."""
    material = self_signed(["127.0.0.1"], datetime.now(UTC))
    (tmp_path / "cert.pem").write_text(material.certificate)
    (tmp_path / "key.pem").write_text(material.key.reveal())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with scripted_upstream(tls=tls) as upstream:
        address = RegistryAddress.parse(f"https://{upstream.host}")
        async with Transport(sleep=waits) as transport:
            with pytest.raises(UnreachableError, match="no safe connection"):
                await RegistryClient(address, transport).ping()
        assert waits.seconds == []
        async with Transport(ca_file=tmp_path / "cert.pem") as transport:
            await RegistryClient(address, transport).ping()


async def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    """A file without certificates is an error that names it."""
    (tmp_path / "ca.pem").write_text("nothing")
    async with Transport(ca_file=tmp_path / "ca.pem") as transport:
        with pytest.raises(CredentialsError, match=r"ca\.pem"):
            await RegistryClient(RegistryAddress.parse("a.invalid"), transport).ping()


# Proxies and watching


async def test_a_proxy_is_used(waits: Waits) -> None:
    """A plain request goes through the proxy with its whole address; this machine is asked directly."""
    async with scripted_upstream() as proxy, scripted_upstream() as upstream:
        proxies = Proxies.from_environment({"HTTP_PROXY": proxy.host, "NO_PROXY": "intern.test"})
        async with Transport(proxies=proxies, sleep=waits) as transport:
            await RegistryClient(RegistryAddress.parse("http://registry.test"), transport).ping()
            await client_of(upstream, transport).ping()
        assert [one.headers["host"] for one in proxy.requests] == ["registry.test"]
        assert len(upstream.requests) == 1


async def test_beside_a_proxy_addresses_are_checked(waits: Waits) -> None:
    """Where a proxy may connect for us, what is asked without it still has to be public."""
    async with scripted_upstream() as proxy, scripted_upstream() as upstream:
        proxies = Proxies.from_environment({"HTTP_PROXY": proxy.host, "NO_PROXY": "10.0.0.0/8"})
        policy = EgressPolicy()
        async with Transport(proxies=proxies, egress=policy, by_proxy=True, sleep=waits) as transport:
            await RegistryClient(RegistryAddress.parse("http://registry.test"), transport).ping()
            for direct in ("http://10.0.0.1", upstream.url):
                with pytest.raises(AddressForbiddenError):
                    await RegistryClient(RegistryAddress.parse(direct), transport).ping()
        assert len(proxy.requests) == 1
        assert not upstream.requests


async def test_what_is_traced_holds_no_secret(upstream: ScriptedUpstream, waits: Waits) -> None:
    """Whoever watches sees every request, and neither signatures nor credentials."""
    seen: list[Exchange] = []
    upstream.auth = "bearer"
    async with Transport(trace=seen.append, sleep=waits) as transport:
        client = client_of(upstream, transport, ANA)
        upstream.will("GET", "/manifests/", answers(307, {"Location": "/v2/team/app/manifests/1?sig=abc&n=2"}))
        await client.manifest(REPOSITORY, Tag("1"))
        await client.push_blob(REPOSITORY, Digest.of(b"data"), 4, source_of(b"data"))

    assert len(seen) == len(upstream.requests)
    text = repr(seen)
    assert "abc" not in text
    assert PASSWORD not in text
    assert "a+b" not in text
    assert "sig=***&n=2" in text


# Pushing


async def test_a_blob_is_pushed_once(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A blob is uploaded in one request; the second time it's there; mounted it isn't sent."""
    data = os.urandom(1_000_000)
    client, digest = client_of(upstream, transport), Digest.of(data)

    assert await client.push_blob(REPOSITORY, digest, len(data), source_of(data)) is PushOutcome.PUSHED
    assert await client.push_blob(REPOSITORY, digest, len(data), source_of(data)) is PushOutcome.PRESENT
    mounted = await client.push_blob(
        RepositoryName("b"), digest, len(data), source_of(data), mount_from=RepositoryName("team/app")
    )

    assert mounted is PushOutcome.MOUNTED
    assert upstream.blobs["team/app", str(digest)] == data
    assert [one.headers["content-length"] for one in upstream.seen("PUT")] == [str(len(data))]
    assert "_state=a+b%2Fc&digest=" in upstream.seen("PUT")[0].path


async def test_a_mount_that_is_refused(upstream: ScriptedUpstream, transport: Transport) -> None:
    """Who may not mount uploads."""
    upstream.will("POST", "mount=", answers(403))

    outcome = await client_of(upstream, transport).push_blob(
        RepositoryName("b"), Digest.of(b"data"), 4, source_of(b"data"), mount_from=REPOSITORY
    )

    assert outcome is PushOutcome.PUSHED


async def test_a_cut_push_goes_on(upstream: ScriptedUpstream, transport: Transport) -> None:
    """An upload that is cut goes on from where the registry has got to; the source is asked for the rest only."""
    data = os.urandom(3_000_000)
    upstream.will("PUT", "/uploads/", cuts_upload(1_000_000))
    starts: list[int] = []

    def source(start: int) -> AsyncGenerator[bytes, None]:
        starts.append(start)
        return source_of(data)(start)

    outcome = await client_of(upstream, transport).push_blob(REPOSITORY, Digest.of(data), len(data), source)

    assert outcome is PushOutcome.PUSHED
    assert upstream.blobs["team/app", str(Digest.of(data))] == data
    assert starts == [0, 1_000_000]
    assert upstream.seen("PATCH")[0].headers["content-range"] == f"1000000-{len(data) - 1}"


async def test_a_push_whose_answer_was_lost(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A blob that got there although the answer didn't isn't sent again."""

    async def keep_and_cut(request: object, behave: Callable[[object], object]) -> object:
        return await cuts(0)(request, behave)  # type: ignore[arg-type]

    upstream.will("PUT", "/uploads/", keep_and_cut)  # type: ignore[arg-type]
    data = os.urandom(100_000)

    await client_of(upstream, transport).push_blob(REPOSITORY, Digest.of(data), len(data), source_of(data))

    assert len(upstream.seen("PUT", "/uploads/")) <= 2


async def test_too_large_for_one_request(
    upstream: ScriptedUpstream, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a proxy refuses a whole blob (413) it's sent in chunks."""
    monkeypatch.setattr("roadstead.upstream.push.CHUNK", 400_000)
    data = os.urandom(1_000_000)

    async def refuse(request: object, behave: object) -> object:
        return error(413, "SIZE_INVALID")

    upstream.will("PUT", "/uploads/", refuse)  # type: ignore[arg-type]

    await client_of(upstream, transport).push_blob(REPOSITORY, Digest.of(data), len(data), source_of(data))

    assert upstream.blobs["team/app", str(Digest.of(data))] == data
    ranges = [one.headers["content-range"] for one in upstream.seen("PATCH")]
    assert ranges == ["0-399999", "400000-799999", "800000-999999"]


async def test_a_token_that_ends_during_a_push(upstream: ScriptedUpstream, transport: Transport) -> None:
    """An upload whose token ended is sent again with a new one."""
    upstream.auth = "bearer"
    client, data = client_of(upstream, transport, ANA), os.urandom(500_000)

    async def end_tokens(request: object, behave: Callable[[object], object]) -> object:
        answer = await behave(request)  # type: ignore[misc]
        upstream.tokens.clear()
        return answer

    upstream.will("POST", "/uploads/", end_tokens)  # type: ignore[arg-type]

    await client.push_blob(REPOSITORY, Digest.of(data), len(data), source_of(data))

    assert upstream.blobs["team/app", str(Digest.of(data))] == data


@pytest.mark.parametrize("size", [999_999, 1_000_001])
async def test_a_source_of_another_size(upstream: ScriptedUpstream, transport: Transport, size: int) -> None:
    """A source that gives fewer or more bytes than was said is the error that is raised; nothing is committed."""
    data = os.urandom(1_000_000)

    with pytest.raises(ValueError, match="than the"):
        await client_of(upstream, transport).push_blob(REPOSITORY, Digest.of(data), size, source_of(data))

    assert ("team/app", str(Digest.of(data))) not in upstream.blobs


async def test_a_source_that_fails(upstream: ScriptedUpstream, transport: Transport) -> None:
    """What the source raises is what the push raises, and it isn't tried again."""

    async def failing(start: int) -> AsyncGenerator[bytes, None]:
        yield b"x" * 1000
        raise ContentMismatchError("elsewhere", "the bytes are wrong")

    with pytest.raises(ContentMismatchError, match="the bytes are wrong"):
        await client_of(upstream, transport).push_blob(REPOSITORY, Digest.of(b"y"), 5000, failing)
    assert len(upstream.seen("POST")) == 1


@pytest.mark.parametrize("how", ["cancelled", "refused"])
async def test_a_push_that_ends_early_lets_go_of_its_source(
    upstream: ScriptedUpstream, transport: Transport, how: str
) -> None:
    """A push that is cancelled, or refused before all is sent, closes its source, even one that waits for bytes."""
    waiting, closed = asyncio.Event(), asyncio.Event()

    async def slow(start: int) -> AsyncGenerator[bytes, None]:
        try:
            yield b"x" * 200_000
            waiting.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    if how == "refused":

        async def refuse(request: object, behave: object) -> object:
            return error(403, "DENIED")

        upstream.will("PUT", "/uploads/", refuse)  # type: ignore[arg-type]
    client = client_of(upstream, transport)
    push = asyncio.create_task(client.push_blob(REPOSITORY, Digest.of(b"y"), 1_000_000, slow))
    await waiting.wait()
    if how == "cancelled":
        push.cancel()

    expected = asyncio.CancelledError if how == "cancelled" else UpstreamDeniedError
    with pytest.raises(expected):
        await asyncio.wait_for(push, 20)

    assert closed.is_set()


async def test_a_manifest_that_is_refused(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A refusal carries the registry's code and words."""

    async def refuse(request: object, behave: object) -> object:
        return error(400, "MANIFEST_BLOB_UNKNOWN")

    upstream.will("PUT", "/manifests/", refuse)  # type: ignore[arg-type]

    with pytest.raises(UpstreamRefusedError, match="MANIFEST_BLOB_UNKNOWN: scripted") as caught:
        await client_of(upstream, transport).put_manifest(REPOSITORY, Tag("2"), IMAGE.raw, IMAGE.media_type)
    assert caught.value.code == "MANIFEST_BLOB_UNKNOWN"


async def test_a_manifest_kept_as_something_else(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A registry that stores other bytes than were sent is found out."""
    upstream.will("PUT", "/manifests/", answers(201, {"Docker-Content-Digest": str(Digest.of(b"other"))}))

    with pytest.raises(ContentMismatchError):
        await client_of(upstream, transport).put_manifest(REPOSITORY, Tag("2"), IMAGE.raw, IMAGE.media_type)


# Docker's credentials


async def test_docker_config(tmp_path: Path) -> None:
    """Entries are found by host and by the path below it, Docker Hub's under its old name; helpers are asked."""
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        "#!/bin/sh\nread key\n"
        'case "$key" in helped.test) echo \'{"ServerURL":"x","Username":"<token>","Secret":"refresh"}\';;\n'
        "*) echo 'credentials not found in native keychain'; exit 1;; esac\n"
    )
    helper.chmod(0o755)

    def auth(text: str) -> dict[str, str]:
        return {"auth": base64.b64encode(text.encode()).decode()}

    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": auth("hub:a:b"),
                    "quay.test": auth("all:1"),
                    "quay.test/team": auth("team:2"),
                    "https://old.test/v2/": {"username": "u", "password": "p"},
                    "token.test": {"auth": "", "identitytoken": "id"},
                    "helped.test": {},
                },
                "credHelpers": {"helped.test": "test"},
                "credsStore": "test",
            }
        )
    )
    found = DockerConfig((tmp_path / "none.json", config), search_path=f"{tmp_path}:{os.environ['PATH']}")

    async def ask(host: str, repository: str = "x") -> tuple[str, str] | None:
        told: Credentials | None = await found.find(RegistryAddress.parse(host), repository)
        match told:
            case Password(user, secret):
                return user, secret.reveal()
            case IdentityToken(secret):
                return "<token>", secret.reveal()
            case _:
                return None

    assert await ask("docker.io", "library/busybox") == ("hub", "a:b")
    assert await ask("quay.test") == ("all", "1")
    assert await ask("quay.test", "team/app") == ("team", "2")
    assert await ask("quay.test", "teamwork/app") == ("all", "1")
    assert await ask("old.test") == ("u", "p")
    assert await ask("token.test") == ("<token>", "id")
    assert await ask("helped.test") == ("<token>", "refresh")
    assert await ask("nobody.test") is None
