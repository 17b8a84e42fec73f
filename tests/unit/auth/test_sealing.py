"""Secrets at rest."""

import threading
from pathlib import Path

import pytest

from roadstead.auth.sealing import MasterKeyInvalidError, MasterKeyWrongError, Sealer, kept_master_key
from roadstead.secret import Secret

SEALER = Sealer(Secret("k" * 32))


def test_what_is_sealed_opens() -> None:
    """It comes back as it was, and is sealed differently each time."""
    first, second = SEALER.seal(b"value", "a key"), SEALER.seal(b"value", "a key")

    assert SEALER.open(first, "a key") == SEALER.open(second, "a key") == b"value"
    assert first != second
    assert b"value" not in first


@pytest.mark.parametrize("change", [0, 5, 20, -1])
def test_what_was_changed_does_not(change: int) -> None:
    """Not a byte may differ."""
    sealed = bytearray(SEALER.seal(b"value", "a key"))
    sealed[change] ^= 1

    with pytest.raises(MasterKeyWrongError):
        SEALER.open(bytes(sealed), "a key")


def test_neither_does_what_is_another_s() -> None:
    """A value in another's place, under another key, cut, or of nothing isn't opened."""
    sealed = SEALER.seal(b"value", "a key")

    for opener, text, purpose in (
        (SEALER, sealed, "another key"),
        (Sealer(Secret("l" * 32)), sealed, "a key"),
        (SEALER, sealed[:10], "a key"),
        (SEALER, b"", "a key"),
    ):
        with pytest.raises(MasterKeyWrongError):
            opener.open(text, purpose)


def test_the_master_key_is_not_to_be_kept_with_what_it_opens() -> None:
    """The advice and the page say the same."""
    place = "where the database's backups aren't"

    assert place in MasterKeyWrongError("a key").advice()
    assert place in (Path(__file__).parents[3] / "docs" / "how-to" / "tokens.md").read_text()


def test_a_short_master_key_is_refused() -> None:
    """31 characters are too few."""
    with pytest.raises(MasterKeyInvalidError):
        Sealer(Secret("k" * 31))


def test_a_master_key_is_made_once(tmp_path: Path) -> None:
    """Whoever comes first makes it, all get the same, nobody else can read it, and nothing is left beside it."""
    path, found = tmp_path / "data" / "master.key", []
    threads = [threading.Thread(target=lambda: found.append(kept_master_key(path).reveal())) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert len(found[0]) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]
