"""Layers that are their own location: ``data:`` with the standard base64 of the bytes (wave.md §1.3.1).

There is no media type in it, unlike in the URLs of RFC 2397: that is how Wave's clients write it.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator

from roadstead.augment.locations import MAX_INLINE, LayerMismatchError, LocationInvalidError
from roadstead.augment.ports import LayerSource, MayPull
from roadstead.oci.digest import Digest

_PIECE = 1 << 20


class InlineLayers:
    """Reads ``data:`` locations."""

    async def read(
        self, location: str, digest: Digest | None, size: int | None, may_pull: MayPull
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes; raises LocationInvalidError for what isn't their plain base64, or is too long."""
        if len(location) > MAX_INLINE:
            raise LocationInvalidError(
                location, f"it has more than {MAX_INLINE} characters; put the layer somewhere, or push it"
            )
        text = location.partition(":")[2]
        if size is not None and (len(text) // 4) * 3 - text.count("=", -2) != size:
            raise LayerMismatchError(location, f"its base64 isn't that of {size} bytes")
        data = await asyncio.to_thread(_decoded, location, text)
        for start in range(0, len(data), _PIECE):
            yield data[start : start + _PIECE]


def _decoded(location: str, text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LocationInvalidError(location, "after data: comes base64 alone, with no media type before it") from error
    if base64.b64encode(data).decode() != text:
        raise LocationInvalidError(location, "its base64 has bits too many at the end")
    return data


_: LayerSource = InlineLayers()
