"""Sessions that end, accounts that don't count, cookies, and where browsers are believed."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.auth.ports import Account, Arrival, Vouched
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.auth.standing import Standing
from roadstead.auth.web_sessions import WebSessions, hashed
from roadstead.db.engine import Database, open_database
from roadstead.testing.clock import FrozenClock
from roadstead.web.sign_in import onward_of

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ISSUER = "https://sso.example"
ACCOUNT = Account(Principal(PrincipalKind.USER, "ana"), None, NOW, Vouched(ISSUER, "s-1", NOW))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True)
    yield opened
    await opened.close()


def arrival(text: str) -> Arrival:
    return Arrival(
        issuer=ISSUER,
        subject="s-1",
        name="ana",
        groups=frozenset({"dev"}),
        attempt_hash=hashed(f"attempt {text}"),
        attempt_ends_at=NOW + timedelta(minutes=10),
        session_hash=hashed(text),
        session_ends_at=NOW + timedelta(hours=3),
    )


async def test_a_session_ends_by_itself(database: Database) -> None:
    """After an hour without a request, and after three whatever is done with it."""
    clock = FrozenClock(NOW)
    standing = Standing(clock, {ISSUER: timedelta(days=1)})
    sessions = WebSessions(database.people, standing, clock, idle=timedelta(hours=1))
    for text in ("idle", "busy"):
        await database.people.sign_in(arrival(text), now=NOW)
    seen = []
    for _ in range(4):
        clock.advance(timedelta(minutes=50))
        seen.append(await sessions.find("busy") is not None)

    assert seen == [True, True, True, False]
    assert await sessions.find("idle") is None
    assert await sessions.find("") is None
    assert await sessions.find("x" * 5000) is None


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        (ACCOUNT, None),
        (replace(ACCOUNT, vouched=None), None),
        (replace(ACCOUNT, disabled=True), "disabled"),
        (replace(ACCOUNT, vouched=None, disabled=True), "disabled"),
        (replace(ACCOUNT, vouched=Vouched("https://gone.example", "s-1", NOW)), "not trusted"),
        (replace(ACCOUNT, vouched=Vouched(ISSUER, "s-1", NOW - timedelta(days=31))), "sign in again"),
        (replace(ACCOUNT, vouched=Vouched(ISSUER, "s-1", NOW - timedelta(days=29))), None),
        (replace(ACCOUNT, principal=Principal(PrincipalKind.USER, "peter")), "somebody else's"),
    ],
)
def test_who_counts(account: Account, reason: str | None) -> None:
    """Not the disabled, those of an issuer that is trusted no more or long ago, and those whose name is in htpasswd."""
    standing = Standing(FrozenClock(NOW), {ISSUER: timedelta(days=30)}, lambda name: name == "peter")

    said = standing.objection(account)

    assert said is None if reason is None else reason in str(said)


@given(st.text(alphabet=st.characters(), max_size=40))
def test_a_browser_goes_on_to_a_path_of_ours(text: str) -> None:
    """Whatever is asked, what comes of it starts with one slash and has nothing that a browser leaves out."""
    for asked in (text, f"/{text}", f"//{text}", f"/\\{text}"):
        found = onward_of(asked)

        assert found.startswith("/")
        assert not found.startswith(("//", "/\\"))
        assert found.isascii()
        assert found.isprintable()
        assert " " not in found


@pytest.mark.parametrize(
    ("asked", "prefix", "found"),
    [
        ("/account", "/", "/account"),
        ("/registry/account", "/registry/", "/account"),
        ("/registry//evil.example", "/registry/", "/account"),
        ("/other", "/registry/", "/other"),
    ],
)
def test_a_prefix_is_not_said_twice(asked: str, prefix: str, found: str) -> None:
    """What stands before every path is added to what is answered, and nothing that it hides is another host."""
    assert onward_of(asked, prefix) == found
