"""Accounts and API keys, over a store in memory."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bcrypt
import pytest

from roadstead.auth.access import Access
from roadstead.auth.api_keys import NewKey, make_key
from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.credentials import Bearer, Credentials, Password
from roadstead.auth.errors import AttemptsTooManyError, CredentialsWrongError
from roadstead.auth.limiter import FAILURES, FailureLimiter
from roadstead.auth.passwords import Passwords, hash_password
from roadstead.auth.policies import Policies
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.auth.providers.accounts import Accounts, ApiKeys
from roadstead.auth.providers.htpasswd import HtpasswdFile
from roadstead.auth.refusals import Refusals, Refused
from roadstead.secret import Secret
from roadstead.testing.clock import FrozenClock
from roadstead.testing.memory_accounts import MemoryAccounts

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ANA = Principal(PrincipalKind.USER, "ana", frozenset({"ci"}))
SCOPE = Scope((RepositoryGlob("team/*"),), frozenset({Action.PULL}))


@pytest.fixture
def store() -> MemoryAccounts:
    return MemoryAccounts()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOW)


@pytest.fixture
def keys(store: MemoryAccounts, clock: FrozenClock) -> ApiKeys:
    return ApiKeys(store, clock)


async def key_of(store: MemoryAccounts, lifetime: timedelta | None = None) -> NewKey:
    await store.put_account(ANA, None, replace=True, now=NOW)
    key = make_key(ANA, SCOPE, now=NOW, expires_at=None if lifetime is None else NOW + lifetime)
    assert await store.put_key(key.row)
    return key


async def test_a_key_signs_in_its_owner(store: MemoryAccounts, keys: ApiKeys) -> None:
    """As a password beside the owner's name and as a token, limited to what it is good for."""
    key = await key_of(store)

    ways: list[Credentials] = [Password("ana", key.text), Bearer(key.text)]
    for credentials in ways:
        caller = await keys.authenticate(credentials)
        assert caller is not None
        assert (caller.principal, caller.scope, caller.via) == (ANA, SCOPE, f"key {key.row.key_id}")
    assert await keys.authenticate(Password("bob", key.text)) is None


async def test_a_key_is_random_known_by_its_beginning_and_kept_nowhere(store: MemoryAccounts) -> None:
    """160 random bits behind `rs_`; what is stored doesn't give it back, and it doesn't print."""
    first, second = await key_of(store), await key_of(store)

    assert re.fullmatch(r"rs_[a-z2-7]{16}_[a-z2-7]{32}", first.text.reveal())
    assert first.text.reveal() != second.text.reveal()
    secret = first.text.reveal().rpartition("_")[2]
    assert secret not in repr(first)
    assert secret not in repr(await store.find_key(first.row.key_id))


async def test_what_is_revoked_is_revoked_at_once(store: MemoryAccounts, keys: ApiKeys) -> None:
    """The key alone, or the account it belongs to."""
    key, other = await key_of(store), await key_of(store)
    assert await keys.authenticate(Bearer(key.text)) is not None

    await store.remove_key(key.row.key_id)
    assert await keys.authenticate(Bearer(key.text)) is None

    await store.remove_account("ana")
    assert await keys.authenticate(Bearer(other.text)) is None


async def test_a_key_ends_when_it_says(store: MemoryAccounts, keys: ApiKeys, clock: FrozenClock) -> None:
    """To the second."""
    key = await key_of(store, timedelta(hours=1))
    clock.advance(timedelta(minutes=59))
    assert await keys.authenticate(Bearer(key.text)) is not None

    clock.advance(timedelta(minutes=1))
    assert await keys.authenticate(Bearer(key.text)) is None


async def test_a_key_with_another_secret_is_nobody_s(store: MemoryAccounts, keys: ApiKeys) -> None:
    """The half before the secret is no secret."""
    key = await key_of(store)
    forged = f"rs_{key.row.key_id}_{'a' * 32}"

    assert await keys.authenticate(Bearer(Secret(forged))) is None


async def test_groups_are_those_of_now(store: MemoryAccounts, keys: ApiKeys) -> None:
    """Leaving a group counts with the next request, for passwords and keys (CVE-2025-23208)."""
    accounts = Accounts(store, Passwords(FailureLimiter()))
    key = await key_of(store)
    await store.put_account(ANA, Secret(hash_password("a")), replace=True, now=NOW)
    await store.put_account(Principal(PrincipalKind.USER, "ana"), None, replace=True, now=NOW)

    for way, credentials in ((keys, Bearer(key.text)), (accounts, Password("ana", Secret("a")))):
        caller = await way.authenticate(credentials)
        assert caller is not None
        assert caller.principal.groups == frozenset()


async def test_a_failure_costs_one_check_for_any_name(store: MemoryAccounts) -> None:
    """Whether there is such an account, and whether it has a password."""
    passwords = Passwords(FailureLimiter())
    accounts = Accounts(store, passwords)
    await store.put_account(ANA, Secret(hash_password("a")), replace=True, now=NOW)
    await store.put_account(Principal(PrincipalKind.ROBOT, "ci"), None, replace=True, now=NOW)

    for number, name in enumerate(("ana", "ci", "nobody"), start=1):
        assert await accounts.authenticate(Password(name, Secret("wrong"))) is None
        await accounts.waste(Password(name, Secret("wrong")))
        assert passwords.checked == number


