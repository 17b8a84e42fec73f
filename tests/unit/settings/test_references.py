"""References that come to nothing or have no end, in every format: nothing is served as if they weren't there."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.settings.findings import Finding, SettingsInvalidError
from roadstead.settings.load import keys, load, load_unchecked, variable
from roadstead.settings.references import ReferenceInvalidError, find_references, resolve_references

DISTRIBUTION = "version: 0.1\nstorage: {filesystem: {rootdirectory: data}}\n"


def findings(directory: Path, name: str | None, text: str, environment: Mapping[str, str]) -> list[Finding]:
    """Return what is found in a file of this text."""
    if name is not None:
        (directory / name).write_text(text)
    with pytest.raises(SettingsInvalidError) as caught:
        load(None if name is None else Path(name), environment=environment, directory=directory)
    return list(caught.value.findings)


TOML = {
    "auth.htpasswd": '[auth]\nhtpasswd = "{}"\n',
    "auth.htpasswd.path": '[auth.htpasswd]\npath = "{}"\n',
    "auth.master_key": '[auth]\nmaster_key = "{}"\n',
    "auth.accounts": '[auth]\naccounts = "{}"\n',
    "database.url": '[database]\nurl = "{}"\n',
    "server.public_url": '[server]\npublic_url = "{}"\n',
    "server.hosts": '[server]\nhosts = "{}"\n',
    "server.hosts[1]": '[server]\nhosts = ["a", "{}"]\n',
    "server.headers": '[server]\nheaders = {{ X-Site = ["{}"] }}\n',
    "tls.certificate": '[tls]\ncertificate = "{}"\nself_signed = false\n',
    "storage.region": '[storage]\nregion = "{}"\n',
    "storage.path": '[storage]\npath = "{}"\n',
    "log.fields": '[log]\nfields = {{ site = "{}" }}\n',
    "events.endpoints[0].headers": '[[events.endpoints]]\nname = "a"\nurl = "http://a"\n'
    'headers = {{ Authorization = ["Bearer {}"] }}\n',
    "events.endpoints[0].signing_key": '[[events.endpoints]]\nname = "a"\nurl = "http://a"\nsigning_key = "{}"\n',
    "upstreams[0].username": '[[upstreams]]\nhost = "docker.io"\nusername = "{}"\n',
}


@pytest.mark.parametrize("key", TOML)
@pytest.mark.parametrize(
    ("written", "name", "told"),
    [
        ("${env:EMP}", "secret.empty", "what ${env:EMP} refers to is empty"),
        ("${file:empty}", "secret.empty", "what ${file:empty} refers to is empty"),
        ("${file:line}", "secret.empty", "what ${file:line} refers to is empty"),
        ("${file:blank}", "secret.whitespace", "what ${file:blank} refers to has nothing but blanks"),
        ("https://${env:EMP}/", "secret.empty", "what ${env:EMP} refers to is empty"),
        ("${env:A}${env:EMP}", "secret.empty", "what ${env:EMP} refers to is empty"),
    ],
)
def test_a_reference_to_nothing_is_found_in_any_setting(
    key: str, written: str, name: str, told: str, tmp_path: Path
) -> None:
    """Alone or in the middle of a text; the setting, the file and the reference are named."""
    for file, content in (("empty", ""), ("line", "\n"), ("blank", " \n")):
        (tmp_path / file).write_text(content)

    [found] = findings(tmp_path, "c.toml", TOML[key].format(written), {"EMP": "", "A": "a"})

    assert (found.key, found.id, found.message) == (key, name, told)
    assert found.where == str(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("auth: {htpasswd: {realm: r, path: '${env:EMP}'}}", "auth.htpasswd.path"),
        ("http: {host: 'https://${env:EMP}'}", "http.host"),
        ("http: {addr: '127.0.0.1:0', tls: {certificate: '${env:EMP}', key: k}}", "http.tls.certificate"),
        ("notifications: {endpoints: [{name: a, url: 'http://a', headers: {Authorization: ['Basic ${env:EMP}']}}]}",
         "notifications.endpoints[0].headers.Authorization[0]"),
        ("roadstead: {database: {url: '${env:EMP}'}}", "database.url"),
    ],
)  # fmt: skip
def test_a_reference_to_nothing_in_a_configuration_of_distribution(text: str, key: str, tmp_path: Path) -> None:
    """It is told once, and nothing is said of what stands in its place."""
    (tmp_path / "k").touch()

    found = findings(tmp_path, "config.yml", f"{DISTRIBUTION}{text}\n", {"EMP": ""})

    assert [(each.key, each.id) for each in found if not each.key.startswith("tls.")] == [(key, "secret.empty")]
    assert found[0].message == "what ${env:EMP} refers to is empty"


@pytest.mark.parametrize(
    ("value", "environment", "name", "told"),
    [
        ("${HOST}", {"HOST": ""}, "secret.empty", "what ${HOST} refers to is empty"),
        ("http://${HOST}", {"HOST": " "}, "secret.whitespace", "what ${HOST} refers to has nothing but blanks"),
        ("${HOST:x}", {"HOST": ""}, "secret.empty", "what ${HOST:x} refers to is empty"),
        ("${HOST}", {}, "secret.missing", "${HOST} is not set"),
        ("${HOST", {"HOST": "a"}, None, "${… is a variable without the } at its end"),
    ],
)
def test_variables_of_waves_file_that_come_to_nothing(
    value: str, environment: dict[str, str], name: str | None, told: str, tmp_path: Path
) -> None:
    """As the same in other files; only `${NAME:}` says that nothing will do."""
    [found] = findings(tmp_path, "wave.yml", f"wave: {{server: {{url: '{value}'}}}}\n", environment)

    assert (found.key, found.id, found.message) == ("wave.server.url", name, told)


def test_a_variable_of_waves_file_may_be_said_to_be_nothing(tmp_path: Path) -> None:
    """`${NAME:}` is how an optional value is written there."""
    (tmp_path / "wave.yml").write_text("wave: {server: {url: '${HOST:}'}}\n")

    for environment in ({}, {"HOST": ""}):
        loaded = load(Path("wave.yml"), environment=environment, directory=tmp_path)
        assert loaded.settings.server.public_url is None


@pytest.mark.parametrize(
    "text",
    [
        '[database]\nurl = ""\n',
        '[auth]\nmaster_key = ""\n',
        '[storage]\nsecret_key = ""\naccess_key = "a"\n',
        '[signatures]\nkey = ""\n',
    ],
)
def test_what_a_template_left_empty_is_found(text: str, tmp_path: Path) -> None:
    """No reference stands there, and still it isn't served with another database, or without the secret."""
    [found] = findings(tmp_path, "c.toml", text, {})

    assert (found.id, found.message) == ("secret.empty", "is empty")


