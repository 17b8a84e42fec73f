"""``roadstead config show`` and ``check``, and how errors are told."""

import json
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from roadstead.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command gave."""

    returncode: int
    stdout: str
    stderr: str


Roadstead = Callable[..., Done]

RULE = """
[[augment.rules]]
match = "a/*"
layers = ["x.tar", { path = "y", platform = "linux/arm64" }]
env = ["QUOTE=\\"", "LINE=a\\nb"]
cmd = []
"""


@pytest.fixture
def roadstead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Roadstead:
    """Run the command line in an empty directory, without variables of ours."""
    for name in [name for name in os.environ if name.startswith("ROADSTEAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, environment: Mapping[str, str] | None = None) -> Done:
        monkeypatch.setattr(sys, "argv", ["roadstead", *arguments])
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return Done(int(ended.value.code or 0), told.out, told.err)

    return run


def test_show_is_toml_with_origins(roadstead: Roadstead, tmp_path: Path) -> None:
    """What is shown can be read as settings again; beside each key stands where it came from; secrets are masked."""
    (tmp_path / "r.toml").write_text('[server]\nworkers = 3\n[storage]\nsecret_key = "hunter2"\n' + RULE)

    environment = {"ROADSTEAD_LOG_LEVEL": "debug", "ROADSTEAD_PORT": ""}
    done = roadstead("config", "show", "r.toml", environment=environment)

    assert done.returncode == 0
    shown = tomllib.loads(done.stdout)
    assert shown["server"]["workers"] == 3
    assert shown["storage"]["secret_key"] == "***"
    assert "hunter2" not in done.stdout
    assert shown["augment"]["rules"] == [
        {
            "match": "a/*",
            "layers": [{"path": f"{tmp_path}/x.tar"}, {"path": f"{tmp_path}/y", "platform": "linux/arm64"}],
            "includes": [],
            "env": ['QUOTE="', "LINE=a\nb"],
            "cmd": [],
            "labels": [],
        }
    ]
    origins = dict(line.split("  # ", 1) for line in done.stdout.splitlines() if "  # " in line)
    told = {setting.strip(): origin for setting, origin in origins.items()}
    assert told["workers = 3"] == f"file {tmp_path / 'r.toml'}"
    assert told['level = "debug"'] == "environment ROADSTEAD_LOG_LEVEL"
    assert told["pool_size = 5"] == "default"


def test_show_as_json(roadstead: Roadstead, tmp_path: Path) -> None:
    """Each key with its value and its origin."""
    done = roadstead("config", "show", "--json")

    shown = json.loads(done.stdout)
    assert shown["server.listen"] == {"value": "127.0.0.1:5000", "origin": "default"}
    assert shown["database.url"]["value"] == f"sqlite:///{tmp_path}/roadstead-data/roadstead.db"


def test_check_lists_everything(roadstead: Roadstead, tmp_path: Path) -> None:
    """Findings on standard output, status 1; nothing to find, status 0."""
    (tmp_path / "bad.toml").write_text('[server]\nlisten = "0.0.0.0:5000"\nworkers = 0\n')
    (tmp_path / "worse.toml").write_text("[server]\nwrokers = 0\n[log]\nlevel = 3\n")

    bad = roadstead("config", "check", "bad.toml")
    worse = roadstead("config", "check", "worse.toml", "--json")
    fine = roadstead("config", "check")

    assert bad.returncode == 1
    assert "server.open_to_network = true" in bad.stdout
    assert "server.workers: expected 1 or more, got 0" in bad.stdout
    assert worse.returncode == 1
    assert [finding["key"] for finding in json.loads(worse.stdout)] == ["server.wrokers", "log.level"]
    assert (fine.returncode, fine.stdout) == (0, "the settings are fine\n")


def test_check_names_who_is_in_the_file_and_in_the_database(roadstead: Roadstead, tmp_path: Path) -> None:
    """As a warning, where the database is a file that is there; nothing is made where there is none, or no database."""
    (tmp_path / "users").write_text("ana:$2y$05$" + "." * 53 + "\nzoe:$2y$05$" + "." * 53 + "\n")
    (tmp_path / "r.toml").write_text('[storage]\npath = "data"\n[auth]\nhtpasswd = "users"\n')

    before = roadstead("config", "check", "r.toml")
    assert not (tmp_path / "data").exists()
    for name in ("ana", "bob"):
        assert roadstead("user", "add", name, "r.toml", "--robot").returncode == 0
    both = roadstead("config", "check", "r.toml")
    (tmp_path / "data/roadstead.db").write_bytes(b"no database, but long enough to be looked at" * 30)
    broken = roadstead("config", "check", "r.toml")

    assert [done.stdout for done in (before, both, broken)] == ["the settings are fine\n"] * 3
    assert "warning: auth.htpasswd: ana: with an account in the database as well" in both.stderr
    assert before.stderr == broken.stderr == ""


def test_check_warns_of_a_registry_that_is_open_through_a_proxy(roadstead: Roadstead, tmp_path: Path) -> None:
    """Until there is an account, which of another server's database isn't known; beside a slip nothing is said."""
    proxied = '[server]\npublic_url = "https://registry.example.com"\ntrusted_proxies = ["127.0.0.1"]\n'
    (tmp_path / "r.toml").write_text(f'{proxied}[storage]\npath = "data"\n')
    (tmp_path / "p.toml").write_text(f'{proxied}[database]\nurl = "postgresql://db/x"\n')
    (tmp_path / "slip.toml").write_text(f'{proxied}[auth]\nhtpaswd = "users"\n')
    (tmp_path / "meant.toml").write_text(f"{proxied}open_to_network = true\n")

    opened = roadstead("config", "check", "r.toml")
    unknown = roadstead("config", "check", "p.toml")
    others = [roadstead("config", "check", name) for name in ("slip.toml", "meant.toml")]
    assert roadstead("user", "add", "ci", "r.toml", "--robot").returncode == 0
    closed = roadstead("config", "check", "r.toml")

    assert (opened.returncode, opened.stdout) == (0, "the settings are fine\n")
    assert opened.stderr.startswith(
        "warning: server.public_url: others reach this registry through a proxy, and nobody"
    )
    assert "server.open_to_network = true" in opened.stderr
    assert "every image\n" in opened.stderr
    assert "unless the database has accounts" in unknown.stderr
    assert [done.stderr for done in (*others, closed)] == [""] * 3


@pytest.mark.parametrize(
    ("auth", "warned"),
    [
        ('htpasswd = "users"\nissue = false', True),
        ("accounts = true\nissue = false", True),
        ('htpasswd = "users"', False),
        ('htpasswd = "users"\nissue = {}', False),
        ("issue = false", False),
    ],
)
@pytest.mark.parametrize("subject", ["everyone", "authenticated"])
def test_check_warns_of_passwords_that_nobody_is_asked_for(
    auth: str, warned: bool, subject: str, roadstead: Roadstead, tmp_path: Path
) -> None:
    """Where some need none nobody can be asked, but for a token; of no account nobody has a password."""
    (tmp_path / "users").touch()
    policy = f'[[auth.policies]]\nsubjects = ["{subject}"]\nrepositories = ["**"]\nactions = ["pull"]\n'
    (tmp_path / "r.toml").write_text(f"[auth]\n{auth}\n{policy}")

    done = roadstead("config", "check", "r.toml")

    assert (done.returncode, done.stdout) == (0, "the settings are fine\n")
    assert ("warning: auth.issue: policies allow something" in done.stderr) == (warned and subject == "everyone")


def test_check_names_rules_that_no_image_reaches(roadstead: Roadstead, tmp_path: Path) -> None:
    """The first rule that matches is the one that applies."""
    rules = ["team/*", "**:1", "team/*", "**", "other/app"]
    lines = [f'[[augment.rules]]\nmatch = "{match}"\nenv = ["A=b"]\n' for match in rules]
    (tmp_path / "r.toml").write_text("".join(lines))

    done = roadstead("config", "check", "r.toml")

    assert done.returncode == 0
    told = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert [line.partition(", which")[0] for line in told] == [
        "warning: augment.rules[2]: no image comes to it: augment.rules[0]",
        "warning: augment.rules[4]: no image comes to it: augment.rules[3]",
    ]


def test_check_finds_what_serve_would_refuse(roadstead: Roadstead, tmp_path: Path) -> None:
    """Rules that can't be carried out are told with their place, each by its number."""
    (tmp_path / "text.tar.gz").write_text("not a tar at all\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "good.tar").write_bytes(bytes(1024))
    (tmp_path / "r.toml").write_text(
        """
        augment.rules = [
            { match = "team/[a:x:y", env = ["A=1"] },
            { match = "Team App/*", env = ["A=1", "A=2"] },
            { match = "a", workdir = "here" },
            { match = "a", layers = ["text.tar.gz", "empty", "good.tar", "missing"] },
            { match = "a", layers = [{ path = "good.tar", platform = "amd64/linux" }] },
            { match = "a" },
            { match = "a", layers = [{ path = "good.tar", platform = "linux/arm64/v8" }], workdir = "/" },
            { match = "a", layers = ["docker://app:latest"], includes = ["busybox"] },
        ]
        """
    )

    done = roadstead("config", "check", "r.toml", "--json")

    found = [(finding["key"], finding["message"]) for finding in json.loads(done.stdout)]
    expected = [
        ("augment.rules[0].match", "can't be in a repository"),
        ("augment.rules[1].match", "can't be in a repository"),
        ("augment.rules[3].layers[3]", "does not exist"),
        ("augment.rules[4].layers[0]", "expected a platform"),
        ("augment.rules[1]", "env names A twice"),
        ("augment.rules[2]", "not an absolute path"),
        ("augment.rules[3].layers[0]", "text.tar.gz: it is neither gzip nor tar"),
        ("augment.rules[3].layers[1]", "the directory is empty"),
        ("augment.rules[5]", "the plan is empty"),
        ("augment.rules[7].layers[0]", "can't be read"),
        ("augment.rules[7].includes[0]", "name its registry"),
    ]
    assert done.returncode == 1
    assert [key for key, _ in found] == [key for key, _ in expected]
    assert all(words in message for (_, message), (_, words) in zip(found, expected, strict=True)), found
    assert {finding["where"] for finding in json.loads(done.stdout)} == {str(tmp_path / "r.toml")}


def test_check_names_missing_extras(roadstead: Roadstead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs them."""
    (tmp_path / "r.toml").write_text(
        '[storage]\ndriver = "s3"\nbucket = "b"\n[database]\nurl = "postgresql://127.0.0.1/x"\n'
    )
    fine = roadstead("config", "check", "r.toml")
    monkeypatch.setattr("roadstead.cli.preflight.find_spec", lambda name: None)
    monkeypatch.setattr("roadstead.db.postgres.find_spec", lambda name: None)

    done = roadstead("config", "check", "r.toml")

    assert fine.returncode == 0
    assert done.returncode == 1
    assert "roadstead[s3]" in done.stdout
    assert "roadstead[postgres]" in done.stdout


def test_check_judges_what_could_be_read(roadstead: Roadstead, tmp_path: Path) -> None:
    """A slip doesn't hide what else is wrong, and nothing is said of the default in its place."""
    (tmp_path / "r.toml").write_text(
        """
        [server]
        wrokers = 2
        listen = "0.0.0.0:5000"
        [storage]
        driver = "s3"
        bucket = "b"
        [database]
        url = 1
        [log]
        level = 3
        """
    )

    done = roadstead("config", "check", "r.toml", "--json")

    keys = [finding["key"] for finding in json.loads(done.stdout)]
    assert keys == ["server.wrokers", "database.url", "log.level", "server.listen"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "missing.toml"], "missing.toml: No such file or directory"),
        (["serve", "--listen", "5000"], "command line: server.listen: '5000' is not an address"),
        (["serve", "--listen", "0.0.0.0:5000"], "--open-to-network"),
        (["serve", "--workers", "0"], "server.workers: expected 1 or more"),
        (["serve", "--data", "/dev/null"], "storage.path: /dev/null is not a directory"),
        (["config", "show", "missing.toml"], "No such file"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    roadstead: Roadstead, tmp_path: Path, arguments: list[str], told: str
) -> None:
    """`error: …` on standard error, and status 1."""
    done = roadstead(*arguments)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["serve", "--wrokers", "1"], ["sevre"], ["config", "show", "a", "b"]])
