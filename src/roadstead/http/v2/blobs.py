"""Blobs over HTTP (distribution-spec end-2, end-10; registry spec §1.6)."""

import os
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import lru_cache

from roadstead.events.event import Action, blob_stored
from roadstead.http.asgi import AnyResponse, FileResponse, Headers, Request, Response, StreamResponse
from roadstead.http.causes import common_cause_of, deliberate, learn, noted
from roadstead.http.conditions import etag, none_match
from roadstead.http.context import Services
from roadstead.http.headers import IMMUTABLE, PERSONAL, SAFE
from roadstead.http.names import Named, parse_digest, parse_name
from roadstead.http.offload import redirected
from roadstead.http.ranges import (
    MAX_READS,
    Part,
    RangeUnsatisfiableError,
    Stretch,
    Unsatisfiable,
    Whole,
    cut,
    parse_range,
    together,
)
from roadstead.http.upstreams import may_become_ours, place_of
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.proxy.service import PullThrough
from roadstead.proxy.spaces import Place
from roadstead.registry.errors import BlobUnknownError, ContentMissingError, ManifestUnknownError
from roadstead.registry.ports import BlobRecord
from roadstead.storage.ports import KeyUnknownError, OpensFile

OCTETS = (b"content-type", b"application/octet-stream")


async def read(request: Request, found: Mapping[str, str], services: Services) -> AnyResponse:
    """Give a blob of this repository, whole or in parts (end-2); an image config made here is made again if need be."""
    repository = parse_name(found["name"]).repository
    digest = parse_digest(found["digest"])
    try:
        return await _read(request, found, services, repository, digest)
    except BlobUnknownError:
        # Who asks by HEAD is about to push, and needs no more than to hear that it isn't here.
        if request.method != "GET" or not await services.augmenter.revive(repository, digest):
            raise
    return await _read(request, found, services, repository, digest)


async def _read(
    request: Request, found: Mapping[str, str], services: Services, repository: RepositoryName, digest: Digest
) -> AnyResponse:
    if request.method == "HEAD" and may_become_ours(services, repository, found):
        raise BlobUnknownError(repository, digest)
    try:
        # A client that asks whether it need push relies on the answer until it has pushed the manifest.
        find = services.blobs.promise if request.method == "HEAD" else services.blobs.get
        blob = await find(repository, digest)
    except BlobUnknownError:
        place = place_of(services, repository)
        if place is None or services.proxy is None:
            return await _manifest_as_blob(request, services, parse_name(found["name"]), digest)
        found_there = await _from_upstream(request, services, services.proxy, place, parse_name(found["name"]), digest)
        if not isinstance(found_there, BlobRecord):
            return found_there
        blob = found_there
    return await answered(request, services, repository, digest, blob)


async def answered(
    request: Request, services: Services, repository: RepositoryName, digest: Digest, blob: BlobRecord
) -> AnyResponse:
    """Return the answer that gives a blob which is here."""
    _tell(request, services, repository, digest, blob.size)
    headers = _headers(str(digest), personal=request.rights.is_personal)
    wanted = _wanted(request, digest, headers, blob.size)
    if isinstance(wanted, Response):
        return wanted
    if services.presigner is not None:
        return Response(307, await redirected(services.presigner, blob.key, headers))
    if services.blobs.is_small(blob):
        return _from_memory(await services.blobs.content(blob), headers, wanted)
    return _by_proxy(request, services, blob, headers, wanted) or _from_storage(services, blob, headers, wanted)


def _tell(request: Request, services: Services, repository: RepositoryName, digest: Digest, size: int) -> None:
    """Take note of a pull, where somebody wants to hear of pulls.

    Before it is clear what the answer holds, as in distribution: a 304 and a part are pulls, too.
    """
    telling = services.telling
    if telling is None or noted(request, telling, digest):
        return
    cause = common_cause_of(request, telling)
    event = blob_stored(repository, digest, size, cause=cause, at=telling.now(), action=Action.PULL)
    learn(request, telling, digest, event)


