"""distribution's config.yml and its variables, read into our settings."""

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.settings.address import ListenAddress
from roadstead.settings.distribution import ConfigMissingError, find_config, parse_go_duration
from roadstead.settings.distribution_keys import KEYS, Fate
from roadstead.settings.findings import SettingsFileError, SettingsInvalidError
from roadstead.settings.load import LoadedSettings, OriginKind, load, load_unchecked
from roadstead.settings.model import (
    ClientCertificate,
    HtpasswdSettings,
    LogFormat,
    LogLevel,
    StorageDriver,
    TlsSettings,
    TokenSettings,
)
from roadstead.settings.plain import as_plain, as_shown, from_plain
from roadstead.settings.tables import Headers, LogFields

BASE = "version: 0.1\nstorage: {filesystem: {rootdirectory: /data}}\n"
S3 = "version: 0.1\nstorage: {s3: {region: eu-west-1, bucket: images}}\n"
EVERYWHERE = "[::]" if socket.has_dualstack_ipv6() else "0.0.0.0"


def variable(key: str) -> str:
    """Return distribution's variable for a key."""
    internal = {"health.file": "health.filecheckers", "health.http": "health.httpcheckers"}
    internal |= {"health.tcp": "health.tcpcheckers", "notifications.events": "notifications.eventconfig"}
    return "REGISTRY_" + internal.get(key, key).replace(".", "_").upper()


def read(text: str, environment: Mapping[str, str] | None = None, *, directory: Path) -> LoadedSettings:
    """Load a file with that text, not yet judged as a whole."""
    path = directory / "config.yml"
    path.write_text(text)
    return load_unchecked(path, environment=environment or {})


def refusals(text: str, environment: Mapping[str, str] | None = None, *, directory: Path) -> dict[str, str]:
    """Load what is wrong, and return what is said of each key."""
    with pytest.raises(SettingsInvalidError) as refused:
        read(text, environment, directory=directory)
    return {finding.key: f"{finding.message} {finding.advice or ''}" for finding in refused.value.findings}


def warned(loaded: LoadedSettings) -> list[str]:
    """Return the keys that were warned about."""
    return [warning.key for warning in loaded.warnings]


def of(loaded: LoadedSettings, key: str) -> object:
    """Return the value of one of our keys."""
    section, _, name = key.partition(".")
    return getattr(getattr(loaded.settings, section), name)


HONOURED: list[tuple[str, str, Mapping[str, object]]] = [
    ("log.level", "WARN", {"log.level": LogLevel.WARNING}),
    ("loglevel", "debug", {"log.level": LogLevel.DEBUG}),
    ("log.formatter", "json", {"log.format": LogFormat.JSON}),
    ("log.formatter", "logstash", {"log.format": LogFormat.JSON}),
    ("log.fields", "{service: registry, n: 3}", {"log.fields": LogFields((("service", "registry"), ("n", 3)))}),
    ("log.accesslog.disabled", "true", {"log.access": False}),
    ("storage.filesystem.rootdirectory", "/else", {"storage.path": Path("/else")}),
    ("storage.s3.region", "us-east-2", {"storage.region": "us-east-2"}),
    ("storage.s3.bucket", "b", {"storage.bucket": "b"}),
    ("storage.s3.regionendpoint", "https://s3.internal", {"storage.endpoint": "https://s3.internal"}),
    ("storage.s3.regionendpoint", "s3.internal:9000", {"storage.endpoint": "https://s3.internal:9000"}),
    ("storage.s3.forcepathstyle", "false", {"storage.path_style": False}),
    ("storage.s3.encrypt", "yes", {"storage.encrypt": True}),
    ("storage.s3.rootdirectory", "/images", {"storage.prefix": "/images"}),
    ("storage.s3.storageclass", "standard_ia", {"storage.storage_class": "STANDARD_IA"}),
    ("storage.s3.storageclass", "NONE", {"storage.storage_class": None}),
    ("storage.delete.enabled", "true", {"storage.delete": True}),
    ("storage.delete.enabled", "false", {"storage.delete": False}),
    ("storage.maintenance.uploadpurging.enabled", "false", {"registry.purge_uploads": False}),
    ("storage.maintenance.uploadpurging.dryrun", "true", {"registry.purge_uploads": False}),
    ("storage.maintenance.uploadpurging.age", "24h", {"registry.upload_max_age": timedelta(days=1)}),
    ("storage.maintenance.uploadpurging.interval", "90m", {"registry.upload_purge_interval": timedelta(minutes=90)}),
    ("storage.maintenance.readonly.enabled", "true", {"registry.read_only": True}),
    (
        "http.addr",
        "127.0.0.1:5001",
        {"server.listen": ListenAddress("127.0.0.1", 5001), "server.open_to_network": False},
    ),
    ("http.addr", "10.0.0.1:5000", {"server.listen": ListenAddress("10.0.0.1", 5000), "server.open_to_network": True}),
    (
        "http.addr",
        ":5000",
        {"server.listen": ListenAddress.parse(f"{EVERYWHERE}:5000"), "server.open_to_network": True},
    ),
    ("http.prefix", "/r/", {"server.prefix": "/r/"}),
    ("http.host", "https://r.example", {"server.public_url": "https://r.example", "server.relative_urls": False}),
    ("http.relativeurls", "true", {"server.relative_urls": True}),
    ("http.tls.clientauth", "verify-client-cert-if-given", {"tls.client_certificates": "optional"}),
    ("http.tls.minimumtls", "tls1.3", {"tls.minimum_version": "1.3"}),
    ("http.draintimeout", "1m30s", {"server.shutdown_timeout": timedelta(seconds=90)}),
    ("http.draintimeout", "0", {"server.shutdown_timeout": timedelta()}),
    ("http.headers", "{X-A: [b, c]}", {"server.headers": Headers((("X-A", "b"), ("X-A", "c")))}),
    ("http.debug.addr", "localhost:5001", {"metrics.listen": ListenAddress("localhost", 5001)}),
    ("http.debug.prometheus.path", "/numbers", {"metrics.path": "/numbers"}),
    ("health.file", "[{file: /run/down, interval: 5s}]", {"server.down_files": (Path("/run/down"),)}),
    ("validation.manifests.indexes.platforms", "none", {"registry.sparse_indexes": True}),
    ("validation.manifests.indexes.platforms", "list", {"registry.sparse_indexes": True}),
    ("validation.manifests.indexes.platforms", "all", {"registry.sparse_indexes": False}),
    ("validation.disabled", "true", {"registry.sparse_indexes": True, "registry.sparse_images": True}),
    ("catalog.maxentries", "50", {"registry.catalog_page_max": 50, "registry.catalog_page": 50}),
    ("catalog.maxentries", "5000", {"registry.catalog_page_max": 5000, "registry.catalog_page": 100}),
    ("notifications.events.includereferences", "true", {"events.include_references": True}),
    ("tags.maxtags", "20", {"registry.tags_page_max": 20}),
    ("storage.s3.redirectendpoint", "http://front:9000", {"storage.redirect_endpoint": "http://front:9000"}),
]