def test_wrong_usage_is_status_2(roadstead: Roadstead, arguments: list[str]) -> None:
    """What isn't a command or an option is told by its name."""
    done = roadstead(*arguments)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["serve"],
        ["config"],
        ["config", "show"],
        ["config", "check"],
        ["gc"],
        ["layer"],
        ["layer", "pack"],
        ["tag"],
        ["tag", "history"],
        ["tag", "restore"],
        ["verify"],
    ],
)
def test_help_has_an_example(roadstead: Roadstead, command: list[str]) -> None:
    """Every command shows how it is used."""
    done = roadstead(*command, "--help")

    assert done.returncode == 0
    assert "Example: roadstead" in done.stdout
    assert "[[" not in done.stdout


def test_the_version_is_printed(roadstead: Roadstead) -> None:
    """`--version` says who it is."""
    done = roadstead("--version")

    assert done.stdout.startswith("roadstead ")


def test_a_reference_to_nothing_is_told_by_its_name_and_never_served(roadstead: Roadstead, tmp_path: Path) -> None:
    """`config check --json` names the finding and the reference, also in a header; `serve` ends with the same."""
    (tmp_path / "r.toml").write_text(
        '[auth]\nhtpasswd = "${env:EMP}"\n[[events.endpoints]]\nname = "a"\nurl = "http://127.0.0.1:1/"\n'
        'headers = { Authorization = ["Bearer ${env:EMP}"] }\nsigning_key = "${env:X"\n'
    )

    checked = roadstead("config", "check", "r.toml", "--json", environment={"EMP": ""})
    served = roadstead("serve", "r.toml", "--listen", "127.0.0.1:0", environment={"EMP": ""})

    assert (checked.returncode, served.returncode) == (1, 1)
    assert [(each["key"], each["id"], each["message"]) for each in json.loads(checked.stdout)] == [
        ("auth.htpasswd", "secret.empty", "what ${env:EMP} refers to is empty"),
        ("events.endpoints[0].headers", "secret.empty", "what ${env:EMP} refers to is empty"),
        ("events.endpoints[0].signing_key", None, "${env:X… is a reference without the } at its end"),
    ]
    for each in json.loads(checked.stdout):
        assert f"{tmp_path / 'r.toml'}: {each['key']}: {each['message']}" in served.stderr


def test_a_master_key_that_cannot_be_read_is_named(roadstead: Roadstead, tmp_path: Path) -> None:
    """The one that is kept in the data directory: its file and why."""
    (tmp_path / "data" / "master.key").mkdir(parents=True)
    (tmp_path / "r.toml").write_text('[storage]\npath = "data"\n[auth.issue]\n')

    checked = roadstead("config", "check", "r.toml")

    assert checked.returncode == 1
    told = f"auth.master_key: {tmp_path}/data/master.key cannot be read: Is a directory"
    assert told in checked.stdout