async def _from_upstream(
    request: Request, services: Services, proxy: PullThrough, place: Place, name: Named, digest: Digest
) -> AnyResponse | BlobRecord:
    """Return a blob that was fetched just now, or an answer whose bytes are still on their way.

    HEAD fetches nothing: it tells what the upstream does.
    """
    with suppress(BlobUnknownError):  # a manifest that is here
        return await _manifest_as_blob(request, services, name, digest)
    headers = _headers(str(digest), personal=request.rights.is_personal)
    if request.method == "HEAD":
        size = await proxy.blob_size(place, digest)
        return Response(304, headers) if none_match(request, str(digest)) else _head(headers, size)
    arriving = await proxy.blob(place, digest)
    if isinstance(arriving, BlobRecord):
        return arriving
    _tell(request, services, place.repository, digest, arriving.size)
    try:
        wanted = _wanted(request, digest, headers, arriving.size)
    except RangeUnsatisfiableError:
        arriving.leave()
        raise
    if isinstance(wanted, Response):
        arriving.leave()
        return wanted
    if isinstance(wanted, Whole) or len(wanted) > 1:  # of several parts the whole may be given (RFC 9110 §14.2)
        return StreamResponse(200, [OCTETS, *headers], arriving.read(0, arriving.size), arriving.size)
    part = wanted[0]
    ranged = [OCTETS, *headers, (b"content-range", part.content_range(arriving.size).encode())]
    return StreamResponse(206, ranged, arriving.read(part.start, part.size), part.size)


def _head(headers: Headers, size: int) -> Response:
    return Response(200, [OCTETS, *headers], content_length=size)


def _by_proxy(
    request: Request,
    services: Services,
    blob: BlobRecord,
    headers: Headers,
    wanted: Whole | tuple[Part, ...],
) -> Response | None:
    """Return the answer by which the proxy in front sends the file; None where we do."""
    if services.offload is None or services.files is None:
        return None
    named = services.offload.header(request, wanted, blob.key)
    if named is None:
        return None
    _check_there(services.files, blob)
    # nginx says of the files that it sends which ranges it takes, beside whatever we say.
    said = [pair for pair in headers if pair[0] != b"accept-ranges"]
    return Response(200, [OCTETS, *said, named])


async def _manifest_as_blob(request: Request, services: Services, name: Named, digest: Digest) -> Response:
    """Give a manifest asked for as a blob: containerd does that when a manifest wasn't found (§2.2).

    One that has to be signed has to be so here, too.
    """
    try:
        record = await services.manifests.get(name.repository, digest)
    except ManifestUnknownError as error:
        raise BlobUnknownError(name.repository, digest) from error
    if services.admission is not None:
        await services.admission.check(name.repository, digest, original=name.original and name.at is None)
    if services.limits is not None and request.method == "GET":
        await services.limits.count_pull(request)
    _tell(request, services, name.repository, digest, record.size)
    headers = _headers(str(digest), personal=request.rights.is_personal)
    wanted = _wanted(request, digest, headers, record.size)
    if isinstance(wanted, Response):
        return wanted
    return _from_memory(await services.manifests.content(digest), headers, wanted)


@lru_cache(maxsize=1024)
def _headers(digest: str, *, personal: bool) -> Headers:
    """Return what every answer about a blob says of it; remembered, for it follows from the digest."""
    return (
        (b"docker-content-digest", digest.encode()),
        (b"etag", etag(digest)),
        (b"accept-ranges", b"bytes"),
        PERSONAL if personal else IMMUTABLE,
        *SAFE,
    )


def _wanted(request: Request, digest: Digest, headers: Headers, size: int) -> Response | Whole | tuple[Part, ...]:
    """Return which bytes are wanted, or the answer that needs none of them; raises RangeUnsatisfiableError."""
    if none_match(request, str(digest)):
        return Response(304, headers)
    if request.method == "HEAD":
        return _head(headers, size)  # Range is for GET alone (RFC 9110 §14.2)
    wanted = _ranges(request, digest, size)
    if isinstance(wanted, Unsatisfiable):
        raise RangeUnsatisfiableError(size)
    return wanted