WITH_OTHERS = {
    "storage.s3.accesskey",
    "storage.s3.secretkey",
    "storage.s3.keyid",
    "storage.s3.secure",
    "auth.none",
    "auth.htpasswd.realm",
    "auth.htpasswd.path",
    "storage.redirect.disable",
    "notifications.endpoints",
    "http.tls.certificate",
    "http.tls.key",
    "http.tls.clientcas",
    *(key.path for key in KEYS if key.path.startswith("auth.token.")),
    *(key.path for key in KEYS if key.path.startswith("proxy.") and key.fate is Fate.HONOURED),
}
"""Honoured keys whose tests are below: secrets, and what counts beside another key."""

VALUES = {
    "redis": "{addrs: ['redis:6379']}",
    "storage.s3.objectacl": "public-read",
    "storage.s3.v4auth": "false",
    "http.net": "unix",
    "http.tls.letsencrypt": "{email: a@b.test}",
    "http.http2.disabled": "false",
    "health.storagedriver": "{enabled: true}",
    "middleware.storage": "[{name: cloudfront}]",
    "middleware.registry": "[{name: x}]",
    "middleware.repository": "[{name: x}]",
    "log.hooks": "[{type: mail}]",
    "validation.enabled": "false",
}


def base_for(key: str) -> str:
    """Return a file to which the variable can add."""
    return S3 if key.startswith("storage.s3.") else BASE


@pytest.mark.parametrize(("key", "value", "expected"), HONOURED)
def test_honoured(key: str, value: str, expected: Mapping[str, object], tmp_path: Path) -> None:
    """A key ends in settings of ours, which tell where it was said."""
    loaded = read(base_for(key), {variable(key): value}, directory=tmp_path)

    assert {name: of(loaded, name) for name in expected} == expected
    origins = {loaded.origins[name].name for name, value in expected.items() if value not in (None, False)}
    assert origins <= {variable(key)}


@pytest.mark.parametrize(
    ("driver", "disable", "expected"),
    [
        ("s3", None, True),
        ("s3", "false", True),
        ("s3", "true", False),
        ("filesystem", None, False),
        ("filesystem", "false", False),
    ],
)
def test_redirects(driver: str, disable: str | None, *, expected: bool, tmp_path: Path) -> None:
    """Clients are sent to the bucket as distribution sends them: unless that is disabled, and where there is one."""
    variables = {} if disable is None else {variable("storage.redirect.disable"): disable}
    loaded = read(S3 if driver == "s3" else BASE, variables, directory=tmp_path)

    assert loaded.settings.storage.redirect is expected


def test_every_honoured_key_is_tested() -> None:
    """The table above has each."""
    assert {key.path for key in KEYS if key.fate is Fate.HONOURED} == {key for key, _, _ in HONOURED} | WITH_OTHERS


