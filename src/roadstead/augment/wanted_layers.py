"""Layers that callers name for their tokens: which locations are taken from them, and how much a request may carry.

Everything here is judged before anything is fetched or stored; the rest is judged as the bytes arrive
(``layer_sources``).
"""

from collections.abc import Sequence

from roadstead.augment.locations import INLINE, KINDS, MAX_INLINE, LayerClaim, is_inline
from roadstead.errors import InvalidError

MAX_LAYER_BYTES = 1 << 20
"""Of a layer that comes within the request."""

MAX_TOTAL_BYTES = 10 << 20
MAX_TAR_BYTES = 16 << 20
MAX_RATIO = 64
"""What such a layer may unpack to: so much, or so many times its size. gzip makes a MiB of a GiB of zeros, somebody has
to read them, and a request may hold dozens of such layers."""

_ELSEWHERE = (
    "Push a large layer as a blob and give docker://HOST/NAME@DIGEST as location, or keep it on a server and give the "
    "address."
)
_TAKEN = "A location is data: and base64, or begins with http:, https: or docker:. Files are for rules in the settings."


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


def check_wanted(layers: Sequence[LayerClaim]) -> None:
    """Raise LayerRefusedError for the first layer that isn't taken from a caller, or is too much. Pure."""
    total = 0
    for position, layer in enumerate(layers):
        _check_location(position, layer.location)
        if layer.gzip_digest == layer.tar_digest:
            raise LayerRefusedError(position, "it is a plain tar: compress it with gzip")
        if not is_inline(layer.location):
            continue
        total += layer.gzip_size or 0
        _check_inline(position, layer, total)


def _check_location(position: int, location: str) -> None:
    """Refuse what is never fetched: above all a path, which would read our own files."""
    scheme, colon, _ = location.partition(":")
    if not location:
        raise LayerRefusedError(position, "it has no location")
    if not colon or scheme.lower() not in KINDS:
        raise LayerRefusedError(position, f"its location {location[:80]!r} is not taken from clients", _TAKEN)


def _check_inline(position: int, layer: LayerClaim, total: int) -> None:
    size = layer.gzip_size or 0
    if len(layer.location) > MAX_INLINE:
        raise LayerRefusedError(position, f"its location is longer than {MAX_INLINE} characters", _ELSEWHERE)
    if "," in layer.location[: len(INLINE) + 80]:
        raise LayerRefusedError(position, "its location is a data URL; write data: and then base64, nothing between")
    if size > MAX_LAYER_BYTES:
        raise LayerRefusedError(position, f"it has {size} bytes, of {MAX_LAYER_BYTES} at the most", _ELSEWHERE)
    if total > MAX_TOTAL_BYTES:
        raise LayerRefusedError(
            position, f"the layers of the request are more than {MAX_TOTAL_BYTES} bytes together", _ELSEWHERE
        )
