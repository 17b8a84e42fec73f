"""``user``, ``key`` and ``auth explain``, over a registry's own database."""

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roadstead.auth.api_keys import make_key
from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.names import AccountNameInvalidError
from roadstead.auth.ports import Arrival
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.cli.existing import DataMissingError
from roadstead.cli.key import KeyMissingError
from roadstead.cli.main import app
from roadstead.cli.user import AccountMissingError, AccountTakenError, PasswordUnusableError
from roadstead.clock import SystemClock
from roadstead.db.engine import open_database

HASHED = "$2b$10$9FZ6Jr0u3kV4NHG7p1RjTeTqEKGhFX2bnXYyuO/6YQS5QWkK/vGnO"

CONFIG = """
[[auth.policies]]
subjects = ["group:developers"]
repositories = ["team/*"]
actions = ["pull"]
"""


class Registry:
    """A registry's settings and data in a directory."""

    def __init__(self, directory: Path) -> None:
        self._config = directory / "r.toml"
        self._config.write_text(CONFIG + f'[storage]\npath = "{directory}/data"\n')

        self._directory = directory

    def more(self, settings: str) -> None:
        """Add to the settings."""
        self._config.write_text(settings + self._config.read_text())

    def lines(self, *names: str) -> Path:
        """Write a file of passwords with these names, and return it."""
        path = self._directory / "users"
        path.write_text("".join(f"{name}:{HASHED}\n" for name in names))
        return path

    async def old_key(self, name: str) -> None:
        """Have a robot account have a key whose time is over."""
        then = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
        scope = Scope((RepositoryGlob("**"),), frozenset({Action.PULL}))
        owner = Principal(PrincipalKind.ROBOT, name)
        key = make_key(owner, scope, now=then - timedelta(days=1), expires_at=then, description="of then")
        database = await open_database(f"sqlite:///{self._directory}/data/roadstead.db", migrate=False)
        assert await database.accounts.put_key(key.row)
        await database.close()

    async def sign_in(self, name: str) -> None:
        """Have somebody come from an issuer."""
        now = SystemClock().now()
        arrival = Arrival(
            issuer="https://id.example",
            subject="1",
            name=name,
            groups=frozenset({"developers"}),
            attempt_hash="attempt",
            attempt_ends_at=now + timedelta(minutes=1),
            session_hash="session",
            session_ends_at=now + timedelta(minutes=1),
        )
        database = await open_database(f"sqlite:///{self._directory}/data/roadstead.db", migrate=False)
        try:
            await database.people.sign_in(arrival, now=now)
        finally:
            await database.close()

    def run(self, *words: str, given: str | None = None) -> Result:
        return CliRunner().invoke(app, [*words, str(self._config)], input=given)

    def done(self, *words: str, given: str | None = None) -> str:
        result = self.run(*words, given=given)
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_users_come_change_and_go(registry: Registry) -> None:
    """With groups and kinds, and never with a password or its hash in what is printed."""
    registry.done("user", "add", "ana", "--group", "developers", "--group", "ops", given="secret\n")
    registry.done("user", "add", "ci", "--robot")
    listed = json.loads(registry.done("user", "list", "--json"))

    assert [(user["kind"], user["name"], user["groups"], user["has_password"]) for user in listed] == [
        ("user", "ana", ["developers", "ops"], True),
        ("robot", "ci", [], False),
    ]
    assert "argon2" not in registry.done("user", "list", "--json") + registry.done("user", "list")

    assert isinstance(registry.run("user", "add", "ana", given="other").exception, AccountTakenError)
    registry.done("user", "add", "ana", "--replace", given="other")
    assert json.loads(registry.done("user", "list", "--json"))[0]["groups"] == []
    registry.done("user", "remove", "ana")
    assert isinstance(registry.run("user", "remove", "ana").exception, AccountMissingError)


@pytest.mark.parametrize(
    ("auth", "warned"),
    [("", True), ("accounts = true", False), ("accounts = false", False), ('htpasswd = "users"', False)],
)
def test_that_the_last_account_goes_is_told(auth: str, warned: bool, tmp_path: Path) -> None:
    """Where the next start would let everybody in, and of no other account than the last."""
    (tmp_path / "users").touch()
    config = tmp_path / "r.toml"
    config.write_text(f'[storage]\npath = "{tmp_path}/data"\n[auth]\n{auth}\n')

    def run(*words: str) -> Result:
        done = CliRunner().invoke(app, [*words, str(config)])
        assert done.exit_code == 0, done.output
        return done

    for name in ("ana", "ci"):
        run("user", "add", name, "--robot")
    assert run("user", "remove", "ana").stderr == ""
    last = run("user", "remove", "ci")

    assert last.stdout == "ci is gone, and its keys with it\n"
    assert ("warning: auth.accounts: that was the last account" in last.stderr) == warned
    assert ("auth.accounts = true" in last.stderr) == warned


