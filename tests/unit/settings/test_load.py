"""Settings from a file, the environment and the command line."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from roadstead.settings.address import ListenAddress
from roadstead.settings.findings import SettingsFileError, SettingsInvalidError
from roadstead.settings.load import OriginKind, keys, load, load_unchecked, variable
from roadstead.settings.model import LayerSettings, LogLevel, RuleSettings, Settings, StorageDriver

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a settings file."""

    def file(text: str) -> Path:
        path = tmp_path / "roadstead.toml"
        path.write_text(text)
        return path

    return file


def findings(
    config: Path | None, environment: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
) -> list[str]:
    """Load what is wrong, and return what is said of it."""
    with pytest.raises(SettingsInvalidError) as refused:
        load(config, environment=environment or {}, overrides=overrides)
    return [str(finding) for finding in refused.value.findings]


def test_nothing_is_needed(tmp_path: Path) -> None:
    """Without anything said, all is default: loopback, SQLite, data in the working directory."""
    loaded = load(None, environment={}, directory=tmp_path)

    assert loaded.settings.server.listen == ListenAddress("127.0.0.1", 5000)
    assert loaded.settings.storage.path == tmp_path / "roadstead-data"
    assert loaded.settings.database_url == f"sqlite:///{tmp_path}/roadstead-data/roadstead.db"
    assert {origin.kind for origin in loaded.origins.values()} == {OriginKind.DEFAULT}


def test_everything_can_be_said_in_a_file(write: Write, tmp_path: Path) -> None:
    """Values become what the model says; relative paths begin at the file."""
    (tmp_path / "layer.tar.gz").touch()
    (tmp_path / "arm").mkdir()
    path = write(
        """
        [server]
        listen = "127.0.0.1:0"
        workers = 4
        shutdown_timeout = "1m30s"
        [storage]
        path = "data"
        delete = false
        [registry]
        max_manifest_bytes = "8MiB"
        [log]
        level = "debug"
        [[augment.rules]]
        match = "library/*:latest"
        layers = ["layer.tar.gz", { path = "arm", platform = "linux/arm64" }]
        env = ["A=1"]
        cmd = []
        """
    )

    settings = load(path, environment={}).settings

    assert settings.server.workers == 4
    assert settings.server.shutdown_timeout == timedelta(seconds=90)
    assert settings.storage.path == tmp_path / "data"
    assert settings.storage.delete is False
    assert settings.registry.max_manifest_bytes == 8 << 20
    assert settings.log.level is LogLevel.DEBUG
    assert settings.augment.rules == (
        RuleSettings(
            match="library/*:latest",
            layers=(
                LayerSettings(path=tmp_path / "layer.tar.gz"),
                LayerSettings(path=tmp_path / "arm", platform="linux/arm64"),
            ),
            env=("A=1",),
            entrypoint=None,
            cmd=(),
        ),
    )


def test_the_command_line_wins_over_the_environment_over_the_file(write: Write) -> None:
    """Each key takes its value from the strongest that has one, and tells which."""
    path = write('[server]\nworkers = 3\nlisten = "127.0.0.1:1"\npublic_url = "http://file"')
    environment = {"ROADSTEAD_SERVER_WORKERS": "4", "ROADSTEAD_SERVER_LISTEN": "127.0.0.1:2", "HOME": "/"}

    loaded = load(path, environment=environment, overrides={"server.workers": 5})

    assert loaded.settings.server.workers == 5
    assert loaded.settings.server.listen.port == 2
    assert loaded.settings.server.public_url == "http://file"
    assert str(loaded.origins["server.workers"]) == "command line"
    assert str(loaded.origins["server.listen"]) == "environment ROADSTEAD_SERVER_LISTEN"
    assert str(loaded.origins["server.public_url"]) == f"file {path}"
    assert str(loaded.origins["storage.path"]) == "default"


def test_every_setting_has_a_variable(tmp_path: Path) -> None:
    """Whatever the file can say, the environment can; lists are JSON, and what is empty isn't set."""
    (tmp_path / "layer").mkdir()
    environment = {
        "ROADSTEAD_STORAGE_DRIVER": "s3",
        "ROADSTEAD_STORAGE_BUCKET": "images",
        "ROADSTEAD_STORAGE_REGION": "",
        "ROADSTEAD_STORAGE_PATH_STYLE": "yes",
        "ROADSTEAD_STORAGE_ACCESS_KEY": "key",
        "ROADSTEAD_STORAGE_SECRET_KEY": "secret",
        "ROADSTEAD_DATABASE_URL": "postgresql://db/roadstead",
        "ROADSTEAD_AUGMENT_RULES": json.dumps([{"match": "a/*", "layers": ["layer"]}]),
    }

    settings = load(None, environment=environment, directory=tmp_path).settings

    assert settings.storage.driver is StorageDriver.S3
    assert settings.storage.region is None
    assert settings.storage.path_style is True
    assert settings.storage.secret_key is not None
    assert settings.storage.secret_key.reveal() == "secret"
    assert settings.augment.rules[0].layers[0].path == tmp_path / "layer"
    assert len({variable(key) for key in keys()}) == len(keys())


