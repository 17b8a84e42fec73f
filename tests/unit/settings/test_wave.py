"""Wave's configuration file and its layer.json: what becomes of each key."""

import json
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from roadstead.oci.layer import pack
from roadstead.settings.findings import SettingsInvalidError
from roadstead.settings.load import LoadedSettings, load
from roadstead.settings.wave import is_wave


def loaded(directory: Path, text: str, environment: Mapping[str, str] | None = None) -> LoadedSettings:
    path = directory / "wave.yml"
    path.write_text(text)
    return load(path, environment=environment or {}, directory=directory)


def refused(directory: Path, text: str) -> list[str]:
    with pytest.raises(SettingsInvalidError) as caught:
        loaded(directory, text)
    return [f"{finding.key}: {finding.message}" for finding in caught.value.findings]


def layer_json(directory: Path, **changed: Any) -> Path:
    """Write a layer and its JSON as `make pack` does; return where the JSON is."""
    folder = directory / "pack" / "layers"
    folder.mkdir(parents=True)
    (directory / "files").mkdir()
    (directory / "files" / "foo.txt").write_text("hello")
    with (folder / "layer.tar.gzip").open("wb") as file:
        packed = pack(directory / "files", file, location="layer.tar.gzip")
    document = {"entrypoint": ["/opt/entry.sh"], "workingDir": None, "cmd": None, "env": ["FOO=bar"],
                "append": {**packed.as_json(), **changed}}  # fmt: skip
    (folder / "layer.json").write_text(json.dumps(document))
    return folder / "layer.json"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("config.yml", "wave:\n  debug: true\n", True),
        ("application.yaml", "micronaut:\n  server: {}\n", True),
        ("config.yml", "version: 0.1\nwave: 1\n", False),
        ("config.yml", "version: 0.1\nstorage: {}\n", False),
        ("config.toml", "wave: 1\n", False),
    ],
)
def test_which_files_are_waves(name: str, text: str, expected: bool) -> None:
    """By what is in it; distribution's always says its version."""
    assert is_wave(Path(name), text) is expected


def test_registries(tmp_path: Path) -> None:
    """Dotted hosts as one key or as levels, variables with and without defaults, blank credentials as none."""
    text = """
wave:
  registries:
    default: docker.io
    docker.io: {username: "${DOCKER_USER:}", password: "${DOCKER_PAT:}"}
    quay:
      io:
        username: ${QUAY_USER}
        password: "${QUAY_PAT:secret}"
"""
    settings = loaded(tmp_path, text, {"QUAY_USER": "ana"}).settings

    by_host = {upstream.host: upstream for upstream in settings.upstreams.registries}
    assert by_host.keys() == {"docker.io", "quay.io"}
    assert (by_host["docker.io"].username, by_host["docker.io"].default_for) == (None, ("**",))
    password = by_host["quay.io"].password
    assert by_host["quay.io"].username == "ana"
    assert password is not None
    assert password.reveal() == "secret"
    assert by_host["quay.io"].default_for == ()


def test_server_and_tokens(tmp_path: Path) -> None:
    """Where it listens, how it is called, how long tokens are good and who may ask for one."""
    text = """
micronaut: {server: {port: 9191, host: 0.0.0.0}}
wave:
  allowAnonymous: true
  capabilities: {anonymous-access: false}
  server: {url: "https://wave.example.com/"}
  tokens: {cache: {duration: 12h}}
"""
    reading = loaded(tmp_path, text)

    settings = reading.settings
    assert str(settings.server.listen) == "0.0.0.0:9191"
    assert settings.server.open_to_network
    assert settings.server.public_url == "https://wave.example.com"
    assert settings.augment.token_lifetime == timedelta(hours=12)
    assert settings.augment.anonymous_tokens is False
    assert any("other machines" in warning.message for warning in reading.warnings)


def test_this_machine_alone_until_told_otherwise(tmp_path: Path) -> None:
    """Wave's port on loopback, with a word about it; the variable of the port counts."""
    reading = loaded(tmp_path, "wave: {debug: true}\n", {"WAVE_SERVER_PORT": "9999"})
    assert str(reading.settings.server.listen) == "127.0.0.1:9999"
    assert [warning.key for warning in reading.warnings] == ["micronaut.server.host"]