async def test_whoever_is_known_to_one_way_does_not_wait_for_the_others(
    store: MemoryAccounts, clock: FrozenClock, tmp_path: Path
) -> None:
    """A right password costs one check, once; a wrong one costs every way's, whoever it is for."""
    passwords = Passwords(FailureLimiter())
    (tmp_path / "users").write_text(f"bob:{bcrypt.hashpw(b'b', bcrypt.gensalt(4)).decode()}\n")
    ways = [ApiKeys(store, clock), Accounts(store, passwords), HtpasswdFile(tmp_path / "users", passwords)]
    access = Access(Policies(), ways, FailureLimiter())
    await store.put_account(ANA, Secret(hash_password("a")), replace=True, now=NOW)

    for name, word in (("ana", "a"), ("bob", "b"), ("ana", "a"), ("bob", "b")):
        assert (await access.sign_in(Password(name, Secret(word)))).principal.name == name
    assert passwords.checked == 2

    for number, name in enumerate(("ana", "bob", "nobody"), start=1):
        with pytest.raises(CredentialsWrongError):
            await access.sign_in(Password(name, Secret("wrong")))
        assert passwords.checked == 2 + 2 * number


class Noting(Refusals):
    """Keeps what the audit log would be told of."""

    def __init__(self) -> None:
        self.noted: list[Refused] = []

    def note(self, refused: Refused) -> None:
        self.noted.append(refused)


def secret_of(text: str) -> str:
    """Return what follows a key's id, which stands nowhere but in the key."""
    return text.rpartition("_")[2]


async def test_operators_are_told_which_key_it_was(store: MemoryAccounts, clock: FrozenClock) -> None:
    """Revoked, over, forged, another's, a disabled owner's, one that never was: by its id, never its secret.

    Whoever comes with one is told what everybody is told, so nobody learns which keys there are.
    """
    refusals, limiter = Noting(), FailureLimiter()
    access = Access(Policies(), [ApiKeys(store, clock), Accounts(store, Passwords(limiter))], limiter, refusals)
    good, over, revoked = await key_of(store), await key_of(store, timedelta()), await key_of(store)
    assert await store.remove_key(revoked.row.key_id)
    forged = Secret(f"rs_{good.row.key_id}_{secret_of(over.text.reveal())}")
    never = Secret(f"rs_{'a' * 16}_{secret_of(over.text.reveal())}")
    came = [("ana", revoked.text), ("ana", over.text), ("ana", forged), ("ana", never), ("bob", good.text)]

    told = set()
    for name, text in came:
        with pytest.raises(CredentialsWrongError) as refused:
            await access.sign_in(Password(name, text))
        told.add(refused.value.told())
        if name == "ana":
            with pytest.raises(CredentialsWrongError) as refused:
                await access.sign_in(Bearer(text))
            told.add(refused.value.told())
    await store.set_disabled("ana", disabled=True, now=NOW)
    with pytest.raises(CredentialsWrongError) as out:
        await access.sign_in(Bearer(good.text))

    assert told == {"the name or the password is wrong", "the token is not valid here (any more)"}
    assert out.value.told() == "the account ana is disabled"
    assert [refused.reason for refused in refusals.noted] == [
        *(
            f"the key {text.reveal()[3:19]} is not good here (any more)"
            for _, text in came[:4]
            for _ in ("password", "token")
        ),
        f"the key {good.row.key_id} belongs to somebody else",
        f"the account ana is disabled, who the key {good.row.key_id} belongs to",
    ]
    for text in (good.text, over.text, revoked.text):
        assert secret_of(text.reveal()) not in repr(refusals.noted)


async def test_operators_are_told_that_an_account_is_disabled(store: MemoryAccounts, clock: FrozenClock) -> None:
    """Whoever comes is told what they always are, and waits as long."""
    refusals, limiter = Noting(), FailureLimiter()
    passwords = Passwords(limiter)
    access = Access(Policies(), [ApiKeys(store, clock), Accounts(store, passwords)], limiter, refusals)
    await store.put_account(ANA, Secret(hash_password("a")), replace=True, now=NOW)
    await store.set_disabled("ana", disabled=True, now=NOW)

    for number, word in enumerate(("a", "wrong"), start=1):
        with pytest.raises(CredentialsWrongError) as refused:
            await access.sign_in(Password("ana", Secret(word)))
        assert refused.value.told() == "the name or the password is wrong"
        assert passwords.checked == number

    assert [(refused.target, refused.reason) for refused in refusals.noted] == [
        ("user:ana", "the account ana is disabled")
    ] * 2


async def test_all_ways_refuse_alike_and_are_limited(store: MemoryAccounts, clock: FrozenClock) -> None:
    """One message for a wrong name and a wrong password; then 429, also for the right one."""
    limiter = FailureLimiter()
    access = Access(Policies(), [ApiKeys(store, clock), Accounts(store, Passwords(limiter))], limiter)
    await store.put_account(ANA, Secret(hash_password("a")), replace=True, now=NOW)
    told = set()
    for name in ("ana", "nobody"):
        with pytest.raises(CredentialsWrongError) as refused:
            await access.sign_in(Password(name, Secret("wrong"), "c"))
        told.add(str(refused.value))
    assert len(told) == 1

    for _ in range(FAILURES - 1):
        with pytest.raises(CredentialsWrongError):
            await access.sign_in(Password("ana", Secret("wrong"), "c"))
    with pytest.raises(AttemptsTooManyError):
        await access.sign_in(Password("ana", Secret("a"), "c"))