@pytest.mark.parametrize(
    "key", [key.path for key in KEYS if key.fate is Fate.WARNED and key.path != "http.debug.prometheus.enabled"]
)
def test_warned(key: str, tmp_path: Path) -> None:
    """A key that nothing here needs is named, and the server starts."""
    loaded = read(base_for(key), {variable(key): VALUES.get(key, "true")}, directory=tmp_path)

    [warning] = loaded.warnings
    assert (warning.key, warning.where) == (key, variable(key))
    assert "no effect" in warning.message


@pytest.mark.parametrize("key", [key.path for key in KEYS if key.fate is Fate.REFUSED])
def test_refused(key: str, tmp_path: Path) -> None:
    """A key that would be wrong to pass over stops the start, with what to do about it."""
    base = base_for(key)
    if key.count(".") == 1 and key.startswith("storage."):
        base = "version: 0.1\n"
    value = VALUES.get(key, "{}" if key.startswith(("auth.", "storage.")) and key.count(".") == 1 else "true")

    told = refusals(base, {variable(key): value}, directory=tmp_path)

    assert list(told) == [key]
    assert next(one.advice for one in KEYS if one.path == key) in told[key]


@pytest.mark.parametrize(
    "text",
    [
        "http: {tls: {certificate: '', key: }}",
        "http: {net: tcp, secret: ''}",
        "http: {http2: {disabled: true}, h2c: {enabled: false}, debug: {prometheus: {enabled: true}}}",
        "notifications: {endpoints: [{name: a, url: 'http://a', disabled: true}]}",
        "middleware: {storage: [{name: cloudfront, disabled: true}]}",
        "health: {storagedriver: {enabled: false}, file: []}",
        "proxy: {remoteurl: ''}",
        "redis:",
        "auth: none",
        "validation: {disabled: false}",
    ],
)
def test_what_asks_for_nothing_needs_no_word(text: str, tmp_path: Path) -> None:
    """Nothing, an empty text, what is switched off, and what is so anyway."""
    assert warned(read(f"{BASE}{text}\n", directory=tmp_path)) == []


def test_distributions_defaults(tmp_path: Path) -> None:
    """Where the file says nothing, what distribution does counts: deleting is off, data is in its place."""
    loaded = read("version: 0.1\nstorage: filesystem\n", directory=tmp_path)

    assert loaded.settings.storage.path == Path("/var/lib/registry")
    assert loaded.settings.database_url == "sqlite:////var/lib/registry/roadstead.db"
    assert loaded.settings.storage.delete is False
    assert loaded.origins["storage.delete"].kind is OriginKind.DISTRIBUTION
    assert not loaded.settings.server.open_to_network


def test_provenance_names_file_and_key(tmp_path: Path) -> None:
    """`config show` tells the key of the file, or the variable that went before it."""
    text = f"{BASE}log: {{level: debug}}\nhttp: {{addr: '127.0.0.1:1', prefix: /a/}}\n"

    loaded = read(text, {"REGISTRY_HTTP_PREFIX": "/b/", "ROADSTEAD_LOG_LEVEL": "error"}, directory=tmp_path)

    assert str(loaded.origins["server.listen"]) == f"file {tmp_path}/config.yml:http.addr"
    assert str(loaded.origins["server.prefix"]) == "environment REGISTRY_HTTP_PREFIX"
    assert str(loaded.origins["log.level"]) == "environment ROADSTEAD_LOG_LEVEL"
    assert of(loaded, "log.level") is LogLevel.ERROR


def test_s3_as_a_whole(tmp_path: Path) -> None:
    """Keys, endpoint and encryption; the bytes need PostgreSQL beside them, which the advice says how to name."""
    text = (
        "version: 0.1\nstorage:\n  s3: {region: r, bucket: b, accesskey: 0123, secretkey: '${env:KEY}',\n"
        "       encrypt: true, keyid: k, secure: false, regionendpoint: 's3:9000', v4auth: true,\n"
        "       objectacl: private, skipverify: no}\n"
    )
    path = tmp_path / "config.yml"

    loaded = read(text, {"KEY": "hunter2"}, directory=tmp_path)

    storage = loaded.settings.storage
    assert (storage.driver, storage.kms_key, storage.endpoint) == (StorageDriver.S3, "k", "http://s3:9000")
    assert storage.access_key is not None
    assert storage.secret_key is not None
    assert (storage.access_key.reveal(), storage.secret_key.reveal()) == ("0123", "hunter2")
    assert loaded.origins["storage.secret_key"].references == ("${env:KEY}",)
    assert warned(loaded) == []
    with pytest.raises(SettingsInvalidError, match="SQLite with storage in S3") as refused:
        load(path, environment={"KEY": "hunter2"})
    assert "ROADSTEAD_DATABASE_URL" in (refused.value.advice() or "")
    load(path, environment={"KEY": "hunter2", "ROADSTEAD_DATABASE_URL": "postgresql://db/x"})


