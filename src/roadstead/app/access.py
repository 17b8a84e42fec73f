"""Access control as settings want it: ways of signing in, policies, and the guard before the handlers."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from roadstead.app.plugs import CLOCK
from roadstead.auth.access import Access
from roadstead.auth.challenges import BasicChallenge, NoWayIn
from roadstead.auth.limiter import FailureLimiter
from roadstead.auth.passwords import Passwords
from roadstead.auth.policies import Policies, Policy
from roadstead.auth.ports import AccountStore, Authenticator, Challenges
from roadstead.auth.providers.accounts import Accounts, ApiKeys
from roadstead.auth.providers.htpasswd import HtpasswdFile
from roadstead.db.engine import open_database
from roadstead.http.access import Guard
from roadstead.settings.model import AuthSettings, Settings


@asynccontextmanager
async def open_accounts(settings: Settings, *, migrate: bool) -> AsyncGenerator[AccountStore, None]:
    """Open the database for its accounts alone, beside a running server or before the first start (`migrate`)."""
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
    found = bool(await accounts.accounts())
    return replace(settings, auth=replace(settings.auth, accounts=found))


def build_guard(settings: AuthSettings, accounts: AccountStore) -> Guard | None:
    """Return what lets requests through; None where everybody may do everything."""
    if not settings.is_on:
        return None
    return Guard(build_access(settings, accounts), build_challenges(settings))


def build_access(settings: AuthSettings, accounts: AccountStore) -> Access:
    """Return who is asked who somebody is, and what they may."""
    limiter = FailureLimiter()
    passwords = Passwords(limiter)
    ways: list[Authenticator] = []
    if settings.accounts:
        ways += [ApiKeys(accounts, CLOCK), Accounts(accounts, passwords)]
    if settings.htpasswd is not None:
        ways.append(HtpasswdFile(settings.htpasswd.path, passwords))
    return Access(build_policies(settings), ways, limiter)


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
