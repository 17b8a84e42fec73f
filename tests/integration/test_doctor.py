"""`roadstead doctor` over real breakages: each is found, named, and the rest goes on being told."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from roadstead.testing.components import ComponentMissingError, require
from roadstead.testing.nginx import Nginx
from roadstead.testing.ports import free_port
from roadstead.testing.postgres import PostgresServer
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

WORKS = {"ok", "warn"}  # of what takes time: a busy machine isn't the server's fault
GOOD = "client_max_body_size 0; proxy_request_buffering off; proxy_pass UP;"
NO_BUCKET = (
    "default_type application/xml; return 404 '<Error><Code>NoSuchBucket</Code><Message>none</Message></Error>';"
)
SOURCE = str(Path(__file__).parents[2] / "src")


def examined(
    *arguments: str, before: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> tuple[int, dict[str, tuple[str, str]]]:
    """Run it; return its status, and level and message of each check (of one told twice, the worse)."""
    command = [*before, sys.executable, "-m", "roadstead", "doctor", "--json", *arguments]
    env = {**os.environ, "PYTHONPATH": SOURCE, **(environment or {})}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=env)
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    worst: dict[str, tuple[str, str]] = {}
    for level in ("ok", "warn", "fail"):
        worst |= {each["check"]: (level, each["message"]) for each in verdicts if each["level"] == level}
    assert worst, done.stderr
    return done.returncode, worst


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """A healthy server."""
    with RoadsteadServer(tmp_path_factory.mktemp("doctor"), workers=1) as running:
        yield running


def at(server: RoadsteadServer, folder: Path, more: str = "") -> str:
    """Return the path of a settings file for that server's data and port."""
    folder.mkdir(exist_ok=True)
    path = folder / "settings.toml"
    path.write_text(f'[server]\nlisten = "{server.host}"\n{more}\n[storage]\npath = "{server.data}"\n')
    return str(path)


def behind(server: RoadsteadServer, folder: Path, location: str, listen: str = "") -> Nginx:
    """Return an nginx before that server, its one location as a test wants it."""
    port = free_port()
    tls = f"listen 127.0.0.1:{port} {listen};"
    return Nginx(folder / "nginx", port, f"server {{ {tls} location / {{ {location} }} }}".replace("UP", server.url))


def test_all_is_well(server: RoadsteadServer, tmp_path: Path) -> None:
    """Beside a running server, by the address that clients use; nothing is left behind."""
    before = sorted(path for path in server.data.rglob("*") if path.name != "lock")
    nginx = behind(server, tmp_path, GOOD)
    with nginx:
        status, found = examined(at(server, tmp_path), "--url", f"http://{nginx.host}")

    assert found["port"][0] == "ok"
    assert "a server answers" in found["port"][1]
    assert found["database"][0] == "ok"
    assert {found["storage"][0], found["database.flush"][0]} <= WORKS
    for check in ("proxy.reachable", "proxy.location", "proxy.body-limit", "clock"):
        assert found[check][0] == "ok", found[check]
    assert status == max({"ok": 0, "warn": 1, "fail": 2}[level] for level, _ in found.values())
    assert sorted(path for path in server.data.rglob("*") if path.name != "lock") == before
    assert "roadstead-doctor" not in server.client().get("/v2/_catalog").body.decode()


SIGN_IN_ELSEWHERE = (
    'add_header WWW-Authenticate "Bearer realm=\\"https://internal/token\\"" always; '
    "add_header Docker-Distribution-Api-Version registry/2.0 always; return 401;"
)
BROKEN_PROXIES = [
    ("proxy_request_buffering off; proxy_pass UP;", "proxy.body-limit", "413"),
    ("client_max_body_size 0; proxy_pass UP;", "proxy.buffering", "whole body"),
    ("client_max_body_size 0; proxy_pass UP/elsewhere/;", "proxy.reachable", "answers 404"),
    ("return 301 https://registry.example$request_uri;", "proxy.reachable", "redirects to https://registry.example"),
    ("proxy_pass http://127.0.0.1:1;", "proxy.reachable", "answers 502"),
    ("proxy_hide_header Docker-Distribution-Api-Version; proxy_pass UP;", "proxy.api-version", "doesn't come through"),
    ("proxy_redirect / http://internal:5000/; proxy_pass UP;", "proxy.location", "differs from"),
    (SIGN_IN_ELSEWHERE, "proxy.realm", "another scheme"),
]