def test_service_links_of_kubernetes_are_ignored() -> None:
    """A Service called `roadstead` puts variables of our prefix into the pod; they mean nothing to us."""
    environment = {
        "ROADSTEAD_PORT": "tcp://10.0.0.1:5000",
        "ROADSTEAD_SERVICE_HOST": "10.0.0.1",
        "ROADSTEAD_SERVICE_PORT": "5000",
        "ROADSTEAD_SERVICE_PORT_HTTP": "5000",
        "ROADSTEAD_PORT_5000_TCP": "tcp://10.0.0.1:5000",
        "ROADSTEAD_PORT_5000_TCP_PROTO": "tcp",
        "ROADSTEAD_PORT_5000_TCP_PORT": "5000",
        "ROADSTEAD_PORT_5000_TCP_ADDR": "10.0.0.1",
        "ROADSTEAD_WEB_SERVICE_HOST": "10.0.0.1",
    }

    assert load(None, environment=environment).settings.server.workers == 2


def test_all_mistakes_are_told_in_one_run(write: Write) -> None:
    """Each finding says where, which key, what was expected and what came."""
    path = write(
        """
        workers = 2
        [servr]
        listen = "x"
        [server]
        listn = "127.0.0.1:5000"
        workers = "2"
        shutdown_timeout = 30
        open_to_network = 1
        [storage]
        driver = "s4"
        path = ["x"]
        [registry]
        max_manifest_bytes = "4 MEGA"
        [augment]
        rules = [{ mtch = "x", layers = [{ pth = "x" }], env = "A=1" }]
        """
    )

    told = findings(path, {"ROADSTEAD_SERVER_WORKRS": "2", "ROADSTEAD_LOG_LEVEL": "chatty"})

    assert told == [
        f"{path}: workers: unknown key; did you mean server.workers?",
        f"{path}: servr: unknown key; did you mean server?",
        f"{path}: server.listn: unknown key; did you mean listen?",
        "environment: ROADSTEAD_SERVER_WORKRS: unknown setting; did you mean ROADSTEAD_SERVER_WORKERS?",
        f'{path}: server.workers: expected a whole number, got the text "2"',
        f'{path}: server.shutdown_timeout: expected a duration such as "30s" or "1h", got the number 30',
        f"{path}: server.open_to_network: expected true or false, got the number 1",
        f"{path}: storage.driver: expected one of filesystem, s3, got 's4'",
        f"{path}: storage.path: expected a text, got a list",
        f"{path}: registry.max_manifest_bytes: '4 MEGA' is not a size such as 4MiB, 10MB or 65536 (bytes)",
        f"{path}: augment.rules[0].mtch: unknown key; did you mean match?",
        f"{path}: augment.rules[0].layers[0].pth: unknown key; did you mean path?",
        f'{path}: augment.rules[0].env: expected a list, got the text "A=1"',
        "ROADSTEAD_LOG_LEVEL: log.level: expected one of debug, info, warning, error, got 'chatty'",
    ]


