"""A registry in memory that misbehaves as it is told: cuts, stalls, lies, slows down, redirects, forgets its tokens.

It runs on the test's own event loop. Every request is noted; a `Misdeed` waits for the request that it is meant for.
"""

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from aiohttp import web

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_INDEX
from roadstead.testing.images import TestImage, TestIndex

USER, PASSWORD = "ana", "s3cret:with colon"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Misdeed = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Noted:
    """A request that came in."""

    method: str
    path: str
    """With its query."""

    headers: dict[str, str]
    """By lower-case name."""


@dataclass(slots=True)
class ScriptedUpstream:
    """One registry. Set `auth` to ``basic`` or ``bearer`` to have it ask who comes."""

    auth: str = ""
    realm: str = ""
    """Where tokens are; empty: its own ``/token``."""

    token_lifetime_s: int = 300
    referrers_api: bool = True
    manifests: dict[tuple[str, str], tuple[bytes, str]] = field(default_factory=dict)  # repository, tag or digest
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    requests: list[Noted] = field(default_factory=list)
    tokens: dict[str, frozenset[str]] = field(default_factory=dict)
    """The valid ones, and what they allow."""

    identity_tokens: set[str] = field(default_factory=set)
    tokens_issued: int = 0
    host: str = ""
    _misdeeds: list[tuple[str, str, Misdeed]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return its address, without ``/v2/``."""
        return f"http://{self.host}"

    def will(self, method: str, fragment: str, *misdeeds: Misdeed) -> None:
        """Have the next requests with this method and this in their path met by these misdeeds, one each."""
        self._misdeeds += [(method, fragment, misdeed) for misdeed in misdeeds]

    def seen(self, method: str, fragment: str = "") -> list[Noted]:
        """Return the requests so far with this method and this in their path."""
        return [one for one in self.requests if one.method == method and fragment in one.path]

    def hold(self, repository: str, image: TestImage | TestIndex, *tags: str) -> None:
        """Have an image, or an index with all it lists, as if it had been pushed."""
        if isinstance(image, TestIndex):
            for child in image.children:
                self.hold(repository, child)
        else:
            self.blobs |= {(repository, str(digest)): data for digest, data in image.blobs.items()}
        for name in (str(image.digest), *tags):
            self.manifests[repository, name] = (image.raw, image.media_type)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Note a request and answer it, as the misdeed that waits for it does or as a registry should."""
        self.requests.append(Noted(request.method, request.path_qs, {k.lower(): v for k, v in request.headers.items()}))
        for place, (method, fragment, misdeed) in enumerate(self._misdeeds):
            if method == request.method and fragment in request.path_qs:
                del self._misdeeds[place]
                return await misdeed(request, self.behave)
        return await self.behave(request)

    async def behave(self, request: web.Request) -> web.StreamResponse:
        """Answer as a registry should."""
        if request.path == "/token":
            return await self._token(request)
        if refused := self._refusal(request):
            return refused
        path = request.path.removeprefix("/v2/")
        if path == "":
            return web.json_response({})
        if path == "_catalog":
            return self._page(request, "repositories", sorted({repository for repository, _ in self.manifests}))
        for marker, handler in (
            ("/tags/list", self._tags),
            ("/manifests/", self._manifest),
            ("/blobs/uploads/", self._upload),
            ("/blobs/", self._blob),
            ("/referrers/", self._referrers),
        ):
            repository, found, rest = path.rpartition(marker)
            if found:
                return await handler(request, repository, rest)
        return error(404, "NAME_UNKNOWN")

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = parse_qs((await request.read()).decode()) if request.method == "POST" else None
        if form is not None and form["grant_type"] == ["refresh_token"]:
            if form["refresh_token"][0] not in self.identity_tokens:
                return error(401, "UNAUTHORIZED")
        elif form is not None:
            if (form["username"][0], form["password"][0]) != (USER, PASSWORD):
                return error(401, "UNAUTHORIZED")
        elif request.headers.get("Authorization") not in {None, basic()}:
            return error(401, "UNAUTHORIZED")
        scopes = form.get("scope", [""])[0].split() if form is not None else request.query.getall("scope", [])
        self.tokens_issued += 1
        token = f"token-{self.tokens_issued}"
        self.tokens[token] = frozenset(scopes)
        return web.json_response({"token": token, "expires_in": self.token_lifetime_s})

    def _refusal(self, request: web.Request) -> web.Response | None:
        sent = request.headers.get("Authorization", "")
        if self.auth == "basic" and sent != basic():
            return error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="here"'})
        if self.auth != "bearer":
            return None
        wanted = self._scope(request)
        held = self.tokens.get(sent.removeprefix("Bearer "))
        if held is not None and (not wanted or wanted in held):
            return None
        scope = f',scope="{wanted}"' if wanted else ""
        realm = self.realm or f"{self.url}/token"
        challenge = f'Bearer realm="{realm}",service="scripted"{scope}, Basic realm="old clients"'
        return error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})

    def _scope(self, request: web.Request) -> str:
        path = request.path.removeprefix("/v2/")
        if path == "_catalog":
            return "registry:catalog:*"
        for marker in ("/tags/list", "/manifests/", "/blobs/", "/referrers/"):
            repository, found, _ = path.rpartition(marker)
            if found:
                repository = repository.removesuffix("/blobs")
                pushing = "pull" if request.method in {"GET", "HEAD"} and "/uploads/" not in path else "pull,push"
                return f"repository:{repository}:{pushing}"
        return ""

    async def _tags(self, request: web.Request, repository: str, _: str) -> web.StreamResponse:
        tags = [name for held, name in self.manifests if held == repository and ":" not in name]
        if not any(held == repository for held, _ in self.manifests):
            return error(404, "NAME_UNKNOWN")
        return self._page(request, "tags", sorted(tags), name=repository)

    def _page(self, request: web.Request, member: str, names: list[str], **more: str) -> web.Response:
        size = int(request.query.get("n", 10**9))
        rest = [one for one in names if one > request.query.get("last", "")]
        headers = {}
        if len(rest) > size:
            # A host of its own making, as behind a proxy: only path and query are meant.
            link = f"http://registry.internal{request.path}?last={rest[size - 1]}&n={size}"
            headers["Link"] = f'<{link}>; rel="next"'
        return web.json_response({**more, member: rest[:size]}, headers=headers)

    async def _manifest(self, request: web.Request, repository: str, reference: str) -> web.StreamResponse:
        if request.method == "PUT":
            raw = await request.read()
            for name in {reference, str(Digest.of(raw))}:
                self.manifests[repository, name] = (raw, request.headers["Content-Type"])
            subject = json.loads(raw).get("subject")
            noted = {"OCI-Subject": subject["digest"]} if subject and self.referrers_api else {}
            return web.Response(status=201, headers={"Docker-Content-Digest": str(Digest.of(raw)), **noted})
        held = self.manifests.get((repository, reference))
        if held is None:
            return error(404, "MANIFEST_UNKNOWN")
        raw, media_type = held
        headers = {"Docker-Content-Digest": str(Digest.of(raw)), "Content-Type": media_type}
        return web.Response(body=raw, headers=headers)

    async def _blob(self, request: web.Request, repository: str, digest: str) -> web.StreamResponse:
        data = self.blobs.get((repository, digest))
        if data is None:
            return error(404, "BLOB_UNKNOWN")
        return ranged(request, data)

    async def _referrers(self, request: web.Request, repository: str, digest: str) -> web.StreamResponse:
        if not self.referrers_api:
            return error(404, "UNSUPPORTED")
        found = []
        for (held, name), (raw, media_type) in self.manifests.items():
            subject = json.loads(raw).get("subject")
            if held == repository and ":" in name and subject and subject["digest"] == digest:
                found.append({"mediaType": media_type, "digest": name, "size": len(raw)})
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}).encode()
        return web.Response(body=body, headers={"Content-Type": OCI_INDEX})

    async def _upload(self, request: web.Request, repository: str, upload_id: str) -> web.StreamResponse:
        if request.method == "POST":
            mounted = self.blobs.get((request.query.get("from", ""), request.query.get("mount", "")))
            if mounted is not None:
                self.blobs[repository, request.query["mount"]] = mounted
                return web.Response(status=201)
            upload_id = f"u{len(self.uploads)}"
            self.uploads[upload_id] = bytearray()
            return self._session(repository, upload_id, 202)
        held = self.uploads.get(upload_id)
        if held is None:
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "GET":
            return self._session(repository, upload_id, 204)
        span = request.headers.get("Content-Range")
        if span is not None and int(span.partition("-")[0]) != len(held):
            return error(416, "RANGE_INVALID")
        async for piece in request.content.iter_any():
            held += piece
        if request.method == "PATCH":
            return self._session(repository, upload_id, 202)
        digest = request.query["digest"]
        del self.uploads[upload_id]
        if f"sha256:{hashlib.sha256(held).hexdigest()}" != digest:
            return error(400, "DIGEST_INVALID")
        self.blobs[repository, digest] = bytes(held)
        return web.Response(status=201, headers={"Docker-Content-Digest": digest})

    def _session(self, repository: str, upload_id: str, status: int) -> web.Response:
        location = f"/v2/{repository}/blobs/uploads/{upload_id}?_state=a+b%2Fc"
        reached = f"0-{max(0, len(self.uploads[upload_id]) - 1)}"
        return web.Response(status=status, headers={"Location": location, "Range": reached})


