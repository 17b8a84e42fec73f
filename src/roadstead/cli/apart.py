"""One call in a process of its own: what it imports and starts is gone when it returns.

``serve`` prepares this way (migrations, rules). The parent imports what the workers need meanwhile, and stays
without threads or an event loop, which is what makes it safe to fork from.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from roadstead.errors import RoadsteadError, UnavailableError
from roadstead.supervisor import die_with_parent

_log = structlog.get_logger()


class PreparationError(UnavailableError):
    """What had to be done before the server could start failed."""

    def __init__(self, message: str, advice: str | None) -> None:
        super().__init__(message)
        self._advice = advice

    def advice(self) -> str | None:
        """Return the advice of the error that was met."""
        return self._advice


class Apart:
    """A coroutine that runs in a child process and gives a text."""

    def __init__(self, work: Callable[[], Awaitable[str]]) -> None:
        """Start it."""
        self._readable, writable = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _run(work, writable, parent)
        os.close(writable)

    def result(self) -> str:
        """Wait for it and return the text; raises PreparationError with what it raised."""
        with os.fdopen(self._readable, encoding="utf-8") as pipe:
            text = pipe.read()
        _, status = os.waitpid(self._pid, 0)
        if not text:
            code = os.waitstatus_to_exitcode(status)
            raise PreparationError(f"the preparation of the server ended by itself (status {code})", "See the log.")
        answer = json.loads(text)
        if "error" in answer:
            raise PreparationError(answer["error"], answer["advice"])
        result: str = answer["result"]
        return result


def _run(work: Callable[[], Awaitable[str]], writable: int, parent: int) -> NoReturn:
    status = 1
    try:
        die_with_parent(parent)
        answer = asyncio.run(_answer(work))
        with os.fdopen(writable, "w", encoding="utf-8") as pipe:
            json.dump(answer, pipe)
        status = 0
    except KeyboardInterrupt:
        pass
    except BaseException:  # noqa: BLE001 - the outermost frame of the process
        _log.exception("preparation failed")
    finally:
        os._exit(status)


async def _answer(work: Callable[[], Awaitable[str]]) -> dict[str, str | None]:
    try:
        return {"result": await work()}
    except RoadsteadError as error:
        return {"error": str(error), "advice": error.advice()}