def test_groups_change_without_a_password(registry: Registry) -> None:
    """Kind and password stay; no group at all has to be said, and who isn't there is told."""
    registry.done("user", "add", "ana", "--group", "developers", given="secret\n")
    registry.done("user", "add", "ci", "--robot")

    assert registry.done("user", "groups", "ana", "--group", "ops", "--group", "guests") == "ana is in guests, ops\n"
    registry.done("user", "groups", "ci", "--group", "builders")

    listed = json.loads(registry.done("user", "list", "--json"))
    assert [(user["kind"], user["groups"], user["has_password"]) for user in listed] == [
        ("user", ["guests", "ops"], True),
        ("robot", ["builders"], False),
    ]
    assert registry.run("user", "groups", "ana").exit_code == 2
    assert registry.done("user", "groups", "ana", "--none") == "ana is in no group\n"
    assert isinstance(registry.run("user", "groups", "bob", "--none").exception, AccountMissingError)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("docker.io", "a registry's host"),
        ("mirror.example", "a registry's host"),
        ("as-pushed", "a word that names"),
        ("Ana", "No policy with {user} fits Ana"),
        ("ana@example.org", "No policy with {user} fits"),
        ("ana", None),
        ("ana.smith", None),
    ],
)
def test_a_name_that_a_policy_would_take_for_something_else(tmp_path: Path, name: str, said: str | None) -> None:
    """Whoever is called like a tree of others' would get it, and who can't be part of a name gets none."""
    corner = '\n[[auth.policies]]\nsubjects = ["authenticated"]\nrepositories = ["{user}/**"]\nactions = ["pull"]\n'
    config = tmp_path / "r.toml"
    upstream = '[[upstreams]]\nhost = "mirror.example"\n'
    config.write_text(f'[storage]\npath = "{tmp_path}/data"\n{upstream}{corner}')

    done = CliRunner().invoke(app, ["user", "add", name, str(config), "--robot"])

    assert done.exit_code == 0, done.output
    assert (said or "") in done.stderr
    assert (said is not None) == (name in done.stderr)


@pytest.mark.parametrize("given", ["", "\n", "two\nlines\n", "nul\0"])
def test_a_password_is_one_line(registry: Registry, given: str) -> None:
    """Nothing, several lines and what Basic can't carry are refused, and no account is made."""
    assert isinstance(registry.run("user", "add", "ana", given=given).exception, PasswordUnusableError)
    assert isinstance(registry.run("user", "list").exception, DataMissingError)


def test_a_password_from_a_file(registry: Registry, tmp_path: Path) -> None:
    """One line end is not a part of it; a file that isn't there is told."""
    (tmp_path / "password").write_text("secret\n")
    registry.done("user", "add", "ana", "--password-file", str(tmp_path / "password"))

    missing = registry.run("user", "add", "bob", "--password-file", str(tmp_path / "missing"))
    assert isinstance(missing.exception, PasswordUnusableError)


@pytest.mark.parametrize("name", ["", "a:b", "-a", "a b", "*", "a/b", "x" * 129])
def test_names_that_cannot_be(registry: Registry, name: str) -> None:
    """What Basic or a policy couldn't name."""
    assert isinstance(registry.run("user", "add", "--robot", "--", name).exception, AccountNameInvalidError)


def test_keys_are_shown_once(registry: Registry) -> None:
    """Printed when they are made, alone on standard output; the list knows what each is good for and until when."""
    registry.done("user", "add", "ci", "--robot")
    printed = registry.done("key", "create", "ci", "--repository", "team/*", "--action", "pull", "--expires", "never")
    [listed] = json.loads(registry.done("key", "list", "--json"))

    assert re.fullmatch(r"rs_[a-z2-7]{16}_[a-z2-7]{32}\n", printed)
    assert listed["id"] == printed.split("_")[1]
    assert (listed["owner"], listed["repositories"], listed["actions"], listed["expires_at"]) == (
        "robot:ci",
        ["team/*"],
        ["pull"],
        None,
    )
    assert printed.strip().rpartition("_")[2] not in registry.done("key", "list") + registry.done(
        "key", "list", "--json"
    )

    registry.done("key", "revoke", listed["id"])
    assert registry.done("key", "list") == ""
    assert isinstance(registry.run("key", "revoke", listed["id"]).exception, KeyMissingError)
    assert isinstance(registry.run("key", "create", "nobody").exception, AccountMissingError)


