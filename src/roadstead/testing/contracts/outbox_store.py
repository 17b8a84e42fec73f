"""What an outbox promises (``events.ports.OutboxStore``), and that every change is told in its own transaction.

A subclass gives the fixture ``url``: a migrated database of the test's own.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from roadstead.acts import ActKind, Asked
from roadstead.db.engine import Database, open_database
from roadstead.db.moments import from_micros, to_micros
from roadstead.events.bundle import Bundle, Pulls
from roadstead.events.event import BLOB_TYPE, Action, Cause, Event, Source, Subject, timestamp
from roadstead.events.ports import Letter, LetterState
from roadstead.events.rules import Interest, Interests
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import ManifestBlobUnknownError
from roadstead.registry.ports import BlobRecord, ManifestReference, NewManifest, ReferenceKind, TagAge
from roadstead.storage import keys

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
APP, OTHER = RepositoryName("team/app"), RepositoryName("team/other")
V1 = Tag("v1")
CAUSE = Cause(id="r1", host="registry.example", method="PUT", agent="docker", actor="ana", origin="https://r.example")
CONFIG = b"{}"
TYPE = "application/vnd.oci.image.manifest.v1+json"

EVERYTHING = frozenset(Action)
BOTH = Interests(
    endpoints=(
        Interest(endpoint="all", actions=EVERYTHING, heads=True),
        Interest(endpoint="pushes", actions=frozenset({Action.PUSH}), ignored_media_types=frozenset({TYPE})),
    ),
    references=True,
)


def manifest(content: str = "one") -> NewManifest:
    """Return a manifest that needs `CONFIG`."""
    config = {"mediaType": "application/x", "digest": str(Digest.of(CONFIG)), "size": len(CONFIG)}
    raw = json.dumps({"config": config, "layers": [], "annotations": {"content": content}}).encode()
    needs = ManifestReference(ReferenceKind.CONFIG, Digest.of(CONFIG), len(CONFIG))
    return NewManifest(digest=Digest.of(raw), media_type=TYPE, raw=raw, references=(needs,))


def pull(repository: RepositoryName, at: datetime = NOW, *, head: bool = False) -> Event:
    """Return the event of a pull."""
    return Event(
        action=Action.PULL,
        subject=Subject.BLOB,
        repository=repository,
        at=at,
        digest=Digest.of(b"pulled"),
        media_type=BLOB_TYPE,
        cause=Cause(method="HEAD" if head else "GET"),
    )


def told_of(*pulls: Event) -> Sequence[Bundle]:
    """Return a bundle for each pull, for the endpoint that wants all."""
    return [Bundle("all", pull.repository, [pull], Pulls([0], [to_micros(pull.at)], ["192.0.2.1:5"])) for pull in pulls]


class OutboxStoreContract:
    """The promises of `OutboxStore`, and of the stores that write to it."""

    @pytest.fixture
    async def told(self, url: str) -> AsyncIterator[Database]:
        """A database whose changes are told to two endpoints."""
        database = await open_database(url, migrate=False, interests=BOTH, source=Source("here:5000", "i1"))
        yield database
        await database.close()

    @pytest.fixture
    async def quiet(self, url: str) -> AsyncIterator[Database]:
        """The same database with no endpoint."""
        database = await open_database(url, migrate=False)
        yield database
        await database.close()

    async def test_every_change_is_told_as_it_is_made(self, told: Database) -> None:
        """In the order of the changes, with cause, type and size; to whom it may concern."""
        await push_config(told, APP)
        pushed = manifest()
        await told.manifests.put(APP, pushed, [V1, Tag("v2")], cause=CAUSE, now=NOW)
        await told.manifests.put(APP, pushed, [], cause=CAUSE, now=NOW)
        await told.blobs.mount(OTHER, Digest.of(CONFIG), source=APP, cause=CAUSE, now=NOW)
        await told.manifests.delete_tag(APP, V1, cause=CAUSE, now=NOW)
        await told.manifests.restore(APP, V1, pushed.digest, now=NOW)
        await told.manifests.delete(APP, pushed.digest, cause=CAUSE, now=NOW)
        await told.blobs.unlink(APP, Digest.of(CONFIG), cause=CAUSE, now=NOW)

        letters = await due(told, "all")
        assert [described(letter) for letter in letters] == [
            ("push", "blob", "team/app", None),
            ("push", "manifest", "team/app", "v1"),
            ("push", "manifest", "team/app", "v2"),
            ("push", "manifest", "team/app", None),
            ("mount", "blob", "team/other", None),
            ("delete", "tag", "team/app", "v1"),
            ("push", "manifest", "team/app", "v1"),
            ("delete", "manifest", "team/app", None),
            ("delete", "tag", "team/app", "v1"),
            ("delete", "tag", "team/app", "v2"),
            ("delete", "blob", "team/app", None),
        ]
        assert [described(letter)[:2] for letter in await due(told, "pushes")] == [("push", "blob")]
        first = letters[1].event
        assert first["target"]["references"] == [
            {"mediaType": "application/x", "size": 2, "digest": str(Digest.of(CONFIG))}
        ]
        assert (first["actor"], first["request"]["host"]) == ({"name": "ana"}, "registry.example")
        assert first["target"]["url"] == f"https://r.example/v2/team/app/manifests/{pushed.digest}"
        assert first["source"] == {"addr": "here:5000", "instanceID": "i1"}
        assert letters[4].event["target"]["fromRepository"] == "team/app"

    async def test_what_did_not_happen_is_not_told(self, told: Database) -> None:
        """A push that is refused, a delete of what isn't there, a mount of what nobody has."""
        with pytest.raises(ManifestBlobUnknownError):
            await told.manifests.put(APP, manifest(), [V1], cause=CAUSE, now=NOW)
        assert await told.manifests.delete(APP, manifest().digest, cause=CAUSE, now=NOW) is None
        assert not await told.manifests.delete_tag(APP, V1, cause=CAUSE, now=NOW)
        assert not await told.manifests.restore(APP, V1, manifest().digest, now=NOW)
        assert not await told.blobs.unlink(APP, Digest.of(CONFIG), cause=CAUSE, now=NOW)
        assert await told.blobs.mount(APP, Digest.of(CONFIG), source=None, cause=CAUSE, now=NOW) is None

        assert await told.outbox.pending() == {}

    async def test_nobody_to_tell_writes_nothing(self, quiet: Database) -> None:
        """Not a row."""
        await push_config(quiet, APP)
        await quiet.manifests.put(APP, manifest(), [V1], cause=CAUSE, now=NOW)

        assert await quiet.outbox.letters(endpoint=None, state=None, before=None, limit=10) == []

    async def test_retention_tells_of_tags(self, told: Database) -> None:
        """A tag that a rule removes is removed for whoever follows it."""
        await push_config(told, APP)
        await told.manifests.put(APP, manifest(), [V1], cause=CAUSE, now=NOW)
        assert await told.collection.expire_tag(APP, TagAge(V1, manifest().digest, NOW), now=NOW)

        assert described((await due(told, "all"))[-1]) == ("delete", "tag", "team/app", "v1")

    async def test_pulls_are_added_and_go_when_delivered(self, told: Database) -> None:
        """They are told to whoever wants pulls; delivered, nothing is left of them."""
        await push_config(told, APP)
        await told.outbox.add(told_of(pull(APP), pull(OTHER, head=True)))
        letters = await due(told, "all")
        assert [letter.action for letter in letters] == [Action.PUSH, Action.PULL, Action.PULL]

        await told.outbox.settle([letter.position for letter in letters], now=NOW)

        assert await due(told, "all") == []
        assert [letter.action for letter in await every(told)] == [Action.PUSH, Action.PUSH]

    async def test_pulls_told_together_are_one_letter(self, told: Database) -> None:
        """It has them in their order, each with an id of its own, the same ones each time; and counts as many."""
        get, head = pull(APP), pull(APP, head=True)
        moments = [to_micros(NOW + number * SECOND) for number in range(3)]
        pulls = Pulls([0, 1, 0], moments, [f"192.0.2.{number}:5" for number in range(3)])
        bundle = Bundle("all", APP, [get, head], pulls)
        await told.outbox.add([bundle])

        [letter] = await due(told, "all")
        assert await told.outbox.pending() == {"all": 3}
        found = [event for _, event in letter.events]
        assert {subject for subject, _ in letter.events} == {Subject.BLOB}
        assert [(event["request"]["method"], event["request"]["addr"]) for event in found] == [
            ("GET", "192.0.2.0:5"),
            ("HEAD", "192.0.2.1:5"),
            ("GET", "192.0.2.2:5"),
        ]
        assert [event["timestamp"] for event in found] == [timestamp(from_micros(each)) for each in moments]
        assert (letter.event, letter.more) == (found[0], 2)
        assert letter.event_id == found[0]["id"] == bundle.id
        assert found[0] == json.loads(json.dumps(bundle.first.as_plain(Source("here:5000", "i1"))))
        assert len({event["id"] for event in found} | {event["request"]["id"] for event in found}) == 6
        assert (await due(told, "all"))[0] == letter

        await told.outbox.settle([letter.position], now=NOW)

        assert await every(told) == []

    async def test_a_held_letter_holds_its_repository_alone(self, told: Database) -> None:
        """Until its time; the others of that endpoint, and the same event for others, go on."""
        await told.outbox.add(told_of(pull(APP), pull(OTHER), pull(APP)))
        first = (await due(told, "all"))[0]

        await told.outbox.hold(first.position, error="503", until=NOW + SECOND)

        assert [letter.repository for letter in await due(told, "all")] == ["team/other"]
        assert await told.outbox.next_due("all") == NOW + SECOND
        assert await told.outbox.next_due("pushes") is None
        later = await due(told, "all", now=NOW + SECOND)
        assert [letter.repository for letter in later] == ["team/app", "team/other", "team/app"]
        assert (later[0].attempts, later[0].error) == (1, "503")

        await told.outbox.release("all", now=NOW)

        assert len(await due(told, "all")) == 3

    async def test_a_buried_letter_lets_its_repository_go_on(self, told: Database) -> None:
        """It is kept with its last error, and sent again when asked."""
        await told.outbox.add(told_of(pull(APP), pull(APP)))
        first, second = await due(told, "all")
        await told.outbox.hold(first.position, error="503", until=NOW + SECOND)

        await told.outbox.bury(first.position, error="410", now=NOW)

        assert [letter.position for letter in await due(told, "all")] == [second.position]
        [dead] = await told.outbox.letters(endpoint="all", state=LetterState.DEAD, before=None, limit=10)
        assert (dead.event_id, dead.attempts, dead.error, dead.settled_at) == (first.event_id, 2, "410", NOW)

        assert await told.outbox.replay(event_id=first.event_id) == 1

        assert [letter.event_id for letter in await due(told, "all")] == [first.event_id, second.event_id]

    async def test_replay_takes_what_was_asked(self, told: Database) -> None:
        """By endpoint, state and time; what is pending stays as it is."""
        for minute in range(3):
            await push_config(told, APP, now=NOW + minute * SECOND)
        letters = await due(told, "all")
        await told.outbox.settle([letter.position for letter in letters], now=NOW)
        assert await told.outbox.replay(endpoint="pushes", state=LetterState.DELIVERED) == 0

        assert await told.outbox.replay(endpoint="all", since=NOW + SECOND) == 2

        assert [letter.event_id for letter in await due(told, "all")] == [letter.event_id for letter in letters[1:]]

    async def test_a_replay_is_written_down(self, told: Database) -> None:
        """With the id that was asked for, and only where something was done."""
        asked = Asked("shell:root", NOW, "here")
        await push_config(told, APP)
        [letter] = await due(told, "all")
        await told.outbox.settle([letter.position], now=NOW)
        lines = partial(told.acts.lines, kind=ActKind.EVENTS_REPLAY, limit=10)

        assert await told.outbox.replay(event_id="nope", asked=asked) == 0
        assert await lines() == []

        assert await told.outbox.replay(event_id=letter.event_id, endpoint="all", asked=asked) == 1
        [line] = await lines()
        assert (line.act.by, line.act.target) == ("shell:root", "all")
        assert line.act.reason == f"1 event with the id {letter.event_id}"

    async def test_old_letters_are_purged(self, told: Database) -> None:
        """Those settled long ago, and pending ones of an endpoint that is gone; a pending one of ours is kept."""
        await push_config(told, APP)
        [letter] = await due(told, "all")
        await told.outbox.settle([letter.position], now=NOW)

        assert await told.outbox.purge(settled_before=NOW, endpoints=["all", "pushes"]) == 0
        assert await told.outbox.purge(settled_before=NOW + SECOND, endpoints=["all", "pushes"]) == 1
        assert [letter.endpoint for letter in await every(told)] == ["pushes"]
        assert await told.outbox.purge(settled_before=NOW + SECOND, endpoints=["all"]) == 1
        assert await every(told) == []

    async def test_letters_come_in_pages(self, told: Database) -> None:
        """The latest first; a page begins before the last of the one before."""
        await told.outbox.add(told_of(*(pull(APP) for _ in range(5))))
        found: list[Letter] = []
        while page := await told.outbox.letters(
            endpoint="all", state=None, before=found[-1].position if found else None, limit=2
        ):
            found += page

        assert [letter.position for letter in found] == sorted((letter.position for letter in found), reverse=True)
        assert len(found) == 5

    async def test_a_commit_elsewhere_wakes(self, told: Database, url: str) -> None:
        """Long before the time is over."""
        elsewhere = await open_database(url, migrate=False, interests=BOTH)
        try:
            async with told.outbox.commits() as commits:
                await commits.wait(0.05)
                loop = asyncio.get_running_loop()
                began = loop.time()
                waiting = asyncio.ensure_future(commits.wait(30))
                await asyncio.sleep(0)
                await elsewhere.outbox.add(told_of(pull(APP)))
                await waiting
                assert loop.time() - began < 10
        finally:
            await elsewhere.close()

    async def test_tags_moved_at_once_are_told_in_the_order_they_moved(self, told: Database, url: str) -> None:
        """Whoever believes the last event believes what the registry says, however pushes meet."""
        elsewhere = await open_database(url, migrate=False, interests=BOTH)
        try:
            await push_config(told, APP)
            pushes = [
                database.manifests.put(APP, manifest(f"{number}"), [V1], cause=CAUSE, now=NOW)
                for number, database in enumerate([told, elsewhere] * 10)
            ]
            await asyncio.gather(*pushes)
        finally:
            await elsewhere.close()

        record = await told.manifests.find_by_tag(APP, V1)
        assert record is not None
        assert (await due(told, "all"))[-1].event["target"]["digest"] == str(record.digest)


async def push_config(database: Database, repository: RepositoryName, *, now: datetime = NOW) -> None:
    """Push the blob that manifests here need."""
    digest = Digest.of(CONFIG)
    blob = BlobRecord(digest, len(CONFIG), keys.blob(digest))
    await database.blobs.commit(repository, blob, upload=None, cause=CAUSE, now=now)


async def due(database: Database, endpoint: str, *, now: datetime = NOW) -> Sequence[Letter]:
    """Return what is due."""
    return await database.outbox.due(endpoint, now=now, limit=100)


async def every(database: Database) -> Sequence[Letter]:
    """Return all letters, the latest first."""
    return await database.outbox.letters(endpoint=None, state=None, before=None, limit=100)


def described(letter: Letter) -> tuple[str, str, str, str | None]:
    """Return what a letter tells, in short."""
    return letter.action.value, letter.subject.value, letter.repository, letter.event["target"].get("tag")
