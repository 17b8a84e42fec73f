"""Who is told of what happens: endpoints out of the settings, and what delivers to them."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from uuid import uuid4

from roadstead.background import Loop
from roadstead.clock import Clock
from roadstead.db.engine import Database
from roadstead.errors import UnavailableError
from roadstead.events.courier import Courier, Manners
from roadstead.events.delivery import Delivery, Purge
from roadstead.events.envelope import Format
from roadstead.events.event import Action, Source
from roadstead.events.ports import Tally
from roadstead.events.pulls import PullBuffer
from roadstead.events.rules import Interest, Interests
from roadstead.http.causes import Telling
from roadstead.settings.model import EndpointSettings, Settings

TRIED_AGAIN_AFTER = timedelta(seconds=1)  # where the database didn't answer
PURGED_EVERY = timedelta(hours=1)

_INSTANCE = str(uuid4())


def interests(settings: Settings) -> Interests:
    """Return who wants to hear of what."""
    return Interests(
        endpoints=tuple(_interest(endpoint) for endpoint in settings.events.endpoints),
        references=settings.events.include_references,
    )


def event_source(settings: Settings) -> Source:
    """Return what events say of where they happened: this machine and port, and an id of this process."""
    return Source(f"{socket.gethostname()}:{settings.server.listen.port}", _INSTANCE)


def _interest(endpoint: EndpointSettings) -> Interest:
    return Interest(
        endpoint=endpoint.name,
        actions=frozenset(Action(action.value) for action in endpoint.actions),
        ignored_media_types=frozenset(endpoint.ignored_media_types),
        heads=endpoint.heads,
    )


@asynccontextmanager
async def telling(
    database: Database, settings: Settings, tally: Tally, clock: Clock
) -> AsyncGenerator[Telling | None, None]:
    """Give what a worker's requests are told with; None where nobody wants to hear. Pulls are written meanwhile."""
    wanted = interests(settings)
    if not wanted.any:
        yield None
        return
    server = settings.server
    buffer = PullBuffer(wanted, database.outbox, tally) if wanted.pulls else None
    told = Telling(
        now=clock.now,
        origin="" if server.relative_urls else (server.public_url or "").rstrip("/"),
        prefix=server.prefix,
        references=wanted.references,
        pulls=buffer,
    )
    if buffer is None:
        yield told
        return
    flushing = asyncio.ensure_future(buffer.run())
    try:
        yield told
    finally:
        flushing.cancel()
        with suppress(asyncio.CancelledError):
            await flushing
        with suppress(UnavailableError):
            await buffer.flush()


@asynccontextmanager
async def delivery_loops(
    database: Database, settings: Settings, tally: Tally, clock: Clock
) -> AsyncGenerator[Sequence[Loop], None]:
    """Give the loops that deliver events and remove old ones; none where there is no endpoint."""
    endpoints = settings.events.endpoints
    if not endpoints:
        yield ()
        return
    # The HTTP client takes its time to import; only this process needs it, and only with endpoints.
    from roadstead.events.sinks.webhook import Receiver, Webhook

    async with AsyncExitStack() as stack:
        couriers = []
        for endpoint in endpoints:
            receiver = Receiver(
                url=endpoint.url,
                headers=endpoint.headers.pairs,
                timeout=endpoint.timeout,
                form=Format(endpoint.format.value),
                signing_key=endpoint.signing_key,
            )
            sink = Webhook(receiver)
            stack.push_async_callback(sink.close)
            couriers.append(Courier(endpoint.name, sink, database.outbox, clock, tally, _manners(endpoint)))
        delivery = Delivery(couriers, database.outbox, tally)
        purge = Purge(database.outbox, clock, [endpoint.name for endpoint in endpoints], settings.events.retention)
        yield (
            Loop("delivery of events", TRIED_AGAIN_AFTER, delivery.run),
            Loop("old events", PURGED_EVERY, purge.run),
        )


def _manners(endpoint: EndpointSettings) -> Manners:
    return Manners(
        threshold=endpoint.threshold,
        backoff=endpoint.backoff,
        max_attempts=endpoint.max_attempts,
        parallel=endpoint.parallel,
        pulls_at_once=endpoint.pulls_at_once,
    )