def test_keys_that_have_ended_are_marked(registry: Registry) -> None:
    """They stay in the list until somebody revokes them."""
    registry.done("user", "add", "ci", "--robot")
    registry.done("key", "create", "ci", "--description", "of now")
    registry.done("key", "create", "ci", "--description", "for ever", "--expires", "never")
    asyncio.run(registry.old_key("ci"))

    listed = registry.done("key", "list").splitlines()
    ended = {key["description"]: key["ended"] for key in json.loads(registry.done("key", "list", "--json"))}

    assert [line.endswith("of then") for line in listed if "  ended 2026-01-02 03:04Z  " in line] == [True]
    assert ended == {"of now": False, "for ever": False, "of then": True}
    assert json.loads(registry.done("key", "create", "ci", "--json"))["ended"] is False


@pytest.mark.parametrize("text", ["0s", "0", "90", "soon"])
def test_a_key_that_could_never_be_used(registry: Registry, text: str) -> None:
    """It is refused, and not made."""
    registry.done("user", "add", "ci", "--robot")

    assert registry.run("key", "create", "ci", "--expires", text).exit_code == 2
    assert registry.done("key", "list") == ""


def test_times_say_that_they_are_utc(registry: Registry) -> None:
    """Whatever the machine's zone is."""
    registry.done("user", "add", "ci", "--robot")
    registry.done("key", "create", "ci")

    assert re.search(r" until \d{4}-\d\d-\d\d \d\d:\d\dZ  pull ", registry.done("key", "list"))
    for line in registry.done("audit").splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  done ", line)


@pytest.mark.parametrize("text", ["root", "user:", "group:ops", "Server", ""])
def test_a_subject_that_is_nobody(registry: Registry, text: str) -> None:
    """It would find nothing, as if nothing had been done."""
    registry.done("user", "add", "ci", "--robot")
    done = registry.run("audit", "--subject", text)

    assert done.exit_code == 2
    assert "write user:NAME" in " ".join(done.output.replace("\u2502", " ").split())
    assert "user.add" not in registry.done("audit", "--subject", "server")


ISSUER = """
[[auth.oidc.issuers]]
issuer = "https://id.example"
client_id = "c"
allow_all = true
"""


@pytest.mark.parametrize(
    ("auth", "hinted"), [("", True), ("accounts = true", False), (ISSUER, False)], ids=["nothing", "accounts", "oidc"]
)
def test_a_server_that_knows_accounts_needs_no_start(registry: Registry, auth: str, *, hinted: bool) -> None:
    """It is said where a server looks for accounts at its start alone."""
    registry.more(f'[server]\npublic_url = "https://registry.example"\n[auth]\n{auth}\n')

    done = registry.run("user", "add", "ci", "--robot")

    assert done.exit_code == 0, done.output
    assert ("after its next start" in done.stderr) is hinted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pull", "team/app", "--as", "user:ana"], "allowed: auth.policies[0] allows user:ana to pull team/app"),
        (["push", "team/app", "--as", "user:ana"], "denied: no policy allows user:ana to push team/app"),
        (["pull", "team/app", "--as", "robot:ana"], "denied: no policy allows robot:ana to pull team/app"),
        (["pull", "team/app"], "denied: no policy allows anonymous to pull team/app"),
        (["pull", "team/app", "--as", "user:x", "--group", "developers"], "allowed: auth.policies[0]"),
        (["catalog", "-", "--as", "user:ana"], "denied: no policy allows user:ana to catalog anywhere"),
    ],
    ids=" ".join,
)
def test_what_decides_is_told(registry: Registry, words: Sequence[str], said: str) -> None:
    """With the groups of the account, unless others are said."""
    registry.done("user", "add", "ana", "--group", "developers", given="secret")

    assert said in registry.done("auth", "explain", *words)
    assert json.loads(registry.done("auth", "explain", *words, "--json"))["allowed"] is said.startswith("allowed")


def test_who_has_no_account_is_told_first(registry: Registry) -> None:
    """Policies are about names, whether there is anybody of that name or not; "allowed" alone would say there is."""
    registry.done("user", "add", "ana", "--group", "developers", given="secret")

    assert "account" not in registry.done("auth", "explain", "pull", "team/app", "--as", "user:ana")
    assert "account" not in registry.done("auth", "explain", "pull", "team/app")
    for who in ("user:zed", "robot:ana"):
        told = f"there is no account {who} in the database now"
        first, second = registry.done("auth", "explain", "pull", "team/app", "--as", who).splitlines()
        assert first == f"{told}; if there were:"
        assert second.startswith("denied: no policy allows")
        said = registry.done("auth", "explain", "pull", "team/app", "--as", who, "--json")
        assert json.loads(said)["remark"] == told


