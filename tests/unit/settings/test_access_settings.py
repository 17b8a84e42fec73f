"""Settings of access control and of limits: what is read, and what is said of slips."""

from dataclasses import replace
from pathlib import Path

import pytest

from roadstead.settings.check import check_settings
from roadstead.settings.findings import SettingsInvalidError
from roadstead.settings.load import load, load_unchecked
from roadstead.settings.model import HtpasswdSettings, PolicyAction, PolicyEffect, PolicySettings, Settings
from roadstead.settings.plain import as_plain, from_plain

POLICY = '[[auth.policies]]\nsubjects = ["user:ana"]\nrepositories = ["team/*"]\nactions = ["pull"]\n'


def read(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "r.toml").write_text(text)
    (tmp_path / "users").write_text("")
    return load(tmp_path / "r.toml", environment={}, directory=tmp_path).settings


def told(tmp_path: Path, text: str) -> dict[str, str]:
    with pytest.raises(SettingsInvalidError) as refused:
        read(tmp_path, text)
    return {finding.key: f"{finding.message} {finding.advice or ''}" for finding in refused.value.findings}


@pytest.mark.parametrize("text", ['[auth]\nhtpasswd = "users"\n', '[auth.htpasswd]\npath = "users"\n'])
def test_a_path_or_a_table(tmp_path: Path, text: str) -> None:
    """Either way, and it begins at the file."""
    assert read(tmp_path, text).auth.htpasswd == HtpasswdSettings(path=tmp_path / "users")


def test_policies_are_read_and_handed_on(tmp_path: Path) -> None:
    """As values, allowing unless they say otherwise; the processes get the same."""
    settings = read(tmp_path, f'{POLICY}effect = "deny"\n{POLICY}')

    assert settings.auth.policies == (
        PolicySettings(subjects=("user:ana",), repositories=("team/*",), actions=(PolicyAction.PULL,),
                       effect=PolicyEffect.DENY),
        PolicySettings(subjects=("user:ana",), repositories=("team/*",), actions=(PolicyAction.PULL,)),
    )  # fmt: skip
    assert from_plain(as_plain(settings)) == settings


@pytest.mark.parametrize(
    "auth",
    ['[auth]\nhtpasswd = "users"\n', "[auth]\naccounts = true\n", POLICY],
    ids=["htpasswd", "accounts", "policy"],
)
def test_whoever_has_to_sign_in_may_come_from_anywhere(tmp_path: Path, auth: str) -> None:
    """Access control is the word for listening beyond loopback; without it another is needed."""
    assert read(tmp_path, f'[server]\nlisten = "0.0.0.0:5000"\n{auth}').auth.is_on
    assert "[auth]" in told(tmp_path, '[server]\nlisten = "0.0.0.0:5000"\n')["server.listen"]
    assert (
        "nobody has to sign in"
        in told(tmp_path, '[server]\nlisten = "0.0.0.0:5000"\n[auth]\naccounts = false\n')["server.listen"]
    )


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ('[auth]\nhtpasswd = "nowhere"\n', "auth.htpasswd", "htpasswd -cB"),
        ('[auth]\nhtpasswd = "."\n', "auth.htpasswd", "is a directory"),
        ('[auth]\nrealm = "é"\n', "auth.realm", "ASCII"),
        ("[auth]\nhtpaswd = 1\n", "auth.htpaswd", "did you mean htpasswd"),
        (POLICY.replace("user:ana", "person:ana"), "auth.policies[0].subjects[0]", "user:NAME"),
        (POLICY.replace("user:ana", "anonimous"), "auth.policies[0].subjects[0]", "did you mean anonymous"),
        (POLICY.replace("user:ana", "user:"), "auth.policies[0].subjects[0]", "user:NAME"),
        (POLICY.replace("team/*", "team/*:1"), "auth.policies[0].repositories[0]", "has a tag"),
        (POLICY.replace("team/*", "Team/*"), "auth.policies[0].repositories[0]", "can't be in a repository"),
        (POLICY.replace("team/*", "{owner}/*"), "auth.policies[0].repositories[0]", "can't be in a repository"),
        (POLICY.replace('"pull"', '"pul"'), "auth.policies[0].actions[0]", "did you mean pull"),
        (POLICY.replace('["pull"]', "[]"), "auth.policies[0].actions", "some"),
        (POLICY.replace('["team/*"]', "[]"), "auth.policies[0].repositories", "which repositories"),
        (f'{POLICY}effect = "forbid"\n', "auth.policies[0].effect", "allow, deny"),
        (f"{POLICY}subject = []\n", "auth.policies[0].subject", "did you mean subjects"),
        (f'{POLICY}effect = "deny"\n', "auth.policies", "nobody may do anything"),
        ('[[registry.quotas]]\nrepositories = "a/*"\n', "registry.quotas[0].max_bytes", "1 byte or more"),
        ('[[registry.quotas]]\nrepositories = "a:1"\nmax_bytes = 1\n', "registry.quotas[0].repositories", "has a tag"),
        ('[[registry.quotas]]\nmax_bytes = "1MiB"\n', "registry.quotas[0].repositories", "empty"),
    ],
)
def test_slips_are_told_by_key(tmp_path: Path, text: str, key: str, said: str) -> None:
    """Each with where it stands and what was expected."""
    assert said in told(tmp_path, text)[key]


