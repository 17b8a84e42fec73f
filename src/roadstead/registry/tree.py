"""The tree that distribution keeps, read: its links, its tags, and manifests of which nothing says what they are.

Layout: ``storage.keys``. A link is a file whose content is a digest; after a crash of an old release it may be empty,
cut short or full of zeros, and counts as absent then. What a link says counts, not the folder it lies in: a blob that
was pushed under its sha512 lies in ``_layers/sha512/…`` and its link names the sha256 that the bytes lie under.

How the bytes come is the driver's business: file systems are scanned, buckets listed, with times and sizes.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from roadstead.oci import mediatypes
from roadstead.oci.digest import Digest, DigestInvalidError
from roadstead.oci.manifest import ManifestInvalidError
from roadstead.oci.reference import NameInvalidError, RepositoryName, Tag, TagInvalidError
from roadstead.oci.strict_json import JsonInvalidError, parse_object
from roadstead.registry.ports import ManifestReference, NewManifest, ReferenceKind
from roadstead.registry.validation import check_manifest
from roadstead.storage import keys
from roadstead.storage.ports import Driver, Key, KeyInfo, KeyUnknownError, OpensFile

MAX_LINK_SIZE = 256
_READS_AT_ONCE = 32  # as many answers of an object store are waited for together
_BATCH = 256

_MEDIA_TYPE = re.compile(r"[\x21-\x7e]{1,255}")  # it goes into headers as it is
_DIGEST_PATH = re.compile(r"([a-z0-9]+)/([0-9a-f]+)/link")


@dataclass(frozen=True, slots=True)
class Link:
    """A link as it was found: the digest that its folder is named for, and the one that it says."""

    key: Key
    named: Digest | None
    target: Digest | None  # None for a damaged one
    at: datetime


@dataclass(frozen=True, slots=True)
class TagFolder:
    """What a tag's folder holds: where it points (None: nowhere, or damaged), and where it ever pointed."""

    name: str
    current: Link | None
    index: Sequence[tuple[Digest, datetime]]

    def history(self) -> list[tuple[Digest, datetime]]:
        """Return where it pointed before, oldest first; nothing but the time of the links tells the order."""
        target = self.current.target if self.current else None
        return sorted(
            ((digest, at) for digest, at in self.index if digest != target), key=lambda one: (one[1], str(one[0]))
        )


@dataclass(frozen=True, slots=True)
class Sections:
    """Which parts of a repository's folder are there."""

    manifests: bool
    layers: bool
    uploads: bool


