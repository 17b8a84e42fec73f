"""What facts mean: tables of examples, each with the verdict it leads to."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from roadstead.doctor import rules
from roadstead.doctor.facts import (
    Answer,
    Certificate,
    Clock,
    Database,
    Failure,
    Front,
    Localhost,
    Machine,
    Port,
    Space,
    Store,
)
from roadstead.doctor.verdict import Level, Verdict, exit_status

NOW = datetime(2026, 11, 22, tzinfo=UTC)
URL = "https://registry.example"
API = {"docker-distribution-api-version": "registry/2.0"}
BASE = Answer(status=200, headers=API)
SESSION = Answer(status=202, headers={"location": "/v2/a/blobs/uploads/1"})
FRONT = Front(url=URL, base=BASE, session=SESSION, announced=Answer(status=404, headers=API))
SPACE = Space(
    path="/data", purpose="storage", total=100 << 30, free=50 << 30, inodes=1000, inodes_free=900, kind="ext4"
)
DATABASE = Database(where="sqlite", revision="2", known=("1", "2"), took_s=0.001, flush_s=0.001)


def told(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Return what is to be looked at or mended, by its check; all of it has an advice or says enough."""
    return {verdict.check: str(verdict.level) for verdict in verdicts if verdict.level is not Level.OK}


def challenged(challenge: str | None) -> Answer:
    """Return a 401 with that challenge."""
    return Answer(status=401, headers=API | ({} if challenge is None else {"www-authenticate": challenge}))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (FRONT, {}),
        (Front(url=URL, failure=Failure(message="nothing listens there")), {"proxy.reachable": "fail"}),
        (Front(url=URL, base=Answer(status=301, headers={"location": "https://x/"})), {"proxy.reachable": "fail"}),
        (Front(url=URL, base=Answer(status=404)), {"proxy.reachable": "fail"}),
        (Front(url=URL, base=Answer(status=502)), {"proxy.reachable": "fail"}),
        (replace(FRONT, base=Answer(status=200)), {"proxy.api-version": "warn"}),
        (replace(FRONT, base=challenged('Basic realm="x"')), {}),
        (replace(FRONT, base=challenged(f'Bearer realm="{URL}/auth/token",service="x"')), {}),
        (replace(FRONT, base=challenged('Bearer realm="https://registry.example:443/token"')), {}),
        (replace(FRONT, base=challenged('Bearer realm="http://registry.example/token"')), {"proxy.realm": "fail"}),
        (replace(FRONT, base=challenged('Bearer realm="https://sign-in.example/token"')), {"proxy.realm": "warn"}),
        (replace(FRONT, base=challenged('Bearer realm="https://registry.example:5000/t"')), {"proxy.realm": "warn"}),
        (replace(FRONT, base=challenged(None)), {"proxy.challenge": "fail"}),
        (replace(FRONT, session=Answer(status=401)), {}),
        (replace(FRONT, session=None), {}),
        *(
            (replace(FRONT, session=Answer(status=202, headers={"location": location})), {"proxy.location": "fail"})
            for location in (
                "http://registry.example/v2/a/blobs/uploads/1",
                "https://registry.example:8443/v2/a/blobs/uploads/1",
                "https://127.0.0.1:5000/v2/a/blobs/uploads/1",
                "/registry/v2/a/blobs/uploads/1",
                "",
            )
        ),
        (replace(FRONT, session=Answer(status=202, headers={"location": f"{URL}/v2/a/blobs/uploads/1"})), {}),
        (replace(FRONT, announced=Answer(status=413)), {"proxy.body-limit": "fail"}),
        (replace(FRONT, announced=None, waited_for_body=True), {"proxy.buffering": "warn"}),
        (replace(FRONT, internal=Answer(status=404)), {}),
        (replace(FRONT, internal=Answer(status=404, headers=API)), {"proxy.offload": "fail"}),
        (replace(FRONT, internal=Answer(status=403)), {"proxy.offload": "fail"}),
    ],
)
def test_the_front(facts: Front, expected: dict[str, str]) -> None:
    """What clients meet."""
    assert told(rules.front(facts)) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Certificate(host="h", expires=NOW + timedelta(days=90)), None),
        (Certificate(host="h", expires=NOW + timedelta(days=29)), "warn"),
        (Certificate(host="h", expires=NOW - timedelta(days=1)), "fail"),
        (Certificate(host="h", begins=NOW + timedelta(hours=1), expires=NOW + timedelta(days=90)), "fail"),
        (Certificate(host="h", begins=NOW, expires=NOW + timedelta(days=90)), None),
        (Certificate(host="h", problem="certificate has expired"), "fail"),
        (Certificate(host="h", problem="self-signed certificate"), "fail"),
        (Certificate(host="h", problem="Hostname mismatch, certificate is not valid for 'h'."), "fail"),
    ],
)
def test_certificates(facts: Certificate, expected: str | None) -> None:
    """A month is time to renew one."""
    found = list(rules.certificate(facts, NOW))

    assert told(found).get("certificate") == expected
    assert all(verdict.advice for verdict in found if verdict.level is not Level.OK)


