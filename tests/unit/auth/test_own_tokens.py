"""Our own bearer tokens, bound to what they were got by: a key, a password of the database, a line of the file."""

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.app.access import KnownNames
from roadstead.auth.access import Access
from roadstead.auth.api_keys import NewKey, make_key
from roadstead.auth.caller import Action, Caller, RepositoryGlob, Scope
from roadstead.auth.credentials import Password
from roadstead.auth.errors import CredentialsWrongError
from roadstead.auth.limiter import FailureLimiter
from roadstead.auth.passwords import Passwords
from roadstead.auth.policies import Policies
from roadstead.auth.ports import RefreshToken
from roadstead.auth.principal import Grant, Principal, PrincipalKind
from roadstead.auth.proof import Bond, Bonds, Proof, ProofKind
from roadstead.auth.providers.accounts import Accounts, ApiKeys
from roadstead.auth.providers.htpasswd import HtpasswdFile
from roadstead.auth.sealing import Sealer
from roadstead.auth.signing_keys import SigningKeys
from roadstead.auth.standing import Standing
from roadstead.auth.token_desk import Handed, TokenDesk
from roadstead.auth.tokens import OwnTokens, TokenIssuer
from roadstead.auth.verifying import TokenInvalidError, TokenRules, unverified_claims, unverified_header
from roadstead.db.engine import open_database
from roadstead.db.stores.tokens import DatabaseTokens
from roadstead.secret import Secret
from roadstead.testing.clock import FrozenClock
from roadstead.testing.memory_accounts import MemoryAccounts

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ANA = Principal(PrincipalKind.USER, "ana", frozenset({"ci"}))
SCOPE = Scope((RepositoryGlob("team/*"),), frozenset({Action.PULL}))
ASKED = [Grant("repository", "team/app", frozenset({"pull"}))]
LIFETIME = timedelta(minutes=5)
RULES = TokenRules("registry.test", "registry.test", frozenset({"ES256"}))


def hash_of(word: str) -> str:
    return bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()


class Installation:
    """All that tokens need: ana with an account and keys, and a file with bob."""

    def __init__(self, directory: Path, tokens: DatabaseTokens) -> None:
        self.clock = FrozenClock(NOW)
        self.accounts = MemoryAccounts()
        self.users = directory / "users"
        self.write(bob="of bob")
        self.tokens = tokens
        sealer, standing = Sealer(Secret("m" * 32)), Standing(self.clock)
        limiter = FailureLimiter()
        passwords = Passwords(limiter)
        htpasswd = HtpasswdFile(self.users, passwords)
        ways = [ApiKeys(self.accounts, self.clock, standing), Accounts(self.accounts, passwords), htpasswd]
        self.access = Access(Policies(), ways, limiter)
        identities = KnownNames(self.accounts, standing, htpasswd, self.clock)
        keys = SigningKeys(
            tokens,
            sealer,
            self.clock,
            issuer="registry.test",
            algorithm="ES256",
            rotate_every=timedelta(days=30),
            tokens_last=LIFETIME,
        )
        bonds = Bonds(sealer.mark)
        self.own = OwnTokens(keys, RULES, identities, bonds, self.clock)
        self.desk = TokenDesk(
            self.access,
            TokenIssuer(keys, RULES, bonds, self.clock, lifetime=LIFETIME),
            lambda _, asked: [asked],
            tokens,
            identities,
            bonds,
            self.clock,
            service="registry.test",
            refresh_lifetime=timedelta(days=1),
        )

    def write(self, **words: str) -> None:
        draft = self.users.with_suffix(".new")
        draft.write_text("".join(f"{name}:{hash_of(word)}\n" for name, word in words.items()))
        draft.replace(self.users)

    async def put(self, word: str | None, principal: Principal = ANA) -> None:
        await self.accounts.put_account(
            principal, None if word is None else Secret(hash_of(word)), replace=True, now=NOW
        )

    async def key(self, lifetime: timedelta | None = None) -> NewKey:
        await self.put(None)
        key = make_key(ANA, SCOPE, now=NOW, expires_at=None if lifetime is None else NOW + lifetime)
        assert await self.accounts.put_key(key.row)
        return key

    async def got(self, name: str, word: str, *, offline: bool = False) -> Handed:
        return await self.desk.sign_in(Password(name, Secret(word)), ASKED, service=None, offline=offline)

    async def caller(self, handed: Handed) -> Caller | None:
        return (await self.own.judge(handed.token.text, unverified_header(handed.token.text)["kid"])).caller


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Installation]:
    database = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True)
    yield Installation(tmp_path, database.tokens)
    await database.close()


