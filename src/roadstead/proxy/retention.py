"""What nobody pulls any more goes: manifests here, and with them, by collection, their blobs."""

from collections.abc import Sequence

import structlog

from roadstead.clock import Clock
from roadstead.proxy.ports import PulledStore
from roadstead.proxy.spaces import Upstream
from roadstead.registry.ports import ManifestStore

BATCH = 200
_log = structlog.get_logger()


class PulledRetention:
    """Unlinks images of upstreams that weren't pulled for as long as their upstream says."""

    def __init__(
        self, upstreams: Sequence[Upstream], pulled: PulledStore, manifests: ManifestStore, clock: Clock
    ) -> None:
        self._upstreams = upstreams
        self._pulled = pulled
        self._manifests = manifests
        self._clock = clock

    async def run(self) -> int:
        """Remove what is due; return how many manifests."""
        return sum([await self._run(upstream) for upstream in self._upstreams])

    async def _run(self, upstream: Upstream) -> int:
        if upstream.keep is None:
            return 0
        removed = 0
        before = self._clock.now() - upstream.keep
        # What an index listed is due once the index is gone, so this goes on until nothing is.
        while due := await self._pulled.idle(upstream.host, before=before, limit=BATCH):
            gone = 0
            for repository, digest in due:
                tags = await self._manifests.delete(repository, digest, now=self._clock.now())
                gone += tags is not None
                _log.debug(
                    "an image of an upstream was not pulled for long", repository=str(repository), digest=str(digest)
                )
            if not gone:  # others remove the same
                break
            removed += gone
        return removed
