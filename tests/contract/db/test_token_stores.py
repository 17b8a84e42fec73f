"""The stores of signing keys and refresh tokens, and the service over them, on each kind of database."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from roadstead.auth.ports import RefreshToken, SealedKey
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.auth.proof import Bond, ProofKind
from roadstead.auth.sealing import MasterKeyWrongError, Sealer
from roadstead.auth.signing_keys import PUBLISHED_BEFORE, SigningKeys
from roadstead.db.engine import Database, open_database
from roadstead.secret import Secret
from roadstead.testing.clock import FrozenClock

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ANA = Principal(PrincipalKind.USER, "ana")
KEY = SealedKey("kid", "ES256", b"\x00sealed\xff", "PEM", NOW, NOW + timedelta(hours=1))
BOND = Bond(ProofKind.ACCOUNT, "mark")
TOKEN = RefreshToken("hash", ANA, "registry", NOW, NOW + timedelta(days=1), BOND)
LIFETIME, ROTATION = timedelta(minutes=5), timedelta(days=30)


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A migrated database of the test's own."""
    if request.param == "sqlite":
        opened = await open_database(request.getfixturevalue("sqlite_url"), migrate=True)
    else:
        opened = await open_database(request.getfixturevalue("postgres_url"), migrate=True, pool_size=2)
    yield opened
    await opened.close()


async def test_keys_are_kept(database: Database) -> None:
    """Keys come back as they were stored, the one that signs first first, and go when they are removed."""
    earlier = replace(KEY, kid="earlier", signs_from=NOW)
    await database.tokens.add_signing_key(KEY)
    await database.tokens.add_signing_key(earlier)

    assert list(await database.tokens.signing_keys()) == [earlier, KEY]
    assert await database.tokens.remove_signing_key("kid") is True
    assert await database.tokens.remove_signing_key("kid") is False
    assert list(await database.tokens.signing_keys()) == [earlier]


async def test_refresh_tokens_are_kept(database: Database) -> None:
    """A token is found by its hash; all of one caller go together, and only theirs."""
    robot = replace(TOKEN, token_hash="robot", principal=Principal(PrincipalKind.ROBOT, "ana"))
    for token in (TOKEN, replace(TOKEN, token_hash="second", bond=None), robot):
        await database.tokens.put_refresh_token(token)

    assert await database.tokens.find_refresh_token("hash") == TOKEN
    assert await database.tokens.find_refresh_token("unknown") is None
    assert await database.tokens.remove_refresh_tokens(ANA) == 2
    assert await database.tokens.find_refresh_token("hash") is None
    assert await database.tokens.find_refresh_token("robot") == robot


async def test_ended_refresh_tokens_go(database: Database) -> None:
    """Those that have ended are removed when another is made."""
    await database.tokens.put_refresh_token(TOKEN)

    await database.tokens.put_refresh_token(replace(TOKEN, token_hash="later", created_at=TOKEN.expires_at))

    assert await database.tokens.find_refresh_token("hash") is None


def keys_over(
    database: Database, clock: FrozenClock, *, algorithm: str = "ES256", master: str = "m" * 32
) -> SigningKeys:
    """Return the keys as another process has them."""
    return SigningKeys(
        database.tokens,
        Sealer(Secret(master)),
        clock,
        issuer="registry.test",
        algorithm=algorithm,
        rotate_every=ROTATION,
        tokens_last=LIFETIME,
    )


async def test_the_first_key_signs_at_once_in_every_process(database: Database) -> None:
    """It is made when the first token is, and another process signs with the same; its private half lies sealed."""
    clock = FrozenClock(NOW)

    first = await keys_over(database, clock).signing()
    second = await keys_over(database, clock).signing()

    [row] = await database.tokens.signing_keys()
    assert first.kid == second.kid == row.kid
    assert first.public["alg"] == "ES256"
    assert b"PRIVATE" not in row.sealed


async def test_a_key_is_known_before_it_signs_and_after(database: Database) -> None:
    """When it is time another key is published, signs minutes later, and the old one stays until its tokens end."""
    clock = FrozenClock(NOW)
    keys, elsewhere = keys_over(database, clock), keys_over(database, clock)
    first = await keys.signing()
    await elsewhere.published()

    clock.advance(ROTATION)
    assert (await keys.signing()).kid == first.kid  # it goes on while the next one becomes known
    assert len(await elsewhere.published()) == 2
    clock.advance(PUBLISHED_BEFORE)
    second = await elsewhere.signing()
    assert second.kid != first.kid
    assert {key.kid for key in await keys.published()} == {first.kid, second.kid}
    clock.advance(LIFETIME + 2 * PUBLISHED_BEFORE)

    assert [key.kid for key in await keys.published()] == [second.kid]
    assert [row.kid for row in await database.tokens.signing_keys()] == [second.kid]


async def test_a_key_that_another_process_made_just_now(database: Database) -> None:
    """A token that names a key unknown here has the keys read again, though not for each such token."""
    clock = FrozenClock(NOW)
    keys, elsewhere = keys_over(database, clock), keys_over(database, clock)
    await elsewhere.signing()
    await keys.published()
    clock.advance(timedelta(seconds=2))
    await keys_over(database, clock, algorithm="RS256").signing()
    rows = await database.tokens.signing_keys()

    trusted = await keys.trusted(rows[-1].kid)

    assert any(rows[-1].kid in key.ids for key in trusted.keys)


async def test_another_algorithm_begins_with_a_key_of_its_own(database: Database) -> None:
    """When settings change the algorithm, the next key is of the new kind."""
    clock = FrozenClock(NOW)
    await keys_over(database, clock).signing()
    changed = keys_over(database, clock, algorithm="EdDSA")

    await changed.signing()
    clock.advance(PUBLISHED_BEFORE)

    assert (await changed.signing()).algorithm == "EdDSA"


async def test_another_master_key_opens_nothing(database: Database) -> None:
    """Without the master key that sealed them the keys are of no use, and it is said which setting is wrong."""
    clock = FrozenClock(NOW)
    await keys_over(database, clock).signing()

    with pytest.raises(MasterKeyWrongError, match=r"auth\.master_key"):
        await keys_over(database, clock, master="n" * 32).signing()
