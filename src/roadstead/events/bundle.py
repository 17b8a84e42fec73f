"""Many pulls told together: once what they have in common, and of each the moment and the address. Pure.

A busy registry answers thousands of pulls a second that differ in little. What is the same of them is put into words
once, and each by itself costs what tells it apart. Whoever delivers makes the events of it, always the same ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import count, islice
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

import msgspec

from roadstead.events.event import BLOB_TYPE, Event, Source, Subject
from roadstead.oci.reference import RepositoryName

MAX_BYTES: Final = 64 << 10
"""What the events of one request may come to, but for a single one: some 85 KB as distribution's envelope writes them,
less than receivers take without being told to."""

_OF_EACH: Final = 150  # bytes of an event that its likeness doesn't have: ids, where it came from

MOST: Final = 256
"""Pulls in a bundle at the most: each bundle is a row, which costs what 30 pulls do."""

MAX_LIKES: Final = 4 * MAX_BYTES
"""What the likenesses of a bundle may come to, but for a single one."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Pulls:
    """Pulls in their order: of each the place in ``likes`` of what it has in common with others, when it was in
    microseconds since 1970, and from where.

    They are in columns: there are thousands a second, and what would be an object for each would have the collector of
    garbage look at all that a worker has, again and again.
    """

    places: list[int] = field(default_factory=list)
    micros: list[int] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def add(self, place: int, micros: int, address: str) -> None:
        """Add one."""
        self.places.append(place)
        self.micros.append(micros)
        self.addresses.append(address)

    def taken(self) -> "Pulls":
        """Return what is here, and begin anew."""
        taken = Pulls(self.places.copy(), self.micros.copy(), self.addresses.copy())
        self.places.clear()
        self.micros.clear()
        self.addresses.clear()
        return taken

    def part(self, begin: int, end: int) -> "Pulls":
        """Return those from one number to before another."""
        return Pulls(self.places[begin:end], self.micros[begin:end], self.addresses[begin:end])

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Pulls from one repository that one endpoint is told of, in order: one at the least.

    ``likes`` are events without a request's id and address. The id is that of the first event; it, and so those of
    the others, stay the same however often they are delivered.
    """

    endpoint: str
    repository: RepositoryName
    likes: Sequence[Event]
    pulls: Pulls
    id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def first(self) -> Event:
        """Return the first pull as an event of its own."""
        like = self.likes[self.pulls.places[0]]
        cause = replace(like.cause, id=_request_id(self.id), address=self.pulls.addresses[0])
        return replace(like, id=self.id, at=_moment(self.pulls.micros[0]), cause=cause)

    def as_plain(self, source: Source) -> dict[str, Any]:
        """Return it as plain data, of which `unbundled` makes events."""
        return {
            "likes": [like.as_plain(source) for like in self.likes],
            "places": self.pulls.places,
            "micros": self.pulls.micros,
            "addresses": self.pulls.addresses,
        }


def unbundled(bundle_id: str, plain: Mapping[str, Any], *, most: int | None = None) -> Sequence[Mapping[str, Any]]:
    """Return the events of a bundle in the form of `Event.as_plain`, in order: all, or the first `most`."""
    likes = [(like, _said(like["request"])) for like in plain["likes"]]
    ids, request_ids = _numbered(bundle_id), _numbered(_request_id(bundle_id))
    pulls = zip(plain["places"], plain["micros"], plain["addresses"], strict=True)
    return [
        _event(next(ids), next(request_ids), likes[place], micros, address)
        for place, micros, address in islice(pulls, most)
    ]


def sizes(plain: Mapping[str, Any]) -> Sequence[int]:
    """Return about how many bytes each event of a bundle takes, in order."""
    of_likes = [size_of(like) for like in plain["likes"]]
    return [of_likes[place] for place in plain["places"]]


def size_of(plain: Mapping[str, Any]) -> int:
    """Return about how many bytes events of a likeness take."""
    return len(msgspec.json.encode(plain)) + _OF_EACH


def portion(sizes: Sequence[int], begin: int, most: int) -> int:
    """Return where a request ends that tells of events from `begin` on: of `most`, and of no more than `MAX_BYTES`."""
    end, told = begin, 0
    while end < min(len(sizes), begin + most) and (end == begin or told + sizes[end] <= MAX_BYTES):
        told += sizes[end]
        end += 1
    return end


def _said(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is the same of all requests that are alike."""
    return {name: value for name, value in request.items() if name not in ("id", "addr")}


def _event(
    event_id: str, request_id: str, common: tuple[Mapping[str, Any], Mapping[str, Any]], micros: int, address: str
) -> Mapping[str, Any]:
    like, said = common
    where = {"addr": address} if address else {}
    return {**like, "id": event_id, "timestamp": _timestamp(micros), "request": {"id": request_id, **where, **said}}


def _timestamp(micros: int) -> str:
    """Return what `timestamp` does of the moment."""
    second, rest = divmod(micros, 1_000_000)
    return f"{_second(second)}.{rest:06}Z"


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).replace(tzinfo=None).isoformat(timespec="seconds")


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _request_id(bundle_id: str) -> str:
    """Return the id of the first pull's request."""
    return str(uuid5(UUID(bundle_id), "request"))


def _numbered(first: str) -> Iterator[str]:
    """Yield ids that count on from the first: its last sixteen bits do, the others are the bundle's own.

    There are fewer in a bundle, and what is random in the rest tells bundles apart.
    """
    begin, number = first[:-4], int(first[-4:], 16)
    return (f"{begin}{at & 0xFFFF:04x}" for at in count(number))


def subject_of(plain: Mapping[str, Any]) -> Subject:
    """Return what was pulled, of an event that is one of a bundle's."""
    return Subject.BLOB if plain["target"].get("mediaType") == BLOB_TYPE else Subject.MANIFEST
