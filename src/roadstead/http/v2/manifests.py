"""Manifests over HTTP (distribution-spec end-3, end-7, end-9; registry spec §1.8 to §1.10)."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache

from roadstead.augment.ports import Served
from roadstead.events.event import manifest_pulled, references_of
from roadstead.http.asgi import Headers, Request, Response
from roadstead.http.bodies import read_whole
from roadstead.http.causes import Telling, cause_of, common_cause_of, deliberate, learn, noted
from roadstead.http.conditions import ConditionUnmetError, etag, etags, none_match
from roadstead.http.context import Services
from roadstead.http.headers import IMMUTABLE, PERSONAL, REVALIDATE, SAFE
from roadstead.http.names import Named, parse_name, parse_tag_or_digest, parse_wanted
from roadstead.http.negotiation import acceptable, legacy_child
from roadstead.http.upstreams import ASKED, freshened
from roadstead.oci import mediatypes
from roadstead.oci.digest import Digest, DigestInvalidError
from roadstead.oci.manifest import parse_index
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.proxy.spaces import Place
from roadstead.registry.errors import ManifestUnknownError
from roadstead.registry.history import NotThenError
from roadstead.registry.ports import LineageStore, TagCondition
from roadstead.signatures.names import SIGNATURE, tagged_subject


async def read(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Give a manifest: by tag as it is served here, by digest the exact bytes of that digest (end-3)."""
    name = parse_name(found["name"])
    asked = parse_wanted(found["reference"])
    reference = asked
    if services.lineage is not None and isinstance(asked, Tag):
        reference = await signature_made_here(services, services.lineage, name.repository, asked) or asked
    by = found.get(ASKED)
    served = await found_served(services, name, reference, by)
    if services.strict_accept:
        served = await _negotiated(request, services, name, reference, served)
    if services.admission is not None and not (request.method == "HEAD" and isinstance(asked, Digest)):
        # Who signs an image asks for its digest by HEAD, and for what was pushed below as-pushed/.
        original = name.original and name.at is None
        await services.admission.check(name.repository, served.digest, original=original)
    return await answered(request, services, name.repository, asked, served)


async def answered(
    request: Request, services: Services, repository: RepositoryName, reference: Tag | Digest, served: Served
) -> Response:
    """Return the answer that gives a manifest, once it is known which."""
    kept = (PERSONAL if request.rights.is_personal else IMMUTABLE) if isinstance(reference, Digest) else REVALIDATE
    headers = _headers(served.digest, served.media_type, kept)
    if none_match(request, str(served.digest)):
        return Response(304, headers[1:])
    if (telling := services.telling) is not None and not noted(request, telling, served.digest):
        await _learn(request, services, telling, repository, reference, served)
    if request.method == "HEAD":
        return Response(200, headers, content_length=served.size)
    return Response(200, headers, await services.manifests.content(served.digest))


async def found_served(services: Services, name: Named, reference: Tag | Digest, asked: str | None) -> Served:
    """Return what answers a pull, had from its upstream first where it comes from one, made again where it was here."""
    try:
        place = None if name.at is not None else await freshened(services, name.repository, reference)
        return await resolve(services, name, reference, asked=asked, place=place)
    except ManifestUnknownError:
        # Engines pin the digest that they were served for months, and by then it may have been collected.
        if not isinstance(reference, Digest) or not await services.augmenter.revive(name.repository, reference):
            raise
        return await resolve(services, name, reference, asked=asked)


async def signature_made_here(
    services: Services, lineage: LineageStore, repository: RepositoryName, asked: Tag
) -> Digest | None:
    """Return our signature of what was made here, where cosign asks for it by its tag and nobody has pushed one.

    It has no tag of its own: it goes with the image that it signs, and lists of tags don't tell of it.
    """
    subject = tagged_subject(asked.value)
    found = None if subject is None else await lineage.attached(repository, subject, SIGNATURE)
    if found is not None:
        with suppress(ManifestUnknownError):
            await services.manifests.get(repository, asked)
            return None
    return found


@lru_cache(maxsize=1024)
def _headers(digest: Digest, media_type: str, kept: tuple[bytes, bytes]) -> Headers:
    """Return what a manifest's answer says of it, the type first; remembered, for it follows from the arguments."""
    text = str(digest)
    return (
        (b"content-type", media_type.encode()),
        (b"docker-content-digest", text.encode()),
        (b"etag", etag(text)),
        kept,
        *SAFE,
    )


async def _learn(
    request: Request,
    services: Services,
    telling: Telling,
    repository: RepositoryName,
    reference: Tag | Digest,
    served: Served,
) -> None:
    """Take note of the first pull of its likeness."""
    references = references_of(await services.manifests.content(served.digest)) if telling.references else ()
    event = manifest_pulled(
        repository,
        served.digest,
        served.media_type,
        served.size,
        reference if isinstance(reference, Tag) else None,
        references=references,
        cause=common_cause_of(request, telling),
        at=telling.now(),
    )
    learn(request, telling, served.digest, event)


