"""htpasswd files: what is read, what is told, and when they are read again."""

import os
from pathlib import Path
from time import time_ns

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.auth.credentials import Bearer, Password
from roadstead.auth.errors import SourceUnreadableError
from roadstead.auth.limiter import FailureLimiter
from roadstead.auth.passwords import Passwords
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.auth.providers import htpasswd
from roadstead.auth.providers.htpasswd import GRAIN_NS, HtpasswdFile, parse_htpasswd
from roadstead.secret import Secret

APR1 = "$apr1$a$OcJUzCxbrtRGJvhZd1gRm/"  # openssl passwd -apr1 -salt a secret


def line(name: str, password: str, rounds: int = 4) -> str:
    return f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds)).decode()}\n"


def of(name: str, password: str) -> Password:
    return Password(name, Secret(password), "c")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users"


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(FailureLimiter())


@pytest.fixture
def file(path: Path, passwords: Passwords) -> HtpasswdFile:
    return HtpasswdFile(path, passwords)


def test_lines_that_cannot_be_read_are_named() -> None:
    """By number and reason, never with what stands there; the others hold, and of two of one name the first."""
    text = f"# people\n\n{line('ana', 'a')}secret\nbob:plain\n:x\n{line('ana', 'other')}ci:{APR1}:a remark\r\n"

    entries = parse_htpasswd(text)

    assert sorted(entries.hashes) == ["ana", "ci"]
    assert bcrypt.checkpw(b"a", entries.hashes["ana"].encode())
    assert [finding.number for finding in entries.findings] == [4, 5, 6, 7]
    assert "secret" not in "".join(map(str, entries.findings))
    assert "plain" not in "".join(map(str, entries.findings))


def test_a_mark_before_the_first_name(path: Path, file: HtpasswdFile) -> None:
    """What some editors begin UTF-8 with belongs to no name."""
    path.write_bytes(b"\xef\xbb\xbf" + line("ana", "a").encode())

    assert list(file.read().hashes) == ["ana"]


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    """Whatever stands there, each line is an entry, a remark or a finding."""
    entries = parse_htpasswd(text)

    assert len(entries.hashes) + len(entries.findings) <= len(text.splitlines())


async def test_signing_in(file: HtpasswdFile, path: Path) -> None:
    """The right password gives the user of that name; everything else gives nobody."""
    path.write_text(line("ana", "a") + f"ci:{APR1}\n")

    caller = await file.authenticate(of("ana", "a"))

    assert caller is not None
    assert (caller.principal, caller.via) == (Principal(PrincipalKind.USER, "ana"), "htpasswd")
    assert await file.authenticate(of("ana", "b")) is None
    assert await file.authenticate(of("bob", "a")) is None
    assert await file.authenticate(of("", "")) is None
    assert await file.authenticate(Bearer(Secret("a"))) is None


async def test_a_changed_file_counts_at_once(file: HtpasswdFile, path: Path) -> None:
    """Written in place or put there by renaming, as editors and orchestrators do, also within the clock's grain."""
    path.write_text(line("ana", "a"))
    assert await file.authenticate(of("ana", "a")) is not None

    kept = path.stat()
    other = path.with_name("new")
    other.write_text(line("ana", "b"))
    os.utime(other, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    other.rename(path)
    assert await file.authenticate(of("ana", "a")) is None
    assert await file.authenticate(of("ana", "b")) is not None

    path.write_text("")
    assert await file.authenticate(of("ana", "b")) is None


async def test_a_change_behind_the_old_time_counts_at_once(file: HtpasswdFile, path: Path) -> None:
    """Written in place, as long as before, and the time set back, as copies do; at once, and long after the last."""
    for age in (0, 2 * GRAIN_NS):
        path.write_text(line("ana", "a"))
        kept = path.stat()
        while time_ns() - kept.st_ctime_ns < age:
            pass
        assert await file.authenticate(of("ana", "a")) is not None

        with path.open("r+") as opened:
            opened.write(line("ana", "b"))
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))

        assert await file.authenticate(of("ana", "a")) is None
        assert await file.authenticate(of("ana", "b")) is not None


async def test_a_file_that_has_just_changed_has_no_edition(
    file: HtpasswdFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel whose clock ticks gives the next change the same time: until the tick is over, the file is read."""
    path.write_text(line("ana", "a"))
    changed = path.stat().st_ctime_ns
    monkeypatch.setattr(htpasswd, "time_ns", lambda: changed + GRAIN_NS - 1)
    assert file.edition() is None
    monkeypatch.setattr(htpasswd, "time_ns", lambda: changed + GRAIN_NS)
    assert file.edition() is not None


async def test_a_file_that_is_gone_lets_nobody_in(file: HtpasswdFile, path: Path) -> None:
    """Not even those it named before; it is a state of the server's (503), not of the caller's."""
    path.write_text(line("ana", "a"))
    assert await file.authenticate(of("ana", "a")) is not None
    path.unlink()

    with pytest.raises(SourceUnreadableError):
        await file.authenticate(of("ana", "a"))


async def test_an_unknown_name_costs_what_a_known_one_costs(
    file: HtpasswdFile, path: Path, passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password takes the costliest check of the file at the least, whoever it is for (timing oracle)."""
    path.write_text(line("ana", "a", rounds=5) + line("bob", "b", rounds=4) + f"ci:{APR1}\n")
    costs: list[str] = []

    def check(hashed: str, password: str) -> bool:
        costs.append(hashed[:6])
        return False

    monkeypatch.setattr("roadstead.auth.passwords.check", check)

    for name, expected in (("ana", ["$2b$05"]), ("nobody", ["$2b$05"]), ("bob", ["$2b$04", "$2b$05"])):
        costs.clear()
        assert await file.authenticate(of(name, "wrong")) is None
        await file.waste(of(name, "wrong"))
        assert costs == expected
