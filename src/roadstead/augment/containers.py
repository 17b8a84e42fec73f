"""Containers on request: an image and a plan become a token, and a token becomes what a pull is answered with.

Who may ask for a token, and whether its creator still may, is decided before anybody comes here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from roadstead.augment.container_token import (
    ContainerToken,
    ContainerTokenEndedError,
    ContainerTokenStore,
    ContainerTokenUnknownError,
    LayerSources,
    WantedLayer,
    is_token,
    new_token,
    space_of,
    token_hash,
)
from roadstead.augment.inline_layers import LayerRefusedError, decoded, is_inline, verify
from roadstead.augment.plan import Plan, PlannedLayer
from roadstead.augment.ports import LayerStore, Served
from roadstead.augment.service import Augmenter
from roadstead.auth.principal import Principal
from roadstead.clock import Clock
from roadstead.errors import InvalidError
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag

REMEMBERED_FOR = timedelta(days=7)
"""How long somebody who comes with a token that has ended is told so."""


class NotDoneHereError(InvalidError):
    """Wave does it, and this service doesn't (501)."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}: this service does not do that")
        self._instead = instead

    def advice(self) -> str:
        """Say what to do instead."""
        return self._instead


class LayersElsewhereError(NotDoneHereError):
    """A layer lies where this service can't fetch layers from (501)."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"layer {position + 1} from another server",
            "Put the layer into the request: a location of data: and the base64 of its .tar.gz.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody wants a token for: an image that is here, and a plan for it, if it is to be changed."""

    creator: Principal
    key_id: str | None
    repository: RepositoryName
    path: str
    reference: Tag | Digest
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token, and its text, which is told once."""

    text: str
    token: ContainerToken


class Containers:
    """Issues tokens and resolves them."""

    def __init__(
        self,
        tokens: ContainerTokenStore,
        augmenter: Augmenter,
        layers: LayerStore,
        clock: Clock,
        *,
        lifetime: timedelta,
        sources: LayerSources | None = None,
    ) -> None:
        self._tokens = tokens
        self._augmenter = augmenter
        self._layers = layers
        self._clock = clock
        self._lifetime = lifetime
        self._sources = sources

    async def layers(self, wanted: Sequence[WantedLayer]) -> tuple[PlannedLayer, ...]:
        """Have all layers of a request stored, verified, and return them as a plan has them.

        Nothing is stored before all that can be judged was judged. Raises LayerRefusedError, LayersElsewhereError,
        and what the sources raise.
        """
        inline = decoded(wanted)
        for position, layer in enumerate(wanted):
            _check_location(position, layer.location)
            if self._sources is None and not is_inline(layer):
                raise LayersElsewhereError(position)
        for position, data in inline.items():
            await verify(position, wanted[position], data)
        for position, layer in enumerate(wanted):
            if position in inline:
                await self._layers.store(inline[position], now=self._clock.now())
            elif self._sources is not None:
                await self._sources.fetch(layer.location, layer.gzip_digest, layer.gzip_size, layer.tar_digest)
        return tuple(PlannedLayer(layer.gzip_digest, layer.gzip_size, layer.tar_digest) for layer in wanted)

    async def derived(self, order: Order, source: Served) -> Served:
        """Return what a pull would be answered with. It is derived at once, so that who asks hears what is wrong.

        Raises NotAugmentableError, and what `Augmenter.pull_within` does.
        """
        if order.plan is None:
            return source
        space = space_of(order.repository, order.plan)
        return await self._augmenter.pull_within(space, order.repository, source, order.plan)

    async def issue(self, order: Order, described: str) -> Issued:
        """Return a new token for an order that was derived, each time another."""
        text, now = new_token(), self._clock.now()
        token = ContainerToken(
            token_hash=token_hash(text),
            creator=order.creator,
            key_id=order.key_id,
            repository=order.repository,
            path=order.path,
            reference=order.reference,
            plan=order.plan,
            described=described,
            created_at=now,
            expires_at=now + self._lifetime,
        )
        await self._tokens.put(token)
        return Issued(text, token)

    async def open(self, text: str) -> ContainerToken:
        """Return what a token means; raises ContainerTokenUnknownError, ContainerTokenEndedError."""
        token = await self._tokens.find(token_hash(text)) if is_token(text) else None
        if token is None:
            raise ContainerTokenUnknownError
        if token.expires_at <= self._clock.now():
            raise ContainerTokenEndedError(token.expires_at)
        return token

    async def end(self, token: ContainerToken) -> bool:
        """End a token before its time; False where somebody else just has."""
        return await self._tokens.end(token.token_hash, now=self._clock.now())

    async def served(self, token: ContainerToken, source: Served) -> Served:
        """Return what a pull by tag is answered with, the tag being at `source` now."""
        if token.plan is None or token.space is None:
            return source
        return await self._augmenter.pull_within(token.space, token.repository, source, token.plan)

    async def find_derived(self, token: ContainerToken, digest: Digest) -> Served | None:
        """Return what was derived for a token, by its digest; None for what is the image's own, or unknown."""
        if token.space is None:
            return None
        return await self._augmenter.find_within(token.space, token.repository, digest)


def _check_location(position: int, location: str) -> None:
    """Raise LayerRefusedError for what is never fetched: above all a path, which would read our own files."""
    scheme = location.partition(":")[0].lower() if ":" in location else ""
    if scheme in ("data", "http", "https", "docker"):
        return
    if not location:
        raise LayerRefusedError(position, "it has no location")
    raise LayerRefusedError(
        position,
        f"its location {location[:80]!r} is not taken from clients",
        "A location is data: and base64, or begins with http:, https: or docker:. Files are for rules in the settings.",
    )
