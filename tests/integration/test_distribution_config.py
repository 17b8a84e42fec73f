"""The command ``registry`` on a configuration of distribution, for real."""

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from roadstead.oci.digest import Digest
from roadstead.testing.client import Client, ConnectionBrokenError
from roadstead.testing.ports import free_port
from roadstead.testing.servers import Process

_PATIENCE_S = 30

# What the image of version 2 is configured with, but for its data and port, which a test can't share.
AS_IN_THE_IMAGE = """
version: 0.1
log: {fields: {service: registry}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: ROOT}
http:
  addr: :5000
  headers: {X-Content-Type-Options: [nosniff]}
health:
  storagedriver: {enabled: true, interval: 10s, threshold: 3}
"""

# A registry on a virtual machine with all that distribution's users add to it over the years.
GROWN = """
version: 0.1
log: {level: warn, formatter: logstash}
storage:
  filesystem: {rootdirectory: ROOT, maxthreads: 50}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
  redirect: {disable: true}
auth: {htpasswd: {realm: basic, path: /auth/htpasswd}}
http:
  addr: 0.0.0.0:5000
  secret: shared
  tls: {certificate: /certs/a.pem, key: /certs/a.key}
notifications:
  endpoints: [{name: listener, url: 'https://events.example', timeout: 1s, threshold: 5, backoff: 1s}]
proxy: {remoteurl: 'https://registry-1.docker.io'}
redis: {addr: 'localhost:6379'}
"""


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment without variables of either registry."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REGISTRY_", "ROADSTEAD_"))}
    return {**own, "PYTHONPATH": os.pathsep.join(sys.path)}


def registry(*arguments: str, environment: Mapping[str, str], directory: Path) -> "subprocess.CompletedProcess[str]":
    """Run the alias to its end."""
    command = [sys.executable, "-m", "roadstead.cli.distribution", *arguments]
    return subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
    )


def test_the_images_configuration_serves(tmp_path: Path, environment: dict[str, str]) -> None:
    """It starts unchanged, takes a push, doesn't delete, and leaves distribution's tree with a database beside it."""
    root, port = tmp_path / "root", free_port()
    config = tmp_path / "config.yml"
    config.write_text(AS_IN_THE_IMAGE.replace("ROOT", str(root)))
    environment |= {"REGISTRY_CONFIGURATION_PATH": str(config), "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}"}
    process = Process(
        [sys.executable, "-m", "roadstead.cli.distribution", "serve"],
        log=tmp_path / "log",
        environment=environment,
        directory=tmp_path,
    )
    with closing(Client(f"127.0.0.1:{port}")) as client:
        process.start()
        try:
            process.wait_ready(lambda: is_ready(client), timeout=timedelta(seconds=_PATIENCE_S))
            digest = client.push_blob("a", b"blob")
            deleted = client.delete(f"/v2/a/blobs/{digest}")
            ping = client.get("/v2/")
        finally:
            process.stop()

    collected = registry("garbage-collect", "--dry-run", "-m", "-q", environment=environment, directory=tmp_path)

    assert (collected.returncode, "1 blob, 4 B: it was pushed" in collected.stdout) == (0, True)
    assert digest == Digest.of(b"blob")
    assert (
        root / f"docker/registry/v2/blobs/sha256/{digest.encoded[:2]}/{digest.encoded}/data"
    ).read_bytes() == b"blob"
    assert {path.name.partition(".db")[0] for path in root.iterdir()} == {"docker", "roadstead"}
    assert (deleted.status, deleted.code) == (405, "UNSUPPORTED")
    assert (ping.status, ping.every("x-content-type-options")) == (200, ["nosniff"])
    warnings = [line for line in (tmp_path / "log").read_text().splitlines() if " warning " in line]
    assert ["key=storage.cache.blobdescriptor" in warnings[0], "key=health.storagedriver" in warnings[1]] == [
        True,
        True,
    ]
    assert all("service=registry" in line for line in warnings)


