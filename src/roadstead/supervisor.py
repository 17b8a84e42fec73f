"""One parent over the processes of a server: workers that answer requests and one background process.

The parent has no threads and no event loop: it forks, waits for signals and children, and forks again. What the
children need is imported before the fork, so a worker is there within milliseconds and shares the parent's memory.

    SIGTERM, SIGINT   no new connections; what is being answered is finished, within the time allowed; then the end
    the same again    the end at once, status 1
    SIGHUP            what can be renewed is looked at: a changed certificate is taken up

A child that dies is replaced, at once and then with growing pauses; if a child dies again and again before it was
ever ready, the parent gives up with status 1. Where something can be renewed (`Renewal`), the children that use it are
replaced one for one: the next one is ready before the last one is told to take no more connections (SIGUSR1),
finish what it has and go. No child outlives the parent, however it ends: the kernel tells them
(prctl(2), PR_SET_PDEATHSIG).
"""

import contextlib
import ctypes
import errno
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

import structlog

from roadstead.errors import ConflictError, RoadsteadError, UnavailableError
from roadstead.settings.address import ListenAddress

_log = structlog.get_logger()

BACKLOG: Final = 1024
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_STOPS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
RETIRE: Final = signal.SIGUSR1
"""Tells a child that its successor is there."""
_PR_SET_PDEATHSIG: Final = 1
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 30.0
_SETTLED_AFTER_S: Final = 10.0
_ATTEMPTS: Final = 4
_GIVE_UP: Final = 75  # the status of a child that raised GiveUpError; EX_TEMPFAIL of sysexits.h
_GRACE_S: Final = 1.0  # children keep the time themselves; the parent only steps in for one that is stuck


class GiveUpError(ConflictError):
    """A child can't go on, and no other child could: the whole server has to end."""


class PortUnavailableError(UnavailableError):
    """The address can't be listened at."""

    def __init__(self, address: ListenAddress, reason: str) -> None:
        super().__init__(f"cannot listen at {address}: {reason}")
        self.address = address

    def advice(self) -> str:
        """Say how to take another address."""
        return "Stop what listens there, or take another address with --listen HOST:PORT (server.listen)."


def listen(address: ListenAddress, count: int) -> list[socket.socket]:
    """Return `count` listening sockets on one address, among which the kernel shares out the connections.

    Each worker has its own and the parent keeps a copy: what waits in the queue of a worker that died waits for the
    next one. Raises PortUnavailableError, also where another server would share the port with us.
    """
    try:
        family, _, _, _, target = _resolved(address)
        # Whoever listens with SO_REUSEPORT would let us in beside him, and then get every other request.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
        sockets: list[socket.socket] = []
        for _ in range(count):
            listener = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(target)
            listener.listen(BACKLOG)
            target = listener.getsockname()  # port 0 is a free one the first time, and then that one
    except OSError as error:
        reason = (
            "something else listens there already"
            if error.errno == errno.EADDRINUSE
            else (error.strerror or str(error))
        )
        raise PortUnavailableError(address, reason) from error
    return sockets


def _resolved(address: ListenAddress) -> tuple[int, int, int, str, tuple[object, ...]]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # `localhost` is both; IPv4 is what Docker tries first.
    return min(found, key=lambda info: info[0] != socket.AF_INET)


@dataclass(frozen=True, slots=True)
class Role:
    """A child to keep running: its name (``worker-1``), and what it does in its own process.

    ``run`` gets a function to call once it is ready and returns the exit status. It ends by itself on SIGTERM.
    """

    name: str
    run: Callable[[Callable[[], None]], int]
    sockets: Sequence[socket.socket] = ()  # the listening sockets it needs; those of others are closed in it
    successor: "Callable[[], Role] | None" = None
    """What takes its place when something was renewed. Both run for a while, so the name is another."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """Something outside that children use and that may change: ``look`` every so often says whether it did.

    ``look`` is told whether somebody asked (SIGHUP); it must return soon and not raise.
    """

    look: Callable[[bool], bool]
    every_s: float


@dataclass(slots=True, eq=False)
class _Child:
    """What the parent knows of a role's process."""

    role: Role
    pid: int = 0
    started_at: float = 0.0
    ready_pipe: int = -1
    was_ready: bool = False  # in any of its lives
    is_ready: bool = False
    deaths: int = 0  # since it last stayed up for a while
    start_at: float = field(default=0.0)  # when to start it, if it isn't running


