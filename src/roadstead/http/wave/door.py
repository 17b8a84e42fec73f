"""Where container tokens are shown: whose they are, whether they still hold, and how many wrong ones may come."""

from dataclasses import dataclass
from typing import Protocol

from roadstead.augment.container_token import ContainerToken, ContainerTokenStoppedError, ContainerTokenUnknownError
from roadstead.augment.container_token import token_hash as hash_of
from roadstead.augment.containers import Containers
from roadstead.augment.plan import Profile
from roadstead.auth.access import Access
from roadstead.auth.caller import Action, Caller
from roadstead.auth.ports import AccountStore, Identities
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.clock import Clock
from roadstead.http.rights import Rights
from roadstead.limits.guesses import Guesses, Paced
from roadstead.oci.digest import Digest
from roadstead.oci.reference import ImageReference
from roadstead.upstream.ports import FetchedManifest

NEEDED = (Action.PULL, Action.AUGMENT)
"""What who makes a token must be allowed, then and with each pull."""


class Creators:
    """Says whether whoever made a token still may do what it needs; read anew each time, as with every request."""

    def __init__(self, access: Access | None, identities: Identities, keys: AccountStore | None, clock: Clock) -> None:
        """`access` is None where everybody may do everything."""
        self._access = access
        self._identities = identities
        self._keys = keys
        self._clock = clock

    async def allow(self, token: ContainerToken) -> bool:
        """Ask who the creator is now, whether their key is still good, and the policies."""
        access = self._access
        if access is None:
            return True
        caller = await self._caller(token)
        repository = str(token.repository)
        return caller is not None and all(access.decide(caller, action, repository).allowed for action in NEEDED)

    async def _caller(self, token: ContainerToken) -> Caller | None:
        principal = await self._present(token.creator)
        if principal is None:
            return None
        if token.key_id is None:
            return Caller(principal, via="container token")
        key = None if self._keys is None else await self._keys.find_key(token.key_id)
        if key is None or key.owner.name != principal.name:
            return None
        if key.has_ended(self._clock.now()):
            return None
        return Caller(principal, scope=key.scope, via="container token")

    async def _present(self, creator: Principal) -> Principal | None:
        # Nobody in particular is always there; of those whom another issuer vouches for we only know what it said.
        if creator.kind in (PrincipalKind.ANONYMOUS, PrincipalKind.ISSUED):
            return creator
        return await self._identities.present(creator)


class TokenRights(Rights):
    """What comes with a container token: to pull the one repository that it is for."""

    __slots__ = ("caller", "named", "token")

    def __init__(self, token: ContainerToken, named: str) -> None:
        """`named` is the name in the path, with the token in it."""
        self.token = token
        self.named = named
        self.caller = Caller(token.creator, via="container token")

    @property
    def is_limited(self) -> bool:
        """Say whether `may` can say no."""
        return True

    @property
    def is_personal(self) -> bool:
        """Say whether what they get may not be for everybody: a shared cache would give it out without the token."""
        return True

    def may(self, action: Action, repository: str | None) -> bool:
        """Say whether the token is for that."""
        return action is Action.PULL and repository == str(self.token.repository)


class Outward(Protocol):
    """Asks other registries for a caller: configured ones and public addresses, checked when it connects."""

    async def accepts(self, registry: str, username: str, password: str) -> bool:
        """Say whether a registry takes a name and a password; raises HostRefusedError where it can't be asked."""
        ...

    async def manifest(self, image: ImageReference, digest: Digest | None = None) -> FetchedManifest:
        """Return an image's manifest, or another one of its repository; ImageUnknownError, HostRefusedError."""
        ...

    async def blob(self, image: ImageReference, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob of an image's repository; raises the same."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerDoor:
    """What Wave's API works on. ``anonymous``: whether those who haven't signed in may ask for tokens."""

    containers: Containers
    creators: Creators
    guesses: Guesses
    asking: Paced
    outward: Outward
    anonymous: bool
    profile: Profile = Profile.NATIVE
    origin: str = ""  # https://host, where settings name it

    async def open(self, text: str, client: str) -> ContainerToken:
        """Return what a token means, if it still holds.

        Raises ContainerTokenUnknownError, ContainerTokenEndedError, ContainerTokenStoppedError, GuessesTooManyError.
        """
        token = await self.find(text, client)
        if not await self.creators.allow(token):
            raise ContainerTokenStoppedError
        return token

    async def find(self, text: str, client: str) -> ContainerToken:
        """Do the same without asking for its creator's rights."""
        hashed = hash_of(text)
        self.guesses.check(client, hashed)
        try:
            token = await self.containers.open(text)
        except ContainerTokenUnknownError:
            self.guesses.wrong(client)
            raise
        self.guesses.right(hashed)
        return token