def basic() -> str:
    """Return the `Authorization` of the user who may do everything."""
    return f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


def error(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return an error as the specification has it."""
    body = {"errors": [{"code": code, "message": f"scripted {code.lower()}"}]}
    return web.json_response(body, status=status, headers=headers)


def ranged(request: web.Request, data: bytes) -> web.Response:
    """Return data, or the part from which on it is asked for."""
    span = request.headers.get("Range")
    if span is None:
        return web.Response(body=data)
    start = int(span.removeprefix("bytes=").removesuffix("-"))
    headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
    return web.Response(status=206, body=data[start:], headers=headers)


# What it may be told to do


def answers(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Misdeed:
    """Answer with this, whatever was asked."""

    async def answer(request: web.Request, _: Handler) -> web.StreamResponse:
        await request.read()
        return web.Response(status=status, headers=headers, body=body)

    return answer


def cuts(after: int) -> Misdeed:
    """Break the connection after so many bytes of the answer's body."""

    async def cut(request: web.Request, behave: Handler) -> web.StreamResponse:
        whole = await behave(request)
        assert isinstance(whole, web.Response)
        assert isinstance(whole.body, bytes)
        assert request.transport is not None
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        response.content_length = len(whole.body)
        await response.prepare(request)
        await response.write(whole.body[:after])
        request.transport.close()
        return response

    return cut


def cuts_upload(after: int) -> Misdeed:
    """Keep so many bytes of an upload's body, then break the connection."""

    async def cut(request: web.Request, behave: Handler) -> web.StreamResponse:
        upload = behave.__self__.uploads[request.path.rpartition("/")[2]]  # type: ignore[attr-defined]
        upload += await request.content.readexactly(after)
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    return cut


def stalls(after: int, seconds: float = 60) -> Misdeed:
    """Say nothing more after so many bytes of the answer's body."""

    async def stall(request: web.Request, behave: Handler) -> web.StreamResponse:
        whole = await behave(request)
        assert isinstance(whole, web.Response)
        assert isinstance(whole.body, bytes)
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        response.content_length = len(whole.body)
        await response.prepare(request)
        await response.write(whole.body[:after])
        await asyncio.sleep(seconds)
        return response

    return stall


def gives(data: bytes) -> Misdeed:
    """Answer a GET with other bytes, of another length perhaps."""

    async def give(request: web.Request, _: Handler) -> web.StreamResponse:
        return ranged(request, data)

    return give


@asynccontextmanager
async def scripted_upstream(
    *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1", port: int = 0, **options: object
) -> AsyncIterator[ScriptedUpstream]:
    """Run a scripted registry on this machine, on a free port if none is named, until the block is left."""
    upstream = ScriptedUpstream(**options)  # type: ignore[arg-type]
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", upstream.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, address, port, ssl_context=tls)
    await site.start()
    upstream.host = f"{address}:{runner.addresses[0][1]}"
    try:
        yield upstream
    finally:
        await runner.cleanup()
