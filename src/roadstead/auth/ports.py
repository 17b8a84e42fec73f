"""What access control needs from elsewhere: ways of signing in, stores, and how clients are asked to sign in."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from roadstead.acts import Asked
from roadstead.auth.caller import Caller, Scope
from roadstead.auth.credentials import Credentials
from roadstead.auth.principal import Grant, Principal
from roadstead.auth.proof import Bond, ProofKind
from roadstead.secret import Secret


class Authenticator(Protocol):
    """One way of signing in."""

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return who it is; None where these credentials are of another kind, or aren't right.

        It reads what it knows with every call, so that what is revoked is revoked at once. Raises
        AttemptsTooManyError and UnavailableError; never guesses.
        """
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a way of signing in says of some credentials, and what it goes by.

    ``caller`` None: the credentials are of another kind, or aren't right. ``read`` reads again, cheaply, all that the
    verdict depends on besides the credentials; it stands as long as that equals ``found``. None: it always stands.
    ``bars``: whoever comes by this name is kept out, whatever the ways that are asked later say. ``because``: why it
    is a "no", where operators can do something with that; whoever has sent the credentials is never told.
    """

    caller: Caller | None
    read: Callable[[], Awaitable[object]] | None = None
    found: object = None
    bars: bool = False
    because: str | None = None


@runtime_checkable
class Judges(Protocol):
    """An `Authenticator` that says what it goes by, so that its verdict can be remembered (``auth.recognised``)."""

    async def judge(self, credentials: Credentials) -> Verdict:
        """Do what `authenticate` does. The caller in the verdict follows from the credentials and ``found`` alone."""
        ...


NOT_MINE = Verdict(None)
"""What a way of signing in says of credentials that it has nothing to do with."""


@runtime_checkable
class TakesItsTime(Protocol):
    """A way of signing in where a name that it knows is told by the time that an answer takes."""

    async def waste(self, credentials: Credentials) -> None:
        """Take the time that `authenticate` would have taken if it had known the name; nothing if it has.

        Asked once every way of signing in has failed: whoever is known to one of them needn't wait for the others.
        """
        ...


@dataclass(frozen=True, slots=True)
class Occasion:
    """A request whose client is told how to sign in.

    ``wanted`` is what a token would have to grant, ``host`` the request's Host header, ``scheme`` its own, ``error``
    why a token that came isn't enough (RFC 6750 §3.1), and ``said`` the same for people: a text that holds nothing
    which a client or an issuer could have chosen freely.
    """

    host: str
    wanted: Sequence[Grant] = ()
    scheme: str = "http"
    error: str | None = None
    said: str | None = None


class Challenges(Protocol):
    """How a client is told to sign in here: the values of WWW-Authenticate, the one to be tried first first.

    ``asks_everybody``: `/v2/` asks also those who may do something without signing in, since clients only sign in
    where they are asked there, and have a way of signing in as nobody (Bearer). With Basic alone they haven't.
    """

    asks_everybody: bool

    def values(self, occasion: Occasion) -> Sequence[str]:
        """Return a value for each scheme."""
        ...


@dataclass(frozen=True, slots=True)
class Vouched:
    """An issuer's word for who somebody is: what it calls them for ever, and when it last said so."""

    issuer: str
    subject: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody in our own database, and the hash of their password (None: signs in with keys only).

    Somebody for whom an issuer has `vouched` is in the groups that it told of then, and has no password here.
    """

    principal: Principal
    password_hash: Secret | None
    created_at: datetime
    vouched: Vouched | None = None
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without the secret itself: ``secret_hash`` is its SHA-256. The last two are its owner's."""

    key_id: str
    owner: Principal
    scope: Scope
    secret_hash: str
    created_at: datetime
    expires_at: datetime | None
    description: str = ""
    vouched: Vouched | None = None
    disabled: bool = False

    def has_ended(self, now: datetime) -> bool:
        """Say whether its time is over, so that it lets nobody in."""
        return self.expires_at is not None and self.expires_at <= now


EVERY = (1 << 31) - 1
"""As many as there are: the most that every database takes as LIMIT."""