def test_values_can_lie_elsewhere(write: Write, tmp_path: Path) -> None:
    """References are followed inside any value; text that becomes a number is read as one; `$${` is `${`."""
    (tmp_path / "password").write_text("pa ss\n")
    path = write(
        """
        [server]
        workers = "${env:CORES}"
        [storage]
        prefix = "$${env:CORES}"
        secret_key = "${file:password}"
        access_key = "${env:KEY}-${env:KEY}"
        """
    )

    loaded = load(path, environment={"CORES": "6", "KEY": "${env:CORES}"})

    storage = loaded.settings.storage
    assert loaded.settings.server.workers == 6
    assert storage.prefix == "${env:CORES}"
    assert storage.secret_key is not None
    assert storage.secret_key.reveal() == "pa ss"
    assert storage.access_key is not None
    assert storage.access_key.reveal() == "${env:CORES}-${env:CORES}"
    assert str(loaded.origins["server.workers"]) == f"file {path} through ${{env:CORES}}"


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("${env:NOT_THERE}", "refers to an environment variable that is not set"),
        ("${file:not-there}", "cannot be read: No such file or directory"),
        ("${secret:}", "is not a reference"),
        ("${secret:#}", "is not a reference"),
        ("${vault:a}", "known are ${env:NAME}, ${file:PATH}, ${secret:NAME#KEY} and ${ssm:NAME}"),
        ("${HOME}", "is not a reference"),
    ],
)
def test_references_that_lead_nowhere(write: Write, reference: str, told: str) -> None:
    """What can't be followed is an error that says why."""
    assert told in findings(write(f'[storage]\nprefix = "{reference}"'))[0]


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("postgresql://me:${env:PASSWORD}@db/x", "postgresql://me:p%40s%2Fs%3Aw%25@db/x"),
        ("postgresql://${env:USER}:${file:password}@db/x", "postgresql://a%20b:f%40@db/x"),
        ("postgresql+asyncpg://me:a-${env:PASSWORD}-z@db/x", "postgresql+asyncpg://me:a-p%40s%2Fs%3Aw%25-z@db/x"),
        ("postgresql://me:s%40id@${env:HOST}/x", "postgresql://me:s%40id@db.internal:5432/x"),
        ("postgresql://${env:HOST}/x", "postgresql://db.internal:5432/x"),
        ("${env:URL}", "postgresql://me:s%40id@db/x"),
        ("${env:URL}?ssl=require", "postgresql://me:s%40id@db/x?ssl=require"),
        ("sqlite:///${env:FOLDER}/a@b.db", "sqlite:////srv/a/a@b.db"),
    ],
)
def test_passwords_of_databases_may_hold_anything(tmp_path: Path, written: str, url: str) -> None:
    """A value referred to as user or password is percent-encoded; elsewhere in a URL it isn't."""
    (tmp_path / "password").write_text("f@\n")
    environment = {
        "ROADSTEAD_DATABASE_URL": written,
        "PASSWORD": "p@s/s:w%",
        "USER": "a b",
        "HOST": "db.internal:5432",
        "URL": "postgresql://me:s%40id@db/x",
        "FOLDER": "/srv/a",
    }

    assert load(None, environment=environment, directory=tmp_path).settings.database_url == url


def test_other_urls_take_values_as_they_are(tmp_path: Path) -> None:
    """Only the database's address has a password inside."""
    environment = {"ROADSTEAD_STORAGE_PREFIX": "x://${env:A}@b", "A": "p@/"}

    assert load(None, environment=environment, directory=tmp_path).settings.storage.prefix == "x://p@/@b"


def test_a_secret_is_not_in_messages(write: Write) -> None:
    """Not even one of the wrong kind."""
    assert "31415" not in findings(write("[storage]\nsecret_key = 31415\naccess_key = 'x'"))[0]


def test_files_that_cannot_be_read(write: Write, tmp_path: Path) -> None:
    """A file that isn't there, or isn't TOML or YAML as its name says, is told in one line."""
    with pytest.raises(SettingsFileError, match="No such file"):
        load(tmp_path / "missing.toml", environment={})
    with pytest.raises(SettingsFileError, match="line 2"):
        load(write("[server]\nlisten = x\n"), environment={})
    yaml = tmp_path / "config.yml"
    yaml.write_text("version: 0.1\nlog: [\n")
    with pytest.raises(SettingsFileError, match="line 3"):
        load(yaml, environment={})


def test_sqlite_paths_of_a_file_begin_at_the_file(write: Write, tmp_path: Path) -> None:
    """`sqlite:///name` is relative to the file, `sqlite:////name` absolute, as SQLAlchemy has it."""
    relative = load(write('[database]\nurl = "sqlite:///facts/x.db"'), environment={}).settings
    absolute = load(write('[database]\nurl = "sqlite:////facts/x.db"'), environment={}).settings

    assert relative.database_url == f"sqlite:///{tmp_path}/facts/x.db"
    assert absolute.database_url == "sqlite:////facts/x.db"


def test_repr_keeps_passwords() -> None:
    """Settings in a log or a traceback show no password."""
    environment = {
        "ROADSTEAD_DATABASE_URL": "postgresql://u:hunter2@db/x",
        "ROADSTEAD_STORAGE_ACCESS_KEY": "hunter2",
        "ROADSTEAD_STORAGE_SECRET_KEY": "hunter2",
    }

    settings = load_unchecked(None, environment=environment).settings

    assert isinstance(settings, Settings)
    assert "hunter2" not in repr(settings)


# Variables that name files


def test_a_file_variable_holds_the_value(tmp_path: Path) -> None:
    """`…_FILE` names a file; one newline at its end is no part of the value, and nothing in it is a reference."""
    (tmp_path / "key").write_text("a${env:B}c\n")

    loaded = load_unchecked(None, environment={"ROADSTEAD_STORAGE_SECRET_KEY_FILE": "key"}, directory=tmp_path)

    key = loaded.settings.storage.secret_key
    assert key is not None
    assert key.reveal() == "a${env:B}c"
    assert loaded.origins["storage.secret_key"].name == "ROADSTEAD_STORAGE_SECRET_KEY_FILE"


