"""Access control as settings want it: ways of signing in, policies, and the guard before the handlers."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from roadstead.app.plugs import CLOCK
from roadstead.auth.access import Access
from roadstead.auth.challenges import BasicChallenge, NoWayIn
from roadstead.auth.limiter import FailureLimiter, Marks
from roadstead.auth.passwords import Passwords
from roadstead.auth.policies import Policies, Policy
from roadstead.auth.ports import AccountStore, Authenticator, Challenges
from roadstead.auth.providers.accounts import Accounts, ApiKeys
from roadstead.auth.providers.htpasswd import HtpasswdFile
from roadstead.auth.refusals import Refusals
from roadstead.db.engine import Database, open_database
from roadstead.errors import ConflictError
from roadstead.http.access import Guard
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
    """Return the settings with `auth.accounts` decided: there where nothing was said, once there is an account.

    It is decided before any process is started, so that all of them control access or none does.
    """
    if settings.auth.accounts is not None:
        return settings
    if settings.is_rebuildable:  # its accounts wouldn't last, and whoever relied on them would be open to all
        return replace(settings, auth=replace(settings.auth, accounts=False))
    found = bool(await accounts.accounts(limit=1))
    return replace(settings, auth=replace(settings.auth, accounts=found))


@dataclass(frozen=True, slots=True)
class Entrance:
    """The way in: what lets requests through, and where tokens are given out, if they are."""

    guard: Guard | None = None  # None where everybody may do everything
    tokens: Door | None = None


def build_entrance(settings: Settings, database: Database, marks: Marks, refusals: Refusals | None = None) -> Entrance:
    """Return the way in that settings want; wrong passwords are counted in `marks`."""
    auth = settings.auth
    if not auth.is_on:
        return Entrance()
    limiter = FailureLimiter(marks, source=source)
    passwords = Passwords(limiter)
    htpasswd = HtpasswdFile(auth.htpasswd.path, passwords) if auth.htpasswd is not None else None
    ways: list[Authenticator] = []
    if auth.accounts:
        ways += [ApiKeys(database.accounts, CLOCK), Accounts(database.accounts, passwords)]
    if htpasswd is not None:
        ways.append(htpasswd)
    policies = build_policies(auth)
    if auth.token is None and settings.issue is None:
        return Entrance(Guard(Access(policies, ways, limiter, refusals), build_challenges(auth)))
    # The libraries for tokens cost a worker half its start, and most have none.
    from roadstead.app.tokens import TokenParts

    parts = TokenParts(settings, database.tokens, database.accounts, htpasswd)
    access = Access(policies, [*ways, parts.authenticator()], limiter, refusals)
    by_password = build_challenges(auth) if auth.accounts or htpasswd is not None else None
    return Entrance(Guard(access, parts.challenges(), by_password), parts.door(access, policies))


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
