"""Containers on request: an image and a plan become a token, and a token becomes what a pull is answered with.

Who may ask for a token, and whether its creator still may, is decided before anybody comes here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol

from roadstead.augment.container_token import (
    ContainerToken,
    ContainerTokenEndedError,
    ContainerTokenStore,
    ContainerTokenUnknownError,
    is_token,
    new_token,
    space_of,
    token_hash,
)
from roadstead.augment.includes import IncludeInvalidError
from roadstead.augment.locations import (
    LayerClaim,
    LayerMismatchError,
    LocationInvalidError,
    is_inline,
    named_here,
    shown,
)
from roadstead.augment.plan import Plan, PlannedLayer
from roadstead.augment.ports import MayPull, Served
from roadstead.augment.service import Augmenter
from roadstead.augment.wanted_layers import LayerRefusedError, check_wanted
from roadstead.auth.principal import Principal
from roadstead.clock import Clock
from roadstead.errors import InvalidError, NotFoundError, UnavailableError
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.layer import LayerInvalidError
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.upstream.errors import (
    AddressForbiddenError,
    UnreachableError,
    UpstreamDeniedError,
    UpstreamRefusedError,
)

if TYPE_CHECKING:
    # For their types only: what has layers from elsewhere is loaded with the first who names one.
    from roadstead.augment.layer_sources import LayerSources
    from roadstead.augment.layers import Elsewhere

REMEMBERED_FOR = timedelta(days=7)
"""How long somebody who comes with a token that has ended is told so."""

_ASKED = "Public addresses are asked, registries of [[upstreams]], and the hosts of augment.location_hosts."


class NotDoneHereError(InvalidError):
    """Wave does it, and this service doesn't (501)."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}: this service does not do that")
        self._instead = instead

    def advice(self) -> str:
        """Say what to do instead."""
        return self._instead


class IncludeRefusedError(InvalidError):
    """An image that a request includes can't be had, or isn't one whose layers can be added."""

    def __init__(self, image: str, reason: str, advice: str | None) -> None:
        super().__init__(f"containerIncludes: {image[:200]}: {reason}")
        self.image = image
        self._advice = advice

    def advice(self) -> str | None:
        """Return what to do instead."""
        return self._advice


class CallersLayers(Protocol):
    """What has the layers that callers name."""

    def within(self) -> "LayerSources":
        """Return what reads layers that come in the request itself; nothing is opened for it."""
        ...

    async def elsewhere(self) -> "Elsewhere":
        """Return what has the others, opened with the first call."""
        ...

    async def aclose(self) -> None:
        """Close the connections of what was opened."""
        ...


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
        callers: CallersLayers,
        clock: Clock,
        *,
        lifetime: timedelta,
    ) -> None:
        self._tokens = tokens
        self._augmenter = augmenter
        self._clock = clock
        self._lifetime = lifetime
        self._callers = callers

    async def layers(
        self,
        wanted: Sequence[LayerClaim],
        includes: Sequence[str] = (),
        *,
        platforms: Sequence[Platform] = (),
        may_pull: MayPull,
        who: str = "",
        own_hosts: Collection[str] = (),
    ) -> tuple[PlannedLayer, ...]:
        """Have all layers of a request stored, verified, and return them as a plan has them: included images' on top.

        Of these the layers for `platforms`, for all where there are none. `own_hosts` mean this registry. Nothing is
        fetched before all that can be judged was judged. `may_pull` decides about repositories that we can read and
        the caller perhaps can't; `who` that is counts where many want layers at once. Raises LayerRefusedError,
        IncludeRefusedError, LayerForbiddenError, LayerTooSlowError, TurnsTakenError, and the errors of upstreams that
        may pass.
        """
        check_wanted(wanted)
        meant = [replace(layer, location=named_here(layer.location, own_hosts)) for layer in wanted]
        layers = tuple([await self._layer(position, layer, may_pull, who) for position, layer in enumerate(meant)])
        for image in includes:
            layers += await self._included(image, named_here(image, own_hosts), layers, platforms, may_pull, who)
        return layers

    async def _included(
        self,
        image: str,
        meant: str,
        below: Sequence[PlannedLayer],
        platforms: Sequence[Platform],
        may_pull: MayPull,
        who: str,
    ) -> tuple[PlannedLayer, ...]:
        elsewhere = await self._callers.elsewhere()
        try:
            return await elsewhere.includes.layers(
                meant,
                partial(elsewhere.sources.fetch_claimed, may_pull=may_pull, who=who),
                below=below,
                platforms=platforms,
                may_pull=may_pull,
                now=self._clock.now(),
            )
        except (AddressForbiddenError, UnreachableError) as error:
            raise IncludeRefusedError(image, "its registry can't be asked from here", _ASKED) from error
        except UnavailableError:
            raise
        except IncludeInvalidError as error:
            raise IncludeRefusedError(image, error.reason, error.advice()) from error
        except (InvalidError, NotFoundError, UpstreamDeniedError) as error:
            raise IncludeRefusedError(image, str(error), error.advice()) from error

    async def _layer(self, position: int, layer: LayerClaim, may_pull: MayPull, who: str) -> PlannedLayer:
        sources = self._callers.within() if is_inline(layer.location) else (await self._callers.elsewhere()).sources
        try:
            return await sources.fetch_claimed(layer, may_pull=may_pull, who=who)
        except (LocationInvalidError, LayerMismatchError, LayerInvalidError) as error:
            raise LayerRefusedError(position, error.reason, error.advice()) from error
        except (AddressForbiddenError, UnreachableError) as error:
            # Always in the same words: whether a name or a port of a network behind us is there isn't theirs to know.
            raise LayerRefusedError(position, f"{shown(layer.location)} can't be asked from here", _ASKED) from error
        except (NotFoundError, UpstreamDeniedError, UpstreamRefusedError) as error:
            raise LayerRefusedError(position, str(error), error.advice()) from error

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

    async def aclose(self) -> None:
        """Close the connections to where layers come from."""
        await self._callers.aclose()
