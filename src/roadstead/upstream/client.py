"""A registry as a client: the reads and writes of the distribution API, streamed, checked, and resumed when cut.

``RegistryClient`` is one registry. Nothing is kept on disk, and memory stays flat however large a blob is. Errors are
those of ``errors.py``.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from roadstead.errors import InvalidError
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest, DigestInvalidError, Hasher
from roadstead.oci.manifest import parse_index
from roadstead.oci.mediatypes import DOCKER_LIST, DOCKER_MANIFEST, MANIFESTS, OCI_INDEX, OCI_MANIFEST, SCHEMA1_MANIFESTS
from roadstead.oci.reference import NameInvalidError, RepositoryName, Tag, TagInvalidError
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.credentials import CredentialSource, Given
from roadstead.upstream.errors import (
    BadAnswerError,
    ContentMismatchError,
    UnreachableError,
    UpstreamDeniedError,
    UpstreamNotFoundError,
    UpstreamRefusedError,
)
from roadstead.upstream.pages import next_page
from roadstead.upstream.ports import (
    BlobSource,
    FetchedManifest,
    ManifestSource,
    PushOutcome,
    Referrers,
    Source,
    TagSource,
)
from roadstead.upstream.push import Upload
from roadstead.upstream.ratelimit import Budget
from roadstead.upstream.session import Call, Session
from roadstead.upstream.tokens import Tokens
from roadstead.upstream.transport import Transport

if TYPE_CHECKING:
    # For its types only: it is imported with the first request.
    from roadstead.upstream.wire import Answer

ACCEPT = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)
MAX_MANIFEST = 8 << 20
"""Bytes; the specification has registries take 4 MiB at the least, and some take more."""

MAX_PAGE = 32 << 20
"""Bytes of one page of a list: some registries send everything as one."""

MAX_PAGES = 100_000
MAX_REFERRERS = 100_000
"""Of one manifest, over all pages: a registry that goes on for ever would take all memory."""

PAGE_SIZE = 1000
_AS_PUSHED = "as-pushed"
"""First component of the names by which a Roadstead gives images as they were pushed (design decision 6)."""

_PROGRESS = 1 << 20
"""Bytes after which a download that breaks off again counts as one that gets on."""

_IN_THREAD = 256 << 10
"""Bytes from which hashing is worth a thread: it takes about as long as the way there and back."""


class RegistryClient:
    """One registry, as somebody. Several may share a transport and its tokens."""

    def __init__(
        self,
        address: RegistryAddress,
        transport: Transport,
        *,
        tokens: Tokens | None = None,
        credentials: CredentialSource | None = None,
        trusted_realms: Collection[str] = (),
    ) -> None:
        self.address = address
        self._transport = transport
        self._session = Session(address, transport, tokens or Tokens(transport), credentials or Given(), trusted_realms)
        self._page_size: int | None = PAGE_SIZE
        self._keeps_originals: bool | None = None  # until it is clear whether it's a Roadstead

    @property
    def host(self) -> str:
        """Return the registry's name."""
        return self.address.host

    @property
    def budget(self) -> Budget | None:
        """Return what the registry's last word was on the requests we have left."""
        return self._transport.budgets.get(self.host)

    async def ping(self) -> None:
        """Return if the API answers to us (end-1). Raises UpstreamDeniedError for wrong credentials, and the others."""
        async with self._session.request(Call("GET", "/v2/", "its API")):
            return

    # Manifests

    async def manifest(
        self, repository: RepositoryName, reference: Tag | Digest, accept: Collection[str] = ACCEPT
    ) -> FetchedManifest:
        """Return a manifest's bytes (end-3), checked against the digest that it was asked by or came under.

        Raises UpstreamNotFoundError, ContentMismatchError, and what any request may.
        """
        what = f"the manifest {_named(repository, reference)}"
        call = Call("GET", _manifest_path(repository, reference), what, _pull(repository), str(repository))
        call = _with(call, {"Accept": ", ".join((*accept, "*/*"))})
        async with self._session.request(call) as answer:
            raw = await answer.read(MAX_MANIFEST)
            claimed = reference if isinstance(reference, Digest) else self._digest_of(answer)
            digest = Digest.of(raw, claimed.algorithm) if claimed is not None else Digest.of(raw)
            if claimed is not None and digest != claimed:
                raise ContentMismatchError(self.host, f"{what} came as {digest}, not {claimed}")
            return FetchedManifest(raw, answer.media_type, digest)

    async def find_manifest(
        self,
        repository: RepositoryName,
        reference: Tag | Digest,
        accept: Collection[str] = ACCEPT,
        *,
        writing: bool = False,
    ) -> Descriptor | None:
        """Return what a name points at (end-3, HEAD); None if nothing is there.

        Who is *writing* has to say so: many registries refuse those who may only read a repository that isn't there
        yet, and those who may write too are told that nothing is there.

        A registry that tells too little by HEAD is asked by GET, which may count against its limits.
        """
        call = Call(
            "HEAD",
            _manifest_path(repository, reference),
            f"the manifest {_named(repository, reference)}",
            _push(repository) if writing else _pull(repository),
            str(repository),
            {"Accept": ", ".join((*accept, "*/*"))},
            accepted=(200, 404, 405),
        )
        async with self._session.request(call) as answer:
            if answer.status == 404:
                return None
            digest, size = self._digest_of(answer), answer.size
            known = answer.media_type in MANIFESTS | SCHEMA1_MANIFESTS
            if answer.status == 200 and digest is not None and size is not None and known:
                if isinstance(reference, Digest) and digest != reference:
                    raise ContentMismatchError(self.host, f"{call.what} is said to be {digest}")
                return Descriptor(answer.media_type, digest, size)
        try:
            fetched = await self.manifest(repository, reference, accept)
        except UpstreamNotFoundError:
            return None
        return self._descriptor(fetched)

    async def find_original(self, repository: RepositoryName, tag: Tag, *, writing: bool = False) -> Descriptor | None:
        """Return what was pushed under a tag, where a Roadstead may serve what its rules make of it; None: unknown.

        A Roadstead has it below ``as-pushed/``; other registries have no such repository. *writing* as for
        ``find_manifest``.
        """
        if self._keeps_originals is False:
            return None
        call = Call(
            "HEAD",
            f"/v2/{_AS_PUSHED}/{repository}/manifests/{tag}",
            f"the manifest {_AS_PUSHED}/{repository}:{tag}",
            _push(repository) if writing else _pull(repository),
            str(repository),
            {"Accept": ", ".join((*ACCEPT, "*/*"))},
            accepted=(200,),
        )
        try:
            async with self._session.request(call) as answer:
                digest, size = self._digest_of(answer), answer.size
                found = Descriptor(answer.media_type, digest, size) if digest is not None and size is not None else None
        except (UpstreamNotFoundError, UpstreamDeniedError, UpstreamRefusedError, InvalidError):
            found = None
        if found is not None:
            self._keeps_originals = True
        return found

    def rule_out_originals(self) -> None:
        """Note that a tag is served that is unknown below ``as-pushed/``: unless one was found, none is looked for."""
        if self._keeps_originals is None:
            self._keeps_originals = False

    async def put_manifest(
        self, repository: RepositoryName, reference: Tag | Digest, raw: bytes, media_type: str
    ) -> bool:
        """Write a manifest (end-7a); return whether the registry took note of its subject (``OCI-Subject``).

        Raises UpstreamRefusedError with the registry's code, ContentMismatchError when it kept something else.
        """
        what = f"the manifest {_named(repository, reference)}"
        call = Call(
            "PUT",
            _manifest_path(repository, reference),
            what,
            _push(repository),
            str(repository),
            {"Content-Type": media_type},
            raw,
            accepted=(200, 201, 202),
        )
        async with self._session.request(call) as answer:
            kept = self._digest_of(answer)
            if kept is not None and kept != Digest.of(raw, kept.algorithm):
                raise ContentMismatchError(self.host, f"{what} was kept as {kept}, which isn't what was sent")
            return "OCI-Subject" in answer.headers

    # Blobs

    async def find_blob(self, repository: RepositoryName, digest: Digest, *, writing: bool = False) -> int | None:
        """Return a blob's size in bytes, -1 if the registry doesn't tell it; None if it isn't there (end-2, HEAD).

        *writing* as for ``find_manifest``.
        """
        path = f"/v2/{repository}/blobs/{digest}"
        what = f"the blob {repository}@{digest}"
        scopes = _push(repository) if writing else _pull(repository)
        call = Call("HEAD", path, what, scopes, str(repository), accepted=(200, 404))
        async with self._session.request(call) as answer:
            if answer.status == 404:
                return None
            return -1 if answer.size is None else answer.size

    async def blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, size: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes from *start* on (end-2); *size* is the whole blob's, if it's known.

        A download that breaks off goes on by range. Length and, from the beginning, digest are checked before the last
        piece is given: who got to the end has the blob. Raises ContentMismatchError, and what any request may.
        """
        download = _Download(self._session, repository, digest, start, size)
        held = b""
        async for piece in download.pieces():
            if held:
                yield held
            held = piece
        if held:
            yield held

    async def push_blob(
        self,
        repository: RepositoryName,
        digest: Digest,
        size: int,
        source: Source,
        *,
        mount_from: RepositoryName | None = None,
    ) -> PushOutcome:
        """Have a blob there: it is already, is mounted (end-11), or is uploaded from *source* (end-4 to end-6).

        *source* gives the bytes from an offset on; it may be asked again when an upload breaks off, which goes on where
        the registry has got to. What it raises is raised here.
        """
        if await self.find_blob(repository, digest, writing=True) is not None:
            return PushOutcome.PRESENT
        upload = Upload(self._session, self._transport, repository, digest, size, source)
        if not await upload.start(mount_from):
            return PushOutcome.MOUNTED
        await upload.run(lambda: self.find_blob(repository, digest, writing=True))
        return PushOutcome.PUSHED

    # Lists

    async def tags(
        self, repository: RepositoryName, *, invalid: Callable[[str], None] | None = None
    ) -> AsyncGenerator[Tag, None]:
        """Yield a repository's tags in its registry's order (end-8); *invalid* is told of names that can't be tags.

        Raises UpstreamNotFoundError.
        """
        path, what = f"/v2/{repository}/tags/list", f"the list of tags of {repository}"
        async for name in self._names(path, what, "tags", _pull(repository), str(repository)):
            try:
                tag = Tag.parse(name)
            except TagInvalidError:
                if invalid is not None:
                    invalid(name)
            else:
                yield tag

    async def repositories(
        self, *, invalid: Callable[[str], None] | None = None
    ) -> AsyncGenerator[RepositoryName, None]:
        """Yield the registry's repositories (``/v2/_catalog``); *invalid* is told of names that can't be repositories.

        Many registries don't tell: UpstreamDeniedError, UpstreamNotFoundError or UpstreamRefusedError.
        """
        async for name in self._names(
            "/v2/_catalog", "the list of repositories", "repositories", frozenset({"registry:catalog:*"}), ""
        ):
            try:
                repository = RepositoryName.parse(name)
            except NameInvalidError:
                if invalid is not None:
                    invalid(name)
            else:
                yield repository

    async def referrers(
        self, repository: RepositoryName, digest: Digest, artifact_type: str | None = None
    ) -> Referrers:
        """Return the manifests whose subject is *digest* (end-12), from the fallback tag where there is no such API.

        *artifact_type* leaves out the others.
        """
        found = await self.native_referrers(repository, digest, artifact_type)
        if found is None:
            found, native = await self.fallback_referrers(repository, digest), False
        else:
            native = True
        chosen = [one for one in found if artifact_type is None or one.artifact_type == artifact_type]
        return Referrers(tuple(chosen), native)

    async def native_referrers(
        self, repository: RepositoryName, digest: Digest, artifact_type: str | None = None
    ) -> list[Descriptor] | None:
        """Return what the referrers API lists, all pages of it; None if the registry hasn't got one."""
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type is not None else ""
        url: str | None = f"/v2/{repository}/referrers/{digest}{query}"
        what = f"the list of what refers to {repository}@{digest}"
        found: list[Descriptor] = []
        while len(found) <= MAX_REFERRERS:
            if url is None:
                return found
            call = Call("GET", url, what, _pull(repository), str(repository), {"Accept": OCI_INDEX})
            try:
                async with self._session.request(call) as answer:
                    if answer.media_type != OCI_INDEX:
                        return None  # a page for people, as some answer to whatever they don't know
                    found += self._index(await answer.read(MAX_PAGE), what)
                    url = self._next(answer)
            except (UpstreamNotFoundError, UpstreamRefusedError):
                return None
        raise BadAnswerError(self.host, f"{what} has no end")

    async def fallback_referrers(self, repository: RepositoryName, digest: Digest) -> list[Descriptor]:
        """Return what the fallback tag of *digest* lists (distribution-spec, Referrers Tag Schema)."""
        tag = fallback_tag(digest)
        try:
            fetched = await self.manifest(repository, tag)
        except UpstreamNotFoundError:
            return []
        return list(self._index(fetched.raw, f"the manifest {_named(repository, tag)}"))

    # Parts of the above

    async def _names(
        self, path: str, what: str, member: str, scopes: frozenset[str], repository: str
    ) -> AsyncGenerator[str, None]:
        url: str | None = f"{path}?n={self._page_size}" if self._page_size else path
        seen: set[str] = set()
        while url is not None:
            if url in seen or len(seen) >= MAX_PAGES:
                raise BadAnswerError(self.host, f"{what} has no end")
            seen.add(url)
            try:
                async with self._session.request(Call("GET", url, what, scopes, repository)) as answer:
                    names = self._member(await answer.read(MAX_PAGE), member, what)
                    url = self._next(answer)
            except UpstreamRefusedError as error:
                if error.code != "PAGINATION_NUMBER_INVALID" or self._page_size is None:
                    raise
                # It allows smaller pages only, and doesn't say how small.
                self._page_size, url = None, path
                continue
            for name in names:
                yield name

    def _member(self, body: bytes, member: str, what: str) -> list[str]:
        try:
            document: Any = json.loads(body)
        except ValueError as error:
            raise BadAnswerError(self.host, f"{what} isn't JSON") from error
        names = document.get(member) if isinstance(document, dict) else ...
        if names is None:
            return []  # Nexus says null where there are none
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadAnswerError(self.host, f"{what} isn't a list of names")
        return names

    def _next(self, answer: "Answer") -> str | None:
        """Return the next page's path and query: behind a proxy a registry may name a host that isn't its own."""
        target = next_page(answer.headers.getall("Link", []))
        if target is None:
            return None
        parts = urlsplit(urljoin(answer.url, target))
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def _index(self, raw: bytes, what: str) -> tuple[Descriptor, ...]:
        try:
            return parse_index(raw, None).manifests
        except InvalidError as error:
            raise BadAnswerError(self.host, f"{what}: {error}") from error

    def _digest_of(self, answer: "Answer") -> Digest | None:
        text = answer.headers.get("Docker-Content-Digest")
        if not text:
            return None
        try:
            return Digest.parse(text)
        except DigestInvalidError as error:
            raise BadAnswerError(self.host, f"Docker-Content-Digest: {error}") from error

    def _descriptor(self, fetched: FetchedManifest) -> Descriptor:
        try:
            return Descriptor(fetched.media_type, fetched.digest, len(fetched.raw))
        except InvalidError as error:
            raise BadAnswerError(self.host, f"Content-Type: {error}") from error


