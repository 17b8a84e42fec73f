"""Access control as settings want it: ways of signing in, policies, and the guard before the handlers."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from roadstead.acts import ActKind
from roadstead.app.plugs import CLOCK
from roadstead.auth.access import Access
from roadstead.auth.challenges import BasicChallenge, NoWayIn
from roadstead.auth.errors import SourceUnreadableError
from roadstead.auth.limiter import FailureLimiter, Marks
from roadstead.auth.own_keys import OwnKeys
from roadstead.auth.passwords import Passwords
from roadstead.auth.policies import Policies, Policy
from roadstead.auth.ports import Account, AccountStore, Authenticator, Challenges, Holder, Identities
from roadstead.auth.principal import ANONYMOUS, Principal, PrincipalKind
from roadstead.auth.proof import ProofKind
from roadstead.auth.providers.accounts import Accounts, ApiKeys
from roadstead.auth.providers.htpasswd import HtpasswdFile
from roadstead.auth.recognised import Recognised
from roadstead.auth.refusals import Refusals
from roadstead.auth.standing import Standing
from roadstead.auth.web_sessions import WebSessions
from roadstead.clock import Clock
from roadstead.db.engine import Database, open_database
from roadstead.errors import ConflictError
from roadstead.http.access import Guard
from roadstead.http.people import Front, People, SignsIn, Way
from roadstead.http.token_routes import Door
from roadstead.limits.rates import source
from roadstead.settings.model import AuthSettings, Settings


class AccountsNotKeptError(ConflictError):
    """The database is built anew at a start, and accounts are in nothing else."""

    def __init__(self) -> None:
        super().__init__("accounts are kept in the database alone, and database.mode = rebuildable would lose them")

    def advice(self) -> str:
        """Say what keeps its users elsewhere."""
        return "Use auth.htpasswd, whose file is yours to keep, or PostgreSQL."


@asynccontextmanager
async def open_accounts(settings: Settings, *, migrate: bool) -> AsyncGenerator[AccountStore, None]:
    """Open the database for its accounts alone, beside a running server or before the first start (`migrate`).

    Raises AccountsNotKeptError where an account that is made now wouldn't last.
    """
    if migrate and settings.is_rebuildable:
        raise AccountsNotKeptError
    database = await open_database(settings.database_url, migrate=migrate, pool_size=settings.database.pool_size)
    try:
        yield database.accounts
    finally:
        await database.close()


async def with_accounts_found(settings: Settings, accounts: AccountStore) -> Settings:
    """Return the settings with `auth.accounts` decided.

    Where nothing was said they are there once there is an account, and where people come from an issuer.

    It is decided before any process is started, so that all of them control access or none does.
    """
    if settings.auth.accounts is not None:
        return settings
    if settings.auth.oidc is not None:  # whose people have accounts
        return replace(settings, auth=replace(settings.auth, accounts=True))
    if settings.is_rebuildable:  # its accounts wouldn't last, and whoever relied on them would be open to all
        return replace(settings, auth=replace(settings.auth, accounts=False))
    found = bool(await accounts.accounts(limit=1))
    return replace(settings, auth=replace(settings.auth, accounts=found))


class KnownNames:
    """`Identities`: the accounts, and who else the htpasswd file lets in."""

    def __init__(
        self,
        accounts: AccountStore | None,
        standing: Standing,
        htpasswd: HtpasswdFile | None,
        clock: Clock = CLOCK,
    ) -> None:
        self._accounts = accounts
        self._standing = standing
        self._htpasswd = htpasswd
        self._keys = None if accounts is None else ApiKeys(accounts, clock, standing)

    async def present(self, principal: Principal) -> Principal | None:
        """Return this one with the groups it is in now; None if there is nobody of that kind and name any more."""
        account = await self._accounts.find_account(principal.name) if self._accounts else None
        if account is not None:
            counts = account.principal.kind is principal.kind and self._standing.objection(account) is None
            return account.principal if counts else None
        if principal.kind is PrincipalKind.USER and self._htpasswd is not None:
            return principal if principal.name in self._htpasswd.read().hashes else None
        return None

    async def holder(self, principal: Principal, kind: ProofKind, key_id: str = "") -> Holder | None:
        """Return this one as they are now, and what proves it now; None where nothing does, or they don't count."""
        match kind:
            case ProofKind.KEY:
                return await self._holder_of_key(principal, key_id)
            case ProofKind.ACCOUNT:
                return await self._holder_of_account(principal)
            case ProofKind.LINE:
                return await self._holder_of_line(principal)

    async def _holder_of_key(self, principal: Principal, key_id: str) -> Holder | None:
        key = None if self._keys is None else await self._keys.good(key_id)
        if key is None or not _is_same(key.owner, principal):
            return None
        return Holder(key.owner, key_id, key.scope)

    async def _holder_of_account(self, principal: Principal) -> Holder | None:
        account = await self._account(principal.name)
        if account is None or account.password_hash is None or not _is_same(account.principal, principal):
            return None
        counts = self._standing.objection(account) is None
        return Holder(account.principal, account.password_hash.reveal()) if counts else None

    async def _holder_of_line(self, principal: Principal) -> Holder | None:
        hashed = None if self._htpasswd is None else self._htpasswd.read().hashes.get(principal.name)
        if hashed is None or principal.kind is not PrincipalKind.USER:
            return None
        account = await self._account(principal.name)
        # Who is disabled is kept out by name, whichever of two people it was meant for.
        return None if account is not None and account.disabled else Holder(principal, hashed)

    async def _account(self, name: str) -> Account | None:
        return await self._accounts.find_account(name) if self._accounts else None