def test_htpasswd_is_the_word_for_an_open_address(tmp_path: Path) -> None:
    """Realm and file are taken over, a path beginning at the working directory; nobody need be warned of the address.

    A file that isn't there is a finding: none is made, with a password in the log, as distribution would.
    """
    text = f"{BASE}http: {{addr: ':5000'}}\nauth: {{htpasswd: {{realm: Harbour, path: users}}}}\n"

    loaded = read(text, directory=tmp_path)

    assert of(loaded, "auth.realm") == "Harbour"
    assert loaded.settings.auth.htpasswd == HtpasswdSettings(path=Path.cwd() / "users")
    assert warned(loaded) == []
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(SettingsInvalidError, match="does not exist") as refused:
        load(tmp_path / "config.yml", environment={}, directory=tmp_path)
    assert "htpasswd -cB" in (refused.value.advice() or "")


def test_a_section_of_ours(tmp_path: Path) -> None:
    """`roadstead:` holds native settings, which distribution passes over; its paths begin at the file."""
    ours = "{server: {workers: 3}, storage: {path: here}, augment: {rules: [{match: a, cmd: []}]}}"
    text = f"{BASE}roadstead: {ours}\n"

    loaded = read(text, directory=tmp_path)

    assert of(loaded, "server.workers") == 3
    assert of(loaded, "storage.path") == tmp_path / "here"
    assert loaded.settings.augment.rules[0].cmd == ()
    assert "roadstead" not in warned(loaded)
    assert "server.worker" in refusals(f"{BASE}roadstead: {{server: {{worker: 3}}}}\n", directory=tmp_path)


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("storage: filesystem\n", "version", "missing"),
        ("version: 0.2\nstorage: filesystem\n", "version", "'0.2' is not supported"),
        ("version: 0.1\n", "storage", "no storage is named"),
        ("version: 0.1\nstorage: {delete: {enabled: true}}\n", "storage", "no storage is named"),
        ("version: 0.1\nstorage: {filesystem: , s3: {bucket: b}}\n", "storage", "got filesystem, s3"),
        ("version: 0.1\nstorage: filesytem\n", "storage.filesytem", "did you mean filesystem"),
        (f"{BASE}auth: {{none: , silly: }}\n", "auth", "takes one provider"),
        (f"{BASE}auth: kerberos\n", "auth.kerberos", "unknown provider"),
        (f"{BASE}auth: htpasswd\n", "auth.htpasswd.path", "is required"),
        (f"{BASE}auth: {{htpasswd: {{path: x}}}}\n", "auth.htpasswd.realm", "is required"),
        (f"{BASE}auth: silly\n", "auth.silly", "keep nobody out"),
        (f"{BASE}log: {{level: loud}}\n", "log.level", "error, warn, info, debug"),
        (f"{BASE}log: {{formatter: xml}}\n", "log.formatter", "text, json, logstash"),
        (f"{BASE}log: {{accesslog: {{disabled: 'true'}}}}\n", "log.accesslog.disabled", "without quotes"),
        (f"{BASE}http: {{draintimeout: soon}}\n", "http.draintimeout", "expected a duration"),
        (f"{BASE}http: [a]\n", "http", "expected a table"),
        (f"{BASE}http: {{headers: {{X: y}}}}\n", "server.headers", "list of texts"),
        (f"{BASE}http: {{addr: nowhere}}\n", "server.listen", "not an address"),
        (f"{BASE}http: {{addr: {{}}}}\nhttp: {{addr: [1]}}\n", "http.addr", "expected a text"),
        (f"{BASE}catalog: {{maxentries: many}}\n", "catalog.maxentries", "whole number"),
        (f"{BASE}health: {{file: [{{interval: 1s}}]}}\n", "health.file", "the key file"),
        (f"{BASE}http: {{host: '${{env:NOT_SET}}'}}\n", "http.host", "not set"),
    ],
)
def test_mistakes_are_told_by_key(text: str, key: str, said: str, tmp_path: Path) -> None:
    """What distribution panics over, and what it takes for something else, is one line with the key."""
    told = refusals(text, directory=tmp_path)

    assert said in told[key]


@pytest.mark.parametrize(
    "text",
    ["", "- a\n", "version: [", "a: &a [*a]\n", "version: !!python/object:os.system x\n", "? [a]\n: b\n", "\x00"],
)
def test_files_that_are_no_table(text: str, tmp_path: Path) -> None:
    """They can't be read at all; no type of YAML makes an object."""
    with pytest.raises(SettingsFileError, match=r"config\.yml"):
        read(text, directory=tmp_path)


TOKEN = "realm: https://a/t, service: s, issuer: i, rootcertbundle: b.pem, signingalgorithms: [ES256, RS256]"


def test_tokens(tmp_path: Path) -> None:
    """What `auth.token` says is in one table; its variables count as part of it."""
    text = f"{BASE}auth: {{token: {{{TOKEN}}}}}\nhttp: {{addr: '0.0.0.0:5000'}}\n"

    loaded = read(text, {"REGISTRY_AUTH_TOKEN_AUTOREDIRECT": "true"}, directory=tmp_path)

    assert loaded.settings.auth.token == TokenSettings(
        realm="https://a/t",
        service="s",
        issuer="i",
        rootcertbundle=Path.cwd() / "b.pem",
        signing_algorithms=("ES256", "RS256"),
        autoredirect=True,
    )
    assert loaded.settings.auth.is_on
    assert loaded.warnings == []