class _Download:
    """One blob on its way in: where it has got to, and what it is so far."""

    def __init__(
        self, session: Session, repository: RepositoryName, digest: Digest, start: int, size: int | None
    ) -> None:
        self._session = session
        self._what = f"the blob {repository}@{digest}"
        self._call = Call(
            "GET",
            f"/v2/{repository}/blobs/{digest}",
            self._what,
            _pull(repository),
            str(repository),
            accepted=(200, 206),
        )
        self._digest = digest
        self._hasher = Hasher(digest.algorithm) if start == 0 else None
        self._position = start
        self._size = size

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces, each once, over as many answers as it takes; raise at the end unless all is right."""
        failures, counted_from = 0, self._position
        while True:
            try:
                async with self._session.request(self._ranged()) as answer:
                    skipped = self._placed(answer)
                    async for piece in answer.pieces():
                        skipped, fresh = max(0, skipped - len(piece)), piece[skipped:]
                        if fresh:
                            await self._count(fresh)
                            yield fresh
                if self._size is not None and self._position < self._size:
                    raise UnreachableError(self._session.host, f"{self._what} broke off at byte {self._position}")
                break
            except UnreachableError as error:
                if self._position - counted_from >= _PROGRESS:
                    failures, counted_from = 0, self._position
                failures += 1
                if not await self._session.transport.wait(failures, error):
                    raise
        if self._hasher is not None and self._hasher.digest() != self._digest:
            raise self._wrong(f"has the digest {self._hasher.digest()}")

    def _ranged(self) -> Call:
        if self._position == 0:
            return self._call
        return _with(self._call, {"Range": f"bytes={self._position}-"})

    def _placed(self, answer: "Answer") -> int:
        """Return how many bytes of an answer to skip: it may be all of the blob although a part was asked for."""
        if answer.status == 200:
            total, skipped = answer.size, self._position
        else:
            start, total = _content_range(answer.headers.get("Content-Range", ""))
            if start != self._position:
                raise BadAnswerError(self._session.host, f"{self._what}: another range than was asked for")
            skipped = 0
        if total is not None and self._size is not None and total != self._size:
            raise self._wrong(f"has {total} bytes, not {self._size}")
        self._size = total if self._size is None else self._size
        return skipped

    async def _count(self, piece: bytes) -> None:
        self._position += len(piece)
        if self._size is not None and self._position > self._size:
            raise self._wrong(f"has more than {self._size} bytes")
        if self._hasher is not None and len(piece) >= _IN_THREAD:
            await asyncio.to_thread(self._hasher.update, piece)
        elif self._hasher is not None:
            self._hasher.update(piece)

    def _wrong(self, told: str) -> ContentMismatchError:
        return ContentMismatchError(self._session.host, f"{self._what} {told}")


def _fits(client: RegistryClient) -> tuple[ManifestSource, BlobSource, TagSource]:
    """Have the type checker compare the client with its ports."""
    return client, client, client


def fallback_tag(digest: Digest) -> Tag:
    """Return the tag under which referrers are listed where there is no API for them. Pure."""
    return Tag.parse(f"{digest.algorithm.value[:32]}-{digest.encoded[:64]}")


def _content_range(text: str) -> tuple[int | None, int | None]:
    """Return the first byte and the whole length of ``bytes 5-9/10``; None for what it doesn't say."""
    unit, _, rest = text.strip().partition(" ")
    span, _, total = rest.partition("/")
    first, _, _ = span.partition("-")
    if unit.lower() != "bytes":
        return None, None
    return _number(first), _number(total)


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def _manifest_path(repository: RepositoryName, reference: Tag | Digest) -> str:
    return f"/v2/{repository}/manifests/{quote(str(reference), safe=':')}"


def _named(repository: RepositoryName, reference: Tag | Digest) -> str:
    return f"{repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"


def _pull(repository: RepositoryName) -> frozenset[str]:
    return frozenset({f"repository:{repository}:pull"})


def _push(repository: RepositoryName) -> frozenset[str]:
    return frozenset({f"repository:{repository}:pull,push"})


def _with(call: Call, headers: Mapping[str, str]) -> Call:
    return replace(call, headers={**call.headers, **headers})
