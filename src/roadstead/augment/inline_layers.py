"""Layers that come in a request itself: ``data:`` and the base64 of a ``.tar.gz`` (Wave's layer object).

Such a location has no media type and no ``;base64``, as Wave's clients write it. Everything that is said of a layer is
verified before anything is stored, and it is unpacked no further than is allowed.
"""

import asyncio
import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from io import BytesIO

from roadstead.augment.container_token import WantedLayer
from roadstead.errors import InvalidError
from roadstead.oci.layer import LayerInvalidError, measure

PREFIX = "data:"
MAX_LOCATION = 14_000_000
"""Characters of a location (Wave's ``max-data-layer-size``)."""

MAX_LAYER_BYTES = 1 << 20
MAX_TOTAL_BYTES = 10 << 20
MAX_TAR_BYTES = 16 << 20
MAX_RATIO = 64
"""What one may unpack to: so much, or so many times its size. gzip makes a MiB of a GiB of zeros, somebody has to read
them, and a request may hold dozens of such layers."""


class LayerRefusedError(InvalidError):
    """A layer of a request can't be used; which one, and why."""

    def __init__(self, position: int, reason: str, advice: str | None = None) -> None:
        super().__init__(f"layer {position + 1}: {reason}")
        self.position = position
        self.reason = reason
        self._advice = advice

    def advice(self) -> str | None:
        """Return what to do instead."""
        return self._advice


def is_inline(layer: WantedLayer) -> bool:
    """Say whether the layer's bytes are in its location."""
    return layer.location.startswith(PREFIX)


def decoded(layers: Sequence[WantedLayer]) -> dict[int, bytes]:
    """Return the bytes of the inline layers by their position; raises LayerRefusedError. Pure, nothing is unpacked."""
    found: dict[int, bytes] = {}
    total = 0
    for position, layer in enumerate(layers):
        if not is_inline(layer):
            continue
        found[position] = data = _decoded(position, layer.location)
        total += len(data)
        if total > MAX_TOTAL_BYTES:
            raise LayerRefusedError(
                position, f"the layers of the request are more than {MAX_TOTAL_BYTES} bytes together", _ELSEWHERE
            )
    return found


_ELSEWHERE = "Keep large layers on a server, and give the address as location."


def _decoded(position: int, location: str) -> bytes:
    if len(location) > MAX_LOCATION:
        raise LayerRefusedError(position, f"its location is longer than {MAX_LOCATION} characters", _ELSEWHERE)
    text = location[len(PREFIX) :]
    if "," in text[:80]:
        raise LayerRefusedError(position, "its location is a data URL; write data: and then base64, nothing between")
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LayerRefusedError(position, "what follows data: is not base64") from error
    if b64encode(data).decode() != text:  # several texts would stand for one layer
        raise LayerRefusedError(position, "what follows data: is not base64 in its canonical form")
    if len(data) > MAX_LAYER_BYTES:
        raise LayerRefusedError(position, f"it has {len(data)} bytes, of {MAX_LAYER_BYTES} at the most", _ELSEWHERE)
    return data


async def verify(position: int, layer: WantedLayer, data: bytes) -> None:
    """Raise LayerRefusedError unless the bytes are the layer that is described: a gzipped tar, of these digests."""
    if len(data) != layer.gzip_size:
        raise LayerRefusedError(position, f"gzipSize says {layer.gzip_size}, but it has {len(data)} bytes")
    try:
        packed = await asyncio.to_thread(measure, BytesIO(data), max_bytes=max(MAX_TAR_BYTES, MAX_RATIO * len(data)))
    except LayerInvalidError as error:
        raise LayerRefusedError(position, error.reason) from error
    if packed.gzip_digest != layer.gzip_digest:
        raise LayerRefusedError(position, f"gzipDigest says {layer.gzip_digest}, but it has {packed.gzip_digest}")
    if not packed.is_compressed:
        raise LayerRefusedError(position, "it is a plain tar: compress it with gzip")
    if packed.tar_digest != layer.tar_digest:
        raise LayerRefusedError(position, f"tarDigest says {layer.tar_digest}, but its tar has {packed.tar_digest}")