@pytest.mark.parametrize(
    ("content", "more", "name", "told"),
    [
        (None, {}, "secret.missing", "cannot be read: No such file"),
        ("", {}, "secret.empty", "is empty"),
        ("\n", {}, "secret.empty", "is empty"),
        (" \n", {}, "secret.whitespace", "nothing but blanks"),
        ("x", {"ROADSTEAD_STORAGE_SECRET_KEY": "y"}, None, "is set too"),
    ],
)
def test_a_file_variable_that_says_nothing(
    content: str | None, more: dict[str, str], name: str | None, told: str, tmp_path: Path
) -> None:
    """A file that is missing or blank, and a value that is said twice, are findings."""
    if content is not None:
        (tmp_path / "key").write_text(content)

    with pytest.raises(SettingsInvalidError) as caught:
        load_unchecked(None, environment={"ROADSTEAD_STORAGE_SECRET_KEY_FILE": "key", **more}, directory=tmp_path)

    [finding] = caught.value.findings
    assert (finding.key, finding.id) == ("storage.secret_key", name)
    assert told in finding.message


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("${file:two}", "what ${file:two} refers to has blanks or a line's end around it"),
        ("${file:lines}", "what ${file:lines} refers to has nothing but blanks"),
        ("${env:W}", "what ${env:W} refers to has blanks or a line's end around it"),
        ("a${env:W}b", "what ${env:W} refers to has blanks or a line's end around it"),
        (" plain", "it has blanks or a line's end around it"),
        ("  ", "it has nothing but blanks"),
    ],
)
def test_blanks_around_a_secret_are_found(written: str, told: str, tmp_path: Path) -> None:
    """In a secret, and in a text that refers to one; the key is named as it is written."""
    (tmp_path / "two").write_text("abc \n\n")
    (tmp_path / "lines").write_text("\n\n")
    (tmp_path / "c.toml").write_text(f'[[upstreams]]\nhost = "docker.io"\nusername = "ana"\npassword = "{written}"\n')

    with pytest.raises(SettingsInvalidError) as caught:
        load(tmp_path / "c.toml", environment={"W": " tok "})

    [finding] = caught.value.findings
    assert (finding.key, finding.id, finding.message) == ("upstreams[0].password", "secret.whitespace", told)


def test_blanks_in_a_text_that_refers_are_found(tmp_path: Path) -> None:
    """Also where the setting is no secret itself; one newline at a file's end is none of it, nor are those of PEM."""
    (tmp_path / "name").write_text("ana\n")
    (tmp_path / "pem").write_text("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n\n")
    text = '[[upstreams]]\nhost = "docker.io"\nusername = "${file:name}"\npassword = "${file:pem}"\n'
    (tmp_path / "c.toml").write_text(text + '[[upstreams]]\nhost = "${env:W}"\n')

    with pytest.raises(SettingsInvalidError) as caught:
        load(tmp_path / "c.toml", environment={"W": "quay.io "})

    assert [(each.key, each.id) for each in caught.value.findings] == [("upstreams[1].host", "secret.whitespace")]


def test_findings_name_a_list_of_upstreams_as_it_is_written(tmp_path: Path) -> None:
    """As a list of tables, in its section, or in a variable."""
    (tmp_path / "list.toml").write_text('[[upstreams]]\nhost = "a/b"\n')
    (tmp_path / "section.toml").write_text('[upstreams]\nregistries = [{ host = "a/b" }]\n')

    def keys(name: str | None, **environment: str) -> list[str]:
        with pytest.raises(SettingsInvalidError) as caught:
            load(None if name is None else tmp_path / name, environment=environment, directory=tmp_path)
        return [finding.key for finding in caught.value.findings]

    assert keys("list.toml") == ["upstreams[0].host"]
    assert keys("section.toml") == ["upstreams.registries[0].host"]
    assert keys(None, ROADSTEAD_UPSTREAMS_REGISTRIES='[{"host": "a/b"}]') == ["upstreams.registries[0].host"]


@pytest.mark.parametrize(("value", "name"), [("", "secret.empty"), (" ", "secret.whitespace")])
def test_a_reference_to_nothing_is_no_secret(value: str, name: str, tmp_path: Path) -> None:
    """A secret that is said to lie elsewhere and is blank there isn't taken for one that wasn't set."""
    (tmp_path / "c.toml").write_text('[storage]\nsecret_key = "${env:KEY}"\n')

    with pytest.raises(SettingsInvalidError) as caught:
        load_unchecked(tmp_path / "c.toml", environment={"KEY": value})

    [finding] = caught.value.findings
    assert finding.id == name
