"""Callers who are known again: what was proved is remembered, and what it was proved with is read each time."""

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bcrypt
import pytest

from roadstead.app.access import edition_of
from roadstead.auth import recognised
from roadstead.auth.access import Access
from roadstead.auth.api_keys import make_key
from roadstead.auth.caller import Action, Caller, RepositoryGlob, Scope
from roadstead.auth.credentials import Credentials
from roadstead.auth.errors import CredentialsWrongError, SourceUnreadableError
from roadstead.auth.limiter import FailureLimiter
from roadstead.auth.passwords import Passwords
from roadstead.auth.policies import Policies
from roadstead.auth.ports import Verdict
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.auth.providers.accounts import Accounts, ApiKeys
from roadstead.auth.providers.htpasswd import HtpasswdFile
from roadstead.auth.recognised import READ_AGAIN_S, REMEMBERED_S, Recognised
from roadstead.db.engine import open_database
from roadstead.secret import Secret
from roadstead.testing.clock import FrozenClock
from roadstead.testing.memory_accounts import MemoryAccounts

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ANA = Principal(PrincipalKind.USER, "ana", frozenset({"ci"}))
SCOPE = Scope((RepositoryGlob("team/*"),), frozenset({Action.PULL}))


def hashed(password: str) -> Secret:
    return Secret(bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode())


def basic(name: str, password: str) -> str:
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


class House:
    """An htpasswd file, accounts and keys, asked as a server asks them."""

    def __init__(self, directory: Path) -> None:
        self.store = MemoryAccounts()
        self.clock = FrozenClock(NOW)
        self.passwords = Passwords(FailureLimiter())
        self.file = directory / "users"
        self.file.write_text("")
        ways = [
            ApiKeys(self.store, self.clock),
            Accounts(self.store, self.passwords),
            HtpasswdFile(self.file, self.passwords),
        ]
        self.access = Access(Policies(), ways, FailureLimiter())

    async def who(self, authorization: str) -> Caller | None:
        """Return who it is; None for nobody whom we let in."""
        try:
            return await self.access.identify(authorization, "192.0.2.1")
        except CredentialsWrongError:
            return None

    async def put(self, principal: Principal, password: str | None) -> None:
        await self.store.put_account(principal, hashed(password) if password else None, replace=True, now=NOW)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_who_was_let_in_is_known_again(house: House) -> None:
    """The same caller for the same header, with one check of the password; another's header is another's."""
    await house.put(ANA, "right")

    found = [await house.who(basic("ana", "right")) for _ in range(3)]

    assert found[0] is not None
    assert found[0] is found[1] is found[2]
    assert house.passwords.checked == 1
    assert await house.who(basic("ana", "wrong")) is None
    assert await house.who(basic("Ana", "right")) is None


async def test_a_changed_account_counts_at_once(house: House) -> None:
    """New groups, a new password, no account any more: with the next request, though the header was good."""
    await house.put(ANA, "right")
    assert await house.who(basic("ana", "right")) is not None

    await house.put(Principal(PrincipalKind.USER, "ana", frozenset({"admins"})), None)
    caller = await house.who(basic("ana", "right"))
    assert caller is not None
    assert caller.principal.groups == {"admins"}

    await house.put(ANA, "new")
    assert await house.who(basic("ana", "right")) is None
    assert await house.who(basic("ana", "new")) is not None

    await house.store.remove_account("ana")
    assert await house.who(basic("ana", "new")) is None


async def test_who_comes_before_counts_too(house: House) -> None:
    """Somebody of the file who gets an account with the same password is that account from then on, and back."""
    house.file.write_text(f"ana:{hashed('right').reveal()}\n")
    first = await house.who(basic("ana", "right"))
    await house.put(ANA, "right")
    second = await house.who(basic("ana", "right"))
    await house.put(ANA, "other")
    third = await house.who(basic("ana", "right"))
    house.file.write_text("# nobody\n")

    assert [caller and caller.via for caller in (first, second, third)] == ["htpasswd", "account", "htpasswd"]
    assert await house.who(basic("ana", "right")) is None