async def refused(here: Installation, handed: Handed) -> bool:
    """Say whether a token lets nobody in any more, by itself and as it is remembered."""
    try:
        await here.caller(handed)
    except TokenInvalidError:
        return True
    return False


async def test_a_token_ends_with_the_key_that_it_was_got_by(here: Installation) -> None:
    """Revoking one key ends its tokens and no other's."""
    one, other = await here.key(), await here.key()
    by_one, by_other = [await here.got("ana", key.text.reveal()) for key in (one, other)]
    caller = await here.caller(by_one)
    assert caller is not None
    assert caller.principal == ANA

    await here.accounts.remove_key(one.row.key_id)

    with pytest.raises(TokenInvalidError, match=f"the key {one.row.key_id} that it was got by") as over:
        await here.caller(by_one)
    assert one.row.key_id not in over.value.told()
    assert not await refused(here, by_other)


async def test_a_token_outlives_no_key(here: Installation) -> None:
    """It says so itself, and once the key's time is over no leeway helps."""
    key = await here.key(timedelta(minutes=1))

    handed = await here.got("ana", key.text.reveal())

    assert handed.token.lifetime == timedelta(minutes=1)
    assert unverified_claims(handed.token.text)["exp"] == int((NOW + timedelta(minutes=1)).timestamp())
    here.clock.advance(timedelta(seconds=59))
    assert not await refused(here, handed)
    here.clock.advance(timedelta(seconds=1))
    assert await refused(here, handed)


async def test_a_token_by_a_key_ends_with_its_owner(here: Installation) -> None:
    """Disabled and removed owners are out, and so are those of another kind under the same name."""
    key = await here.key()
    handed = await here.got("ana", key.text.reveal())
    await here.accounts.set_disabled("ana", disabled=True, now=NOW)
    assert await refused(here, handed)
    await here.accounts.set_disabled("ana", disabled=False, now=NOW)
    assert not await refused(here, handed)

    await here.put(None, Principal(PrincipalKind.ROBOT, "ana"))

    assert await refused(here, handed)


async def test_what_is_remembered_of_a_token_goes_by_the_key(here: Installation) -> None:
    """A worker that has let it in reads the key's row with the next request, and finds that it isn't what it was."""
    key = await here.key()
    handed = await here.got("ana", key.text.reveal())
    verdict = await here.own.judge(handed.token.text, unverified_header(handed.token.text)["kid"])
    assert verdict.read is not None
    assert await verdict.read() == verdict.found

    await here.accounts.remove_key(key.row.key_id)

    assert await verdict.read() != verdict.found


@pytest.mark.parametrize("name", ["ana", "bob"])
async def test_a_token_ends_with_the_password(here: Installation, name: str) -> None:
    """Of the database and of the file alike; other groups change nothing about it."""
    await here.put("of ana")
    handed = await here.got(name, f"of {name}")
    verdict = await here.own.judge(handed.token.text, unverified_header(handed.token.text)["kid"])
    await here.put(None, Principal(PrincipalKind.USER, "ana", frozenset({"guests"})))
    assert not await refused(here, handed)

    await here.put("another")
    here.write(bob="another one")

    assert await refused(here, handed)
    assert verdict.read is not None
    assert await verdict.read() != verdict.found


