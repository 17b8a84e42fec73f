"""What can only be judged of settings together."""

import json
import os
from pathlib import Path

import pytest

from roadstead.settings.check import check_settings
from roadstead.settings.load import load_unchecked
from roadstead.settings.model import LinksMode
from roadstead.settings.mounts import filesystem_of, is_network

_MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:35 / /srv rw - nfs4 server:/export rw
41 40 0:36 / /srv/local\\040disk rw - xfs /dev/sdb1 rw
42 22 0:37 / /mnt rw - ext4 /dev/sdc1 rw
43 42 0:38 / /mnt rw - fuse.sshfs host:/ rw
"""


def told(tmp_path: Path, **overrides: object) -> list[str]:
    """Check settings that differ from the defaults by these; `__` stands for the dot."""
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    settings = load_unchecked(None, environment={}, overrides=given, directory=tmp_path).settings
    return [f"{finding} {finding.advice or ''}" for finding in check_settings(settings)]


def test_the_defaults_are_fine(tmp_path: Path) -> None:
    """Nothing speaks against serving with nothing said."""
    assert told(tmp_path) == []


def test_beyond_loopback_needs_the_word(tmp_path: Path) -> None:
    """An address that others can reach is refused until it is said that this is meant."""
    [finding] = told(tmp_path, server__listen="0.0.0.0:5000")

    assert finding.startswith("server.listen: 0.0.0.0:5000 can be reached")
    assert "server.open_to_network = true" in finding
    assert told(tmp_path, server__listen="0.0.0.0:5000", server__open_to_network=True) == []


def test_s3_with_sqlite_is_refused_by_name(tmp_path: Path) -> None:
    """The bytes would outlive the facts."""
    [finding] = told(tmp_path, storage__driver="s3", storage__bucket="images")

    assert finding.startswith("database.url: SQLite with storage in S3")
    assert 'database.url = "postgresql://…"' in finding
    assert told(tmp_path, storage__driver="s3", storage__bucket="b", database__url="postgresql://db/x") == []


def test_a_database_that_is_built_anew_makes_up_for_it(tmp_path: Path) -> None:
    """Then links are written before each answer, whatever is the default elsewhere."""
    given = {"storage.driver": "s3", "storage.bucket": "images", "database.mode": "rebuildable"}
    settings = load_unchecked(None, environment={}, overrides=given, directory=tmp_path).settings

    assert check_settings(settings) == ()
    assert settings.links is LinksMode.SYNC


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"storage__driver": "filesystem"}, "database.mode: rebuildable is for storage in a bucket"),
        ({"database__url": "postgresql://db/x"}, "database.mode: rebuildable is for SQLite"),
        ({"storage__links": "async"}, "storage.links: async loses what"),
        ({"auth__accounts": True}, "auth.accounts: accounts are kept in the database alone"),
        ({"database__writer_lease": "1s"}, "database.writer_lease: expected 6s or more"),
    ],
    ids=["folder", "PostgreSQL", "links", "accounts", "lease"],
)
def test_what_a_database_that_is_built_anew_needs(tmp_path: Path, more: dict[str, object], expected: str) -> None:
    """What would lose something is refused by name."""
    given = {"storage__driver": "s3", "storage__bucket": "b", "database__mode": "rebuildable", **more}

    assert any(finding.startswith(expected) for finding in told(tmp_path, **given))


def test_addresses_have_no_passwords_in_them(tmp_path: Path) -> None:
    """They are shown where settings are, and there are settings for passwords."""
    upstream = '[{"host": "up.example", "url": "https://user:hunter2@up.example"}]'
    bucket = {"storage__driver": "s3", "storage__bucket": "b", "storage__endpoint": "http://user:hunter2@s3:9000"}
    found = [*told(tmp_path, **bucket), *told(tmp_path, upstreams__registries=upstream)]

    told_of = [finding.partition(":")[0] for finding in found if "has a password in it" in finding]
    assert told_of == ["storage.endpoint", "upstreams.registries[0].url"]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("server.workers", 0, "expected 1 or more, got 0"),
        ("database.pool_size", -1, "expected 1 or more, got -1"),
        ("registry.catalog_page", 1001, "larger than registry.catalog_page_max"),
        ("registry.upload_purge_interval", "0s", "expected more than 0s"),
        ("augment.layer_patience", "0s", "expected more than 0s"),
        ("server.public_url", "registry.example", "expected http(s)://HOST"),
        ("server.public_url", "https://registry.example/path", "without a path"),
        ("server.offload", "x-accel", "needs a secret of 16 or more"),
        ("storage.redirect", True, "clients can be sent to a bucket"),
        ("server.trusted_proxies", ["10.0.0.1/8"], "expected an address or a network"),
        ("auth.issue", {"lifetime": "59s"}, "expected 1m to 1h"),
        ("auth.issue", {"refresh_lifetime": "1m"}, "is shorter than auth.issue.lifetime"),
        ("auth.issue", {"rotate_every": "1m"}, "expected 1h or more"),
        ("auth.master_key", "short", "is shorter than 32 characters"),
        ("tls.certificate", "c.pem", "needs tls.key too"),
        ("tls.key", "k.pem", "needs tls.certificate too"),
        ("tls.client_ca", ["ca.pem"], "needs TLS"),
        ("tls.names", ["registry.test"], "are for tls.self_signed"),
        ("database.url", "mysql://x/y", "expected sqlite:///PATH or postgresql://"),
        ("database.url", "postgresql://user:hunter2@db:port/y", "expected sqlite:///PATH or postgresql://"),
        ("database.url", "sqlite:///:memory:", "can't be shared by processes"),
        ("database.url", "sqlite://", "can't be shared by processes"),
        ("storage.path", "file", "is not a directory"),
        ("augment.rules", '[{"layers": ["file"]}]', "every rule says which images it is for"),
        ("augment.rules", '[{"match": "x", "layers": ["missing"]}]', "missing does not exist"),
        ("augment.rules", '[{"match": "x", "layers": [{"platform": "linux/amd64"}]}]', "a layer needs a path"),
        ("augment.rules", '[{"match": "x", "layers": [{"path": "file", "platform": "arm"}]}]', "expected a platform"),
        ("augment.rules", '[{"match": "x", "env": ["=1"]}]', "expected NAME=VALUE"),
        ("augment.rules", '[{"match": "x", "labels": ["a"]}]', "expected NAME=VALUE"),
        ("augment.rules", '[{"match": "x", "layers": ["https://h.example/l.tgz"]}]', "is needed with an address"),
        ("augment.rules", '[{"match": "x", "layers": [{"path": "file", "location": "data:AA=="}]}]', "not both"),
        (
            "augment.rules",
            '[{"match": "x", "layers": [{"location": "data:AA==", "tar_digest": "sha256:x"}]}]',
            "sha256",
        ),
        ("augment.rules", '[{"match": "x", "layers": [{"location": "data:AA==", "gzip_size": 0}]}]', "size in bytes"),
    ],
)
def test_single_values(tmp_path: Path, key: str, value: object, expected: str) -> None:
    """Each is told under its key."""
    (tmp_path / "file").touch()

    findings = told(tmp_path, **{key: value})

    assert findings
    assert findings[0].startswith(key)
    assert expected in findings[0]


def test_s3_needs_a_bucket_and_both_keys_or_none(tmp_path: Path) -> None:
    """What the driver can't do without is told before it starts."""
    findings = told(
        tmp_path,
        storage__driver="s3",
        storage__access_key="x",
        storage__endpoint="s3.internal",
        database__url="postgresql://db/x",
    )

    assert [finding.partition(":")[0] for finding in findings] == [
        "storage.bucket",
        "storage.endpoint",
        "storage.access_key",
    ]


