"""Hashes, what is remembered of right passwords, and the limit on wrong ones."""

import asyncio
import subprocess

import pytest

from roadstead.auth.credentials import Password
from roadstead.auth.errors import AttemptsTooManyError
from roadstead.auth.limiter import CLIENT_FAILURES, FAILURES, REFILL_S, FailureLimiter
from roadstead.auth.passwords import Passwords, check, hash_password, objection
from roadstead.limits.rates import source
from roadstead.secret import Secret
from roadstead.testing.components import require


class Watch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def made_by(*command: str) -> str:
    require(command[0], install="apt-get install apache2-utils openssl")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip().removeprefix("ana:")


HASHES = [
    ("htpasswd", "-nbB", "ana", "pässword"),
    ("htpasswd", "-nbBC", "4", "ana", "pässword"),
    ("htpasswd", "-nbm", "ana", "pässword"),
    ("htpasswd", "-nbs", "ana", "pässword"),
    ("openssl", "passwd", "-apr1", "pässword"),
    ("openssl", "passwd", "-apr1", "-salt", "a", "pässword"),
    ("openssl", "passwd", "-5", "pässword"),
    ("openssl", "passwd", "-6", "pässword"),
]


@pytest.mark.parametrize("command", HASHES, ids=" ".join)
def test_hashes_of_real_programs(command: tuple[str, ...]) -> None:
    """What htpasswd and openssl write is checked as they mean it."""
    hashed = made_by(*command)

    assert objection(hashed) is None
    assert check(hashed, "pässword")
    assert not check(hashed, "passwort")
    assert not check(hashed, "")


def test_our_own_hashes() -> None:
    """argon2id, never twice the same."""
    first, second = hash_password("secret"), hash_password("secret")

    assert first.startswith("$argon2id$")
    assert first != second
    assert objection(first) is None
    assert check(first, "secret")
    assert not check(first, "Secret")


def test_bcrypt_takes_72_bytes() -> None:
    """A longer password is no error, as with every other program that reads the file."""
    hashed = made_by("htpasswd", "-nbBC", "4", "ana", "x" * 72)

    assert check(hashed, "x" * 100)


@pytest.mark.parametrize(
    "hashed",
    ["", "secret", "$1$abcdefgh$0123456789012345678901", "$2y$31$" + "a" * 53, "$2y$03$" + "a" * 53, "$2y$10$short",
     "{SHA}short", "$apr1$toolongsalt$abcdefghijklmnopqrstuv", "rqXexS6ZhobKA", "$2b$04$" + "z" * 53,
     "$5$salt$" + "a" * 86, "$6$salt$" + "a" * 43, "$5$rounds=1$salt$" + "a" * 43, "$argon2id$v=19$m=foo$AAAA$AAAA",
     "$argon2id$v=19$m=999999999,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAA"],
)  # fmt: skip
def test_hashes_that_are_not_taken(hashed: str) -> None:
    """Plain text, DES, one that is cut, a cost that would hold up everybody: each with a reason."""
    assert objection(hashed)


@pytest.mark.parametrize("command", HASHES, ids=" ".join)
def test_a_password_with_a_zero_character(command: tuple[str, ...]) -> None:
    """It is wrong, and no error, although some kinds can't have any such."""
    assert not check(made_by(*command), "p\0ssword")


@pytest.mark.parametrize("hashed", ["$argon2id$v=19$m=8,t=1,p=9$c2FsdHNhbHQ$AAAAAAA", "$2b$04$" + "." * 53])
def test_what_only_looks_like_a_hash(hashed: str) -> None:
    """No password fits it."""
    assert objection(hashed) is None
    assert not check(hashed, "secret")


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def limiter(watch: Watch) -> FailureLimiter:
    return FailureLimiter(clock=watch)


@pytest.fixture
def passwords(limiter: FailureLimiter, watch: Watch) -> Passwords:
    return Passwords(limiter, clock=watch)


def of(password: str, username: str = "ana", client: str = "c") -> Password:
    return Password(username, Secret(password), client)


async def test_a_right_password_is_checked_once(passwords: Passwords) -> None:
    """A push of many requests pays for one; another name, password or hash pays for itself."""
    hashed = made_by("htpasswd", "-nbBC", "4", "ana", "right")
    for _ in range(5):
        assert await passwords.matches(hashed, of("right"))
    assert passwords.checked == 1

    assert await passwords.matches(hashed, of("right", username="bob"))
    assert not await passwords.matches(hashed, of("wrong"))
    assert not await passwords.matches(hashed, of("wrong"))
    assert passwords.checked == 4


async def test_a_changed_hash_is_not_remembered(passwords: Passwords) -> None:
    """The password of before is wrong at once."""
    before, after = (made_by("htpasswd", "-nbBC", "4", "ana", word) for word in ("before", "after"))
    assert await passwords.matches(before, of("before"))

    assert not await passwords.matches(after, of("before"))
    assert await passwords.matches(after, of("after"))


async def test_requests_at_once_wait_for_one_check(passwords: Passwords) -> None:
    """Five layers that are pushed at the same time cost one; one that goes away doesn't take the others along."""
    hashed = made_by("htpasswd", "-nbBC", "8", "ana", "right")
    asking = [asyncio.ensure_future(passwords.matches(hashed, of("right"))) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()

    assert await asyncio.gather(*asking[1:]) == [True] * 4
    assert passwords.checked == 1


def test_many_addresses_of_one_client(watch: Watch) -> None:
    """Somebody who has a whole network of IPv6 guesses no more often for it."""
    limiter = FailureLimiter(source=source, clock=watch)
    for number in range(FAILURES):
        limiter.check(f"2001:db8::{number:x}", "ana")
        limiter.failed(f"2001:db8::{number:x}", "ana")

    with pytest.raises(AttemptsTooManyError):
        limiter.check("2001:db8::ffff", "ana")
    limiter.check("2001:db8:0:1::1", "ana")


def test_wrong_passwords_are_limited(limiter: FailureLimiter, watch: Watch) -> None:
    """For one name from one client; others go on, and time forgives."""
    for _ in range(FAILURES):
        limiter.check("c", "ana")
        limiter.failed("c", "ana")

    with pytest.raises(AttemptsTooManyError) as refused:
        limiter.check("c", "ana")
    assert 0 < refused.value.retry_after_s <= REFILL_S
    limiter.check("c", "bob")
    limiter.check("d", "ana")
    watch.time += REFILL_S
    limiter.check("c", "ana")


def test_guessing_names_is_limited_too(limiter: FailureLimiter) -> None:
    """A client that tries one password with many names meets a limit as well."""
    for number in range(CLIENT_FAILURES):
        limiter.check("c", f"user{number}")
        limiter.failed("c", f"user{number}")

    with pytest.raises(AttemptsTooManyError):
        limiter.check("c", "another")


async def test_whoever_is_in_stays_in(passwords: Passwords, limiter: FailureLimiter) -> None:
    """What was right before is right while somebody else guesses from the same address."""
    hashed = made_by("htpasswd", "-nbBC", "4", "ana", "right")
    assert await passwords.matches(hashed, of("right"))
    for _ in range(FAILURES):
        limiter.failed("c", "ana")

    assert await passwords.matches(hashed, of("right"))
    with pytest.raises(AttemptsTooManyError):
        await passwords.matches(hashed, of("guess"))
    with pytest.raises(AttemptsTooManyError):
        await passwords.waste(hashed, of("guess"))
