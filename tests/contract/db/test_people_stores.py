"""People who sign in with a browser, on each kind of database."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from roadstead.acts import ActKind, Asked
from roadstead.auth.api_keys import make_key
from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.errors import AccountDisabledError, AccountVouchedError, NameTakenError, SignInSpentError
from roadstead.auth.ports import Arrival, Vouched
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.db.engine import Database, open_database

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
ANA = Principal(PrincipalKind.USER, "ana", frozenset({"dev"}))
ARRIVAL = Arrival(
    issuer="https://sso.example",
    subject="s-1",
    name="ana",
    groups=frozenset({"dev"}),
    attempt_hash="a1",
    attempt_ends_at=NOW + timedelta(minutes=10),
    session_hash="h1",
    session_ends_at=NOW + timedelta(hours=12),
)


class OnDatabase:
    @pytest.fixture
    async def elsewhere(self, database: Database, url: str) -> AsyncIterator[Database]:
        other = await open_database(url, migrate=False, pool_size=2)
        yield other
        await other.close()

    async def test_somebody_arrives(self, database: Database, elsewhere: Database) -> None:
        """They have an account from then on, whose name stays and whose groups are those of the last time."""
        account = await database.people.sign_in(ARRIVAL, now=NOW, client="192.0.2.7")

        assert (account.principal, account.vouched) == (ANA, Vouched(ARRIVAL.issuer, "s-1", NOW))
        session = await elsewhere.people.find_session("h1")
        assert session is not None
        assert (session.account, session.created_at, session.seen_at) == (account, NOW, NOW)
        assert session.expires_at == ARRIVAL.session_ends_at
        again = replace(ARRIVAL, name="anna", groups=frozenset({"ops"}), attempt_hash="a2", session_hash="h2")
        found = await elsewhere.people.sign_in(again, now=LATER)
        assert (found.principal.name, found.principal.groups) == ("ana", {"ops"})
        assert found.vouched == Vouched(ARRIVAL.issuer, "s-1", LATER)
        session = await database.people.find_session("h1")
        assert session is not None
        assert session.account == found == await database.accounts.find_account("ana")
        told = [line.act.kind for line in await database.acts.lines(by="user:ana", limit=10)]
        assert told == [ActKind.SIGN_IN, ActKind.SIGN_IN, ActKind.USER_ADD]

    async def test_an_attempt_leads_in_once(self, database: Database, elsewhere: Database) -> None:
        """Of those who come with it at once one does; nothing is left of the others."""
        tried = [
            (database, elsewhere)[number % 2].people.sign_in(replace(ARRIVAL, session_hash=f"h{number}"), now=NOW)
            for number in range(6)
        ]
        results = await asyncio.gather(*tried, return_exceptions=True)

        assert sorted(type(result).__name__ for result in results) == ["Account"] + ["SignInSpentError"] * 5
        sessions = [await database.people.find_session(f"h{number}") for number in range(6)]
        assert [session is not None for session in sessions].count(True) == 1
        await database.people.end_session(next(s.session_hash for s in sessions if s is not None))
        with pytest.raises(SignInSpentError):
            await database.people.sign_in(ARRIVAL, now=NOW + timedelta(minutes=9))

    async def test_the_same_person_may_arrive_twice_at_once(self, database: Database, elsewhere: Database) -> None:
        """For the first time, with two browsers: it is one account, and two sessions."""
        tried = [
            (database, elsewhere)[number].people.sign_in(
                replace(ARRIVAL, attempt_hash=f"a{number}", session_hash=f"h{number}"), now=NOW
            )
            for number in range(2)
        ]
        first, second = await asyncio.gather(*tried)

        assert first.principal == second.principal == ANA

    async def test_a_name_is_one_persons(self, database: Database) -> None:
        """Neither of an account of ours, nor of somebody else there, nor of the same subject of another issuer."""
        await database.accounts.put_account(replace(ANA, name="bob"), None, replace=False, now=NOW)
        await database.people.sign_in(ARRIVAL, now=NOW)
        for changes in (
            {"subject": "s-2", "name": "bob"},
            {"subject": "s-2"},
            {"issuer": "https://other.example"},
        ):
            other = replace(ARRIVAL, attempt_hash="a2", session_hash="h2", **changes)
            with pytest.raises(NameTakenError):
                await database.people.sign_in(other, now=NOW)
        assert await database.people.find_session("h2") is None
        bob = await database.accounts.find_account("bob")
        assert bob is not None
        assert bob.vouched is None
        with pytest.raises(AccountVouchedError):
            await database.accounts.put_account(ANA, None, replace=True, now=NOW)

    async def test_a_disabled_account_is_out(self, database: Database, elsewhere: Database) -> None:
        """Its sessions are over, its keys say so, and its person isn't let in until it is enabled."""
        await database.people.sign_in(ARRIVAL, now=NOW)
        made = make_key(ANA, Scope((RepositoryGlob("**"),), frozenset({Action.PULL})), now=NOW, expires_at=None)
        await database.accounts.put_key(made.row)
        asked = Asked("user:root", NOW)

        assert await database.accounts.set_disabled("ana", disabled=True, now=NOW, asked=asked)

        assert await elsewhere.people.find_session("h1") is None
        key = await elsewhere.accounts.find_key(made.row.key_id)
        assert key is not None
        assert key.disabled
        with pytest.raises(AccountDisabledError):
            await elsewhere.people.sign_in(replace(ARRIVAL, attempt_hash="a2"), now=LATER)
        assert await database.accounts.set_disabled("ana", disabled=False, now=LATER, asked=asked)
        assert not (await elsewhere.people.sign_in(replace(ARRIVAL, attempt_hash="a2"), now=LATER)).disabled
        assert not await database.accounts.set_disabled("nobody", disabled=True, now=NOW)
        told = [line.act.kind for line in await database.acts.lines(by="user:root", limit=10)]
        assert told == [ActKind.USER_ENABLE, ActKind.USER_DISABLE]

    async def test_a_session_is_used_and_ended(self, database: Database, elsewhere: Database) -> None:
        """The moment the call returns; with its account, too; and what has ended goes when somebody arrives."""
        await database.people.sign_in(ARRIVAL, now=NOW)
        await database.people.touch_session("h1", LATER)
        session = await elsewhere.people.find_session("h1")
        assert session is not None
        assert session.seen_at == LATER

        assert await database.people.end_session("h1", asked=Asked("user:ana", LATER))

        assert await elsewhere.people.find_session("h1") is None
        assert not await elsewhere.people.end_session("h1")
        second = replace(ARRIVAL, attempt_hash="a2", session_hash="h2")
        await database.people.sign_in(second, now=NOW)
        much_later = replace(ARRIVAL, attempt_hash="a3", session_hash="h3", session_ends_at=NOW + timedelta(days=3))
        await database.people.sign_in(much_later, now=NOW + timedelta(days=2))
        assert await database.people.find_session("h2") is None
        await database.accounts.remove_account("ana")
        assert await database.people.find_session("h3") is None


class TestOnSqlite(OnDatabase):
    @pytest.fixture
    def url(self, sqlite_url: str) -> str:
        return sqlite_url

    @pytest.fixture
    async def database(self, url: str) -> AsyncIterator[Database]:
        database = await open_database(url, migrate=True)
        yield database
        await database.close()


class TestOnPostgres(OnDatabase):
    @pytest.fixture
    def url(self, migrated_postgres_url: str) -> str:
        return migrated_postgres_url

    @pytest.fixture
    async def database(self, url: str) -> AsyncIterator[Database]:
        database = await open_database(url, migrate=False, pool_size=2)
        yield database
        await database.close()
