"""Layers at ``https://`` and ``http://`` addresses.

Where a connection may lead is the transport's to check, with every redirect and at each connection
(upstream/egress.py). Nothing that says who we are is sent.
"""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from roadstead.augment.locations import LayerMismatchError, WebAddress, shown
from roadstead.augment.ports import LayerSource, MayPull
from roadstead.oci.digest import Digest
from roadstead.upstream.errors import (
    RateLimitedError,
    UnreachableError,
    UpstreamDeniedError,
    UpstreamError,
    UpstreamNotFoundError,
    UpstreamRefusedError,
)
from roadstead.upstream.retry import RETRYABLE
from roadstead.upstream.transport import Transport, retry_after_s

if TYPE_CHECKING:
    # For its types only: it is imported with the first request.
    from roadstead.upstream.wire import Answer


class WebLayers:
    """Reads ``http(s)://`` locations."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def read(
        self, location: str, digest: Digest | None, size: int | None, may_pull: MayPull
    ) -> AsyncGenerator[bytes, None]:
        """Yield the body of the answer to a GET; raises what there is of upstreams' errors for any other than 200."""
        address = WebAddress.parse(location)
        async with self._transport.exchange("GET", address.url, host=address.host, headers={"Accept": "*/*"}) as answer:
            if answer.status != 200:
                raise _error(address.host, location, answer)
            if size is not None and answer.size is not None and answer.size != size:
                raise LayerMismatchError(location, f"it has {answer.size} bytes, not {size}")
            received = 0
            async for piece in answer.pieces():
                received += len(piece)
                yield piece
            if answer.size is not None and received < answer.size:
                raise UnreachableError(address.host, f"the layer {shown(location)} broke off at byte {received}")


def _error(host: str, location: str, answer: "Answer") -> UpstreamError:
    what, status = f"the layer {shown(location)}", answer.status
    if status == 429:
        return RateLimitedError(host, what, retry_after_s(answer))
    if status in RETRYABLE:
        return UnreachableError(host, f"{what}: it answered {status}", retry_after_s=retry_after_s(answer))
    if status in {404, 410}:
        return UpstreamNotFoundError(host, what)
    if status in {401, 403}:
        return UpstreamDeniedError(host, what, f"it answered {status}, and we show no credentials", anonymous=True)
    return UpstreamRefusedError(host, what, status, "", "")


def _claims(transport: Transport) -> LayerSource:
    """Tell the type checker what this plug is."""
    return WebLayers(transport)