@pytest.mark.parametrize(
    ("token", "key", "told"),
    [
        ("{}", "auth.token", "none of its keys"),
        ("{realm: r, service: s, issuer: i}", "auth.token.rootcertbundle", "keys that sign are needed"),
        ("{realm: r, service: s, rootcertbundle: CONFIG}", "auth.token.issuer", "is required"),
        ("{service: s, issuer: i, rootcertbundle: CONFIG}", "auth.token.realm", "is required"),
        ("{realm: r, service: s, issuer: i, rootcertbundle: /no}", "auth.token.rootcertbundle", "cannot be read"),
        (
            "{realm: r, service: s, issuer: i, jwks: CONFIG, signingalgorithms: [ES255]}",
            "auth.token.signing_algorithms",
            "did you mean ES256",
        ),
        ("{realm: r, service: s, issuer: i, jwks: CONFIG, signingalgorithms: ES256}", None, "expected a list of texts"),
    ],
)
def test_tokens_that_are_refused(token: str, key: str | None, told: str, tmp_path: Path) -> None:
    """What is missing or can't be read is told by key."""
    path = tmp_path / "config.yml"
    path.write_text(f"{BASE}auth: {{token: {token.replace('CONFIG', str(path))}}}\n")

    with pytest.raises(SettingsInvalidError) as caught:
        load(path, environment={})

    [finding] = caught.value.findings
    assert finding.key == (key or "auth.token.signingalgorithms")
    assert told in finding.message


TLS = "tls: {certificate: c.pem, key: k.pem, clientcas: [a.pem, b.pem], clientauth: require-and-verify-client-cert}"


def test_tls(tmp_path: Path) -> None:
    """Certificate, key and authorities belong together; relative paths begin at the working directory."""
    loaded = read(f"{BASE}http: {{{TLS}}}\n", directory=tmp_path)

    here = Path.cwd()
    assert loaded.settings.tls == TlsSettings(
        certificate=here / "c.pem",
        key=here / "k.pem",
        client_ca=(here / "a.pem", here / "b.pem"),
        client_certificates=ClientCertificate.REQUIRED,
    )
    assert loaded.settings.speaks_tls


@pytest.mark.parametrize(
    ("tls", "key", "told"),
    [
        ("{certificate: c.pem}", "tls.certificate", "needs tls.key too"),
        ("{clientcas: [a.pem]}", "tls.client_ca", "needs TLS"),
        ("{clientcas: a.pem}", "http.tls.clientcas", "expected a list of texts"),
        ("{clientauth: request-client-cert}", "http.tls.clientauth", "nobody checks"),
        ("{clientauth: always}", "http.tls.clientauth", "expected one of"),
        ("{minimumtls: ssl3}", "http.tls.minimumtls", "expected tls1.2 or tls1.3"),
    ],
)
def test_tls_that_is_refused(tls: str, key: str, told: str, tmp_path: Path) -> None:
    """Halves, and what isn't checked, are told by key."""
    path = tmp_path / "config.yml"
    path.write_text(f"{BASE}http: {{tls: {tls}}}\n")

    with pytest.raises(SettingsInvalidError) as caught:
        load(path, environment={})

    [finding] = caught.value.findings
    assert finding.key == key
    assert told in finding.message


def test_old_versions_of_tls_are_not_spoken(tmp_path: Path) -> None:
    """`tls1.0` is taken as 1.2, with a word."""
    loaded = read(f"{BASE}http: {{tls: {{minimumtls: tls1.0}}}}\n", directory=tmp_path)

    assert of(loaded, "tls.minimum_version") == "1.2"
    assert "1.2 or newer" in loaded.warnings[0].message


def test_aliases_do_not_explode(tmp_path: Path) -> None:
    """A few lines that stand for billions of values are refused soon."""
    lines = ["version: 0.1", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]

    with pytest.raises(SettingsFileError, match="more than"):
        read("\n".join(lines), directory=tmp_path)


def test_unknown_and_doubled_keys_are_warned_about(tmp_path: Path) -> None:
    """distribution passes over them; the nearest known key is suggested, and of two the last counts."""
    loaded = read(f"{BASE}http: {{adr: ':1', prefix: /a/, prefix: /b/}}\nfoo: 1\n", directory=tmp_path)

    assert {warning.key: warning.message for warning in loaded.warnings} == {
        "http.prefix": "is written twice; the last one counts",
        "http.adr": "unknown key, left out; did you mean addr?",
        "foo": "unknown key, left out",
    }
    assert of(loaded, "server.prefix") == "/b/"