def test_the_user_in_a_pattern_is_fine(tmp_path: Path) -> None:
    """`{user}` stands for a name; and `admin` needs no repositories."""
    read(tmp_path, POLICY.replace("team/*", "home-{user}/**"))
    read(tmp_path, POLICY.replace('["team/*"]', "[]").replace('"pull"', '"admin"'))


def test_variables_say_it_too(tmp_path: Path) -> None:
    """Lists and tables as JSON, the file of passwords as a path."""
    (tmp_path / "users").write_text("")
    environment = {
        "ROADSTEAD_AUTH_HTPASSWD": "users",
        "ROADSTEAD_AUTH_POLICIES": '[{"subjects": ["everyone"], "repositories": ["**"], "actions": ["pull"]}]',
    }

    settings = load_unchecked(None, environment=environment, directory=tmp_path).settings

    assert settings.auth.htpasswd == HtpasswdSettings(path=tmp_path / "users")
    assert settings.auth.policies[0].subjects == ("everyone",)
    assert list(check_settings(settings)) == []


OPEN = POLICY.replace("user:ana", "everyone")
FILE, ACCOUNTS = '[auth]\nhtpasswd = "users"\n', "[auth]\naccounts = true\n"
POSTGRES = '[database]\nurl = "postgresql://db.test/roadstead"\n'


@pytest.mark.parametrize(
    ("text", "given_out"),
    [
        ("", False),
        (FILE, False),
        (ACCOUNTS, True),
        (FILE + POLICY, False),
        (FILE + OPEN, True),
        (FILE + OPEN.replace("everyone", "anonymous"), True),
        (f'{FILE}{OPEN}effect = "deny"\n{POLICY}', False),
        (OPEN, False),  # nobody can sign in at all
        (f"{ACCOUNTS}issue = false\n", False),
        (f"{FILE}issue = {{}}\n", True),
        (f"{FILE}issue = {{ enabled = false, lifetime = '10m' }}\n{OPEN}", False),
        (ACCOUNTS + POSTGRES, False),  # replicas would have a key each
        (f"{ACCOUNTS}master_key = '{'k' * 32}'\n{POSTGRES}", True),
    ],
)
def test_when_tokens_are_given_out(tmp_path: Path, text: str, given_out: bool) -> None:
    """Where some would be left out with passwords alone, unless settings say otherwise or keys couldn't be shared."""
    settings = read(tmp_path, text)

    assert (settings.issue is not None) is given_out
    assert from_plain(as_plain(settings)).issue == settings.issue


@pytest.mark.parametrize(("ours", "given_out"), [("", False), ("roadstead: {auth: {issue: {}}}\n", True)])
def test_distribution_s_htpasswd_asks_for_passwords(tmp_path: Path, ours: str, given_out: bool) -> None:
    """As it does there, whatever accounts there are beside it; our own section may say otherwise."""
    (tmp_path / "users").write_text("")
    path = tmp_path / "config.yml"
    path.write_text(
        "version: 0.1\nstorage: {filesystem: {rootdirectory: data}}\n"
        f"auth: {{htpasswd: {{realm: here, path: {tmp_path / 'users'}}}}}\n{ours}"
    )
    settings = load(path, environment={}, directory=tmp_path).settings

    with_accounts = replace(settings, auth=replace(settings.auth, accounts=True))
    assert (with_accounts.issue is not None) is given_out
