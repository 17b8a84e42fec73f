"""The right to write into a bucket alone (``database.mode = "rebuildable"``; docs/decisions/0017-rebuildable.md).

It is an object in the bucket that its holder replaces every few seconds, each time under the condition that nobody
else did (``If-Match``). How old it is tells the store's own clock (``Date`` less ``Last-Modified``): those of machines
may differ. Whoever finds it too old takes it over. A holder that couldn't renew it stops writing well before that, by
a clock that goes on while the machine sleeps.

No store can refuse a write that was sent before and arrives late. That is the one gap: as long as a single request of
the driver, which the time between not trusting one's own right and losing it covers.
"""

import asyncio
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from roadstead.errors import ConflictError, UnavailableError
from roadstead.storage import keys
from roadstead.storage.ports import KeepsNotes, Note, NoteChangedError

_POLL_S = 1.0

Sleep = Callable[[float], Awaitable[object]]


class WriterPresentError(ConflictError):
    """Somebody else writes into the bucket."""

    def __init__(self, owner: str) -> None:
        super().__init__(
            f"another Roadstead ({owner}) writes into this bucket, and without a database that lasts only one may"
        )
        self.owner = owner

    def advice(self) -> str:
        """Say how there can be several."""
        return "Stop it first. For several at once use PostgreSQL (database.url), without database.mode."


class WriterLostError(ConflictError):
    """The right was lost: somebody else has taken it over."""

    def __init__(self, owner: str) -> None:
        super().__init__(f"another Roadstead ({owner}) has taken over the right to write into this bucket")
        self.owner = owner


class ConditionsIgnoredError(UnavailableError):
    """The store carries out a conditional write whose condition doesn't hold: two writers can't be told apart."""

    def __init__(self) -> None:
        super().__init__(
            "the storage ignores the conditions of writes (If-Match): it can't keep one writer from another"
        )

    def advice(self) -> str:
        """Say what does without them."""
        return "Use PostgreSQL (database.url), without database.mode."


class WriterUnsureError(UnavailableError):
    """The right couldn't be renewed for a while: somebody else may have it."""

    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__(
            "the storage couldn't be reached for a while: it isn't certain that nobody else writes there now"
        )


@dataclass(frozen=True, slots=True)
class Right:
    """The right as it is held. ``version`` names the object as it was written last."""

    owner: str  # for people
    installation: str  # which database
    boot: str  # which run of which machine: a lock of its kernel tells whether a holder still lives
    token: int  # higher for every holder
    version: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The object as it was found."""

    right: Right
    age: timedelta
    released: bool


async def look(notes: KeepsNotes) -> Found | None:
    """Return who holds the right, or held it last; None where nobody ever did."""
    note = await notes.read_note(keys.WRITER)
    return None if note is None else _parse(note)


async def take(
    notes: KeepsNotes, wanted: Right, lifetime: timedelta, *, dead: Right | None = None, sleep: Sleep = asyncio.sleep
) -> Right:
    """Take the right once it is free; raises WriterPresentError as soon as its holder is seen to live.

    `dead` is a holder that the caller knows to be gone: its right is free at once.
    """
    found = await look(notes)
    while found is not None and not found.released and found.right != dead and found.age < lifetime:
        await sleep(_POLL_S)
        again = await look(notes)
        if again is not None and again.right.version != found.right.version and not again.released:
            raise WriterPresentError(again.right.owner)
        found = again
    token = 1 if found is None else found.right.token + 1
    held = Right(wanted.owner, wanted.installation, wanted.boot, token)
    try:
        return await _write(notes, held, None if found is None else found.right.version)
    except WriterLostError as error:
        raise WriterPresentError(error.owner) from error


async def check_conditions(notes: KeepsNotes, outdated: Right) -> None:
    """See that the store refuses what replaces an outdated version; raises ConditionsIgnoredError."""
    try:
        await notes.write_note(keys.WRITER, b"{}", replacing=outdated.version)
    except NoteChangedError:
        return
    raise ConditionsIgnoredError


async def renew(notes: KeepsNotes, held: Right) -> Right:
    """Hold the right for longer; raises WriterLostError."""
    return await _write(notes, held, held.version)


async def give_back(notes: KeepsNotes, held: Right) -> None:
    """Let the next have the right at once; nothing happens where it was lost."""
    try:
        await _write(notes, held, held.version, released=True)
    except WriterLostError:
        return


async def _write(notes: KeepsNotes, held: Right, replacing: str | None, *, released: bool = False) -> Right:
    facts = {"owner": held.owner, "installation": held.installation, "boot": held.boot, "token": held.token}
    # What makes every version another one; an answer that got lost is known by it.
    content = json.dumps({**facts, "released": released, "nonce": secrets.token_hex(8)}).encode()
    try:
        version = await notes.write_note(keys.WRITER, content, replacing=replacing)
    except NoteChangedError as error:
        note = await notes.read_note(keys.WRITER)
        if note is None:
            raise WriterLostError("nobody: its mark was removed") from error
        if note.content != content:
            raise WriterLostError(_parse(note).right.owner) from error
        version = note.version
    return Right(held.owner, held.installation, held.boot, held.token, version)


def _parse(note: Note) -> Found:
    try:
        said = json.loads(note.content)
        right = Right(
            str(said["owner"]), str(said["installation"]), str(said["boot"]), int(said["token"]), note.version
        )
        return Found(right, note.age, bool(said["released"]))
    except (ValueError, TypeError, KeyError):
        # Whoever wrote this, it isn't one of us that lives: it is taken over once it is old enough.
        return Found(Right("an unknown writer", "", "", 0, note.version), note.age, released=False)


class Fence:
    """Whether this machine may still write: a file beside the database, which whoever renews the right keeps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._good_until = 0.0

    def check(self) -> None:
        """Return at once while the right is certain; raises WriterUnsureError."""
        if _now() < self._good_until:
            return
        self._good_until = self._read()[1]
        if _now() >= self._good_until:
            raise WriterUnsureError

    def right(self) -> Right | None:
        """Return the right as it was kept last; None where it was lost or never held."""
        return self._read()[0]

    def keep(self, right: Right, good_until: float) -> None:
        """Keep the right for all processes of this machine; `good_until` comes from `moment`."""
        self._write(json.dumps({"right": asdict(right), "good_until": good_until}))

    def close(self) -> None:
        """Let nobody write any more."""
        self._path.unlink(missing_ok=True)

    @staticmethod
    def moment(after: timedelta) -> float:
        """Return a moment from now, by a clock that all processes of this machine share."""
        return _now() + after.total_seconds()

    def _read(self) -> tuple[Right | None, float]:
        try:
            kept = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return None, 0.0
        return Right(**kept["right"]), float(kept["good_until"])

    def _write(self, text: str) -> None:
        written = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        written.write_text(text)
        written.replace(self._path)


def _now() -> float:
    """Return seconds since the machine was started, those it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