@pytest.mark.parametrize(
    ("skew_s", "expected"),
    [(0, None), (6.9, None), (-6.9, None), (8, "warn"), (-8, "warn"), (63, "fail"), (-63, "fail")],
)
def test_clocks(skew_s: float, expected: str | None) -> None:
    """To either side, beyond what the reading is off by itself."""
    facts = Clock(whose="x", theirs=NOW, ours=NOW + timedelta(seconds=skew_s), exact_s=2)

    assert told(rules.clock(facts)).get("clock") == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (SPACE, {}),
        (replace(SPACE, free=63 << 20), {"storage.space": "fail"}),
        (replace(SPACE, free=900 << 20), {"storage.space": "warn"}),
        (replace(SPACE, free=4 << 30), {"storage.space": "warn"}),
        (replace(SPACE, inodes_free=49), {"storage.inodes": "warn"}),
        (replace(SPACE, inodes=0, inodes_free=0), {}),
        (replace(SPACE, kind="tmpfs"), {"storage.filesystem": "warn"}),
        (replace(SPACE, kind="overlay"), {"storage.filesystem": "warn"}),
        (replace(SPACE, kind="nfs4", is_network=True), {"storage.filesystem": "warn"}),
    ],
)
def test_space(facts: Space, expected: dict[str, str]) -> None:
    """Bytes, inodes, and file systems that don't last."""
    assert told(rules.space(facts)) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Store(where="/data", took_s=0.01, devices={"a": 1, "b": 1}), {}),
        (Store(where="/data", is_there=False), {}),
        (Store(where="/data", is_there=False, can_be_made=False), {"storage": "fail"}),
        (Store(where="/data", failure=Failure(message="no")), {"storage": "fail"}),
        (Store(where="/data", took_s=3), {"storage": "warn"}),
        (Store(where="/data", devices={"a": 1, "b": 2}), {"storage.mounts": "fail"}),
    ],
)
def test_stores(facts: Store, expected: dict[str, str]) -> None:
    """What became of the probe."""
    assert told(rules.store(facts)) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (DATABASE, {}),
        (replace(DATABASE, failure=Failure(message="no")), {"database": "fail"}),
        (replace(DATABASE, is_there=False, revision=None), {}),
        (replace(DATABASE, revision=None), {}),
        (replace(DATABASE, revision="1"), {}),
        (replace(DATABASE, revision="3"), {"database": "fail"}),
        (replace(DATABASE, took_s=0.03), {"database.latency": "warn"}),
        (replace(DATABASE, flush_s=0.03), {"database.flush": "warn"}),
        (replace(DATABASE, flush_s=0.3), {"database.flush": "fail"}),
        (replace(DATABASE, wal_bytes=300 << 20), {"database.wal": "warn"}),
        (replace(DATABASE, mode=0o644), {"database.permissions": "warn"}),
        (replace(DATABASE, unsafe=["fsync = off"]), {"database.durability": "fail"}),
        (replace(DATABASE, connections=101, connections_allowed=100), {"database.connections": "warn"}),
    ],
)
def test_databases(facts: Database, expected: dict[str, str]) -> None:
    """Where it stands, how long it takes, and whether what it says lasts."""
    assert told(rules.database(facts)) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Port(address="a:1", is_registry=True, ready=Answer(status=200)), {}),
        (Port(address="a:1", is_registry=True, ready=Answer(status=503)), {"port": "fail"}),
        (Port(address="a:1"), {}),
        (Port(address="a:1", is_free=False, reason="Address already in use"), {"port": "fail"}),
        (Port(address="a:1", wants_certificate=True, shows_ours=True), {}),
        (Port(address="a:1", wants_certificate=True), {"port": "warn"}),
    ],
)
def test_ports(facts: Port, expected: dict[str, str]) -> None:
    """Ours, nobody's, or somebody else's."""
    assert told(rules.port(facts)) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Localhost(host="127.0.0.1", port=5000, names=["127.0.0.1"]), {}),
        (Localhost(host="127.0.0.1", port=5000, names=["::1", "127.0.0.1"]), {}),
        (Localhost(host="127.0.0.1", port=5000, names=["::1"]), {"localhost": "warn"}),
        (Localhost(host="127.0.0.1", port=5000, names=[]), {"localhost": "warn"}),
        (
            Localhost(host="127.0.0.1", port=5000, names=["::1", "127.0.0.1"], other_taken=True),
            {"localhost": "warn"},
        ),
    ],
)
def test_localhost(facts: Localhost, expected: dict[str, str]) -> None:
    """Two addresses bear the name, and a server listens at one."""
    assert told(rules.localhost(facts)) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Machine(open_files=65536, backlog=4096), {}),
        (Machine(open_files=65536), {}),
        (Machine(open_files=1024, backlog=4096), {"limits.files": "warn"}),
        (Machine(open_files=256, backlog=128), {"limits.files": "fail", "limits.backlog": "warn"}),
    ],
)
def test_machines(facts: Machine, expected: dict[str, str]) -> None:
    """Limits that many clients meet."""
    assert told(rules.machine(facts)) == expected


@pytest.mark.parametrize(
    ("levels", "expected"),
    [([], 0), ([Level.OK], 0), ([Level.OK, Level.WARN], 1), ([Level.FAIL, Level.WARN], 2)],
)
def test_exit_status(levels: list[Level], expected: int) -> None:
    """The worst counts."""
    assert exit_status(Verdict("x", level, "x") for level in levels) == expected
