"""The table of routes: from a path and a method to a handler.

A repository's name may itself contain the words ``blobs``, ``manifests``, ``tags``, ``uploads``, so a path is read
from its right end (registry spec §1.1): the last segment but one decides.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadstead.auth.caller import Action
from roadstead.errors import InvalidError, NotFoundError
from roadstead.http.asgi import AnyResponse, Request, Response

Handler = Callable[[Request, Mapping[str, str], Any], Awaitable[AnyResponse]]
"""A handler takes the request, what the path says, and the services it works on."""

MAX_PATH = 8192

REMEMBERED = 1024
"""Paths whose route a worker remembers. Which route a path has never changes; clients ask for few at a time."""

LONGEST_REMEMBERED = 512


class PathUnknownError(NotFoundError):
    """Nothing is served at this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"nothing is served at {path[:200]!r}")


class PathTooLongError(InvalidError):
    """The path is longer than any name can be (414)."""

    def __init__(self) -> None:
        super().__init__(f"the path is longer than {MAX_PATH} characters")


class MethodUnknownError(InvalidError):
    """The path is served, the method isn't (405 with Allow)."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method} is not served here; {', '.join(allowed)} {'is' if len(allowed) == 1 else 'are'}")
        self.allowed = tuple(allowed)


_FOR_OPERATORS = frozenset({"alive", "ready", "checks", "metrics", "home"})
"""Load balancers and collectors of numbers ask by address, and often; people who look in are shown ``/``."""


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table. ``name`` is the spec's id of the endpoint and the metrics' label.

    ``needs`` is what the caller must be allowed to do (``auth.caller.Action``); None is for everybody, always.
    ``tell`` answers for what goes wrong, where that isn't done as the distribution-spec wants it.
    """

    name: str
    methods: tuple[str, ...]
    path: str
    handler: Handler
    needs: Action | None = None
    tell: Callable[[BaseException], Response] | None = None

    @property
    def is_for_clients(self) -> bool:
        """Say whether limits and names of the server are for it; they aren't for whoever looks after the server."""
        return self.name not in _FOR_OPERATORS


@dataclass(frozen=True, slots=True)
class _Tail:
    """The end of a path below a name: literals, or None where a parameter stands."""

    literals: tuple[str | None, ...]
    parameters: tuple[str | None, ...]
    by_method: dict[str, Route]

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        size = len(self.literals)
        if len(segments) <= size:
            return None
        found: dict[str, str] = {}
        for literal, parameter, segment in zip(self.literals, self.parameters, segments[-size:], strict=True):
            if literal is None:
                found[str(parameter)] = segment
            elif literal != segment:
                return None
        found["name"] = "/".join(segments[:-size])
        return found


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._tails: dict[str, list[_Tail]] = {}
        self._below: list[tuple[str, dict[str, Route]]] = []
        self._known: dict[str, tuple[Mapping[str, Route], Mapping[str, str]]] = {}
        for route in routes:
            by_method = self._place(route.path)
            by_method.update(dict.fromkeys(route.methods, route))

    def match(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """Return the route and what the path says; raises PathUnknownError, MethodUnknownError, PathTooLongError."""
        by_method, found = self._known.get(path) or self._look_up(path)
        route = by_method.get(method)
        if route is None:
            raise MethodUnknownError(method, sorted(by_method))
        return route, found

    def _look_up(self, path: str) -> tuple[Mapping[str, Route], Mapping[str, str]]:
        if len(path) > MAX_PATH:
            raise PathTooLongError
        found = self._find(path)
        if len(path) > LONGEST_REMEMBERED:
            return found
        if len(self._known) >= REMEMBERED:
            self._known.clear()  # cheaper than to know which was asked for last
        self._known[path] = found
        return found

    def _find(self, path: str) -> tuple[Mapping[str, Route], Mapping[str, str]]:
        exact = self._exact.get(path)
        if exact is not None:
            return exact, {}
        if path.startswith("/v2/"):
            segments = path[4:].split("/")
            for tail in self._tails.get(segments[-2], ()) if len(segments) > 1 else ():
                found = tail.match(segments)
                if found is not None:
                    return tail.by_method, found
            if len(segments) > 2 and segments[-1] == "":  # /v2/name/tags/list/ is the same as without its slash
                return self._find(path[:-1])
        for prefix, by_method in self._below:
            if path.startswith(prefix):
                return by_method, {"rest": path[len(prefix) :]}
        raise PathUnknownError(path)

    def _place(self, path: str) -> dict[str, Route]:
        if "{" not in path:
            return self._exact.setdefault(path, {})
        if path.endswith("/{rest}"):
            prefix = path.removesuffix("{rest}")
            below = next((by_method for known, by_method in self._below if known == prefix), None)
            if below is None:
                below = {}
                self._below.append((prefix, below))
            return below
        pieces = path.removeprefix("/v2/{name}/").split("/")
        literals = tuple(None if piece.startswith("{") else piece for piece in pieces)
        parameters = tuple(piece.strip("{}") if piece.startswith("{") else None for piece in pieces)
        tails = self._tails.setdefault(str(literals[-2]), [])
        for tail in tails:
            if tail.literals == literals:
                return tail.by_method
        tail = _Tail(literals, parameters, {})
        tails.append(tail)
        tails.sort(key=lambda one: one.literals.count(None))  # blobs/uploads before blobs/{digest}
        return tail.by_method
