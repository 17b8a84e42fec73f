"""Connections to PostgreSQL for reads, and who has one of them.

The driver has a pool of its own, which does more than a read needs: proxies, a task and timers for each time that a
connection is lent. They took more of a worker's time than the read itself (docs/explanation/where-the-time-goes.md).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import asyncpg

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

IDLE_S = 300.0
"""A connection that nobody used for so long isn't used again: a firewall may have forgotten it without a word."""


class Readers:
    """At most `most` connections, lent to one reader at a time; who comes when all are lent waits in line.

    They belong to one event loop.
    """

    def __init__(self, connect: Callable[[], Awaitable["Connection"]], *, most: int, patience_s: float) -> None:
        self._connect = connect
        self._most = most
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._idle: list[tuple[Connection, float]] = []  # the one used last is the last
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._places = 0  # taken: by connections idle, lent and being opened
        self._closed = False

    def take(self) -> "Connection | None":
        """Return a connection that is idle; None where there is none."""
        while self._idle:
            connection, since = self._idle.pop()
            if not connection.is_closed() and self._loop.time() - since < IDLE_S:
                return connection
            self.discard(connection)
        return None

    async def wait(self) -> "Connection":
        """Return a connection that is opened now, or given back by another reader.

        Raises what connecting raises, and TimeoutError when none becomes free in time.
        """
        if self._places < self._most:
            self._places += 1
            return await self._open()
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self._patience_s):
                connection = await waiter
        except BaseException:
            self._pass_on(waiter)
            raise
        return connection if connection is not None else await self._open()

    def give_back(self, connection: "Connection") -> None:
        """Take back a connection that can be used again."""
        if self._closed:
            connection.terminate()
        elif not self._hand_to_next(connection):
            self._idle.append((connection, self._loop.time()))

    def discard(self, connection: "Connection") -> None:
        """End a connection of which nobody knows what state it is in."""
        connection.terminate()
        self._free_place()

    def discard_idle(self) -> None:
        """End all that are idle: one was cut, and so are the others, likely."""
        while self._idle:
            self.discard(self._idle.pop()[0])

    async def close(self) -> None:
        """End all connections: those that are idle with a word to the server, those that are lent when they return."""
        self._closed = True
        idle, self._idle = self._idle, []
        farewells = (connection.close(timeout=self._patience_s) for connection, _ in idle)
        await asyncio.gather(*farewells, return_exceptions=True)  # one that can't be said to is cut all the same

    async def _open(self) -> "Connection":
        try:
            return await self._connect()
        except BaseException:
            self._free_place()
            raise

    def _hand_to_next(self, connection: "Connection | None") -> bool:
        """Give a connection, or the place for one, to whoever waits longest; tell whether there is somebody."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _free_place(self) -> None:
        if not self._hand_to_next(None):
            self._places -= 1

    def _pass_on(self, waiter: "asyncio.Future[Connection | None]") -> None:
        """Let the next one have what a reader got in the moment in which it gave up."""
        if not waiter.done() or waiter.cancelled():
            waiter.cancel()
            return
        connection = waiter.result()
        if connection is None:
            self._free_place()
        else:
            self.give_back(connection)
