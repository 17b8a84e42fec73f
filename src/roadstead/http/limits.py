"""Limits over HTTP: what is counted of a request, and what its answer says of them.

Where nothing is limited a request costs one look at an attribute (`Services.limits`). Health and metrics are never
counted. Pulls are counted as Docker Hub does: GET of a manifest is one, HEAD is none; both are told what is left.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from typing import Any

from roadstead.http.asgi import AnyResponse, Request
from roadstead.http.routes import Route
from roadstead.limits.errors import PullsSpentError
from roadstead.limits.rates import source
from roadstead.limits.service import Limits, PullsLeft

_BLOBS_IN = frozenset({"end-4", "end-5", "end-6"})
_GO_ON = frozenset({"end-5", "end-6", "end-7"})
"""Clients wait and ask again where they look for a blob or begin to send it, and give up where they send it or the
manifest (skopeo 1.9, crane): to say no there ends a push that was let begin."""

_MANIFESTS = "end-3"

Headers = list[tuple[bytes, bytes]]

Admitted = Callable[[Request, Route, Mapping[str, str], Any], Awaitable[Mapping[str, str]]]
Handled = Callable[[Request, Route, Mapping[str, str], Any], Awaitable[AnyResponse]]


class Counter:
    """Stands around the guard and the handler where something is limited."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def serve(
        self,
        request: Request,
        route: Route,
        found: Mapping[str, str],
        services: Any,
        admitted: Admitted,
        handled: Handled,
    ) -> AnyResponse:
        """Serve a request within the limits; raises TooMuchError, and what `admitted` and `handled` raise.

        The address is counted before anybody looks at credentials: that is what costs.
        """
        client = source(request.client or "unknown")
        goes_on = route.name in _GO_ON
        if route.is_for_clients:
            self._limits.admit_client(client, goes_on=goes_on)
        found = await admitted(request, route, found, services)
        user = request.rights.holder
        if route.is_for_clients:
            self._limits.admit_user(user, goes_on=goes_on)
        is_upload = route.name in _BLOBS_IN and request.announced != 0
        with self._limits.uploading(client, user) if is_upload else nullcontext():
            if route.name != _MANIFESTS or "GET" not in route.methods:
                return await handled(request, route, found, services)
            count = self._limits.pulls_left if request.method == "HEAD" else self._limits.count_pull
            left = await count(client, user)
            response = await handled(request, route, found, services)
        if left is not None:
            response.headers = [*response.headers, *pull_headers(left, user or client)]
        return response

    async def count_pull(self, request: Request) -> None:
        """Count a manifest that is had in another way than as one; raises PullsSpentError."""
        await self._limits.count_pull(source(request.client or "unknown"), request.rights.holder)

    def admit_user(self, request: Request) -> None:
        """Count a request of whoever has signed in after `serve` could know; raises RateExceededError."""
        self._limits.admit_user(request.rights.holder)


def pull_headers(left: PullsLeft, whose: str) -> Headers:
    """Return Docker Hub's headers."""
    return [
        (b"ratelimit-limit", f"{left.most};w={left.window_s}".encode()),
        (b"ratelimit-remaining", f"{left.left};w={left.window_s}".encode()),
        (b"docker-ratelimit-source", whose.encode()),
    ]


def spent_headers(error: PullsSpentError) -> Headers:
    """Return the headers of an answer to whoever has nothing left."""
    return [
        (b"retry-after", str(error.retry_after_s).encode()),
        (b"ratelimit-limit", f"{error.most};w={error.window_s}".encode()),
        (b"ratelimit-remaining", f"0;w={error.window_s}".encode()),
    ]
