"""Who is told of what."""

from datetime import UTC, datetime

import pytest

from roadstead.events.event import Action, Cause, Event, Subject
from roadstead.events.rules import NOBODY, Interest, Interests
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName

TYPE = "application/vnd.oci.image.manifest.v1+json"


def event(action: Action, media_type: str = TYPE, method: str = "GET") -> Event:
    """Return an event."""
    return Event(
        action=action,
        subject=Subject.MANIFEST,
        repository=RepositoryName("a"),
        at=datetime(2026, 3, 1, tzinfo=UTC),
        digest=Digest.of(b""),
        media_type=media_type,
        cause=Cause(method=method),
    )


@pytest.mark.parametrize(
    ("interest", "happened", "wanted"),
    [
        (Interest(endpoint="a", actions=frozenset({Action.PUSH})), event(Action.PUSH), True),
        (Interest(endpoint="a", actions=frozenset({Action.PUSH})), event(Action.DELETE), False),
        (
            Interest(endpoint="a", actions=frozenset(Action), ignored_media_types=frozenset({TYPE})),
            event(Action.PUSH),
            False,
        ),
        (
            Interest(endpoint="a", actions=frozenset(Action), ignored_media_types=frozenset({TYPE})),
            event(Action.PUSH, TYPE.upper()),
            True,
        ),
        (Interest(endpoint="a", actions=frozenset(Action)), event(Action.PULL), True),
        (Interest(endpoint="a", actions=frozenset(Action)), event(Action.PULL, method="HEAD"), False),
        (Interest(endpoint="a", actions=frozenset(Action), heads=True), event(Action.PULL, method="HEAD"), True),
    ],
)
def test_wants(interest: Interest, happened: Event, wanted: bool) -> None:
    """By action, then by type, letter by letter; a HEAD is a pull to those who say so."""
    assert interest.wants(happened) is wanted


def test_listeners_in_the_order_of_the_settings() -> None:
    """Each that wants to hear; nobody where there is nobody."""
    pulls = Interest(endpoint="pulls", actions=frozenset({Action.PULL}))
    everything = Interest(endpoint="all", actions=frozenset(Action))
    interests = Interests(endpoints=(everything, pulls))

    assert interests.listeners(event(Action.PULL)) == ["all", "pulls"]
    assert interests.listeners(event(Action.PUSH)) == ["all"]
    assert (interests.any, interests.pulls) == (True, True)
    assert (NOBODY.any, NOBODY.pulls, NOBODY.listeners(event(Action.PUSH))) == (False, False, [])
    assert not Interests(endpoints=(Interest(endpoint="a", actions=frozenset({Action.PUSH})),)).pulls