@pytest.mark.parametrize(("location", "check", "expected"), BROKEN_PROXIES, ids=lambda value: str(value)[:30])
def test_broken_proxies(server: RoadsteadServer, tmp_path: Path, location: str, check: str, expected: str) -> None:
    """What an operator gets wrong in nginx, each found by what comes through."""
    with behind(server, tmp_path, location) as nginx:
        status, found = examined(at(server, tmp_path, f'public_url = "http://{nginx.host}"'))

    level, message = found[check]
    assert level in ("warn", "fail"), found
    assert expected in message
    assert status >= (1 if level == "warn" else 2)


def make_certificate(folder: Path, *, days: int, name: str) -> tuple[Path, Path]:
    """Make a self-signed certificate with the openssl program; return it and its key."""
    program = require("openssl", install="apt-get install openssl")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    asked = folder / "asked.csr"
    for arguments in (
        (
            f"req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {asked} -subj /CN={name} "
            f"-addext subjectAltName=DNS:{name}"
        ),
        f"x509 -req -in {asked} -signkey {key} -days {days} -copy_extensions copy -out {certificate}",
    ):
        subprocess.run([program, *arguments.split()], check=True, capture_output=True)
    return certificate, key


@pytest.mark.parametrize(
    ("days", "name", "trusted", "level", "expected"),
    [
        (400, "localhost", True, "ok", "valid until"),
        (10, "localhost", True, "warn", "days from now"),
        (-1, "localhost", True, "fail", "expired"),
        (400, "elsewhere.example", True, "fail", "ismatch"),
        (400, "localhost", False, "fail", "self-signed"),
    ],
)
def test_certificates(
    server: RoadsteadServer, tmp_path: Path, days: int, name: str, *, trusted: bool, level: str, expected: str
) -> None:
    """Expired, about to, for another name, of an authority that nobody knows: all is told, and the rest as well."""
    certificate, key = make_certificate(tmp_path, days=days, name=name)
    listen = f"ssl; ssl_certificate {certificate}; ssl_certificate_key {key}"
    with behind(server, tmp_path, GOOD, listen) as nginx:
        status, found = examined(
            at(server, tmp_path),
            "--url",
            f"https://localhost:{nginx.port}",
            environment={"SSL_CERT_FILE": str(certificate)} if trusted else {},
        )

    assert found["certificate"][0] == level, found
    assert expected in found["certificate"][1]
    assert found["proxy.location"][0] == "ok"
    assert (status == 2) is (level == "fail")


@contextlib.contextmanager
def serving(settings: Path) -> Iterator[None]:
    """Serve with these settings, which let nobody ask whether it is ready."""
    log = settings.with_name("server.log")
    with log.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "roadstead", "serve", str(settings)],
            stderr=told,
            env={**os.environ, "PYTHONPATH": SOURCE},
        )
    try:
        wait_until(
            lambda: b"listens at" in log.read_bytes() or process.poll() is not None, timeout=timedelta(seconds=30)
        )
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_beside_a_server_that_wants_certificates(tmp_path: Path) -> None:
    """It is known by the certificate that it shows; one that shows another may be anybody's."""
    certificate, key = make_certificate(tmp_path, days=400, name="localhost")
    (tmp_path / "other").mkdir()
    other, other_key = make_certificate(tmp_path / "other", days=400, name="localhost")
    port = free_port()
    settings = tmp_path / "settings.toml"
    text = (
        f'[server]\nlisten = "127.0.0.1:{port}"\npublic_url = "https://127.0.0.1:{port}"\nworkers = 1\n'
        f'[storage]\npath = "{tmp_path}/data"\n'
        f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\nclient_ca = ["{certificate}"]\n'
    )
    settings.write_text(text)
    with serving(settings):
        _, ours = examined(str(settings))
        settings.write_text(text.replace(f'"{certificate}"\nkey = "{key}"', f'"{other}"\nkey = "{other_key}"'))
        _, others = examined(str(settings))

    assert ours["port"][0] == "ok", ours
    assert "with the certificate of these settings" in ours["port"][1]
    assert ours["proxy.reachable"][0] == "warn", ours
    assert "a client's certificate" in ours["proxy.reachable"][1]
    assert others["port"][0] == "warn", others


