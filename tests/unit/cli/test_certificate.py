"""The certificate of `serve` that is taken up when its time comes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.certificates import Authority

from roadstead.cli.certificate import TlsFromSettings
from roadstead.settings.load import load
from roadstead.testing.clock import FrozenClock

CONFIG = '[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\n'


def test_a_certificate_is_taken_up_when_it_begins(tmp_path: Path) -> None:
    """Nobody takes it before, and everybody takes the last one; the files needn't change again."""
    authority = Authority.make()
    authority.write_server(tmp_path, "first")
    (tmp_path / "roadstead.toml").write_text(CONFIG)
    clock = FrozenClock(datetime.now(UTC))
    tls = TlsFromSettings(load(tmp_path / "roadstead.toml", environment={}).settings, clock)
    first = tls.material

    authority.write_server(tmp_path, "second", valid=(timedelta(days=1), timedelta(days=9)))
    looks = [tls.look(asked=False) for _ in range(3)]  # a look sees the change, the next that it has come to rest
    clock.advance(timedelta(hours=23))
    assert [*looks, tls.look(asked=False), tls.look(asked=True)] == [False] * 5
    assert tls.material == first

    clock.advance(timedelta(hours=2))
    assert tls.look(asked=False)
    assert tls.material.is_valid(clock.now())
    assert tls.material != first
    assert not tls.look(asked=False)
