"""Access control as settings want it: ways of signing in, policies, and the guard before the handlers."""

from dataclasses import replace

from roadstead.app.plugs import CLOCK, Plugs
from roadstead.auth.access import Access
from roadstead.auth.challenges import BasicChallenge, NoWayIn
from roadstead.auth.limiter import FailureLimiter
from roadstead.auth.passwords import Passwords
from roadstead.auth.policies import Policies, Policy
from roadstead.auth.ports import AccountStore, Authenticator, Challenges
from roadstead.auth.providers.accounts import Accounts, ApiKeys
from roadstead.auth.providers.htpasswd import HtpasswdFile
from roadstead.http.access import Guard
from roadstead.settings.model import AuthSettings, Settings


async def with_accounts_found(settings: Settings, plugs: Plugs) -> Settings:
    """Return the settings with `auth.accounts` decided: there where nothing was said, once there is an account.

    It is decided before any process is started, so that all of them control access or none does.
    """
    if settings.auth.accounts is not None:
        return settings
    found = bool(await plugs.database.accounts.accounts())
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