def test_yaml_1_1(tmp_path: Path) -> None:
    """`on` is true, anchors and merged tables are followed, an address is no base-sixty number."""
    text = (
        "version: '0.1'\nx: &h {prefix: /a/}\nstorage: {filesystem: , delete: {enabled: on}}\n"
        "http: {<<: *h, addr: 127.0.0.1:50}\n"
    )

    loaded = read(text, directory=tmp_path)

    assert of(loaded, "storage.delete") is True
    assert of(loaded, "server.prefix") == "/a/"
    assert of(loaded, "server.listen") == ListenAddress("127.0.0.1", 50)


def test_text_that_looks_like_a_reference_stays(tmp_path: Path) -> None:
    """Only `${env:…}` and its kin are references; distribution's texts may hold any other."""
    loaded = read(f"{BASE}log: {{fields: {{a: '${{HOME}} $$'}}}}\n", directory=tmp_path)

    assert loaded.settings.log.fields == LogFields((("a", "${HOME} $$"),))


def test_a_number_of_nanoseconds(tmp_path: Path) -> None:
    """A duration without a unit means what it means to distribution, with a word."""
    loaded = read(f"{BASE}http: {{draintimeout: 5000000000}}\n", directory=tmp_path)

    assert of(loaded, "server.shutdown_timeout") == timedelta(seconds=5)
    assert "5s" in loaded.warnings[0].message


# Variables


def test_parents_come_before_children(tmp_path: Path) -> None:
    """REGISTRY_STORAGE replaces the section, deleting included, and its children then add to it."""
    environment = {"REGISTRY_STORAGE_S3_BUCKET": "b", "REGISTRY_STORAGE": "s3", "REGISTRY_STORAGE_S3_REGION": "r"}

    loaded = read(f"{BASE.rstrip()[:-1]}, delete: {{enabled: true}}}}\n", environment, directory=tmp_path)

    assert (of(loaded, "storage.driver"), of(loaded, "storage.bucket")) == (StorageDriver.S3, "b")
    assert of(loaded, "storage.delete") is False


def test_a_second_driver_is_told_with_its_remedy(tmp_path: Path) -> None:
    """A variable of another driver makes two, as in distribution; the advice names the variable that replaces."""
    told = refusals(BASE, {"REGISTRY_STORAGE_S3_BUCKET": "b"}, directory=tmp_path)

    assert "REGISTRY_STORAGE=s3" in told["storage"]


def test_lists_by_position(tmp_path: Path) -> None:
    """One past the end appends; further, or something else than a position, is an error."""
    text = f"{BASE}health: {{file: [{{file: /a}}]}}\n"
    appended = {"REGISTRY_HEALTH_FILECHECKERS_0_FILE": "/b", "REGISTRY_HEALTH_FILE_1_FILE": "/c"}

    assert of(read(text, appended, directory=tmp_path), "server.down_files") == (Path("/b"), Path("/c"))
    assert "next position is 1" in "".join(
        refusals(text, {"REGISTRY_HEALTH_FILECHECKERS_2_FILE": "/b"}, directory=tmp_path).values()
    )
    assert "a position such as 0" in "".join(
        refusals(text, {"REGISTRY_HEALTH_FILECHECKERS_X_FILE": "/b"}, directory=tmp_path).values()
    )


def test_lists_and_maps_as_yaml(tmp_path: Path) -> None:
    """A variable may hold a whole section; keys of maps that it makes are in lower case."""
    environment = {
        "REGISTRY_HTTP_HEADERS": "{X-A: [b]}",
        "REGISTRY_HTTP_HEADERS_X-B": "[c]",
        "REGISTRY_LOG_FIELDS_SITE": "here",
        "REGISTRY_NOTIFICATIONS_ENDPOINTS": "[{name: a, url: 'http://a', disabled: true}]",
    }

    loaded = read(BASE, environment, directory=tmp_path)

    assert of(loaded, "server.headers") == Headers((("X-A", "b"), ("x-b", "c")))
    assert of(loaded, "log.fields") == LogFields((("site", "here"),))
    assert of(loaded, "events.endpoints") == ()
    enabled = {**environment, "REGISTRY_NOTIFICATIONS_ENDPOINTS_0_DISABLED": "false"}
    assert [endpoint.name for endpoint in read(BASE, enabled, directory=tmp_path).settings.events.endpoints] == ["a"]


@pytest.mark.parametrize(
    "name",
    [
        "REGISTRY_HTP_ADDR",
        "REGISTRY_HTTP_ADR",
        "REGISTRY_",
        "REGISTRY__",
        "REGISTRY_HTTP__ADDR",
        "REGISTRY_VERSION",
        "REGISTRY_HTTP_ADDR_MORE",
        "REGISTRY_PORT",
    ],
)
def test_variables_that_name_nothing_are_left_out(name: str, tmp_path: Path) -> None:
    """They are warned about, as in distribution."""
    loaded = read(f"{BASE}http: {{addr: '127.0.0.1:1'}}\n", {name: "something"}, directory=tmp_path)

    assert [warning.where for warning in loaded.warnings] == [name]


