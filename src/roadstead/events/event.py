"""What happened in the registry: one typed event for each change, and for each pull somebody wants to hear of.

As plain data an event has distribution's form (2.8, ``notifications/event.go`` as it is seen on the wire), member by
member and in its order; what is empty is left out as there. ``docs/decisions/0013-outbox.md`` has what was measured.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from uuid import uuid4

from roadstead.acts import Asked
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag

BLOB_TYPE = "application/octet-stream"
"""What blobs are told as: a registry doesn't know what is in them."""

MAX_REFERRING: Final = 128 << 10
"""Bytes of a manifest up to which events list what it refers to: some five hundred layers or images. With each pull of
a larger one an event of its size would be kept and sent."""

_REFERENCE_MEMBERS = ("mediaType", "size", "digest", "urls", "annotations")


class Action(StrEnum):
    """What was done."""

    PUSH = "push"
    PULL = "pull"
    MOUNT = "mount"
    DELETE = "delete"


class Subject(StrEnum):
    """What it was done to."""

    MANIFEST = "manifest"
    BLOB = "blob"
    TAG = "tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The request that something happened for; all empty where nobody asked (retention, the command line).

    ``origin`` is how the client reached us, ``https://host/prefix`` without a slash at its end: addresses of what the
    event tells of begin with it. ``address`` is what the client or a proxy says, good to read and not to decide on.
    """

    id: str = ""
    address: str = ""
    host: str = ""
    method: str = ""
    agent: str = ""
    actor: str = ""
    origin: str = ""
    asked: Asked | None = None  # for the audit log, which only tells of what somebody asked for; no event holds it


UNPROMPTED = Cause()


@dataclass(frozen=True, slots=True)
class Source:
    """Which running registry tells: ``host:port``, and an id that is another after each start."""

    address: str
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened. The id stays the same however often the event is delivered."""

    action: Action
    subject: Subject
    repository: RepositoryName
    at: datetime
    digest: Digest | None = None
    media_type: str = ""
    size: int = 0
    tag: Tag | None = None
    mounted_from: RepositoryName | None = None
    references: Sequence[Mapping[str, Any]] = ()
    cause: Cause = UNPROMPTED
    id: str = field(default_factory=lambda: str(uuid4()))

    def as_plain(self, source: Source) -> dict[str, Any]:
        """Return distribution's form of the event."""
        return {
            "id": self.id,
            "timestamp": timestamp(self.at),
            "action": self.action.value,
            "target": self._target(),
            "request": {
                "id": self.cause.id,
                **_said(addr=self.cause.address, host=self.cause.host),
                "method": self.cause.method,
                "useragent": self.cause.agent,
            },
            "actor": _said(name=self.cause.actor),
            "source": _said(addr=source.address, instanceID=source.instance),
        }

    def _target(self) -> dict[str, Any]:
        return _said(
            mediaType=self.media_type,
            size=self.size,
            digest="" if self.digest is None else str(self.digest),
            length=self.size,
            repository=self.repository.value,
            fromRepository="" if self.mounted_from is None else self.mounted_from.value,
            url=self._url(),
            tag="" if self.tag is None else self.tag.value,
            references=list(self.references),
        )

    def _url(self) -> str:
        """Return where the content is; of what is gone, and where nobody asked, nothing."""
        if self.action is Action.DELETE or self.digest is None or not self.cause.origin:
            return ""
        return f"{self.cause.origin}/v2/{self.repository}/{self.subject}s/{self.digest}"


def manifest_pushed(
    repository: RepositoryName,
    digest: Digest,
    media_type: str,
    size: int,
    tags: Iterable[Tag],
    *,
    references: Sequence[Mapping[str, Any]] = (),
    cause: Cause,
    at: datetime,
) -> Iterator[Event]:
    """Yield an event for each tag that the push set, in their order; one without a tag where it set none."""
    told: Sequence[Tag | None] = list(tags) or [None]
    for tag in told:
        yield Event(
            action=Action.PUSH,
            subject=Subject.MANIFEST,
            repository=repository,
            at=at,
            digest=digest,
            media_type=media_type,
            size=size,
            tag=tag,
            references=references,
            cause=cause,
        )


def manifest_pulled(
    repository: RepositoryName,
    digest: Digest,
    media_type: str,
    size: int,
    tag: Tag | None,
    *,
    references: Sequence[Mapping[str, Any]] = (),
    cause: Cause,
    at: datetime,
) -> Event:
    """Return the event of a manifest that was read, by tag or by digest."""
    return Event(
        action=Action.PULL,
        subject=Subject.MANIFEST,
        repository=repository,
        at=at,
        digest=digest,
        media_type=media_type,
        size=size,
        tag=tag,
        references=references,
        cause=cause,
    )


def manifest_deleted(
    repository: RepositoryName, digests: Iterable[Digest], tags: Iterable[Tag], *, cause: Cause, at: datetime
) -> Iterator[Event]:
    """Yield an event for each manifest that is gone, then one for each tag that went with it."""
    for digest in digests:
        yield Event(
            action=Action.DELETE, subject=Subject.MANIFEST, repository=repository, at=at, digest=digest, cause=cause
        )
    for tag in tags:
        yield tag_deleted(repository, tag, cause=cause, at=at)


def tag_deleted(repository: RepositoryName, tag: Tag, *, cause: Cause, at: datetime) -> Event:
    """Return the event of a tag that was removed, not what it pointed at."""
    return Event(action=Action.DELETE, subject=Subject.TAG, repository=repository, at=at, tag=tag, cause=cause)


def blob_stored(
    repository: RepositoryName,
    digest: Digest,
    size: int,
    *,
    cause: Cause,
    at: datetime,
    action: Action = Action.PUSH,
    mounted_from: RepositoryName | None = None,
) -> Event:
    """Return the event of a blob that was pushed, mounted or pulled."""
    return Event(
        action=action,
        subject=Subject.BLOB,
        repository=repository,
        at=at,
        digest=digest,
        media_type=BLOB_TYPE,
        size=size,
        mounted_from=mounted_from,
        cause=cause,
    )


def blob_deleted(repository: RepositoryName, digest: Digest, *, cause: Cause, at: datetime) -> Event:
    """Return the event of a blob that was taken from a repository."""
    return Event(action=Action.DELETE, subject=Subject.BLOB, repository=repository, at=at, digest=digest, cause=cause)


def references_of(raw: bytes) -> Sequence[Mapping[str, Any]]:
    """Return the descriptors that a manifest refers to (its config and layers, or its manifests), as distribution
    tells them; the bytes are those of a manifest that was accepted. None of one larger than `MAX_REFERRING`.
    """
    if len(raw) > MAX_REFERRING:
        return ()
    manifest = json.loads(raw)
    found = manifest.get("manifests")
    if found is None:
        found = [manifest.get("config"), *manifest.get("layers", ())]
    return [
        {name: descriptor[name] for name in _REFERENCE_MEMBERS if descriptor.get(name)}
        for descriptor in found
        if isinstance(descriptor, dict)
    ]


def timestamp(moment: datetime) -> str:
    """Return an aware moment in UTC as RFC 3339 writes it, with microseconds."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _said(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value}
