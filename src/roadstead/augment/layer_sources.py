"""Layers that lie elsewhere become stored layers: fetched once, checked while they arrive, kept durably.

A rule's are fetched when the server gets ready, a caller's when their plan is made, so that no pull ever waits for
another machine. What arrives is counted against the size that was declared, and cut at the first byte too many; its
digest, its size and the digest of the tar inside are all checked before anything is stored. Unpacking is counted as
well, so that a few kilobytes that unpack to terabytes end after what is allowed.

That the bytes are here already spares a caller no fetch: who names a digest has to show that they can have it.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from roadstead.augment.locations import LayerClaim, LayerMismatchError, kind_of, shown
from roadstead.augment.plan import PlannedLayer
from roadstead.augment.ports import LayerSource, LayerStore, MayPull
from roadstead.augment.turns import Shares, Turns
from roadstead.augment.zstd import unzstd
from roadstead.clock import Clock
from roadstead.errors import UnavailableError
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest, Hasher
from roadstead.oci.layer import DEFAULT_MAX_BYTES, PackedLayer, measure
from roadstead.upstream.errors import ContentMismatchError, RateLimitedError, UnreachableError
from roadstead.upstream.retry import Backoff

_IN_THREAD = 256 << 10  # bytes from which writing and hashing are worth a thread


class LayerTooSlowError(UnavailableError):
    """A layer didn't arrive in the time there is for it."""

    def __init__(self, location: str, seconds: float) -> None:
        super().__init__(f"the layer at {shown(location)} didn't arrive within {seconds:g} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBounds:
    """How much a layer from elsewhere may be, and how long it may take."""

    max_bytes: int = 10 << 30  # as it is sent
    max_unpacked_bytes: int = DEFAULT_MAX_BYTES
    max_ratio: int = 0  # of unpacked to packed: what unpacks to no more may be more than that
    patience_s: float = 600.0
    backoff: Backoff = field(default_factory=lambda: Backoff(attempts=4, patience_s=20))


def everything(_: str) -> bool:
    """Allow whatever is asked for: for locations that settings name."""
    return True


def nothing(_: str) -> bool:
    """Allow nothing that needs rights: for callers of whom nothing is known."""
    return False


class LayerSources:
    """Has layers stored that lie elsewhere. Safe to cancel: what hasn't arrived whole leaves nothing."""

    def __init__(
        self,
        sources: Mapping[str, LayerSource],
        layers: LayerStore,
        directory: Path,
        clock: Clock,
        *,
        bounds: LayerBounds | None = None,
        shares: Shares | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sources = sources  # by the kind of location
        self._layers = layers
        self._directory = directory
        self._clock = clock
        self._bounds = bounds or LayerBounds()
        self._sleep = sleep
        self._turns = Turns(shares)

    async def fetch(
        self,
        location: str,
        gzip_digest: Digest,
        gzip_size: int,
        tar_digest: Digest,
        *,
        platform: Platform | None = None,
        may_pull: MayPull = nothing,
        who: str = "",
    ) -> PlannedLayer:
        """Return the layer that lies at a location, stored durably, leased and just as described.

        `may_pull` decides about repositories here and of configured upstreams, which we can read and the caller
        perhaps can't; `who` they are matters for their turn alone. Raises LocationInvalidError, LayerMismatchError,
        LayerInvalidError for what is no tar or unpacks to too much, LayerForbiddenError, LayerTooSlowError,
        TurnsTakenError, and the errors of upstreams.
        """
        claim = LayerClaim(
            location=location,
            gzip_digest=gzip_digest,
            gzip_size=gzip_size,
            tar_digest=tar_digest,
            platform=platform,
        )
        return await self.fetch_claimed(claim, may_pull=may_pull, who=who)

    async def fetch_claimed(self, claim: LayerClaim, *, may_pull: MayPull = nothing, who: str = "") -> PlannedLayer:
        """As `fetch`, of a description that may say less."""
        kind = kind_of(claim.location)
        if claim.gzip_size is not None and not 0 < claim.gzip_size <= self._bounds.max_bytes:
            raise LayerMismatchError(
                claim.location, f"a layer has 1 to {self._bounds.max_bytes} bytes, and {claim.gzip_size} are declared"
            )
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with self._turns.turn(who):
            with tempfile.TemporaryDirectory(prefix="layer-", dir=self._directory) as scratch:
                try:
                    async with asyncio.timeout(self._bounds.patience_s):
                        return await self._fetched(self._sources[kind], claim, Path(scratch) / "layer", may_pull)
                except TimeoutError as error:
                    raise LayerTooSlowError(claim.location, self._bounds.patience_s) from error

    async def have(self, claim: LayerClaim) -> PlannedLayer:
        """Return a layer that settings describe: the one that is stored, else fetched. What it says is believed."""
        return await self.find(claim) or await self.fetch_claimed(claim, may_pull=everything)

    async def find(self, claim: LayerClaim) -> PlannedLayer | None:
        """Return a layer that is stored already, read again and as described; None where it isn't, or isn't told.

        For descriptions that are believed: a caller's is fetched, whatever is here.
        """
        if claim.gzip_digest is None:
            return None
        blob = await self._layers.find(claim.gzip_digest, now=self._clock.now())
        if blob is None:
            return None
        if claim.gzip_size is not None and blob.size != claim.gzip_size:
            raise LayerMismatchError(claim.location, f"it has {blob.size} bytes, not {claim.gzip_size}")
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix="layer-", dir=self._directory) as scratch:
            path = Path(scratch) / "layer"
            with path.open("wb") as file:
                async with aclosing(self._layers.read(blob)) as pieces:
                    async for piece in pieces:
                        await asyncio.to_thread(file.write, piece)
            return _planned(claim, await self._measured(claim, path))

    async def _fetched(self, source: LayerSource, claim: LayerClaim, path: Path, may_pull: MayPull) -> PlannedLayer:
        attempt = 1
        while True:
            try:
                await self._download(source, claim, path, may_pull)
                break
            except (UnreachableError, RateLimitedError, ContentMismatchError) as error:
                await self._wait(attempt, error)
            attempt += 1
        packed = await self._measured(claim, path)
        layer = _planned(claim, packed)
        if await self._layers.find(layer.gzip_digest, now=self._clock.now()) is None:
            await self._layers.store_file(str(path), layer.gzip_digest, now=self._clock.now())
        return layer

    async def _wait(self, attempt: int, error: UnreachableError | RateLimitedError | ContentMismatchError) -> None:
        """Wait before another try; raise the error where there should be none."""
        asked_s = error.asked_to_wait_s if isinstance(error, UnreachableError | RateLimitedError) else None
        seconds = self._bounds.backoff.wait_s(attempt, asked_s)
        if seconds is None or (isinstance(error, UnreachableError) and error.lasting):
            raise error
        await self._sleep(seconds)

    async def _download(self, source: LayerSource, claim: LayerClaim, path: Path, may_pull: MayPull) -> None:
        most = self._bounds.max_bytes if claim.gzip_size is None else claim.gzip_size
        digest = claim.gzip_digest
        hasher = Hasher() if digest is None else Hasher(digest.algorithm)
        with path.open("wb") as file:
            async with aclosing(source.read(claim.location, digest, claim.gzip_size, may_pull)) as pieces:
                async for piece in pieces:
                    if hasher.size + len(piece) > most:
                        told = "were declared" if claim.gzip_size is not None else "a layer may have"
                        raise LayerMismatchError(claim.location, f"it has more than the {most} bytes that {told}")
                    await _take(piece, hasher.update, file.write)
        if claim.gzip_size is not None and hasher.size != claim.gzip_size:
            raise LayerMismatchError(claim.location, f"it has {hasher.size} bytes, not {claim.gzip_size}")
        if digest is not None and hasher.digest() != digest:
            raise LayerMismatchError(claim.location, f"its digest is {hasher.digest()}, not {digest}")

    async def _measured(self, claim: LayerClaim, path: Path) -> PackedLayer:
        packed = await asyncio.to_thread(_measured, path, self._bounds)
        if claim.tar_digest is not None and packed.tar_digest != claim.tar_digest:
            raise LayerMismatchError(
                claim.location, f"the tar inside has the digest {packed.tar_digest}, not {claim.tar_digest}"
            )
        return packed


def _planned(claim: LayerClaim, packed: PackedLayer) -> PlannedLayer:
    return PlannedLayer(
        claim.gzip_digest or packed.gzip_digest, packed.gzip_size, packed.tar_digest, claim.platform, packed.compression
    )


def _measured(path: Path, bounds: LayerBounds) -> PackedLayer:
    most = max(bounds.max_unpacked_bytes, bounds.max_ratio * path.stat().st_size)
    with path.open("rb") as file:
        return measure(file, max_bytes=most, unzstd=unzstd)


async def _take(piece: bytes, *uses: Callable[[bytes], object]) -> None:
    """Give a piece to all who use it; a large one in a thread."""
    if len(piece) < _IN_THREAD:
        for use in uses:
            use(piece)
        return
    for use in uses:
        await asyncio.to_thread(use, piece)