def test_kubernetes_service_links_are_passed_over(tmp_path: Path) -> None:
    """A Service called registry, or registry-auth, doesn't configure the registry."""
    environment = {
        "REGISTRY_PORT": "tcp://10.0.0.1:5000",
        "REGISTRY_PORT_5000_TCP": "tcp://10.0.0.1:5000",
        "REGISTRY_PORT_5000_TCP_ADDR": "10.0.0.1",
        "REGISTRY_PORT_5000_TCP_PORT": "5000",
        "REGISTRY_PORT_5000_TCP_PROTO": "tcp",
        "REGISTRY_SERVICE_HOST": "10.0.0.1",
        "REGISTRY_SERVICE_PORT": "5000",
        "REGISTRY_SERVICE_PORT_HTTP": "5000",
        "REGISTRY_AUTH_SERVICE_HOST": "fd00::1",
        "REGISTRY_AUTH_PORT": "tcp://10.0.0.2:5001",
        "REGISTRY_STORAGE_SERVICE_PORT": "9000",
    }

    assert warned(read(BASE, environment, directory=tmp_path)) == []


def test_a_value_from_a_file(tmp_path: Path) -> None:
    """`REGISTRY_…_FILE` holds a path; one newline at the end is no part of the value, and both at once are an error."""
    secret = tmp_path / "secret"
    secret.write_text("0123 #\n")
    named = {"REGISTRY_STORAGE_S3_SECRETKEY_FILE": str(secret)}

    loaded = read(S3, {**named, "REGISTRY_STORAGE_S3_ACCESSKEY": "a"}, directory=tmp_path)

    key = loaded.settings.storage.secret_key
    assert key is not None
    assert key.reveal() == "0123 #"
    assert "set one of them" in "".join(
        refusals(S3, {**named, "REGISTRY_STORAGE_S3_SECRETKEY": "b"}, directory=tmp_path).values()
    )
    assert "cannot be read" in "".join(
        refusals(S3, {"REGISTRY_STORAGE_S3_SECRETKEY_FILE": str(tmp_path / "no")}, directory=tmp_path).values()
    )


@settings(deadline=None, max_examples=60)  # a file is written and read each time
@given(
    st.dictionaries(
        st.from_regex(r"\AREGISTRY_(HTTP|LOG|STORAGE|HEALTH|AUTH|X)(_[A-Z0-9]{0,6}){0,4}\Z"),
        st.text(st.characters(codec="utf-8"), max_size=12),
        max_size=5,
    )
)
def test_any_variables_end_in_settings_or_findings(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> None:
    """Whatever they say, loading gives settings or tells what is wrong; nothing else is raised."""
    directory = tmp_path_factory.getbasetemp()
    with suppress(SettingsInvalidError):
        read(BASE, environment, directory=directory)


@settings(deadline=None, max_examples=60)  # a file is written and read each time
@given(
    st.sampled_from([key.path for key in KEYS if key.path.count(".") > 1 and not key.path.startswith("storage.file")]),
    st.sampled_from(["true", "{}", "[]", "''", "7", "x"]),
)
def test_file_and_variable_say_the_same(tmp_path_factory: pytest.TempPathFactory, key: str, value: str) -> None:
    """A key means the same whether the file or its variable says it."""
    directory = tmp_path_factory.getbasetemp()
    section, *names = key.split(".")
    nested = value
    for name in reversed(names):
        nested = f"{{{name}: {nested}}}"
    if key.startswith("storage.s3."):
        without, said = "storage: s3\n", f"storage: {nested}\n"
    elif section == "storage":
        without, said = "storage: filesystem\n", f"storage: {{filesystem: , {nested[1:]}\n"
    else:
        without, said = "storage: filesystem\n", f"storage: filesystem\n{section}: {nested}\n"

    by_file = outcome(f"version: 0.1\n{said}", {}, directory)
    by_variable = outcome(f"version: 0.1\n{without}", {variable(key): value}, directory)

    assert by_file == by_variable


def outcome(text: str, environment: Mapping[str, str], directory: Path) -> object:
    """Return what comes out: settings and the keys warned about, or the keys of findings."""
    try:
        loaded = read(text, environment, directory=directory)
    except SettingsInvalidError as error:
        return sorted(finding.key for finding in error.findings)
    return as_plain(loaded.settings), warned(loaded)


# Which file


def test_the_file_of_the_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, else the variable's, else where distribution's images have it, else an error that names both."""
    there = tmp_path / "config.yml"
    environment = {"REGISTRY_CONFIGURATION_PATH": "/named"}
    monkeypatch.setattr("roadstead.settings.distribution.DEFAULT_PATHS", (tmp_path / "no.yml", there))

    assert find_config(Path("x"), environment) == Path("x")
    assert find_config(None, environment) == Path("/named")
    with pytest.raises(ConfigMissingError, match=r"no\.yml"):
        find_config(None, {})
    there.touch()
    assert find_config(None, {}) == there


@pytest.mark.parametrize(("name", "text"), [("registry.conf", BASE), ("c.yaml", BASE)])
def test_other_names_are_told_by_their_content(name: str, text: str, tmp_path: Path) -> None:
    """A file whose name says nothing is distribution's if it has its version."""
    path = tmp_path / name
    path.write_text(text)

    assert load_unchecked(path, environment={}).settings.storage.path == Path("/data")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1m30s", 90), ("1.5h", 5400), ("300ms", 0.3), (".5s", 0.5), ("1h1us", 3600.000001), ("+2s", 2)],
)
def test_go_durations(text: str, seconds: float) -> None:
    """Each unit, fractions included."""
    assert parse_go_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "-1s", "1", "s", "1d", "1h 1m", ".s", "1e3s", "9999999999h"])
