"""Keys that people make for themselves: never by means of a key, and never for more than they may."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from roadstead.acts import Asked
from roadstead.auth.api_keys import NewKey, is_key_id, make_key
from roadstead.auth.caller import Action, Caller, RepositoryGlob, Scope
from roadstead.auth.policies import Policies
from roadstead.auth.ports import AccountStore, ApiKey
from roadstead.errors import ConflictError, DeniedError, NotFoundError

MOST = 100
"""Keys that one may have by making them oneself."""


class KeyTooGoodError(DeniedError):
    """A key is asked for that would be good for what its owner may do nowhere."""

    def __init__(self, owner: str, actions: Sequence[str]) -> None:
        super().__init__(f"{owner} may {' and '.join(actions)} nowhere, so no key of theirs is good for it")


class KeysTooManyError(ConflictError):
    """Somebody has as many keys as one may have."""

    def __init__(self) -> None:
        super().__init__(f"there are {MOST} keys already")

    def advice(self) -> str:
        """Say what makes room."""
        return "Revoke those that nothing uses any more."


class KeyUnknownError(NotFoundError):
    """They have no such key."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id[:32]}")


class NoAccountError(NotFoundError):
    """Whoever asks has no account in the database, which keys belong to."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} has no account here, so there can be no keys of theirs")

    def advice(self) -> str:
        """Say who can have keys."""
        return (
            "Keys belong to accounts (roadstead user add) and to people of an issuer, not to lines of a password file."
        )


@dataclass(frozen=True, slots=True)
class WantedKey:
    """What a key is to be good for, and until when."""

    repositories: tuple[RepositoryGlob, ...]
    actions: frozenset[Action]
    expires_at: datetime | None
    description: str = ""


_IN_PERSON = frozenset({"account", "session"})


def comes_in_person(caller: Caller) -> bool:
    """Say whether the owner of an account has signed in themselves, by a password or a browser.

    Who finds a key isn't to make others with it. A line of htpasswd may have the name of an account that is somebody
    else's, so it makes none either.
    """
    return caller.via in _IN_PERSON and caller.scope is None and caller.grants is None


class OwnKeys:
    """Makes, lists and revokes the keys of whoever asks."""

    def __init__(self, store: AccountStore, policies: Policies) -> None:
        self._store = store
        self._policies = policies

    async def make(self, caller: Caller, wanted: WantedKey, asked: Asked) -> NewKey:
        """Make a key; raises KeyTooGoodError, KeysTooManyError, NoAccountError.

        That its repositories are within reach isn't asked: with each request the key is good for no more than its
        owner is then.
        """
        principal = caller.principal
        beyond = sorted(action for action in wanted.actions if not self._policies.may_somewhere(principal, action))
        if beyond:
            raise KeyTooGoodError(str(principal), beyond)
        if len(await self._store.keys(principal.name, limit=MOST)) >= MOST:
            raise KeysTooManyError
        scope = Scope(wanted.repositories, wanted.actions)
        description = wanted.description.replace("\0", "")
        made = make_key(principal, scope, now=asked.at, expires_at=wanted.expires_at, description=description)
        if not await self._store.put_key(made.row, asked=asked):
            raise NoAccountError(principal.name)
        return made

    async def all(self, caller: Caller) -> Sequence[ApiKey]:
        """Return all their keys, the newest first."""
        found = await self._store.keys(caller.principal.name)
        return sorted(found, key=lambda key: key.created_at, reverse=True)

    async def revoke(self, caller: Caller, key_id: str, asked: Asked) -> None:
        """Revoke one of them; raises KeyUnknownError."""
        key = await self._store.find_key(key_id) if is_key_id(key_id) else None
        if (
            key is None
            or str(key.owner) != str(caller.principal)
            or not await self._store.remove_key(key_id, asked=asked)
        ):
            raise KeyUnknownError(key_id)