class Supervisor:
    """Keeps roles running until a signal says to stop. One a process."""

    def __init__(
        self,
        roles: Iterable[Role],
        *,
        shutdown_timeout_s: float,
        when_ready: Callable[[], None] = lambda: None,
        renewal: Renewal | None = None,
    ) -> None:
        """`when_ready` is called once, when every role has been ready for the first time."""
        self._children = [_Child(role) for role in roles]
        self._coming: dict[_Child, _Child] = {}  # by the one whose place it takes
        self._going: list[_Child] = []
        self._renewal = renewal
        self._look_at = time.monotonic() + renewal.every_s if renewal else 0.0
        self._timeout_s = shutdown_timeout_s
        self._when_ready = when_ready
        self._announced = False
        self._asked = False
        self._received: list[int] = []
        self._stop_by: float | None = None
        self._status = 0

    def run(self) -> int:
        """Start everything, stay until it is over, and return the exit status."""
        with self._signals() as wakeup:
            gc.freeze()  # what is there now is shared with the children: collecting must not write to it
            while True:
                self._start_due()
                self._wait(wakeup)
                self._reap()
                self._obey()
                self._renew()
                if self._stop_by is not None and not self._running():
                    return self._status

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        wakeup_before = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        try:
            yield readable
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(readable)
            os.close(writable)

    def _note(self, number: int, _frame: object) -> None:
        self._received.append(number)

    def _all(self) -> list[_Child]:
        return [*self._children, *self._coming.values(), *self._going]

    def _running(self) -> list[_Child]:
        return [child for child in self._all() if child.pid]

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if self._stop_by is None and not child.pid and child.start_at <= now:
                self._start(child)

    def _start(self, child: _Child) -> None:
        readable, writable = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(readable)
            self._be(child.role, writable, parent)
        os.close(writable)
        child.pid, child.ready_pipe, child.is_ready = pid, readable, False
        child.started_at = time.monotonic()

    def _be(self, role: Role, ready_pipe: int, parent: int) -> NoReturn:
        """Be the child: what only the parent should have is given back first."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            # Ctrl-C and the terminal's end go to every process of the terminal; ours are told by the parent.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            die_with_parent(parent)
            for other in self._all():
                if other.ready_pipe >= 0:
                    os.close(other.ready_pipe)
                for listener in other.role.sockets:
                    if listener not in role.sockets:
                        listener.close()
            status = role.run(lambda: _tell(ready_pipe))
        except GiveUpError as error:
            status = _GIVE_UP
            _log.error("the server has to end", process=role.name, error=str(error))
        except RoadsteadError as error:
            _log.error("process failed", process=role.name, error=str(error), advice=error.advice())
        except BaseException:  # noqa: BLE001 - the outermost frame of the process
            _log.exception("process failed", process=role.name)
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            # Not sys.exit: what the parent has to clean up at its end isn't the child's to clean up.
            os._exit(status)

    def _wait(self, wakeup: int) -> None:
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        pipes = {child.ready_pipe: child for child in self._all() if child.ready_pipe >= 0}
        for pipe in pipes:
            poll.register(pipe, select.POLLIN)
        for descriptor, _ in poll.poll(self._patience_ms()):
            if descriptor == wakeup:
                os.read(wakeup, 4096)
            else:
                self._hear(pipes[descriptor])
        if not self._announced and all(child.was_ready for child in self._children):
            self._announced = True
            self._when_ready()

    def _patience_ms(self) -> float | None:
        """Return how long nothing is to be done but wait; None: until something happens."""
        if self._received:
            return 0
        moments = [child.start_at for child in self._children if not child.pid and self._stop_by is None]
        if self._stop_by is not None:
            moments.append(self._stop_by)
        elif self._renewal is not None:
            moments.append(self._look_at)
        return max(0.0, min(moments) - time.monotonic()) * 1000 + 1 if moments else None

    def _hear(self, child: _Child) -> None:
        if os.read(child.ready_pipe, 1):
            child.is_ready = child.was_ready = True
        os.close(child.ready_pipe)
        child.ready_pipe = -1
        if child.is_ready and self._stop_by is None and (last := self._place_of(child)) is not None:
            self._succeed(last)

    def _reap(self) -> None:
        for child in self._running():
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._bury(child, os.waitstatus_to_exitcode(status))

    def _bury(self, child: _Child, code: int) -> None:
        pid, child.pid = child.pid, 0
        if child.ready_pipe >= 0:
            self._hear(child)
        if self._stop_by is not None:
            if code == -signal.SIGALRM:
                _log.warning("requests were cut: the time to finish was over", process=child.role.name)
            return
        if self._is_renewing(child, code):
            return
        if code == _GIVE_UP:
            self._stop(status=1)
            return
        lived_s = time.monotonic() - child.started_at
        child.deaths = 1 if child.is_ready and lived_s > _SETTLED_AFTER_S else child.deaths + 1
        if not child.was_ready and child.deaths >= _ATTEMPTS:
            _log.error("giving up: a process does not come up", process=child.role.name, attempts=child.deaths)
            self._stop(status=1)
            return
        pause_s = 0.0 if child.deaths == 1 else min(_FIRST_PAUSE_S * 2 ** (child.deaths - 1), _LONGEST_PAUSE_S)
        child.start_at = time.monotonic() + pause_s
        _log.error("process died, starting it again", process=child.role.name, pid=pid, pause_s=pause_s, **_cause(code))

    def _is_renewing(self, child: _Child, code: int) -> bool:
        """Say whether a child that ended was one of two in a place; the other one stays."""
        if child in self._going:
            self._going.remove(child)
            if code == -signal.SIGALRM:
                _log.warning("requests were cut: the time to finish was over", process=child.role.name)
            return True
        if (last := self._place_of(child)) is not None:
            del self._coming[last]
            _log.error("renewal failed, the process that was there goes on", process=last.role.name, **_cause(code))
            return True
        if (coming := self._coming.pop(child, None)) is not None:
            coming.was_ready = child.was_ready
            self._children[self._children.index(child)] = coming
            _log.error("process died, its successor takes over", process=child.role.name, **_cause(code))
            return True
        return False

    def _place_of(self, child: _Child) -> _Child | None:
        return next((last for last, coming in self._coming.items() if coming is child), None)

    def _renew(self) -> None:
        """Look whether something changed, when it is time to; start what takes the place of those who use it."""
        if self._renewal is None or self._stop_by is not None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self._renewal.every_s
        if self._coming or not self._announced:
            return
        asked, self._asked = self._asked, False
        if not self._renewal.look(asked):
            return
        for child in self._children:
            if child.role.successor is not None:
                if child.pid:
                    self._coming[child] = _Child(child.role.successor())
                    self._start(self._coming[child])
                else:
                    child.role = child.role.successor()  # it is dead and waits to be started

    def _succeed(self, last: _Child) -> None:
        """Put the next one, which is ready, into the place of the last one; that ends when it has nothing to do."""
        self._children[self._children.index(last)] = self._coming.pop(last)
        if last.pid:
            self._going.append(last)
            with contextlib.suppress(ProcessLookupError):
                os.kill(last.pid, RETIRE)

    def _obey(self) -> None:
        while self._received:
            number = self._received.pop(0)
            if number == signal.SIGHUP:
                self._asked, self._look_at = True, 0.0
            elif number in _STOPS and self._stop_by is None:
                _log.info("stopping", signal=signal.Signals(number).name, timeout_s=self._timeout_s)
                self._stop(status=0)
            elif number in _STOPS:
                _log.warning("stopping at once", signal=signal.Signals(number).name)
                self._kill()
        if self._stop_by is not None and time.monotonic() >= self._stop_by and self._running():
            _log.warning("time to finish is over", processes=[child.role.name for child in self._running()])
            self._kill()

    def _stop(self, *, status: int) -> None:
        self._status = status
        self._stop_by = time.monotonic() + self._timeout_s + _GRACE_S
        for child in self._children:
            for listener in child.role.sockets:
                listener.close()
        self._send(signal.SIGTERM)

    def _kill(self) -> None:
        self._status = 1
        self._stop_by = time.monotonic() + _LONGEST_PAUSE_S
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for child in self._running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)


def die_with_parent(parent: int) -> None:
    """Ask for SIGTERM when the parent dies; end now if it is dead already."""
    # A null handle is the C library that the interpreter itself is linked with.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _tell(ready_pipe: int) -> None:
    with contextlib.suppress(OSError):  # said before, or nobody listens any more
        os.write(ready_pipe, b"1")


def _cause(code: int) -> Mapping[str, object]:
    if code >= 0:
        return {"status": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:
        return {"signal": -code}