def test_a_master_key_that_does_not_fit(tmp_path: Path) -> None:
    """A start falls over keys that it can't open: one that is lost, and another; looking makes none."""
    auth = "[auth.issue]\n[auth]\naccounts = true\n"
    with RoadsteadServer(tmp_path / "server", config=auth, workers=1) as running:
        assert running.client().get("/auth/jwks").status == 200
    path = Path(at(running, tmp_path / "settings"))
    path.write_text(f"{auth}{path.read_text()}")
    key = running.data / "master.key"
    kept = key.read_text()

    assert "database.keys" not in examined(str(path))[1]
    key.unlink()
    status, lost = examined(str(path))
    assert not key.exists()
    key.write_text("another master key, as long as one has to be")
    _, other = examined(str(path))
    key.write_text(kept)

    assert (status, lost["database.keys"][0], other["database.keys"][0]) == (2, "fail", "fail")
    assert "master.key can't be read" in lost["database.keys"][1]
    assert "another master key" in other["database.keys"][1]
    assert "database.keys" not in examined(str(path))[1]


def test_a_folder_that_may_not_be_written(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As another user: storage and database say who may not do what."""
    folder = tmp_path_factory.mktemp("denied")
    with RoadsteadServer(folder / "server", workers=1) as running:
        running.client().push_blob("a", b"blob")
    for path in (running.data, *running.data.parents[:-2]):
        path.chmod(path.stat().st_mode | 0o055)  # to be looked into; pytest's folders are for their owner
    as_nobody = (str(require("setpriv", install="apt-get install util-linux")), "--reuid", "65534", "--clear-groups")

    status, found = examined("--data", str(running.data), before=as_nobody)

    assert status == 2
    assert found["storage"][0] == "fail", found
    assert found["database"][0] == "fail", found


def test_a_full_disk(tmp_path: Path) -> None:
    """A volume of 4 MiB that is full: space, and the probe that can't be written."""
    unshare = require("unshare", install="apt-get install util-linux")
    with RoadsteadServer(tmp_path / "server", workers=1) as running:
        running.client().push_blob("a", b"blob")
    data = running.data
    fill = (
        f"cp -a {data} {tmp_path}/kept && mount -t tmpfs -o size=4m none {data} && cp -a {tmp_path}/kept/. {data}/ && "
        f"{{ dd if=/dev/zero of={data}/fill bs=64k 2>/dev/null; dd if=/dev/zero of={data}/fill2 bs=1k 2>/dev/null; "
        'exec "$@"; }'
    )
    before = (str(unshare), "--mount", "--map-root-user", "sh", "-c", fill, "sh")
    if subprocess.run([*before[:3], "true"], check=False, capture_output=True).returncode:
        raise ComponentMissingError("user namespaces", "sysctl kernel.unprivileged_userns_clone=1")

    status, found = examined("--data", str(data), before=before)

    assert status == 2
    assert found["storage.space"][0] == found["storage"][0] == "fail", found
    assert "space" in found["storage"][1]
    assert found["storage.filesystem"][0] == "warn"


def settings_on(folder: Path, seaweedfs: SeaweedFS, url: str, *, secret: str = "") -> str:
    """Return the path of settings for a bucket and PostgreSQL."""
    path = folder / "settings.toml"
    path.write_text(
        f'[server]\nlisten = "127.0.0.1:{free_port()}"\n[storage]\ndriver = "s3"\nbucket = "test"\n'
        f'prefix = "doctor"\nregion = "{seaweedfs.region}"\nendpoint = "{seaweedfs.endpoint}"\n'
        f'access_key = "{seaweedfs.access_key}"\nsecret_key = "{secret or seaweedfs.secret_key}"\n'
        f'[database]\nurl = "{url}"\n'
    )
    return str(path)


def test_bucket_and_postgresql(
    tmp_path: Path, seaweedfs: SeaweedFS, postgres: PostgresServer, postgres_url: str
) -> None:
    """A healthy pair; then a bucket that isn't there, a key that is wrong, and a database that doesn't answer."""
    _, healthy = examined(settings_on(tmp_path, seaweedfs, postgres_url))
    port = free_port()
    with Nginx(
        tmp_path / "nginx", port, f"server {{ listen 127.0.0.1:{port}; location / {{ {NO_BUCKET} }} }}"
    ) as empty:
        path = Path(settings_on(tmp_path, seaweedfs, postgres_url))
        path.write_text(path.read_text().replace(seaweedfs.endpoint, f"http://{empty.host}"))
        no_bucket, without = examined(str(path))
    no_key, wrong = examined(settings_on(tmp_path, seaweedfs, postgres_url, secret="not-the-secret-key"))
    dead = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    no_database, gone = examined(settings_on(tmp_path, seaweedfs, dead))

    assert healthy["storage"][0] in WORKS, healthy
    assert healthy["database"][0] == "ok"
    assert healthy["clock"][0] == "ok"
    assert (no_bucket, without["storage"][0]) == (2, "fail"), without
    assert (no_key, wrong["storage"][0]) == (2, "fail"), wrong
    assert (no_database, gone["database"][0]) == (2, "fail")
    assert gone["storage"][0] in WORKS


def test_settings_and_ports(server: RoadsteadServer, tmp_path: Path) -> None:
    """Settings that serve would refuse are told with all the rest; a port that something else has is named."""
    with behind(server, tmp_path, "return 204;") as nginx:
        path = tmp_path / "settings.toml"
        path.write_text(f'[server]\nlisten = "{nginx.host}"\nworkers = 0\n[storage]\npath = "{server.data}"\n')
        status, found = examined(str(path))

    assert status == 2
    assert "server.workers" in found["settings"][1]
    assert found["port"][0] == "fail"
    assert "in use" in found["port"][1]
    assert found["storage"][0] in WORKS


def test_what_has_no_effect_is_a_note(tmp_path: Path) -> None:
    """A distribution file says many a thing that nothing follows from here: that needs nobody's look."""
    path = tmp_path / "config.yml"
    text = (
        f"version: 0.1\nhttp: {{addr: '127.0.0.1:{free_port()}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{tmp_path}/root', maxthreads: 50}}}}\n"
    )
    path.write_text(text)
    noted = examined(str(path))[1]["settings"]
    path.write_text(f"{text}nonsense: 1\n")
    warned = examined(str(path))[1]["settings"]

    assert noted[0] == "ok"
    assert (warned[0], "unknown key" in warned[1]) == ("warn", True)


def test_what_is_only_to_be_known_is_told(tmp_path: Path) -> None:
    """As `roadstead config check` tells it: here that anybody may write through a proxy."""
    path = tmp_path / "roadstead.toml"
    path.write_text(f'[server]\nlisten = "127.0.0.1:{free_port()}"\ntrusted_proxies = ["127.0.0.1"]\n')

    level, message = examined(str(path))[1]["settings"]

    assert level == "warn"
    assert "nobody has to sign in" in message


def test_wrong_usage() -> None:
    """An address that is none is wrong usage."""
    command = [sys.executable, "-m", "roadstead", "doctor", "--url", "registry.example"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SOURCE}
    )

    assert done.returncode == 2
    assert "--url" in done.stderr