def test_a_registry_without_a_word_is_open(tmp_path: Path) -> None:
    """And explaining makes nothing."""
    config = tmp_path / "r.toml"
    config.write_text(f'[storage]\npath = "{tmp_path}/data"\n')

    done = CliRunner().invoke(app, ["auth", "explain", "delete", "team/app", str(config)])

    assert done.stdout == "allowed: nobody has to sign in here, so everybody may do everything\n"
    assert list(tmp_path.iterdir()) == [config]


def test_an_answer_by_default_settings_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a settings file that nobody named, another registry would be explained; the environment names as well."""
    words = ["auth", "explain", "delete", "team/app", "--data", str(tmp_path / "data")]
    told = "by the default settings: no configuration was named"

    assert CliRunner().invoke(app, words).stdout.endswith(f"everything\n{told}\n")
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["remark"] == told

    monkeypatch.setenv("ROADSTEAD_AUTH_ACCOUNTS", "true")
    assert told not in CliRunner().invoke(app, words).stdout


def test_lists_of_a_registry_that_nobody_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are of the data in the working directory, and say so beside what they print."""
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["user", "add", "ci", "--robot"])

    for words in (["user", "list"], ["key", "list"], ["audit"], ["events", "list"]):
        done = CliRunner().invoke(app, words)
        told = f"by the default settings: no configuration was named; the data is in {tmp_path}/roadstead-data\n"
        assert done.exit_code == 0, done.output
        assert told in done.stderr
        assert told not in done.stdout
        named = CliRunner().invoke(app, [*words, "--data", "roadstead-data"])
        assert "by the default" not in named.output


def test_a_settings_file_is_no_repository(registry: Registry) -> None:
    """Where the repository was left out, the last word would be taken for it."""
    done = registry.run("auth", "explain", "pull")

    assert done.exit_code == 2
    assert "the repository is missing" in " ".join(done.output.replace("\u2502", " ").split())


def test_whoever_is_disabled_may_do_nothing(registry: Registry) -> None:
    """Whatever policies say, and also by a line of the password file: the name is kept out."""
    registry.done("user", "add", "ana", "--group", "developers", given="secret")
    words = ("auth", "explain", "pull", "team/app", "--as", "user:ana")
    registry.done("user", "disable", "ana")

    told = "denied: the account ana is disabled, so nothing is let in that comes from user:ana\n"
    assert registry.done(*words) == told
    assert json.loads(registry.done(*words, "--json"))["allowed"] is False
    assert registry.done(*words, "--group", "developers") == told
    registry.more(f'[auth]\nhtpasswd = "{registry.lines("ana")}"\n')
    assert registry.done(*words) == told

    registry.done("user", "enable", "ana")
    assert registry.done(*words).startswith("allowed")


def test_whose_issuer_counts_no_more_may_do_nothing(registry: Registry) -> None:
    """Who signed in with a browser, at an issuer that settings don't name any more, is told as every request is."""
    registry.done("user", "add", "ci", "--robot")
    asyncio.run(registry.sign_in("eve"))

    told = registry.done("auth", "explain", "pull", "team/app", "--as", "user:eve")

    assert told.startswith("denied: eve signed in at https://id.example, which is not trusted here any more")


def test_keys_of_the_account_are_remarked(registry: Registry) -> None:
    """A key may be good for less than its account; what is denied anyway needs no remark."""
    registry.done("user", "add", "ana", "--group", "developers", given="secret")
    words = ("team/app", "--as", "user:ana")
    assert "key" not in registry.done("auth", "explain", "pull", *words)

    registry.done("key", "create", "ana")
    told = "user:ana has a key that narrows this further: roadstead key list --of ana\n"
    assert registry.done("auth", "explain", "pull", *words).endswith(told)
    registry.done("key", "create", "ana")
    assert "2 keys that narrow" in registry.done("auth", "explain", "pull", *words)
    assert "key" not in registry.done("auth", "explain", "push", *words)


def test_the_password_file_is_looked_into(registry: Registry) -> None:
    """Who has a line there is somebody; who has neither is told to have neither."""
    registry.more(f'[auth]\nhtpasswd = "{registry.lines("bob")}"\n')

    assert "no account" not in registry.done("auth", "explain", "pull", "team/app", "--as", "user:bob")
    neither = "there is no account user:zed in the database, and no line in the password file; if there were:\n"
    assert registry.done("auth", "explain", "pull", "team/app", "--as", "user:zed").startswith(neither)


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "pull", "a", "--as", "ana"],
        ["explain", "pull", "a", "--group", "developers"],
        ["explain", "fly", "a"],
        ["explain", "pull", "a", "--as", "group:x"],
    ],
)
def test_wrong_usage(words: Sequence[str]) -> None:
    """Somebody who is nobody, a group without anybody in it, and what can't be done."""
    assert CliRunner().invoke(app, ["auth", *words]).exit_code == 2
