"""Events as plain data, and what they refer to."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.events.envelope import Format, envelope
from roadstead.events.event import (
    UNPROMPTED,
    Action,
    Cause,
    Event,
    Source,
    Subject,
    manifest_pushed,
    references_of,
    tag_deleted,
    timestamp,
)
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.testing.images import make_image, make_index

NOW = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
REPOSITORY = RepositoryName("team/app")
SOURCE = Source("here:5000", "i")


def test_what_is_empty_is_left_out() -> None:
    """But for the request's id, method and agent, and the actor's place: as distribution does."""
    event = tag_deleted(REPOSITORY, Tag("v1"), cause=UNPROMPTED, at=NOW)

    assert event.as_plain(SOURCE) == {
        "id": event.id,
        "timestamp": "2026-03-01T12:00:00.000005Z",
        "action": "delete",
        "target": {"repository": "team/app", "tag": "v1"},
        "request": {"id": "", "method": "", "useragent": ""},
        "actor": {},
        "source": {"addr": "here:5000", "instanceID": "i"},
    }


def test_one_event_for_each_tag() -> None:
    """In their order, each with an id of its own; without tags one, of the manifest."""

    def tags(*names: str) -> list[Tag | None]:
        pushed = manifest_pushed(
            REPOSITORY, Digest.of(b"m"), "t", 1, [Tag(name) for name in names], cause=UNPROMPTED, at=NOW
        )
        events = list(pushed)
        assert len({event.id for event in events}) == len(events)
        return [event.tag for event in events]

    assert tags("b", "a") == [Tag("b"), Tag("a")]
    assert tags() == [None]


@pytest.mark.parametrize("image", [make_image(layers=2), make_image(docker=True)])
def test_references_of_an_image(image) -> None:
    """Its config, then its layers."""
    manifest = image.manifest

    assert [found["digest"] for found in references_of(image.raw)] == [
        str(descriptor.digest) for descriptor in manifest.references()
    ]


def test_references_of_an_index() -> None:
    """The manifests it lists, without their platforms: as distribution 2 tells them."""
    image = make_image()

    assert references_of(make_index([image]).raw) == [
        {"mediaType": image.media_type, "size": image.size, "digest": str(image.digest)}
    ]


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])))
def test_timestamps_are_read_back(moment: datetime) -> None:
    """RFC 3339, in UTC, to the microsecond."""
    assert datetime.fromisoformat(timestamp(moment)) == moment


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(TEXT, TEXT, TEXT, st.sampled_from(Format))
def test_envelopes_are_json_whatever_was_said(agent: str, host: str, actor: str, form: Format) -> None:
    """What a client says of itself comes through as it is."""
    event = Event(
        action=Action.PULL,
        subject=Subject.BLOB,
        repository=REPOSITORY,
        at=NOW,
        digest=Digest.of(b""),
        cause=Cause(agent=agent, host=host, actor=actor),
    ).as_plain(SOURCE)

    document = json.loads(envelope(form, [("blob", event)]).body)

    found = document["events"][0] if form is Format.DISTRIBUTION else document["data"]
    assert found == event
    assert found["request"]["useragent"] == agent


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
def test_distributions_envelope_is_as_it_writes_it(said: list[tuple[str, str]]) -> None:
    """Indented by three, nothing escaped that needn't be."""
    events = [
        Event(
            action=Action.PUSH,
            subject=Subject.MANIFEST,
            repository=REPOSITORY,
            at=NOW,
            digest=Digest.of(b""),
            size=7,
            references=[{"mediaType": agent, "size": 1}] * len(said),
            cause=Cause(agent=agent, actor=actor),
        ).as_plain(SOURCE)
        for agent, actor in said
    ]

    body = envelope(Format.DISTRIBUTION, [("manifest", event) for event in events]).body

    assert body.decode() == json.dumps({"events": events}, indent=3, ensure_ascii=False)