def test_what_is_no_go_duration(text: str) -> None:
    """Days are unknown to Go, and a negative one is none that waits."""
    assert parse_go_duration(text) is None


ENDPOINTS = """
notifications:
  events: {includereferences: true}
  endpoints:
    - name: Synapse
      url: https://repo.example/dockerRegistryListener/v1/events
      headers: {Authorization: ["Basic ${env:AUTH}"], X-Two: [a, b]}
      timeout: 1m
      threshold: 1
      backoff: 30s
      ignoredmediatypes: [application/octet-stream]
      ignore: {mediatypes: [text/plain], actions: [pull, delete]}
    - {name: off, url: 'http://off', disabled: true}
    - {name: defaults, url: 'http://d', timeout: 0, threshold: 0, backoff: 0s}
"""


def test_endpoints_of_notifications(tmp_path: Path) -> None:
    """Each becomes one of ours with distribution's manners: one event at a time, for ever, HEAD being a pull; one that
    is disabled isn't there, and what is 0 is distribution's default.
    """
    loaded = read(BASE + ENDPOINTS, {"AUTH": "dTpw"}, directory=tmp_path)

    assert loaded.warnings == []
    events = loaded.settings.events
    assert events.include_references
    synapse, defaults = events.endpoints
    assert (synapse.name, synapse.url.reveal()) == ("Synapse", "https://repo.example/dockerRegistryListener/v1/events")
    assert synapse.headers.as_table(masked=False) == {"Authorization": ["Basic dTpw"], "X-Two": ["a", "b"]}
    assert (synapse.timeout, synapse.threshold, synapse.backoff) == (timedelta(minutes=1), 1, timedelta(seconds=30))
    assert synapse.ignored_media_types == ("application/octet-stream", "text/plain")
    assert [action.value for action in synapse.actions] == ["push", "mount"]
    assert (synapse.heads, synapse.parallel, synapse.max_attempts) == (True, 1, None)
    assert (defaults.timeout, defaults.threshold, defaults.backoff) == (
        timedelta(seconds=1),
        10,
        timedelta(seconds=1),
    )
    assert [action.value for action in defaults.actions] == ["push", "pull", "mount", "delete"]
    shown = str(as_shown(loaded.settings))
    assert "dTpw" not in shown
    assert "dockerRegistryListener" not in shown
    assert from_plain(json.loads(json.dumps(as_plain(loaded.settings)))).events.endpoints[0].timeout == synapse.timeout


@pytest.mark.parametrize(
    ("endpoint", "key", "said"),
    [
        ("{name: a, url: 'http://a', headers: {Authorization: ['Basic ${env:AUTH}']}}", "notifications", "${env:AUTH}"),
        (
            "{name: a, url: 'http://a', headers: {Authorization: ['Basic ']}}",
            "events",
            "a value of Authorization is empty",
        ),
        ("{name: a, url: 'http://a', headers: {Authorization: ['']}}", "events", "a value of Authorization is empty"),
        (
            "{name: a, url: 'http://a', headers: {Content-Length: ['1']}}",
            "events",
            "Content-Length is for each request",
        ),
        ("{name: a, url: 'http://a', timeout: soon}", "notifications", "expected a duration"),
        ("{name: a, url: 'http://a', ignore: {actions: pull}}", "notifications", "expected a list of texts"),
        ("a", "notifications", "expected a list of tables"),
    ],
)
def test_endpoints_that_would_not_be_told(endpoint: str, key: str, said: str, tmp_path: Path) -> None:
    """Named with what is wrong; what came isn't shown where it may be a secret."""
    told = refusals(f"{BASE}notifications: {{endpoints: [{endpoint}]}}\n", directory=tmp_path)

    [(found, message)] = told.items()
    assert found.startswith(f"{key}.endpoints")
    assert said in message


def test_keys_of_endpoints_that_nobody_knows(tmp_path: Path) -> None:
    """Left out with a word, as everywhere."""
    text = "notifications: {endpoints: [{name: a, url: 'http://a', backof: 1s, ignore: {types: [a]}}]}\n"

    loaded = read(BASE + text, directory=tmp_path)

    assert warned(loaded) == ["notifications.endpoints[0].backof", "notifications.endpoints[0].ignore.types"]
    assert "backoff" in loaded.warnings[0].message