def _is_same(one: Principal, other: Principal) -> bool:
    return one.kind is other.kind and one.name == other.name


NOBODY_KNOWN = KnownNames(None, Standing(CLOCK), None)


@dataclass(frozen=True, slots=True)
class Entrance:
    """The way in: what lets requests through, where tokens are given out, and where people sign in, if they do."""

    guard: Guard | None = None  # None where everybody may do everything
    tokens: Door | None = None
    people: People | None = None
    access: Access | None = None  # the guard's
    identities: Identities = NOBODY_KNOWN


def build_entrance(settings: Settings, database: Database, marks: Marks, refusals: Refusals | None = None) -> Entrance:
    """Return the way in that settings want; wrong passwords are counted in `marks`."""
    auth = settings.auth
    if not auth.is_on:
        return Entrance()
    limiter = FailureLimiter(marks, source=source)
    passwords = Passwords(limiter)
    htpasswd = HtpasswdFile(auth.htpasswd.path, passwords) if auth.htpasswd is not None else None
    standing = build_standing(auth, htpasswd)
    ways: list[Authenticator] = []
    if auth.accounts:
        ways += [ApiKeys(database.accounts, CLOCK, standing), Accounts(database.accounts, passwords)]
    if htpasswd is not None:
        ways.append(htpasswd)
    policies = build_policies(auth)
    identities = KnownNames(database.accounts if auth.accounts else None, standing, htpasswd)
    recognised = Recognised(edition=edition_of(database, htpasswd))
    if auth.token is None and settings.issue is None:
        access = Access(policies, ways, limiter, refusals, recognised)
        people = build_people(settings, database, access, standing)
        return Entrance(Guard(access, build_challenges(auth)), people=people, access=access, identities=identities)
    # The libraries for tokens cost a worker half its start, and most have none.
    from roadstead.app.tokens import TokenParts

    parts = TokenParts(settings, database.tokens, identities)
    access = Access(policies, [*ways, parts.authenticator()], limiter, refusals, recognised)
    people = build_people(settings, database, access, standing)
    by_password = build_challenges(auth) if auth.accounts or htpasswd is not None else None
    guard = Guard(access, parts.challenges(), by_password)
    return Entrance(guard, parts.door(access, policies), people, access, identities)


def edition_of(database: Database, htpasswd: HtpasswdFile | None) -> Callable[[], Hashable | None]:
    """Return what gives the edition of all that ways of signing in read: the database, and the file of passwords."""
    changes = database.access.change_count
    if htpasswd is None:
        return changes

    def edition() -> Hashable | None:
        count = changes()
        if count is None:
            return None
        try:
            file = htpasswd.edition()
        except SourceUnreadableError:  # whoever goes by it is told so; a key doesn't
            return None
        return None if file is None else (count, file)

    return edition


def build_standing(auth: AuthSettings, htpasswd: HtpasswdFile | None) -> Standing:
    """Return what judges whether an account counts now."""
    if htpasswd is None:
        return Standing(CLOCK, trusted_issuers(auth))
    return Standing(CLOCK, trusted_issuers(auth), lambda name: name in htpasswd.read().hashes)


def trusted_issuers(auth: AuthSettings) -> Mapping[str, timedelta]:
    """Return the issuers that are trusted, and how long their word counts."""
    issuers = auth.oidc.issuers if auth.oidc is not None else ()
    return {issuer.issuer: issuer.sign_in_again for issuer in issuers}


def build_people(settings: Settings, database: Database, access: Access, standing: Standing) -> People | None:
    """Return what knows people with browsers, where settings name an issuer; nothing heavy is loaded yet."""
    oidc = settings.auth.oidc
    if oidc is None:
        return None

    def refused(client: str, who: str, reason: str) -> None:
        access.refused(str(ANONYMOUS), client, ActKind.SIGN_IN, who, reason)

    async def load() -> SignsIn:
        return await asyncio.to_thread(_sign_in, settings, database, standing, refused)

    return People(
        Front((settings.server.public_url or "").rstrip("/"), settings.server.prefix),
        [Way(issuer.name, issuer.display_name or issuer.name, issuer.issuer) for issuer in oidc.issuers],
        WebSessions(database.people, standing, CLOCK, idle=oidc.session_idle),
        OwnKeys(database.accounts, access.policies),
        load,
        session_lifetime=oidc.session_lifetime,
    )


def _sign_in(
    settings: Settings, database: Database, standing: Standing, refused: Callable[[str, str, str], None]
) -> SignsIn:
    # What checks tokens costs a worker half its start: it is loaded with the first who signs in, in a thread.
    from roadstead.app.signing_in import build_sign_in

    return build_sign_in(settings, database, standing, refused)


def build_policies(settings: AuthSettings) -> Policies:
    """Return the policies that were written."""
    return Policies(
        tuple(
            Policy.parse(f"auth.policies[{at}]", policy.subjects, policy.repositories, policy.actions, policy.effect)
            for at, policy in enumerate(settings.policies)
        )
    )


def build_challenges(settings: AuthSettings) -> Challenges:
    """Return how clients are asked to sign in."""
    if settings.accounts or settings.htpasswd is not None:
        return BasicChallenge(settings.realm)
    return NoWayIn()
