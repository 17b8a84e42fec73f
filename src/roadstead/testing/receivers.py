"""A receiver of events for tests: a real HTTP server that can be told to misbehave."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Self

from aiohttp import web

from roadstead.testing.ports import free_port
from roadstead.testing.servers import wait_until


class Manner(Enum):
    """What becomes of one request."""

    TAKE = "200"
    REFUSE = "500"
    HANG = "no answer for a long time"
    CUT = "the connection is closed instead of an answer"
    TAKE_AND_CUT = "the event is taken, and the connection closed before the answer"
    ENDLESS = "200, and a body that never ends"
    TAKE_AND_CLOSE = "200, and the connection closed"
    LATE = "the event is taken, and 200 comes when nobody waits for it any more"
    GARBAGE = "an answer that isn't HTTP"


_TAKEN = frozenset({Manner.TAKE, Manner.TAKE_AND_CUT, Manner.ENDLESS, Manner.TAKE_AND_CLOSE, Manner.LATE})
_LATE_S = 2.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request that came."""

    path: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    manner: Manner

    @property
    def events(self) -> Sequence[dict[str, Any]]:
        """The events in distribution's envelope, or the CloudEvent's data."""
        document = json.loads(self.body)
        found = document["events"] if "events" in document else [document["data"]]
        return list(found)

    def header(self, name: str) -> str | None:
        """Return the first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def take(_: dict[str, Any]) -> Manner:
    """Take everything."""
    return Manner.TAKE


class Receiver:
    """Takes events on a port of its own, which it keeps over restarts; every request that came is in ``arrivals``.

    `behave` is asked what to do with each event. Redirects are answered at ``/redirect/STATUS?to=…``.
    """

    def __init__(self, behave: Callable[[dict[str, Any]], Manner] = take) -> None:
        self.behave = behave
        self.port = free_port()
        self.arrivals: list[Arrival] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it takes events."""
        return f"http://127.0.0.1:{self.port}/events"

    @property
    def taken(self) -> list[dict[str, Any]]:
        """The events that were taken, in the order they came, repetitions included."""
        return [event for arrival in list(self.arrivals) if arrival.manner in _TAKEN for event in arrival.events]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to listen."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(ready,), name="receiver")
        self._thread.start()
        assert ready.wait(10), "the receiver doesn't listen"

    def stop(self) -> None:
        """Close every connection and listen no more."""
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(self._over.set)
            self._thread.join(10)

    def wait_for(
        self, condition: Callable[[list[dict[str, Any]]], bool], *, timeout: timedelta = timedelta(seconds=20)
    ) -> bool:
        """Wait until the events that were taken fulfil a condition; say whether they do."""
        return wait_until(lambda: condition(self.taken), timeout=timeout)

    def _work(self, ready: threading.Event) -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._over = asyncio.Event()
        application = web.Application()
        application.router.add_post("/events", self._take)
        application.router.add_route("*", "/redirect/{status}", self._redirect)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self._loop = asyncio.get_running_loop()
        ready.set()
        await self._over.wait()
        await runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        plain = Arrival(request.path_qs, list(request.headers.items()), body, Manner.TAKE)
        manner = self.behave(plain.events[0])
        self.arrivals.append(Arrival(plain.path, plain.headers, body, manner))
        match manner:
            case Manner.TAKE:
                return web.Response(status=200)
            case Manner.REFUSE:
                return web.Response(status=500, text="no")
            case Manner.HANG:
                await asyncio.sleep(3600)
            case Manner.LATE:
                await asyncio.sleep(_LATE_S)
                return web.Response(status=200)
            case Manner.TAKE_AND_CLOSE:
                taken = web.Response(status=200)
                taken.force_close()
                return taken
            case Manner.GARBAGE if request.transport is not None:
                request.transport.write(b"\0\xff 200 fine\r\n\r\n")
                request.transport.close()
                return web.Response(status=200)
            case Manner.ENDLESS:
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(b"x" * 1024)
                    await asyncio.sleep(0.05)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=200)

    async def _redirect(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.arrivals.append(Arrival(request.path_qs, list(request.headers.items()), body, Manner.REFUSE))
        headers = {"Location": request.query["to"]} if "to" in request.query else {}
        return web.Response(status=int(request.match_info["status"]), headers=headers)
