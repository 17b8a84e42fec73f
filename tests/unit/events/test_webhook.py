"""Posting one event to receivers that answer what no server should."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from roadstead.events.courier import LONGEST_HOLD, Manners
from roadstead.events.event import Action, Event, Source, Subject
from roadstead.events.ports import DeliveryError, Letter, LetterState
from roadstead.events.sinks.webhook import Receiver, Webhook
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.secret import Secret

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EVENT = Event(action=Action.DELETE, subject=Subject.TAG, repository=RepositoryName("a"), at=NOW, tag=Tag("v1"))
LETTER = Letter(
    position=1,
    endpoint="a",
    event_id=EVENT.id,
    repository="a",
    subject=EVENT.subject,
    action=EVENT.action,
    event=EVENT.as_plain(Source("here:5000", "i")),
    state=LetterState.PENDING,
    attempts=0,
    error="",
    created_at=NOW,
)


@asynccontextmanager
async def answering(answer: bytes, heard: list[bytes] | None = None) -> AsyncIterator[int]:
    """Answer every request with these bytes, and close; give the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def deliver(port: int, **more: object) -> str:
    """Post the event."""
    url = Secret(f"http://{more.pop('user', '')}127.0.0.1:{port}/events")
    webhook = Webhook(Receiver(url=url, timeout=timedelta(seconds=2), **more))  # type: ignore[arg-type]
    try:
        return await webhook.deliver(LETTER.events)
    finally:
        await webhook.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204 No Content"),
        (b"HTTP/1.1 202\r\ncontent-length: 0\r\n\r\n", "202"),
        (b"HTTP/1.1 200 \xf0\x9f\x91\x8d\xff fine\r\ncontent-length: 3\r\n\r\nx", "200  fine"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "304 Not Modified"),
        (b"HTTP/1.1 200 " + b"y" * 500 + b"\r\n\r\n", "200 " + "y" * 80),
    ],
)
async def test_what_is_taken(answer: bytes, expected: str) -> None:
    """The status alone counts; its words are kept as far as anybody can read them."""
    async with answering(answer) as port:
        assert await deliver(port) == expected


@pytest.mark.parametrize(
    ("answer", "reason", "said"),
    [
        (b"HTTP/1.1 500 \xff\xfe\r\n\r\n", "the receiver answered 500", "500"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "the receiver answered 401 Unauthorized", "401 Unauthorized"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no answer that is one of HTTP", None),
        (b"", "no answer that is one of HTTP", None),
        (b"HTTP/1.1 307 x\r\nlocation: http://[\r\n\r\n", "a Location that is no address", "307 x"),
        (b"HTTP/1.1 307 x\r\nlocation: //elsewhere/\r\n\r\n", "another host", "307 x"),
        (b"HTTP/1.1 308 x\r\nlocation: /events\r\n\r\n", "redirects more than 5 times", "308 x"),
        (b"HTTP/1.1 301 x\r\nlocation: /events\r\n\r\n", "a GET without body", "301 x"),
    ],
)
async def test_what_is_not_taken(answer: bytes, reason: str, said: str | None) -> None:
    """Each with its reason."""
    async with answering(answer) as port:
        with pytest.raises(DeliveryError) as failed:
            await deliver(port)

    assert reason in failed.value.reason
    assert failed.value.answer == said


async def test_nobody_listens() -> None:
    """Said in the system's words, without the address."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(DeliveryError, match="no connection: Connection refused"):
            await deliver(unused.getsockname()[1])


async def test_a_header_goes_before_the_address() -> None:
    """Where both say who we are."""
    heard: list[bytes] = []
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", heard) as port:
        await deliver(port, user="me:pw@")
        await deliver(port, user="me:pw@", headers=(("Authorization", Secret("Bearer x")),))

    assert b"Authorization: Basic bWU6cHc=" in heard[0]
    assert b"Authorization: Bearer x" in heard[1]


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        (1, timedelta()),
        (2, timedelta()),
        (3, timedelta(seconds=2)),
        (4, timedelta(seconds=4)),
        (7, timedelta(seconds=32)),
        (8, LONGEST_HOLD),
        (10_000, LONGEST_HOLD),
    ],
)
def test_holds_grow(attempts: int, expected: timedelta) -> None:
    """At once up to the threshold, then twice as long each time, up to a minute."""
    assert Manners(threshold=3, backoff=timedelta(seconds=2)).hold(attempts) == expected


def test_a_long_backoff_is_kept() -> None:
    """Longer than the longest hold: never less than what was set."""
    manners = Manners(threshold=1, backoff=timedelta(minutes=10))
    assert manners.hold(1) == manners.hold(50) == timedelta(minutes=10)