class Tree:
    """Distribution's tree below ``docker/registry/v2`` of a driver's storage."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def is_there(self) -> bool:
        """Say whether any repository's folder is there."""
        return bool(await self._driver.folders(keys.REPOSITORIES))

    async def repositories(self, *, after: str = "") -> AsyncGenerator[tuple[str, Sections], None]:
        """Yield names of folders that are repositories, component by component in order, those behind `after`.

        Names may break the grammar: the caller says so. Repositories may lie in each other.
        """
        past = tuple(after.split("/")) if after else ()
        async with aclosing(self._walk(())) as found:
            async for components, sections in found:
                if components > past:
                    yield "/".join(components), sections

    async def _walk(self, parent: tuple[str, ...]) -> AsyncGenerator[tuple[tuple[str, ...], Sections], None]:
        prefix = keys.REPOSITORIES + "".join(f"{component}/" for component in parent)
        names = await self._driver.folders(prefix)
        inside = {name for name in names if name.startswith("_")}
        if parent and inside:
            yield parent, Sections("_manifests" in inside, "_layers" in inside, "_uploads" in inside)
        for name in names:
            if name not in inside:
                async with aclosing(self._walk((*parent, name))) as below:
                    async for found in below:
                        yield found

    async def layers(self, repository: RepositoryName) -> AsyncGenerator[Sequence[Link], None]:
        """Yield the links to blobs, in batches."""
        async with aclosing(self._links(keys.layers(repository))) as batches:
            async for batch in batches:
                yield batch

    async def revisions(self, repository: RepositoryName) -> AsyncGenerator[Sequence[Link], None]:
        """Yield the links to manifests, in batches."""
        async with aclosing(self._links(keys.revisions(repository))) as batches:
            async for batch in batches:
                yield batch

    async def tags(self, repository: RepositoryName) -> AsyncGenerator[Sequence[TagFolder], None]:
        """Yield the tags' folders, in batches."""
        prefix = keys.tags(repository)
        waiting: list[tuple[str, list[KeyInfo]]] = []
        async with aclosing(self._driver.iter_keys(prefix)) as listing:
            async for info in listing:
                name = info.key[len(prefix) :].partition("/")[0]
                if not waiting or waiting[-1][0] != name:
                    if len(waiting) == _BATCH:
                        yield await self._tags(prefix, waiting)
                        waiting = []
                    waiting.append((name, []))
                waiting[-1][1].append(info)
        if waiting:
            yield await self._tags(prefix, waiting)

    async def uploads(self, repository: str) -> int:
        """Return how many uploads are unfinished."""
        return len(await self._driver.folders(f"{keys.REPOSITORIES}{repository}/_uploads/"))

    async def blobs(self) -> AsyncGenerator[KeyInfo, None]:
        """Yield what lies below ``blobs``."""
        async with aclosing(self._driver.iter_keys(keys.BLOBS)) as listing:
            async for info in listing:
                yield info

    async def read_blobs(self, digests: Sequence[Digest], *, max_bytes: int) -> Sequence[bytes | None]:
        """Return the bytes of small blobs, None where there are none or more than that."""
        return await self._read([keys.blob(digest) for digest in digests], max_bytes)

    async def _links(self, prefix: str) -> AsyncGenerator[Sequence[Link], None]:
        batch: list[KeyInfo] = []
        async with aclosing(self._driver.iter_keys(prefix)) as listing:
            async for info in listing:
                # Beside the links lie those to signatures of Docker's first format, one level down.
                if info.key.endswith("/link") and info.key[len(prefix) :].count("/") == 2:
                    batch.append(info)
                if len(batch) == _BATCH:
                    yield await self._read_links(prefix, batch)
                    batch = []
        if batch:
            yield await self._read_links(prefix, batch)

    async def _read_links(self, prefix: str, infos: Sequence[KeyInfo]) -> Sequence[Link]:
        contents = await self._read([info.key for info in infos], MAX_LINK_SIZE)
        return [
            Link(info.key, parse_link_path(info.key[len(prefix) :]), parse_link(content), info.modified)
            for info, content in zip(infos, contents, strict=True)
        ]

    async def _tags(self, prefix: str, found: Sequence[tuple[str, list[KeyInfo]]]) -> Sequence[TagFolder]:
        where = {name: Key(f"{prefix}{name}/current/link") for name, _ in found}
        current = {info.key: info for name, infos in found for info in infos if info.key == where[name]}
        contents = await self._read(list(current), MAX_LINK_SIZE)
        links = {
            key: Link(key, None, parse_link(content), current[key].modified)
            for key, content in zip(current, contents, strict=True)
        }
        return [
            TagFolder(name, links.get(where[name]), list(_index(f"{prefix}{name}/index/", infos)))
            for name, infos in found
        ]

    async def _read(self, wanted: Sequence[Key], max_bytes: int) -> Sequence[bytes | None]:
        """Read many small objects: files in one thread call, objects of a bucket side by side."""
        if isinstance(self._driver, OpensFile):
            return await asyncio.to_thread(_read_files, self._driver, wanted, max_bytes)
        gate = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(key: Key) -> bytes | None:
            async with gate:
                return await _read_object(self._driver, key, max_bytes)

        return await asyncio.gather(*(read(key) for key in wanted))


def _index(prefix: str, infos: Sequence[KeyInfo]) -> Iterator[tuple[Digest, datetime]]:
    """Yield where a tag ever pointed; an empty link counts for nothing."""
    for info in infos:
        if info.key.startswith(prefix) and info.size:
            digest = parse_link_path(info.key[len(prefix) :])
            if digest is not None:
                yield digest, info.modified


def _read_files(files: OpensFile, wanted: Sequence[Key], max_bytes: int) -> Sequence[bytes | None]:
    return [_read_file(files, key, max_bytes) for key in wanted]


def _read_file(files: OpensFile, key: Key, max_bytes: int) -> bytes | None:
    try:
        descriptor = files.open_file(key)
    except KeyUnknownError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(max_bytes + 1)
    return content if len(content) <= max_bytes else None


async def _read_object(driver: Driver, key: Key, max_bytes: int) -> bytes | None:
    content = bytearray()
    try:
        async with aclosing(driver.read(key)) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) > max_bytes:
                    return None
    except KeyUnknownError:
        return None
    return bytes(content)


def parse_link(content: bytes | None) -> Digest | None:
    """Return what a link says, or None for a damaged one. Pure."""
    try:
        return None if content is None else Digest.parse(content.decode("ascii"))
    except (UnicodeDecodeError, DigestInvalidError):
        return None


def parse_link_path(path: str) -> Digest | None:
    """Return the digest of ``sha256/<hex>/link``, or None. Pure."""
    match = _DIGEST_PATH.fullmatch(path)
    try:
        return None if match is None else Digest.parse(f"{match[1]}:{match[2]}")
    except DigestInvalidError:
        return None


