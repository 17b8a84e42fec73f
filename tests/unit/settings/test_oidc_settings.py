"""Settings of issuers where people sign in: what is read, and what speaks against serving with them."""

from pathlib import Path

import pytest

from roadstead.settings.findings import SettingsInvalidError
from roadstead.settings.load import load
from roadstead.settings.model import Settings
from roadstead.settings.plain import as_plain, as_shown, from_plain

GOOD = {
    "issuer": '"https://sso.example/realms/corp"',
    "client_id": '"roadstead"',
    "client_secret": '"${env:OIDC_SECRET}"',
    "groups_claim": '"realm_access.roles"',
    "allowed_groups": '["staff"]',
}


def table(**changes: str | None) -> str:
    lines = [f"{name} = {value}" for name, value in {**GOOD, **changes}.items() if value is not None]
    return "\n".join(["[[auth.oidc.issuers]]", *lines, ""])


def read(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "r.toml").write_text(text)
    environment = {"OIDC_SECRET": "of the registry"}
    return load(tmp_path / "r.toml", environment=environment, directory=tmp_path).settings


def told(tmp_path: Path, text: str) -> dict[str, str]:
    with pytest.raises(SettingsInvalidError) as refused:
        read(tmp_path, text)
    return {finding.key: f"{finding.message} {finding.advice or ''}" for finding in refused.value.findings}


def test_issuers_are_read_and_handed_on(tmp_path: Path) -> None:
    """The secret follows its reference, reaches our own processes, and isn't shown; access is controlled."""
    settings = read(tmp_path, f'[auth.oidc]\nsession_idle = "30m"\n{table()}')

    assert settings.auth.is_on
    assert settings.auth.oidc is not None
    (issuer,) = settings.auth.oidc.issuers
    assert issuer.client_secret is not None
    assert issuer.client_secret.reveal() == "of the registry"
    assert "of the registry" not in str(as_shown(settings))
    handed = from_plain(as_plain(settings)).auth.oidc
    assert handed is not None
    assert handed.session_idle == settings.auth.oidc.session_idle
    assert handed.issuers[0].client_secret is not None
    assert handed.issuers[0].client_secret.reveal() == "of the registry"


KEY = "auth.oidc.issuers[0]"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"issuer": None}, f"{KEY}.issuer"),
        ({"issuer": '"http://sso.example"'}, f"{KEY}.issuer"),
        ({"issuer": '"http://10.0.0.7"'}, f"{KEY}.issuer"),
        ({"issuer": '"https://sso.example?x=1"'}, f"{KEY}.issuer"),
        ({"issuer": '"https://user@sso.example"'}, f"{KEY}.issuer"),
        ({"client_id": None}, f"{KEY}.client_id"),
        ({"name": '"Corp"'}, f"{KEY}.name"),
        ({"user_prefix": '"a b"'}, f"{KEY}.user_prefix"),
        ({"algorithms": '["HS256"]'}, f"{KEY}.algorithms"),
        ({"algorithms": '["none"]'}, f"{KEY}.algorithms"),
        ({"algorithms": "[]"}, f"{KEY}.algorithms"),
        ({"allowed_groups": None}, KEY),
        ({"groups_claim": None}, f"{KEY}.allowed_groups"),
        ({"leeway": '"6m"'}, f"{KEY}.leeway"),
        ({"sign_in_again": '"0s"'}, f"{KEY}.sign_in_again"),
        ({"trusted_hosts": '["https://x"]'}, f"{KEY}.trusted_hosts"),
        ({"ca": '"missing.pem"'}, f"{KEY}.ca"),
    ],
)
def test_a_slip_in_an_issuer_is_told(tmp_path: Path, changes: dict[str, str | None], key: str) -> None:
    """By its key."""
    assert key in told(tmp_path, table(**changes))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[auth.oidc]\n", "auth.oidc.issuers"),
        (f'[auth.oidc]\nsession_idle = "13h"\n{table()}', "auth.oidc.session_idle"),
        (f'[auth.oidc]\nsession_idle = "0s"\n{table()}', "auth.oidc.session_idle"),
        (f"[auth]\naccounts = false\n{table()}", "auth.accounts"),
        (f'[server]\nlisten = "0.0.0.0:5000"\n{table()}', "auth.oidc"),
        (f'[server]\npublic_url = "http://registry.example"\n{table()}', "auth.oidc"),
        (table() + table(), "auth.oidc.issuers"),
        (table(name='"a"') + table(name='"b"', issuer='"https://b.example"'), "auth.oidc.issuers"),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path: Path, text: str, key: str) -> None:
    """Where browsers come back to, sessions that outlive themselves, issuers that can't be told apart."""
    assert key in told(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        table(allowed_groups=None, allow_all="true"),
        table(issuer='"http://localhost:8080/realms/corp"'),
        table(issuer='"http://127.0.0.1:8080"'),
        f'[server]\nlisten = "0.0.0.0:5000"\npublic_url = "https://registry.example"\n{table()}',
        table(name='"a"', user_prefix='"a-"', group_prefix='"a-"') + table(name='"b"', issuer='"https://b.example"'),
    ],
)
def test_what_is_meant_so_is_taken(tmp_path: Path, text: str) -> None:
    """With the word for it, on this machine, or with prefixes."""
    assert read(tmp_path, text).auth.oidc is not None