@pytest.mark.parametrize("name", ["ana", "bob"])
async def test_a_refresh_token_ends_with_the_password(here: Installation, name: str) -> None:
    """Of the database and of the file alike. Until then it gives tokens, which end with the password too."""
    await here.put("of ana")
    text = (await here.got(name, f"of {name}", offline=True)).refresh_token
    assert text is not None
    await here.put(None, Principal(PrincipalKind.USER, "ana", frozenset({"guests"})))
    refreshed = await here.desk.refresh(text, ASKED, service=None)
    assert not await refused(here, refreshed)

    await here.put("another")
    here.write(bob="another one")

    assert await refused(here, refreshed)
    with pytest.raises(CredentialsWrongError):
        await here.desk.refresh(text, ASKED, service=None)


async def test_a_refresh_token_of_before_gives_nothing(here: Installation) -> None:
    """What it was got by isn't known, so nobody can tell whether that still counts."""
    text = "made by another release"
    hashed = hashlib.sha256(text.encode()).hexdigest()
    await here.put("of ana")
    await here.tokens.put_refresh_token(RefreshToken(hashed, ANA, "registry.test", NOW, NOW + timedelta(days=1)))

    with pytest.raises(CredentialsWrongError):
        await here.desk.refresh(text, ASKED, service=None)


async def test_a_token_tells_nothing_of_the_password(here: Installation) -> None:
    """Its bond is a mark that only the installation can make: the hash in the open could be guessed at."""
    await here.put("of ana")
    account = await here.accounts.find_account("ana")
    assert account is not None
    assert account.password_hash is not None
    hashed = account.password_hash.reveal()

    bond = str(unverified_claims((await here.got("ana", "of ana")).token.text)["roadstead.bond"])

    assert bond == str(Bonds(Sealer(Secret("m" * 32)).mark).bind(Proof(ProofKind.ACCOUNT, hashed)))
    assert bond != str(Bonds(Sealer(Secret("n" * 32)).mark).bind(Proof(ProofKind.ACCOUNT, hashed)))
    assert hashed not in bond


async def test_wrong_passwords_get_nothing(here: Installation) -> None:
    """The desk is what tells: nobody is bound to what they haven't proved."""
    await here.put("of ana")

    with pytest.raises(CredentialsWrongError):
        await here.got("ana", "of bob")


@given(kind=st.sampled_from(ProofKind), mark=st.text())
def test_bonds_are_read_as_they_were_written(kind: ProofKind, mark: str) -> None:
    """Whatever the mark is."""
    assert Bond.parse(str(Bond(kind, mark))) == Bond(kind, mark)


@pytest.mark.parametrize("text", ["", "key", "issuer:x", ":", 7, None])
def test_what_is_no_bond(text: object) -> None:
    """Such a token was got by nothing that is known here."""
    assert Bond.parse(text) is None


@pytest.mark.parametrize("word", [None, "of the account"])
async def test_a_disabled_name_is_kept_out_by_the_file_too(here: Installation, word: str | None) -> None:
    """Whichever of two people of one name it was: with the line's password, and with tokens got by it before."""
    await here.put(word, Principal(PrincipalKind.USER, "bob"))
    before = await here.got("bob", "of bob", offline=True)
    header = f"Basic {b64encode(b'bob:of bob').decode()}"
    assert (await here.access.identify(header, "")).via == "htpasswd"

    await here.accounts.set_disabled("bob", disabled=True, now=NOW)

    with pytest.raises(CredentialsWrongError):
        await here.access.identify(header, "")
    with pytest.raises(CredentialsWrongError):
        await here.got("bob", "of bob")
    assert before.refresh_token is not None
    with pytest.raises(CredentialsWrongError):
        await here.desk.refresh(before.refresh_token, ASKED, service=None)
    assert await refused(here, before)
    await here.accounts.set_disabled("bob", disabled=False, now=NOW)
    assert (await here.access.identify(header, "")).via == "htpasswd"


async def test_two_of_one_name_are_who_they_proved_to_be(here: Installation) -> None:
    """A token for the one of the file has none of the groups that the account is in."""
    await here.put("of the account", Principal(PrincipalKind.USER, "bob", frozenset({"admins"})))

    of_line, of_account = [await here.caller(await here.got("bob", word)) for word in ("of bob", "of the account")]

    assert of_line is not None
    assert of_account is not None
    assert of_line.principal == Principal(PrincipalKind.USER, "bob")
    assert of_account.principal.groups == {"admins"}