class AccountStore(Protocol):
    """Users and robot accounts, and their keys. Every write is one transaction, every read sees the last one.

    Where somebody `asked` for a write, its line of the audit log is part of the transaction.
    """

    async def find_account(self, name: str) -> Account | None:
        """Return the account of that name, with the groups it is in now."""
        ...

    async def put_account(
        self,
        principal: Principal,
        password_hash: Secret | None,
        *,
        replace: bool,
        now: datetime,
        asked: Asked | None = None,
    ) -> bool:
        """Store an account; False where the name is taken and `replace` isn't set.

        Replacing keeps the keys, and takes the new groups for the old ones. Without a hash the password stays.
        Raises AccountVouchedError where an issuer says who it is.
        """
        ...

    async def set_groups(self, name: str, groups: frozenset[str], *, asked: Asked | None = None) -> bool:
        """Put an account into these groups and no others; False where there is none. Password and keys stay.

        Raises AccountVouchedError where an issuer says who it is.
        """
        ...

    async def set_disabled(self, name: str, *, disabled: bool, now: datetime, asked: Asked | None = None) -> bool:
        """Have an account count no more, or again; False where there is none. Its sessions end, its keys stay."""
        ...

    async def remove_account(self, name: str, *, asked: Asked | None = None) -> bool:
        """Remove an account with its keys; False where there is none."""
        ...

    async def accounts(self, *, after: str = "", limit: int = EVERY) -> Sequence[Account]:
        """Return up to `limit` accounts by name, those behind `after`."""
        ...

    async def find_key(self, key_id: str) -> ApiKey | None:
        """Return the key with its owner as that is now."""
        ...

    async def put_key(self, key: ApiKey, *, asked: Asked | None = None) -> bool:
        """Store a new key; False where its owner has no account (any more)."""
        ...

    async def remove_key(self, key_id: str, *, asked: Asked | None = None) -> bool:
        """Remove a key; False where there is none."""
        ...

    async def keys(self, owner: str | None = None, *, after: str = "", limit: int = EVERY) -> Sequence[ApiKey]:
        """Return up to `limit` keys of one account or of all by their ids, those behind `after`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Somebody for whom an issuer has just vouched, and the session that they are to have."""

    issuer: str
    subject: str
    name: str  # taken where they come for the first time
    groups: frozenset[str]
    attempt_hash: str  # what they asked to sign in with, which does so once
    attempt_ends_at: datetime
    session_hash: str
    session_ends_at: datetime


@dataclass(frozen=True, slots=True)
class WebSession:
    """Somebody who is signed in with a browser; ``session_hash`` is the SHA-256 of what their cookie holds."""

    session_hash: str
    account: Account
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


class PeopleStore(Protocol):
    """People who sign in with a browser. Every write is one transaction, every read sees the last one."""

    async def sign_in(self, arrival: Arrival, *, now: datetime, client: str = "") -> Account:
        """Begin a session for whoever the issuer calls so, in these groups from now on, and write it down.

        They have an account from the first time on, whose name stays. Attempts and sessions that have ended go. Raises
        SignInSpentError, NameTakenError where somebody else has the name, AccountDisabledError; then nothing changes.
        """
        ...

    async def find_session(self, session_hash: str) -> WebSession | None:
        """Return a session, ended or not, with its account as that is now."""
        ...

    async def touch_session(self, session_hash: str, now: datetime) -> None:
        """Take note that it was used."""
        ...

    async def end_session(self, session_hash: str, *, asked: Asked | None = None) -> bool:
        """End a session; False where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A key that signs tokens, as it is stored: ``sealed`` is its private half, encrypted under the master key.

    It signs from ``signs_from`` until the next one does, so that others know it before a token names it.
    """

    kid: str  # RFC 7638
    algorithm: str
    sealed: bytes
    certificate: str  # PEM, by itself: for registries that take keys as certificates
    created_at: datetime
    signs_from: datetime


class SigningKeyStore(Protocol):
    """The keys that sign our tokens. Every write is one transaction, every read sees the last one."""

    async def signing_keys(self) -> Sequence[SealedKey]:
        """Return all keys, the one that signs from the earliest moment first."""
        ...

    async def add_signing_key(self, key: SealedKey) -> None:
        """Store a new key."""
        ...

    async def remove_signing_key(self, kid: str) -> bool:
        """Remove a key; False where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What somebody gets new bearer tokens with, without their password; ``token_hash`` is its SHA-256.

    ``bond`` is what it was got by and ends with, None where that isn't known: then it gives nothing.
    """

    token_hash: str
    principal: Principal  # without groups: those are what they are when it is used
    service: str
    created_at: datetime
    expires_at: datetime
    bond: Bond | None = None


class RefreshTokenStore(Protocol):
    """Refresh tokens. Every write is one transaction, every read sees the last one."""

    async def put_refresh_token(self, token: RefreshToken) -> None:
        """Store a new token, and remove those that have ended by the time it was made."""
        ...

    async def find_refresh_token(self, token_hash: str) -> RefreshToken | None:
        """Return the token with that hash, ended or not."""
        ...

    async def remove_refresh_tokens(self, principal: Principal) -> int:
        """Remove all tokens of one caller; return how many there were."""
        ...


class Holder(NamedTuple):
    """Somebody who has a proof that counts now: ``of`` is a key's id or a hash, ``scope`` what a key is limited to."""

    principal: Principal
    of: str
    scope: Scope | None = None


class Identities(Protocol):
    """Who there is now."""

    async def present(self, principal: Principal) -> Principal | None:
        """Return this one with the groups it is in now; None if there is nobody of that kind and name any more."""
        ...

    async def holder(self, principal: Principal, kind: ProofKind, key_id: str = "") -> Holder | None:
        """Return this one as they are now, and what proves it now: that key, or the hash of their password.

        None where the key has ended or isn't theirs, where there is no such password, and where they don't count. The
        caller compares the hash with the one that was proved.
        """
        ...