def parse_name(text: str) -> RepositoryName | None:
    """Return a repository's name, or None where it breaks the grammar. Pure."""
    try:
        return RepositoryName(text)
    except NameInvalidError:
        return None


def parse_tag(text: str) -> Tag | None:
    """Return a tag, or None where it breaks the grammar. Pure."""
    try:
        return Tag.parse(text)
    except TagInvalidError:
        return None


_FALLBACK_TAG = re.compile(r"(sha256|sha512)-([0-9a-f]+)")


def fallback_subject(tag: Tag) -> Digest | None:
    """Return the subject whose referrers the tag lists (distribution-spec, referrers tag schema), or None. Pure."""
    match = _FALLBACK_TAG.fullmatch(tag.value)
    try:
        return None if match is None else Digest.parse(f"{match[1]}:{match[2]}")
    except DigestInvalidError:
        return None


class NotAManifestError(ManifestInvalidError):
    """Bytes that a repository holds as a manifest aren't even a JSON object."""


def read_manifest(raw: bytes, digest: Digest) -> NewManifest:
    """Return a manifest that another registry took, by our rules or by its own. Pure.

    Nothing says what type it is but the document (registry spec §4.1). What our rules refuse is kept with what can be
    made out of it: its type, and the digests it names where the known members are. Raises NotAManifestError.
    """
    try:
        return check_manifest(raw, None, expected=digest)
    except ManifestInvalidError:
        pass
    document: Mapping[str, Any]
    try:
        document = parse_object(raw)
    except JsonInvalidError:
        document = _lenient(raw)
    return NewManifest(
        digest=digest,
        media_type=sniff(document),
        raw=raw,
        references=tuple(_references(document)),
        subject=_digest(document.get("subject")),
        artifact_type=_artifact_type(document),
        annotations=_annotations(document),
    )


def _lenient(raw: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NotAManifestError("it isn't JSON") from error
    if not isinstance(document, dict):
        raise NotAManifestError("it isn't a JSON object")
    return document


def sniff(document: Mapping[str, Any]) -> str:
    """Return the type of a manifest as distribution makes it out. Pure."""
    if document.get("schemaVersion") == 1:
        return mediatypes.DOCKER_SCHEMA1_SIGNED if "signatures" in document else mediatypes.DOCKER_SCHEMA1
    named = document.get("mediaType")
    if isinstance(named, str) and _MEDIA_TYPE.fullmatch(named):
        return named
    return mediatypes.OCI_INDEX if document.get("manifests") is not None else mediatypes.OCI_MANIFEST


def _references(document: Mapping[str, Any]) -> Iterator[ManifestReference]:
    found: dict[tuple[ReferenceKind, Digest], ManifestReference] = {}
    for kind, entry in _entries(document):
        digest = _digest(entry)
        if digest is not None:
            size = entry.get("size")
            optional = entry.get("mediaType") in mediatypes.NON_DISTRIBUTABLE
            found.setdefault(
                (kind, digest), ManifestReference(kind, digest, size if type(size) is int else 0, optional=optional)
            )
    yield from found.values()


def _entries(document: Mapping[str, Any]) -> Iterator[tuple[ReferenceKind, Mapping[str, Any]]]:
    """Yield the descriptors of every member that is known to hold some, those of withdrawn formats too."""
    members: tuple[tuple[str, ReferenceKind, str], ...] = (
        ("layers", ReferenceKind.LAYER, "digest"),
        ("blobs", ReferenceKind.LAYER, "digest"),
        ("fsLayers", ReferenceKind.LAYER, "blobSum"),
        ("manifests", ReferenceKind.CHILD, "digest"),
    )
    config = document.get("config")
    if isinstance(config, dict):
        yield ReferenceKind.CONFIG, config
    for member, kind, name in members:
        entries = document.get(member)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                yield kind, {**entry, "digest": entry.get(name)}


def _digest(entry: object) -> Digest | None:
    text = entry.get("digest") if isinstance(entry, dict) else None
    try:
        return Digest.parse(text) if isinstance(text, str) else None
    except DigestInvalidError:
        return None


def _artifact_type(document: Mapping[str, Any]) -> str | None:
    config = document.get("config")
    own = document.get("artifactType")
    found = own or (config.get("mediaType") if isinstance(config, dict) else None)
    return found if isinstance(found, str) and _MEDIA_TYPE.fullmatch(found) else None


def _annotations(document: Mapping[str, Any]) -> Mapping[str, str]:
    found = document.get("annotations")
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