@pytest.mark.parametrize(
    ("path", "filesystem"),
    [
        ("/var/lib/roadstead", "ext4"),
        ("/srv/data", "nfs4"),
        ("/srv/local disk/data", "xfs"),
        ("/mnt/data", "fuse.sshfs"),
        ("/srvx", "ext4"),
    ],
)
def test_the_file_system_of_a_path(path: str, filesystem: str) -> None:
    """The nearest mount above counts, of two on one point the later; a path need not exist."""
    assert filesystem_of(Path(path), _MOUNTS) == filesystem


@pytest.mark.parametrize(
    ("filesystem", "network"),
    [
        ("nfs4", True),
        ("cifs", True),
        ("fuse.s3fs", True),
        ("ext4", False),
        ("fuse.mergerfs", False),
    ],
)
def test_network_file_systems(filesystem: str, *, network: bool) -> None:
    """Those on other machines are known by name."""
    assert is_network(filesystem) is network


def test_this_machine_has_a_file_system(tmp_path: Path) -> None:
    """The kernel's own table can be read."""
    assert filesystem_of(tmp_path)


GOOD = {"name": "a", "url": "https://a.example/events"}


@pytest.mark.parametrize(
    ("endpoints", "key", "said"),
    [
        ([{"url": "https://a"}], "name", "needs a name"),
        ([GOOD, GOOD], "name", "a is the name of another endpoint"),
        ([{"name": "a"}], "url", "needs a url"),
        ([{**GOOD, "url": "ftp://a"}], "url", "expected http(s)://HOST"),
        ([{**GOOD, "url": "https://a:port/?token=hunter2"}], "url", "expected http(s)://HOST"),
        ([{**GOOD, "timeout": "0s"}], "timeout", "more than 0s"),
        ([{**GOOD, "threshold": 0}], "threshold", "expected 1 or more, got 0"),
        ([{**GOOD, "parallel": 0}], "parallel", "expected 1 or more, got 0"),
        ([{**GOOD, "max_attempts": -1}], "max_attempts", "expected 1 or more, got -1"),
    ],
)
def test_endpoints_of_events(endpoints: list[dict[str, object]], key: str, said: str, tmp_path: Path) -> None:
    """One that can't be told, or not as was meant, is named; its address isn't shown."""
    [finding] = told(tmp_path, events__endpoints=endpoints)

    assert finding.startswith(f"events.endpoints[{len(endpoints) - 1}].{key}: ")
    assert said in finding
    assert "hunter2" not in finding
    assert told(tmp_path, events__endpoints=[GOOD]) == []


def test_files_that_cannot_be_read_are_named_with_the_reason(tmp_path: Path) -> None:
    """Of keys and certificates, as the system tells it; a pipe is not waited for."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    token = {"realm": "https://a/", "service": "s", "issuer": "i", "rootcertbundle": "no", "jwks": "folder"}

    said = told(
        tmp_path,
        auth__token=json.dumps(token),
        signatures__policies=json.dumps([{"match": ["**"], "keys": ["no", "pipe"]}]),
    )

    assert [each.strip() for each in said] == [
        f"auth.token.rootcertbundle: {tmp_path}/no cannot be read: No such file or directory",
        f"auth.token.jwks: {tmp_path}/folder cannot be read: Is a directory",
        f"signatures.policies[0].keys[0]: {tmp_path}/no cannot be read: No such file or directory",
    ]
