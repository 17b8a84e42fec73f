"""Tags, repositories and referrers over HTTP (distribution-spec end-8, end-12; registry spec §1.11 to §1.13)."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from roadstead.http.asgi import Request, Response
from roadstead.http.context import Services
from roadstead.http.headers import JSON, next_link
from roadstead.http.names import Named, parse_digest, parse_name
from roadstead.http.upstreams import ASKED, place_of
from roadstead.oci import mediatypes
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.registry.catalog import parse_page_size
from roadstead.registry.ports import ReferrerRecord

MAX_REFERRERS_BYTES = 3 << 20
"""Clients read at most 4 MiB of an index; what doesn't fit goes on the next page."""


async def tags(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """List a repository's tags in lexical order (end-8).

    Below ``as-of/TIME/`` too they are those of now: skopeo's ``inspect`` gives up where there is no list.
    """
    name = parse_name(found["name"])
    n = parse_page_size(request.parameter("n"))
    after = request.parameter("last") or ""
    asked = found.get(ASKED, name.text)
    place = place_of(services, name.repository)
    there = await services.proxy.tags(place) if place is not None and services.proxy is not None else None
    if there is not None:
        page = services.catalog.page_of_tags(there, after=after, n=n)
    else:
        page = await services.catalog.tags(name.repository, after=after, n=n)
    headers = [JSON]
    if page.more:
        headers.append(next_link(f"/v2/{name.text}/tags/list", {"last": page.items[-1], "n": str(len(page.items))}))
    return Response(200, headers, msgspec.json.encode({"name": asked, "tags": page.items}))


async def repositories(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """List repositories, component by component (Docker's ``_catalog``)."""
    n = parse_page_size(request.parameter("n"))
    after = request.parameter("last") or ""
    page = await services.catalog.repositories(after=after, n=n, visible=request.rights.sight())
    headers = [JSON]
    if page.more:
        headers.append(next_link("/v2/_catalog", {"last": page.items[-1], "n": str(len(page.items))}))
    return Response(200, headers, msgspec.json.encode({"repositories": page.items}))


async def referrers(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """List the manifests whose subject this digest is: an image index, empty where there are none (end-12)."""
    name = parse_name(found["name"])
    subject = parse_digest(found["digest"])
    wanted = request.parameter("artifactType")
    place = place_of(services, name.repository)
    if place is not None and await services.augmenter.sources_of(name.repository, subject):
        place = None  # what was made here is known here alone
    there = (
        await services.proxy.referrers(place, subject, wanted)
        if place is not None and services.proxy is not None
        else None
    )
    if there is not None:
        return _referrers_there(request, name, subject, wanted, there)
    page = await services.catalog.referrers(
        name.repository,
        subject,
        artifact_type=wanted,
        after=request.parameter("last") or "",
        n=parse_page_size(request.parameter("n")),
    )
    descriptors = _within_bytes([_descriptor(record) for record in page.items])
    headers = [(b"content-type", mediatypes.OCI_INDEX.encode())]
    if wanted is not None:
        headers.append((b"oci-filters-applied", b"artifactType"))
    if page.more or len(descriptors) < len(page.items):
        parameters = {"last": descriptors[-1]["digest"], "n": str(len(page.items))}
        if wanted is not None:
            parameters["artifactType"] = wanted
        headers.append(next_link(f"/v2/{name.text}/referrers/{subject}", parameters))
    document = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": descriptors}
    return Response(200, headers, msgspec.json.encode(document))


def _referrers_there(
    request: Request, name: Named, subject: Digest, wanted: str | None, there: Sequence[Descriptor]
) -> Response:
    """List what an upstream says; it comes whole, and goes in pages that clients can read."""
    after, n = request.parameter("last") or "", parse_page_size(request.parameter("n"))
    rest = [one.as_json() for one in there if str(one.digest) > after]
    descriptors = _within_bytes(rest[:n])
    headers = [(b"content-type", mediatypes.OCI_INDEX.encode())]
    if wanted is not None:
        headers.append((b"oci-filters-applied", b"artifactType"))
    if 0 < len(descriptors) < len(rest):
        parameters = {"last": descriptors[-1]["digest"], "n": str(len(descriptors))}
        if wanted is not None:
            parameters["artifactType"] = wanted
        headers.append(next_link(f"/v2/{name.text}/referrers/{subject}", parameters))
    document = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": descriptors}
    return Response(200, headers, msgspec.json.encode(document))


def _descriptor(record: ReferrerRecord) -> dict[str, Any]:
    descriptor: dict[str, Any] = {
        "mediaType": record.media_type,
        "digest": str(record.digest),
        "size": record.size,
    }
    if record.artifact_type:
        descriptor["artifactType"] = record.artifact_type
    if record.annotations:
        descriptor["annotations"] = dict(record.annotations)
    return descriptor


def _within_bytes(descriptors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return as many descriptors as fit, one at the least."""
    size = 0
    for position, descriptor in enumerate(descriptors):
        size += len(msgspec.json.encode(descriptor)) + 1
        if size > MAX_REFERRERS_BYTES and position > 0:
            return descriptors[:position]
    return descriptors