async def resolve(
    services: Services, name: Named, reference: Tag | Digest, *, asked: str | None = None, place: Place | None = None
) -> Served:
    """Return what answers a pull of this reference: augmented by tag where a rule says so, never by digest.

    An upstream's image comes under the first rule that matches its name here, or the one it was `asked` for by. A tag
    as of a moment is what was pushed, as below `as-pushed/`: rules of then aren't known any more.
    """
    if name.at is not None and isinstance(reference, Tag):
        return await _as_of(services, name.repository, reference, name.at)
    if isinstance(reference, Tag) and not name.original:
        plan = services.augmenter.plan_for(
            name.repository,
            reference,
            also=None if asked is None else parse_name(asked).repository,
            platforms=() if place is None else place.upstream.platforms,
        )
        if plan is not None:
            served = await services.augmenter.pull(name.repository, reference, plan)
            if served is None:
                raise ManifestUnknownError(name.repository, reference)
            return served
    record = await services.manifests.get(name.repository, reference)
    return Served(record.digest, record.media_type, record.size)


async def _as_of(services: Services, repository: RepositoryName, tag: Tag, moment: datetime) -> Served:
    digest = await services.history.at(repository, tag, moment)
    try:
        record = await services.manifests.get(repository, digest)
    except ManifestUnknownError as error:
        raise NotThenError(repository, tag, moment, f"{digest}, where it pointed then, was deleted since") from error
    return Served(record.digest, record.media_type, record.size)


async def _negotiated(
    request: Request, services: Services, name: Named, reference: Tag | Digest, served: Served
) -> Served:
    """Return what distribution would answer: 404 for a type that isn't accepted, but a Docker list by tag gives its
    linux/amd64 image to clients that don't know lists (registry spec §1.8)."""
    accept = request.headers(b"accept")
    if acceptable(accept, served.media_type):
        return served
    if served.media_type == mediatypes.DOCKER_LIST and isinstance(reference, Tag):
        child = legacy_child(parse_index(await services.manifests.content(served.digest), served.media_type))
        if child is not None:
            await freshened(services, name.repository, child.digest)
            return Served(child.digest, child.media_type, child.size)
    raise ManifestUnknownError(name.repository, reference)


async def write(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Take a manifest under a tag, or under its digest with any number of ``tag`` parameters (end-7a, end-7b)."""
    repository = parse_name(found["name"]).writable()
    reference = parse_tag_or_digest(found["reference"])
    tags = [Tag.parse(text) for text in _tag_parameters(request, reference)]
    raw = await read_whole(request, "the manifest", max_bytes=services.manifests.max_bytes)
    manifest = await services.manifests.put(
        repository,
        reference,
        raw,
        media_type=request.header(b"content-type"),
        tags=tags,
        condition=await _condition(request, services, repository),
        cause=cause_of(request, services.telling),
    )
    digest = str(manifest.digest)
    headers = [
        (b"location", f"/v2/{repository}/manifests/{digest}".encode()),
        (b"docker-content-digest", digest.encode()),
    ]
    if manifest.subject is not None:
        # Tells the client that the referrers API took note; without it clients write a fallback tag.
        headers.append((b"oci-subject", str(manifest.subject).encode()))
    headers += [(b"oci-tag", str(tag).encode()) for tag in tags]
    return Response(201, headers)


def _tag_parameters(request: Request, reference: Tag | Digest) -> Iterable[str]:
    """Return the ``tag`` parameters; they count on a push by digest only."""
    return dict.fromkeys(request.query.get("tag", ())) if isinstance(reference, Digest) else ()


async def _condition(request: Request, services: Services, repository: RepositoryName) -> TagCondition | None:
    """Return what If-Match and If-None-Match ask of the tag.

    A client that read an augmented tag knows the served digest; the condition then means the source it came from.
    """
    match = etags(request.headers(b"if-match"))
    none_match = etags(request.headers(b"if-none-match"))
    if match is None and none_match is None:
        return None
    wanted = await _named(services, repository, match or ())
    if match is not None and not wanted and "*" not in match:
        raise ConditionUnmetError
    return TagCondition(
        match=wanted,
        any_existing=match is not None and "*" in match,
        absent=none_match is not None and "*" in none_match,
        none_match=await _named(services, repository, none_match or ()),
    )


async def _named(services: Services, repository: RepositoryName, texts: Iterable[str]) -> frozenset[Digest]:
    """Return the digests that entity tags name, and the sources of those that are derived."""
    named: set[Digest] = set()
    for text in texts:
        with suppress(DigestInvalidError):  # another kind of entity tag: no tag is ever at it
            digest = Digest.parse(text)
            named.add(digest)
            named.update(await services.augmenter.sources_of(repository, digest))
    return frozenset(named)


async def delete(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Remove a tag, or a manifest with all its tags (end-9)."""
    repository = parse_name(found["name"]).writable()
    await services.manifests.delete(
        repository, parse_tag_or_digest(found["reference"]), cause=deliberate(request, services.telling)
    )
    return Response(202)