def test_what_has_no_effect_is_named(tmp_path: Path) -> None:
    """Each key by its name, whether it is known or not; what is turned off needs no word."""
    text = """
wave:
  build: {workspace: here, enabled: true}
  mirror: {enabled: false}
  nonsense: 1
tower: {endpoint: {url: "https://x"}}
surprising: {key: 1}
"""
    told = {warning.key: warning.message for warning in loaded(tmp_path, text).warnings}
    assert told.keys() == {
        "wave.build.workspace", "wave.build.enabled", "wave.nonsense", "tower.endpoint.url", "surprising.key",
        "micronaut.server.host",
    }  # fmt: skip
    assert told["wave.nonsense"] == "unknown key, left out"
    assert "no effect" in told["tower.endpoint.url"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wave: {deny-hosts: [a]}", "wave.deny-hosts: cannot be honoured"),
        ("wave: {deny-paths: [a]}", "wave.deny-paths: cannot be honoured"),
        ("wave: {capabilities: {ephemeral-token: false}}", "wave.capabilities.ephemeral-token: cannot be honoured"),
        ("wave: {arch: sparc}", "wave.arch: expected"),
        ("wave: {allowAnonymous: perhaps}", "wave.allowAnonymous: expected"),
        ("wave: {server: {url: '${NOWHERE}'}}", "wave.server.url: ${NOWHERE} is not set"),
        ("wave: {layerPath: nowhere.json}", "wave.layerPath: "),
        (
            "wave: {registries: {123.dkr.ecr.eu-west-1.amazonaws.com: {username: a, password: b}}}",
            "wave.registries.123.dkr.ecr.eu-west-1.amazonaws.com: cannot be honoured",
        ),
    ],
)
def test_what_can_not_be_honoured_is_named(tmp_path: Path, text: str, said: str) -> None:
    """Nothing is served where a key that guards something, or that can't be read, would be passed over."""
    assert [finding for finding in refused(tmp_path, text) if finding.startswith(said)]


def test_a_section_of_ours(tmp_path: Path) -> None:
    """What Wave has no key for is set in a section of its own, which counts above the rest."""
    settings = loaded(
        tmp_path, "wave: {debug: true}\nroadstead:\n  server: {workers: 1, listen: '127.0.0.1:1234'}\n"
    ).settings
    assert (settings.server.workers, str(settings.server.listen)) == (1, "127.0.0.1:1234")


@pytest.mark.parametrize("how", ["key", "variable", "default"])
def test_the_global_layer(tmp_path: Path, how: str) -> None:
    """It becomes a rule for every image; the architecture is that of its layer."""
    path = layer_json(tmp_path)
    key = f"\n  layerPath: {path.relative_to(tmp_path)}" if how == "key" else ""
    environment = {"WAVE_LAYER_PATH": str(path)} if how == "variable" else {}

    rule = loaded(tmp_path, f"wave:\n  arch: x86_64{key}\n", environment).settings.augment.rules[0]

    assert (rule.match, rule.env, rule.entrypoint, rule.cmd) == ("**", ("FOO=bar",), ("/opt/entry.sh",), None)
    assert [(layer.path, layer.platform) for layer in rule.layers] == [
        (path.with_name("layer.tar.gzip"), "linux/amd64")
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gzipDigest": f"sha256:{sha256(b'').hexdigest()}"}, "is not what"),
        ({"gzipSize": 1}, "is not what"),
        ({"gzipDigest": "md5:0"}, "gzipDigest"),
        ({"tarDigest": None}, "tarDigest"),
        ({"location": "missing.tar.gz"}, "No such file"),
        ({"location": "https://example.com/layer.tar.gz"}, "not a file"),
        ({"location": ""}, "location is missing"),
    ],
)
def test_a_global_layer_that_is_not_what_it_says(tmp_path: Path, changed: Mapping[str, Any], said: str) -> None:
    """The start is stopped, with what is wrong."""
    layer_json(tmp_path, **changed)
    assert said in refused(tmp_path, "wave: {debug: true}\n")[0]


def test_a_global_layer_in_the_form_of_a_request(tmp_path: Path) -> None:
    """``layers`` is what a request for a token has; passed over, every image would come without its layer."""
    path = layer_json(tmp_path)
    document = json.loads(path.read_text())
    path.write_text(json.dumps({"env": ["FOO=bar"], "layers": [document["append"]]}))
    assert "append" in refused(tmp_path, "wave: {debug: true}\n")[0]
