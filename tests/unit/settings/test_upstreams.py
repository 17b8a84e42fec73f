"""``[[upstreams]]``, and distribution's ``proxy`` section, as settings."""

from datetime import timedelta
from pathlib import Path

import pytest

from roadstead.settings.findings import SettingsInvalidError
from roadstead.settings.load import LoadedSettings, load
from roadstead.settings.plain import as_plain, as_shown, from_plain


def read(text: str, directory: Path, name: str = "roadstead.toml") -> LoadedSettings:
    """Load what a file says."""
    (directory / name).write_text(text)
    return load(Path(name), environment={}, directory=directory)


@pytest.mark.parametrize("head", ["[[upstreams]]", "[[upstreams.registries]]"])
def test_both_spellings(tmp_path: Path, head: str) -> None:
    """The short one is the long one; they travel to other processes, and the password isn't shown."""
    text = f'{head}\nhost = "docker.io"\ndefault_for = ["library/*"]\nusername = "u"\npassword = "s3cret"\n'

    settings = read(text, tmp_path).settings

    (upstream,) = settings.upstreams.registries
    assert (upstream.host, upstream.default_for, upstream.url) == ("docker.io", ("library/*",), None)
    # Secrets are never equal, so it is the plain forms that are compared.
    assert as_plain(from_plain(as_plain(settings))) == as_plain(settings)
    assert as_plain(settings)["upstreams"]["registries"][0]["password"] == "s3cret"
    assert "s3cret" not in str(as_shown(settings))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('host = "docker.io:5000"', "host"),
        ('host = "docker"', "host"),
        ('host = "docker.io/library"', "host"),
        ('host = ""', "host"),
        ('host = "a.b"\nurl = "ftp://a.b"', "url"),
        ('host = "a.b"\nurl = "https://a.b/path"', "url"),
        ('host = "a.b"\nusername = "u"', "username"),
        ('host = "a.b"\ndefault_for = ["Library/*"]', "default_for"),
        ('host = "a.b"\ndefault_for = ["library/*:latest"]', "default_for"),
        ('host = "a.b"\nplatforms = ["amd64"]', "platforms"),
        ('host = "a.b"\n[[upstreams]]\nhost = "a.b"', "host"),
        ('host = "a.b"\nhots = "a.b"', "hots"),
        ('host = "a.b"\nwhole = true\nallow_push = true', "whole"),
        ('host = "a.b"\nmissing_for = "-1s"', "missing_for"),
        ('host = "a.b"\ndownloads = -1', "downloads"),
        ('host = "a.b"\nsign_in = "docker"', "docker_config"),
        ('host = "a.b"\ndocker_config = "config.json"', "docker_config"),
        (
            'host = "a.b"\nsign_in = "docker"\ndocker_config = "c"\nusername = "u"\npassword = "p"',
            "sign_in",
        ),
        ('host = "a.b"\nsign_in = "ecr"', "sign_in"),
        ('host = "a.b"\nsign_in = "aws"', "sign_in"),
    ],
)
def test_slips_are_told(tmp_path: Path, text: str, key: str) -> None:
    """Each with the field that it is in."""
    with pytest.raises(SettingsInvalidError) as raised:
        read(f"[[upstreams]]\n{text}\n", tmp_path)

    (finding,) = raised.value.findings
    assert finding.key.partition("].")[2] == key


@pytest.mark.parametrize(
    ("section", "host", "url", "keep"),
    [
        ("remoteurl: 'https://registry-1.docker.io'", "docker.io", "https://registry-1.docker.io", timedelta(days=7)),
        ("remoteurl: 'http://mirror:5000/', ttl: 24h", "mirror.upstream", "http://mirror:5000", timedelta(days=1)),
        ("remoteurl: 'https://r.example', ttl: 0", "r.example", "https://r.example", timedelta()),
    ],
)
def test_distributions_section(tmp_path: Path, section: str, host: str, url: str, keep: timedelta) -> None:
    """One upstream for every name, asked at each pull."""
    proxy = f"proxy: {{{section}, username: u, password: p}}"
    text = f"version: 0.1\nstorage: filesystem\nhttp: {{addr: '127.0.0.1:5000'}}\n{proxy}\n"

    loaded = read(text, tmp_path, "config.yml")

    (upstream,) = loaded.settings.upstreams.registries
    assert (upstream.host, upstream.url, upstream.keep) == (host, url, keep)
    assert (upstream.default_for, upstream.revalidate, upstream.allow_push) == (("**",), timedelta(), False)
    assert upstream.whole
    assert upstream.password is not None
    assert (upstream.username, upstream.password.reveal()) == ("u", "p")


def test_tracing_goes_with_the_short_spelling(tmp_path: Path) -> None:
    """`serve --trace-upstream` is for upstreams however they are written."""
    (tmp_path / "roadstead.toml").write_text('[[upstreams]]\nhost = "docker.io"\n')
    given = {"upstreams.trace": True}

    settings = load(Path("roadstead.toml"), environment={}, directory=tmp_path, overrides=given).settings

    assert settings.upstreams.trace
    assert [one.host for one in settings.upstreams.registries] == ["docker.io"]
