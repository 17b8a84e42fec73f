"""Layers compressed with zstd, read in bounded pieces (RFC 8878)."""

from collections.abc import Iterator
from typing import BinaryIO, cast

import zstandard

from roadstead.oci.layer import LayerInvalidError

_PIECE = 1 << 20  # bytes given at a time, however well they were compressed
_MAX_WINDOW = 128 << 20  # bytes; what `zstd --long` uses, and more than engines take


def unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what zstd frames hold. Blocking; a frame that wants a larger window than engines have is refused."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    reader = decompressor.stream_reader(cast("BinaryIO", _Chunks(chunks)), read_across_frames=True)
    try:
        while piece := reader.read(_PIECE):
            yield piece
    except zstandard.ZstdError as error:
        raise LayerInvalidError(f"the zstd is broken: {error}") from error


class _Chunks:
    """Chunks as something to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; nothing at the end."""
        if not self._rest:
            self._rest = next(self._chunks, b"")
        piece, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return piece