def _ranges(request: Request, digest: Digest, size: int) -> Whole | Unsatisfiable | tuple[Part, ...]:
    """Return what Range asks for, unless If-Range names other content."""
    condition = request.header(b"if-range")
    if condition is not None and condition != etag(str(digest)).decode():
        return Whole()
    return parse_range(request.header(b"range"), size)


def _from_memory(data: bytes, headers: Headers, wanted: Whole | tuple[Part, ...]) -> Response:
    if isinstance(wanted, Whole):
        return Response(200, [OCTETS, *headers], data)
    if len(wanted) == 1:
        part = wanted[0]
        ranged = [OCTETS, *headers, (b"content-range", part.content_range(len(data)).encode())]
        return Response(206, ranged, data[part.start : part.start + part.size])
    boundary = secrets.token_hex(12)
    body = bytearray()
    for part in wanted:
        body += _part_head(boundary, part, len(data)) + data[part.start : part.start + part.size]
    return Response(206, [_multipart(boundary), *headers], bytes(body + _parts_end(boundary)))


def _from_storage(
    services: Services, blob: BlobRecord, headers: Headers, wanted: Whole | tuple[Part, ...]
) -> AnyResponse:
    if isinstance(wanted, Whole):
        if services.files is not None:
            _check_there(services.files, blob)
            return FileResponse(200, [OCTETS, *headers], str(services.files.path(blob.key)), blob.size)
        return StreamResponse(200, [OCTETS, *headers], services.blobs.read(blob), blob.size)
    if len(wanted) == 1:
        part = wanted[0]
        ranged = [OCTETS, *headers, (b"content-range", part.content_range(blob.size).encode())]
        return StreamResponse(206, ranged, services.blobs.read(blob, start=part.start, size=part.size), part.size)
    stretches = together(wanted)
    if len(stretches) > MAX_READS:
        return _from_storage(services, blob, headers, Whole())
    boundary = secrets.token_hex(12)
    length = sum(len(_part_head(boundary, part, blob.size)) + part.size for part in wanted) + len(_parts_end(boundary))
    return StreamResponse(206, [_multipart(boundary), *headers], _parts(services, blob, boundary, stretches), length)


def _check_there(files: OpensFile, blob: BlobRecord) -> None:
    """Open the file before the server does: it would answer a missing one with a bare 404 (decision 0001)."""
    try:
        os.close(files.open_file(blob.key))
    except KeyUnknownError as error:
        raise ContentMissingError(blob.digest) from error


async def _parts(
    services: Services, blob: BlobRecord, boundary: str, stretches: Sequence[Stretch]
) -> AsyncGenerator[bytes, None]:
    """Yield a multipart/byteranges body, one part for each range in the order asked (RFC 9110 §14.6).

    Parts that lie near each other are cut out of what is read at once.
    """
    for stretch in stretches:
        async with aclosing(services.blobs.read(blob, start=stretch.start, size=stretch.size)) as pieces:
            async for part, piece in cut(stretch, pieces):
                yield _part_head(boundary, part, blob.size) if piece is None else piece
    yield _parts_end(boundary)


def _multipart(boundary: str) -> tuple[bytes, bytes]:
    return (b"content-type", f"multipart/byteranges; boundary={boundary}".encode())


def _part_head(boundary: str, part: Part, size: int) -> bytes:
    return (
        f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Range: {part.content_range(size)}\r\n\r\n"
    ).encode()


def _parts_end(boundary: str) -> bytes:
    return f"\r\n--{boundary}--\r\n".encode()


async def delete(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Take a blob from this repository (end-10)."""
    repository = parse_name(found["name"]).writable()
    await services.blobs.unlink(repository, parse_digest(found["digest"]), cause=deliberate(request, services.telling))
    return Response(202)