@pytest.mark.parametrize("text", ['[auth]\nhtpasswd = ""\n', '[tls]\ncertificate = ""\n', '[storage]\npath = ""\n'])
def test_an_empty_path_is_none(text: str, tmp_path: Path) -> None:
    """It isn't the directory that paths begin at."""
    [found] = findings(tmp_path, "c.toml", text, {})

    assert found.message == "expected a path, got an empty text"


# Variables


def _is_refused_when_empty(key: str) -> bool:
    try:
        load_unchecked(None, environment={variable(key): ""})
    except SettingsInvalidError as error:
        return [(each.key, each.where) for each in error.findings] == [(key, variable(key))]
    return False


def test_which_variables_may_not_be_empty() -> None:
    """What signs in, what encrypts, where things lie and every secret."""
    refused = set(filter(_is_refused_when_empty, keys()))

    assert refused == {key for key in keys() if key.startswith(("auth.", "tls."))} | {
        "database.url",
        "server.offload_secret",
        "signatures.key",
        "storage.access_key",
        "storage.encrypt",
        "storage.path",
        "storage.secret_key",
    }


def test_other_empty_variables_are_as_good_as_none(tmp_path: Path) -> None:
    """Of any type: what the file says counts, or the file that another variable names, or the default."""
    (tmp_path / "r.toml").write_text('[server]\nworkers = 3\npublic_url = "http://a"\n[log]\nformat = "json"\n')
    (tmp_path / "level").write_text("debug\n")
    empty = {variable(key): "" for key in keys() if not _is_refused_when_empty(key)}
    named = {"ROADSTEAD_LOG_LEVEL_FILE": str(tmp_path / "level")}

    assert load(None, environment=empty, directory=tmp_path) == load(None, environment={}, directory=tmp_path)
    assert load(Path("r.toml"), environment={**empty, **named}, directory=tmp_path) == load(
        Path("r.toml"), environment=named, directory=tmp_path
    )


@pytest.mark.parametrize("key", ["auth.htpasswd", "auth.master_key", "database.url"])
@pytest.mark.parametrize(
    ("suffix", "value", "name"),
    [("", "", "secret.empty"), ("", "${env:EMP}", "secret.empty"), ("_FILE", "", "secret.empty"),
     ("_FILE", "empty", "secret.empty"), ("_FILE", "blank", "secret.whitespace"), ("_FILE", "no", "secret.missing")],
)  # fmt: skip
def test_a_variable_that_comes_to_nothing(key: str, suffix: str, value: str, name: str, tmp_path: Path) -> None:
    """As compose makes it where the variable that fills it isn't set: not an open registry, but a finding."""
    (tmp_path / "empty").touch()
    (tmp_path / "blank").write_text("  ")
    said = variable(key) + suffix

    [found] = findings(tmp_path, None, "", {said: value, "EMP": ""})

    assert (found.key, found.where, found.id) == (key, said, name)


