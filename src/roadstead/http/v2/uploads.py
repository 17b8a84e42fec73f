"""Upload sessions over HTTP (distribution-spec end-4, end-5, end-6, end-11, end-13, end-14; registry spec §1.7)."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from roadstead.auth.caller import Action
from roadstead.http.asgi import Request, Response
from roadstead.http.bodies import BodyLengthError, LimitedBody, chunk_range
from roadstead.http.causes import cause_of
from roadstead.http.context import Services
from roadstead.http.headers import upload_headers
from roadstead.http.names import parse_name
from roadstead.oci.digest import Algorithm, Digest, DigestInvalidError, DigestUnsupportedError
from roadstead.oci.reference import CONTAINER_TOKENS, NameInvalidError, RepositoryName
from roadstead.registry.errors import BlobUnknownError
from roadstead.registry.history import MomentInvalidError
from roadstead.registry.ports import BlobRecord, UploadRecord, UploadState
from roadstead.registry.pump import Body, BodyBrokenError


async def start(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Start a session (end-4a), take a whole blob (end-4b), or mount one that is here already (end-11)."""
    repository = parse_name(found["name"]).writable()
    algorithm = _algorithm(request)
    if services.quotas is not None:
        await services.quotas.check_room(repository)
    if request.parameter("mount") is not None:
        mounted = await _mount(request, services, repository)
        if mounted is not None:
            return _created(repository, mounted)
    digest = request.parameter("digest")
    if digest is not None and request.announced != 0:
        expected = Digest.parse(digest)
        try:
            async with _body(request, services, repository) as body:
                blob = await services.uploads.push(
                    repository, body, expected, cause=cause_of(request, services.telling)
                )
        except BodyBrokenError as error:
            raise BodyLengthError(request.announced, error.received) from error
        return _created(repository, blob)
    return _accepted(services.uploads.start(repository, algorithm, request.rights.holder))


async def _mount(request: Request, services: Services, repository: RepositoryName) -> BlobRecord | None:
    """Mount, or return None: a mount that can't be is never an error, the client then uploads (§1.7)."""
    source = request.parameter("from")
    try:
        digest = Digest.parse(request.parameter("mount") or "")
        named = None if source is None else parse_name(source).repository
    except (DigestInvalidError, NameInvalidError, MomentInvalidError):
        return None
    if named is not None and named.components[0] == CONTAINER_TOKENS:
        return None  # what tokens have derived is no repository's
    if named is None and request.rights.is_limited:
        return None  # any repository that has it would do, and most of them may not be theirs to read (CVE-2024-39897)
    if named is not None and not request.rights.may(Action.PULL, str(named)):
        return None  # as if it weren't there
    cause = cause_of(request, services.telling)
    if services.quotas is None or not services.quotas.covers(repository):
        return await services.blobs.mount(repository, digest, named, cause=cause)
    if named is None:
        return None  # how large it is, wherever it is, is known once it comes
    try:
        more = await _size_of_new(services, repository, digest, named)
    except BlobUnknownError:
        return None
    async with services.quotas.room(repository, more) as room:
        mounted = await services.blobs.mount(repository, digest, named, cause=cause)
        room.received = more if mounted is not None else 0
    return mounted


async def _size_of_new(services: Services, repository: RepositoryName, digest: Digest, source: RepositoryName) -> int:
    """Return how many bytes more a repository holds with that blob of the source; raises BlobUnknownError."""
    blob = await services.blobs.get(source, digest)
    try:
        await services.blobs.get(repository, digest)
    except BlobUnknownError:
        return blob.size
    return 0


def _algorithm(request: Request) -> Algorithm:
    """Return the algorithm that the client says its digest will have (end-4c, in the spec's next release)."""
    text = request.parameter("digest-algorithm")
    if text is None:
        return Algorithm.SHA256
    try:
        return Algorithm(text)
    except ValueError as error:
        raise DigestUnsupportedError(text, text) from error


async def append(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Add one chunk (end-5)."""
    record = await _open(request, found, services)
    begin, size = chunk_range(request, record)
    try:
        async with _body(request, services, record.repository, record, completes=False) as body:
            record = await services.uploads.append(record, body, start=begin, size=size)
    except BodyBrokenError as error:
        raise BodyLengthError(request.announced, error.received) from error
    return _accepted(record)


async def commit(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Finish a session, with a last chunk or the whole blob or nothing in the body (end-6)."""
    repository = parse_name(found["name"]).writable()
    record = await services.uploads.get_any(repository, found["upload_id"], request.rights.holder)
    expected = Digest.parse(request.parameter("digest") or "")
    begin, size = chunk_range(request, record)
    try:
        async with _body(request, services, repository, record) as body:
            blob = await services.uploads.commit(
                record, body, expected, start=begin, size=size, cause=cause_of(request, services.telling)
            )
    except BodyBrokenError as error:
        raise BodyLengthError(request.announced, error.received) from error
    return _created(repository, blob)


async def status(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Tell how far a session is (end-13)."""
    record = await _open(request, found, services)
    return Response(204, upload_headers(str(record.repository), record.upload_id, record.size))


async def cancel(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """End a session without a blob (end-14)."""
    await services.uploads.cancel(await _open(request, found, services))
    return Response(204)


@asynccontextmanager
async def _body(
    request: Request,
    services: Services,
    repository: RepositoryName,
    session: UploadRecord | None = None,
    *,
    completes: bool = True,
) -> AsyncGenerator[Body, None]:
    """Give the body, watched over where there are limits on blobs, or on what repositories hold."""
    upload_id, before = ("", 0) if session is None else (session.upload_id, session.size)
    body: Body = request
    if services.max_blob_bytes:
        body = LimitedBody(body, before=before, max_bytes=services.max_blob_bytes)
    is_through = session is not None and session.state is not UploadState.OPEN
    if services.quotas is None or is_through:  # who asks again is told again
        yield body
        return
    async with services.quotas.room(
        repository, body.announced, upload_id=upload_id, before=before, completes=completes
    ) as room:
        yield room.body(body)


async def _open(request: Request, found: Mapping[str, str], services: Services) -> UploadRecord:
    repository = parse_name(found["name"]).writable()
    return await services.uploads.get(repository, found["upload_id"], request.rights.holder)


def _accepted(record: UploadRecord) -> Response:
    return Response(202, upload_headers(str(record.repository), record.upload_id, record.size))


def _created(repository: RepositoryName, blob: BlobRecord) -> Response:
    digest = str(blob.digest)
    return Response(
        201,
        [
            (b"location", f"/v2/{repository}/blobs/{digest}".encode()),
            (b"docker-content-digest", digest.encode()),
        ],
    )