def test_htpasswd_by_variables(tmp_path: Path, environment: dict[str, str]) -> None:
    """As stacks set it, with a hash of `openssl passwd -apr1`: signed in one may do everything, otherwise nothing."""
    port = free_port()
    (tmp_path / "config.yml").write_text(AS_IN_THE_IMAGE.replace("ROOT", str(tmp_path / "root")))
    (tmp_path / "users").write_text("admin:$apr1$a$PtM1vJaZieHDFk40mKMu6/\n")
    environment |= {
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_AUTH": "htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM": "Registry Realm",
        "REGISTRY_AUTH_HTPASSWD_PATH": "users",
    }
    process = Process(
        [sys.executable, "-m", "roadstead.cli.distribution", "serve", "config.yml"],
        log=tmp_path / "log",
        environment=environment,
        directory=tmp_path,
    )
    signed_in = {"Authorization": f"Basic {b64encode(b'admin:secret').decode()}"}
    with closing(Client(f"127.0.0.1:{port}")) as client:
        process.start()
        try:
            process.wait_ready(lambda: is_ready(client), timeout=timedelta(seconds=_PATIENCE_S))
            asked = client.get("/v2/")
            pushed = client.post(f"/v2/a/blobs/uploads/?digest={Digest.of(b'blob')}", b"blob", signed_in)
            read = [client.get(f"/v2/a/blobs/{Digest.of(b'blob')}", headers).status for headers in ({}, signed_in)]
        finally:
            process.stop()

    assert (asked.status, asked.headers["www-authenticate"]) == (401, 'Basic realm="Registry Realm", charset="UTF-8"')
    assert (pushed.status, read) == (201, [401, 200])


def is_ready(client: Client) -> bool:
    """Say whether the server answers that it is ready."""
    try:
        return client.get("/readyz").status == 200
    except (OSError, ConnectionBrokenError):
        return False


def test_what_cannot_be_honoured_is_all_told_at_once(tmp_path: Path, environment: dict[str, str]) -> None:
    """Nothing is served and nothing written: each key is named with what to do, in one run; status 1."""
    config = tmp_path / "config.yml"
    config.write_text(GROWN.replace("ROOT", str(tmp_path / "root")))

    served = registry("serve", str(config), environment=environment, directory=tmp_path)

    assert served.returncode == 1
    errors = [line for line in served.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[2] for line in errors] == [
        "redis",
        "auth.htpasswd",
    ]
    assert "warning: " in served.stderr
    assert "storage.filesystem.maxthreads: has no effect here" in served.stderr
    assert not (tmp_path / "root").exists()


def test_roadsteads_own_command_reads_it_too(tmp_path: Path, environment: dict[str, str]) -> None:
    """`config show` and `config check` tell what becomes of it; warnings go to standard error."""
    config = tmp_path / "config.yml"
    config.write_text(AS_IN_THE_IMAGE.replace("ROOT", "/data"))

    def config_command(name: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "roadstead", "config", name, "config.yml", "--json"]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )

    shown, checked = config_command("show"), config_command("check")

    described = json.loads(shown.stdout)
    assert described["storage.path"] == {
        "value": "/data",
        "origin": f"file {config}:storage.filesystem.rootdirectory",
    }
    assert (checked.returncode, json.loads(checked.stdout)) == (0, [])
    assert "read, write and delete every image" in checked.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--version",), 0, "registry (roadstead) "),
        (("--help",), 0, "Example: registry serve"),
        (("missing.yml",), 1, "cannot read the settings in"),  # a file alone is served, as in distribution's images
        (("unknown",), 2, "No such command"),
    ],
)
def test_words_of_the_alias(
    arguments: tuple[str, ...], status: int, said: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Version, help and mistakes, with their statuses."""
    done = registry(*arguments, environment=environment, directory=tmp_path)

    assert done.returncode == status
    assert said in " ".join((done.stdout + done.stderr).split())