async def test_a_key_ends_and_is_revoked(house: House) -> None:
    """At its moment and at once, however often it was good before."""
    await house.put(ANA, None)
    key = make_key(ANA, SCOPE, now=NOW, expires_at=NOW + timedelta(hours=1))
    lasting = make_key(ANA, SCOPE, now=NOW, expires_at=None)
    for each in (key, lasting):
        await house.store.put_key(each.row)
    headers = {each.row.key_id: f"Bearer {each.text.reveal()}" for each in (key, lasting)}
    for _ in range(2):
        assert [await house.who(header) is not None for header in headers.values()] == [True, True]

    house.clock.advance(timedelta(hours=1))
    assert [await house.who(header) is not None for header in headers.values()] == [False, True]
    await house.store.remove_key(lasting.row.key_id)
    assert await house.who(headers[lasting.row.key_id]) is None


class Nameless:
    """A way of signing in that doesn't say what it goes by."""

    def __init__(self) -> None:
        self.asked = 0

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Let everybody in, this time."""
        self.asked += 1
        return Caller(ANA)


async def test_what_says_nothing_of_itself_is_asked_each_time() -> None:
    """It may know of changes that nobody else can look for."""
    way = Nameless()
    access = Access(Policies(), [way], FailureLimiter())

    for _ in range(3):
        await access.identify(basic("ana", "right"), "192.0.2.1")

    assert way.asked == 3


async def found(known: Recognised, mark: bytes) -> Caller | None:
    """Return who it is as servers find it out."""
    return known.at_once(mark) or await known.find(mark)


def clock_at(moments: list[float]) -> Callable[[], float]:
    return lambda: moments[-1]


async def test_nobody_is_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some thousand callers, and each for an hour."""
    monkeypatch.setattr(recognised, "REMEMBERED", 3)
    now = [0.0]
    known = Recognised(clock=clock_at(now))
    marks = [known.mark(f"Bearer {number}".encode()) for number in range(5)]
    for mark in marks:
        known.keep(mark, Caller(ANA), [Verdict(Caller(ANA))])

    assert [await found(known, mark) is not None for mark in marks] == [False, False, True, True, True]
    now.append(REMEMBERED_S)
    assert [await found(known, mark) for mark in marks] == [None] * 5
    assert len({*marks, Recognised().mark(b"Bearer 0")}) == 6


class Reads:
    """What a verdict goes by, and how often it was looked at."""

    def __init__(self) -> None:
        self.now = "as it was"
        self.times = 0

    async def read(self) -> str:
        """Return it."""
        self.times += 1
        return self.now


async def test_what_has_not_changed_is_not_read_again() -> None:
    """By the edition, for a moment; another edition, none and time have it read, and what is read decides."""
    now, edition, reads = [0.0], [1], Reads()
    known = Recognised(edition=lambda: edition[-1] or None, clock=clock_at(now))
    mark = known.mark(b"Bearer it")
    known.keep(mark, Caller(ANA), [Verdict(Caller(ANA), reads.read, reads.now)])

    async def times(count: int) -> int:
        before = reads.times
        for _ in range(count):
            assert await found(known, mark) is not None
        return reads.times - before

    assert await times(3) == 1  # nobody knows of what edition it was when it was kept
    edition.append(2)
    assert await times(3) == 1
    now.append(READ_AGAIN_S)
    assert await times(3) == 1
    edition.append(0)  # it can't be told
    assert await times(3) == 3
    edition.append(2)
    reads.now = "another"
    edition.append(3)
    assert await found(known, mark) is None


async def test_a_file_of_passwords_that_is_gone_keeps_no_key_out(house: House, tmp_path: Path) -> None:
    """Whoever has a key is known again without it; whoever has a line in it is told that it can't be read."""
    database = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True)
    try:
        file = HtpasswdFile(house.file, house.passwords)
        ways = [ApiKeys(house.store, house.clock), file]
        access = Access(Policies(), ways, FailureLimiter(), None, Recognised(edition=edition_of(database, file)))
        key = make_key(ANA, SCOPE, now=NOW, expires_at=None)
        await house.put(ANA, "right")
        await house.store.put_key(key.row)
        house.file.write_text(f"bob:{hashed('right').reveal()}\n")
        headers = f"Bearer {key.text.reveal()}", basic("bob", "right")
        for header in headers:
            assert [await access.identify(header, "c") for _ in range(3)]

        house.file.unlink()

        assert [await access.identify(headers[0], "c") for _ in range(3)]
        with pytest.raises(SourceUnreadableError):
            await access.identify(headers[1], "c")
    finally:
        await database.close()