def test_an_empty_variable_of_distribution_is_as_with_distribution(tmp_path: Path) -> None:
    """It says nothing; where a value is needed that is found, and a `…_FILE` without a name is one of ours."""
    (tmp_path / "config.yml").write_text(DISTRIBUTION)
    loaded = load(Path("config.yml"), environment={"REGISTRY_HTTP_HOST": ""}, directory=tmp_path)
    assert loaded.settings.server.public_url is None

    text = f"{DISTRIBUTION}auth: {{htpasswd: {{realm: r, path: /users}}}}\n"
    [needed] = findings(tmp_path, "config.yml", text, {"REGISTRY_AUTH_HTPASSWD_PATH": ""})
    assert (needed.key, needed.message) == ("auth.htpasswd.path", "is required")
    (tmp_path / "config.yml").write_text(text)
    opened = load(Path("config.yml"), environment={"REGISTRY_AUTH": ""}, directory=tmp_path)
    assert not opened.settings.auth.is_on
    assert [each.key for each in opened.warnings if "takes the section out" in each.message] == ["auth"]

    [named] = findings(tmp_path, "config.yml", DISTRIBUTION, {"REGISTRY_STORAGE_S3_SECRETKEY_FILE": ""})
    assert (named.key, named.id) == ("storage.s3.secretkey", "secret.empty")


def test_references_in_a_variable_of_json_are_in_its_texts(tmp_path: Path) -> None:
    """So what comes in may hold any character, and is not searched again; JSON as a whole may lie elsewhere too."""
    (tmp_path / "fields.json").write_text('{"a": "$${env:X}"}')
    environment = {"X": 'a"b\\${env:Y}'}

    def fields(text: str) -> Mapping[str, object]:
        loaded = load(None, environment={"ROADSTEAD_LOG_FIELDS": text, **environment}, directory=tmp_path)
        return loaded.settings.log.fields.as_table()

    assert fields(json.dumps({"a": "${env:X}"})) == {"a": environment["X"]}
    assert fields(json.dumps({"a": "$${env:X}"})) == {"a": "${env:X}"}
    assert fields("${file:fields.json}") == {"a": "$${env:X}"}


# References without an end


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("${env:X", "${env:X…"),
        ("a ${file:/run/x y", "${file:/run/x…"),
        ("${X", "${…"),
        ("${", "${…"),
        ("${env:X ${env:SET}", "${env:X…"),
        ("${env:SET}${env:X", "${env:X…"),
    ],
)
@pytest.mark.parametrize("key", ["events.endpoints[0].signing_key", "events.endpoints[0].headers", "auth.master_key"])
def test_a_reference_without_its_end_is_no_text(key: str, written: str, told: str, tmp_path: Path) -> None:
    """It was never meant to be the secret itself; how to write that is said."""
    [found] = findings(tmp_path, "c.toml", TOML[key].format(written), {"X": "x", "SET": "s"})

    assert (found.key, found.message) == (key, f"{told} is a reference without the }} at its end")
    assert "$${" in (found.advice or "")


def test_a_plain_beginning_is_written_with_two_signs(tmp_path: Path) -> None:
    """`$${` stands for `${`, also where nothing ends it."""
    (tmp_path / "c.toml").write_text('[storage]\nprefix = "$${env:X"\n[log]\nfields = { a = "$${b" }\n')

    settings = load(Path("c.toml"), environment={}, directory=tmp_path).settings

    assert settings.storage.prefix == "${env:X"
    assert settings.log.fields.as_table() == {"a": "${b"}


def test_in_distributions_file_only_ours_need_an_end(tmp_path: Path) -> None:
    """Any other `${` is that file's own text."""
    (tmp_path / "config.yml").write_text(f"{DISTRIBUTION}log: {{fields: {{a: '${{foo', b: '${{env:X}} ${{foo'}}}}\n")
    loaded = load(Path("config.yml"), environment={"X": "x"}, directory=tmp_path)
    assert loaded.settings.log.fields.as_table() == {"a": "${foo", "b": "x ${foo"}

    [found] = findings(tmp_path, "config.yml", f"{DISTRIBUTION}log: {{fields: {{a: '${{env:X'}}}}\n", {"X": "x"})
    assert (found.key, found.message) == ("log.fields.a", "${env:X… is a reference without the } at its end")


@given(st.text(alphabet="${}:envXfile a", max_size=24))
def test_texts_are_resolved_or_refused(text: str) -> None:
    """No text with an open `${` comes through as it is, unless it was written `$${`."""
    environment = {"X": "x"}
    try:
        resolved = resolve_references(text, environment=environment, directory=Path("/nowhere"))
    except ReferenceInvalidError:
        assert "${" in text
    else:
        assert "${" not in resolved or "$${" in text
        assert set(find_references(text)) <= {"${env:X}"}


# Files


def test_files_that_are_referred_to_say_why_they_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may not be read is denied, what is no text is binary, in a reference as in a `…_FILE` variable."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    def found() -> list[tuple[str, str | None]]:
        ways = ({"ROADSTEAD_STORAGE_REGION": "${file:binary}"}, {"ROADSTEAD_STORAGE_REGION_FILE": "binary"})
        return [(each.key, each.id) for way in ways for each in findings(tmp_path, None, "", way)]

    def refused(path: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    assert found() == [("storage.region", "secret.binary")] * 2
    monkeypatch.setattr(Path, "read_text", refused)  # who runs this may be root, to whom nothing is denied
    assert found() == [("storage.region", "secret.denied")] * 2
