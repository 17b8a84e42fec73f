"""Bytes by digest, kept in memory: the only thing that is cached (design decision 3).

A digest's bytes never change, so this cache needs no invalidation. Who may see them, and where a tag points, is
asked of the database each time.
"""

from collections import OrderedDict

from roadstead.oci.digest import Digest


class ContentCache:
    """The most recently used contents, up to `max_bytes` in total; larger than `max_item_bytes` is never kept."""

    def __init__(self, *, max_bytes: int = 16 << 20, max_item_bytes: int = 256 << 10) -> None:
        self.max_item_bytes = max_item_bytes
        self._max_bytes = max_bytes
        self._size = 0
        self._items: OrderedDict[Digest, bytes] = OrderedDict()

    def find(self, digest: Digest) -> bytes | None:
        """Return the bytes if they are here."""
        data = self._items.get(digest)
        if data is not None:
            self._items.move_to_end(digest)
        return data

    def keep(self, digest: Digest, data: bytes) -> None:
        """Keep the bytes, and let go of those used longest ago."""
        if len(data) > self.max_item_bytes or digest in self._items:
            return
        self._items[digest] = data
        self._size += len(data)
        while self._size > self._max_bytes:
            _, dropped = self._items.popitem(last=False)
            self._size -= len(dropped)
