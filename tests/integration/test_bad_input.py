"""Requests that no client should send: each is refused or survived, and the registry is as it was (spec §8.2, §8.3).

Everything goes over raw connections to a real server. After each test an image is pushed and pulled, the catalog holds
nothing new, and the log tells of no error on our side.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta

import pytest

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_INDEX
from roadstead.testing.client import Client, ConnectionBrokenError, with_query
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until
from roadstead.testing.wire import Wire

NAME = "sound/image"
BLOB = random.Random(12).randbytes(300_000)
DIGEST = Digest.of(BLOB)
MANIFEST = b'{"schemaVersion":2,"manifests":[]}'
SOON = timedelta(seconds=20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """A server with two workers that holds one image."""
    with RoadsteadServer(tmp_path_factory.mktemp("roadstead"), workers=2) as running:
        with Client(running.host) as client:
            client.push_blob(NAME, BLOB)
            client.push_manifest(NAME, "latest", MANIFEST, OCI_INDEX)
        yield running


@pytest.fixture
def client(server: RoadsteadServer) -> Iterator[Client]:
    """A client that asks decently."""
    with Client(server.host) as connected:
        yield connected


@pytest.fixture
def wire(server: RoadsteadServer) -> Iterator[Wire]:
    """A raw connection."""
    with Wire(server.host) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _stays_unharmed(server: RoadsteadServer, client: Client) -> Iterator[None]:
    """After the test everything works, nothing new is listed, and nothing went wrong on our side."""
    yield
    client.push_blob(NAME, b"another layer")
    client.push_manifest(NAME, "latest", MANIFEST, OCI_INDEX)
    assert client.get(f"/v2/{NAME}/manifests/latest").body == MANIFEST
    assert client.get(f"/v2/{NAME}/blobs/{DIGEST}").body == BLOB
    assert client.get("/v2/_catalog").json() == {"repositories": [NAME]}
    assert client.get(f"/v2/{NAME}/tags/list").json()["tags"] == ["latest"]
    assert "Traceback" not in server.log


@pytest.fixture
def location(client: Client) -> str:
    """Where a new upload goes on."""
    return client.post(f"/v2/{NAME}/blobs/uploads/").headers["location"]


def _is_refused(wire: Wire, method: str = "GET") -> bool:
    """Say whether the request was answered by a client error, or the connection was closed without a word."""
    try:
        return 400 <= wire.answer(method).status < 500
    except ConnectionBrokenError:
        return True


# Requests that aren't HTTP


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\nnonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v2/\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
        bytes(5000),
        b"GET /v2/<> HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2/a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2/\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET v2 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"y" * (3 << 20) + b"\r\n\r\n",
        b"GET /" + b"a" * (3 << 20) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=lambda data: data[:40].decode("latin-1").encode("unicode_escape").decode()[:30],
)
def test_what_isnt_http_is_refused(wire: Wire, data: bytes) -> None:
    """A client error or a closed connection, and nothing hangs."""
    with suppress(ConnectionBrokenError):  # it may be closed before everything was sent
        wire.send(data)

    assert _is_refused(wire)


@pytest.mark.parametrize(
    "length", ["-1", "-9223372036854775808", "+5", "5x", "0x5", "5.0", "", "5, 6", "99999999999999999999999", "\u0665"]
)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
def test_a_length_that_isnt_one_is_refused(wire: Wire, location: str, method: str, length: str) -> None:
    """Content-Length is digits and nothing else (RFC 9112 §6.3)."""
    value = length.encode().decode("latin-1")
    wire.send_head(method, with_query(location, f"digest={DIGEST}"), [("Content-Length", value)])
    with suppress(ConnectionBrokenError):
        wire.send(b"hello")

    assert _is_refused(wire, method)


def test_two_lengths_are_refused(wire: Wire, location: str) -> None:
    """Two different lengths in one request are how requests are smuggled."""
    wire.send_head("PATCH", location, [("Content-Length", "5"), ("Content-Length", "6")])
    with suppress(ConnectionBrokenError):
        wire.send(b"hello!")

    assert _is_refused(wire, "PATCH")


@pytest.mark.parametrize("length", ["4", "44", "0"])
def test_a_length_and_chunks_dont_hide_a_request(wire: Wire, client: Client, location: str, length: str) -> None:
    """With both, the chunks count or the request is refused; a body's tail is no request of its own (RFC 9112 §6.1)."""
    hidden = b"DELETE /v2/sound/image/manifests/latest HTTP/1.1\r\nHost: a\r\n\r\n"
    wire.send_head("PATCH", location, [("Content-Length", length), ("Transfer-Encoding", "chunked")])
    wire.send_chunks([hidden])

    if not _is_refused(wire, "PATCH"):
        assert client.get(location).headers["range"] == f"0-{len(hidden) - 1}"
    assert client.head(f"/v2/{NAME}/manifests/latest").status == 200


@pytest.mark.parametrize("coding", ["xchunked", "chunked, identity", "gzip", "chunked, chunked", "identity"])
def test_an_unknown_coding_is_refused(wire: Wire, client: Client, location: str, coding: str) -> None:
    """Only ``chunked`` is a transfer coding here; what ends otherwise has no known end."""
    wire.send_head("PATCH", location, [("Transfer-Encoding", coding)])
    with suppress(ConnectionBrokenError):
        wire.send_chunks([b"hello"])

    if not _is_refused(wire, "PATCH"):
        assert client.get(location).headers["range"] in {"0-0", "0-4"}


BROKEN_CHUNKS = [
    b"x\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\nhello",
    b"5\r\nhelloWORLD\r\n0\r\n\r\n",
    b"5 5\r\n",
]


@pytest.mark.parametrize("name", [NAME, "Not-A-Name"])
@pytest.mark.parametrize("body", BROKEN_CHUNKS)
def test_broken_chunks_arent_a_body(wire: Wire, client: Client, body: bytes, name: str) -> None:
    """A chunk whose size can't be read, or is wrong, ends the request; nothing of it is stored."""
    digest = Digest.of(b"hello")
    wire.send_head("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", [("Transfer-Encoding", "chunked")])
    with suppress(ConnectionBrokenError):
        wire.send(body)

    assert _is_refused(wire, "POST")
    assert client.head(f"/v2/{NAME}/blobs/{digest}").status == 404


# Paths


TRAVERSALS = [
    "/v2/../../../etc/passwd",
    "/v2/%2e%2e/%2e%2e/etc/passwd",
    "/v2/..%2f..%2fetc%2fpasswd",
    "/v2/..%5c..%5cwindows",
    "/v2/%252e%252e/etc/passwd",
    "/v2/a/../sound/image/manifests/latest",
    "/v2/a/%2e%2e/sound/image/manifests/latest",
    "/v2/sound/./image/manifests/latest",
    "/v2/sound//image/manifests/latest",
    "/v2/sound/image/manifests/../manifests/latest",
    "/v2/sound/image/manifests/..%2fmanifests%2flatest",
    "/v2/sound/image/blobs/..%2f..%2f..%2fetc%2fpasswd",
    "/v2/sound/image/blobs/sha256:../../../../etc/passwd",
    "/v2/sound/image/blobs/sha256:..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/v2/sound/image/blobs/uploads/..%2f..%2f..%2fetc%2fpasswd",
    "/v2/sound/image/blobs/uploads/../../../../etc/passwd",
    "/v2/SOUND/image/manifests/latest",
    "/v2/sound/image%00/manifests/latest",
    "/v2/sound/image%0d%0aX-Injected:%20yes/manifests/latest",
    "/v2/sound/image/manifests/latest%0d%0aX-Injected:%20yes",
    "/v2/sound/image/manifests/latest%20",
    "/v2/sound/\xef\xbf\xbd/manifests/latest",
    "/v2/%ff%fe/manifests/latest",
    "/v2/%C0%AE%C0%AE/manifests/latest",
    "/v2/" + "a/" * 5000 + "manifests/latest",
    "/v2/" + "a" * 60_000,
]


@pytest.mark.parametrize("path", TRAVERSALS, ids=lambda path: path[:50].encode("unicode_escape").decode())
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_path_leads_elsewhere(wire: Wire, method: str, path: str) -> None:
    """Dots, slashes, control bytes and case, raw and encoded: a client error, no header of theirs, no file of ours."""
    wire.send_head(method, path, [("Content-Length", "0")])

    answer = wire.answer(method)

    assert 400 <= answer.status < 500
    assert "x-injected" not in answer.headers
    assert b"root:" not in answer.body


def test_an_absolute_target_is_the_path(wire: Wire) -> None:
    """A target with scheme and host, as proxies get it, means its path; its host leads nowhere."""
    wire.send_head("GET", "http://elsewhere.example/v2/")

    assert wire.answer().status in {200, 400, 404}


def test_a_hundred_thousand_ranges_are_one_answer(wire: Wire) -> None:
    """A Range of 10^5 parts costs no more than the whole blob."""
    wire.send_head("GET", f"/v2/{NAME}/blobs/{DIGEST}", [("Range", "bytes=" + ",".join(["0-0"] * 100_000))])

    answer = wire.answer()

    assert answer.status in {200, 431}
    assert answer.status == 431 or answer.body == BLOB


# Bodies that end too early, or never


@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
@pytest.mark.parametrize("held", [0, 1000])
def test_a_cut_chunk_keeps_what_came(
    server: RoadsteadServer, client: Client, location: str, held: int, *, chunked: bool
) -> None:
    """A PATCH whose connection dies leaves a durable prefix; the session tells how much, and goes on from there."""
    client.patch(location, BLOB[:held])
    with Wire(server.host) as dying:
        if chunked:
            dying.send_head("PATCH", location, [("Transfer-Encoding", "chunked")])
            dying.send_chunks([BLOB[held:200_000]], end=False)
        else:
            dying.send_head("PATCH", location, [("Content-Length", str(len(BLOB) - held))])
            dying.send(BLOB[held:200_000])
        # Closed, not reset: what was sent arrives, and then the end does.
    told: list[int] = []

    def moved() -> bool:
        told.append(int(client.get(location).headers["range"].removeprefix("0-")) + 1)
        return told[-1] > max(held, 1)

    assert wait_until(moved, timeout=SOON)
    size = told[-1]
    assert held < size <= 200_000
    digest = Digest.of(BLOB)
    answer = client.put(
        with_query(location, f"digest={digest}"), BLOB[size:], {"Content-Range": f"{size}-{len(BLOB) - 1}"}
    )
    assert answer.status == 201


@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
@pytest.mark.parametrize("way", ["post", "put"])
@pytest.mark.parametrize("size", [3_000, 2_000_000], ids=["small", "large"])
def test_a_cut_blob_is_never_committed(
    server: RoadsteadServer, client: Client, location: str, way: str, size: int, *, chunked: bool
) -> None:
    """A body that breaks off is no blob, also when what came is exactly what its digest says."""
    data = random.Random(f"{way}{size}{chunked}").randbytes(size)
    digest = Digest.of(data)
    before = _broken(server)
    target = f"/v2/{NAME}/blobs/uploads/?digest={digest}" if way == "post" else with_query(location, f"digest={digest}")
    with Wire(server.host) as dying:
        if chunked:
            dying.send_head(way.upper(), target, [("Transfer-Encoding", "chunked")])
            dying.send_chunks([data], end=False)
        else:
            dying.send_head(way.upper(), target, [("Content-Length", str(size + 1))])
            dying.send(data)

    assert wait_until(lambda: _broken(server) > before, timeout=SOON)
    assert client.head(f"/v2/{NAME}/blobs/{digest}").status == 404


def _broken(server: RoadsteadServer) -> int:
    """Return how many requests the server gave up because their body broke off."""
    return server.log.count(" status=499 ")


@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
def test_a_cut_manifest_is_never_stored(server: RoadsteadServer, client: Client, *, chunked: bool) -> None:
    """A manifest that is whole by its bytes but not by its length isn't taken."""
    before = _broken(server)
    with Wire(server.host) as dying:
        if chunked:
            dying.send_head("PUT", f"/v2/{NAME}/manifests/cut", [("Transfer-Encoding", "chunked")])
            dying.send_chunks([MANIFEST], end=False)
        else:
            dying.send_head("PUT", f"/v2/{NAME}/manifests/cut", [("Content-Length", str(len(MANIFEST) + 1))])
            dying.send(MANIFEST)

    assert wait_until(lambda: _broken(server) > before, timeout=SOON)
    assert client.head(f"/v2/{NAME}/manifests/cut").status == 404


def test_an_endless_manifest_is_cut_at_the_limit(wire: Wire) -> None:
    """Chunks without an end: 413 and a closed connection, long before memory is an issue (CVE-2017-11468)."""
    wire.send_head("PUT", f"/v2/{NAME}/manifests/endless", [("Transfer-Encoding", "chunked")])
    sent = 0
    with suppress(ConnectionBrokenError):
        while sent < 256 << 20:
            wire.send_chunks([b" " * 65536], end=False)
            sent += 65536

    assert sent < 64 << 20
    assert _is_refused(wire, "PUT")


def test_a_reset_in_the_middle_is_survived(server: RoadsteadServer, location: str) -> None:
    """Connections that are reset while they send, and while they are sent to."""
    for _ in range(10):
        with Wire(server.host) as one, Wire(server.host) as two:
            one.send_head("PATCH", location, [("Content-Length", str(len(BLOB)))])
            one.send(BLOB[:1000])
            one.cut()
            two.send_head("GET", f"/v2/{NAME}/blobs/{DIGEST}")
            two.cut()


# Slow ones, impatient ones


def test_a_request_may_come_byte_by_byte(wire: Wire, client: Client, location: str) -> None:
    """Every byte in a packet of its own makes no difference."""
    data = b"slow but sure"
    request = (
        f"PUT {with_query(location, f'digest={Digest.of(data)}')} HTTP/1.1\r\n"
        f"Host: a\r\nContent-Length: {len(data)}\r\n\r\n"
    ).encode() + data

    wire.send(*(request[position : position + 1] for position in range(len(request))))

    assert wire.answer("PUT").status == 201
    assert client.get(f"/v2/{NAME}/blobs/{Digest.of(data)}").body == data


def test_silent_clients_hold_nobody_up(server: RoadsteadServer, client: Client, location: str) -> None:
    """Many connections that sit in the middle of a head, of a body, or of an answer: others are served."""
    with ExitStack() as stack:
        for number in range(120):
            silent = stack.enter_context(Wire(server.host))
            match number % 3:
                case 0:
                    silent.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX-Slow:")
                case 1:
                    silent.send_head("PUT", f"/v2/{NAME}/manifests/slow", [("Content-Length", "100")])
                    silent.send(b"{")
                case _:
                    silent.send_head("GET", f"/v2/{NAME}/blobs/{DIGEST}")

        answers = [client.get(f"/v2/{NAME}/manifests/latest").status for _ in range(20)]
        with Client(server.host) as newcomer:
            answers.append(newcomer.get("/v2/").status)

    assert set(answers) == {200}


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    """Requests sent without waiting get their answers one after the other."""
    for path in ("/v2/", f"/v2/{NAME}/manifests/latest", "/v2/none/tags/list", f"/v2/{NAME}/blobs/{DIGEST}"):
        wire.send_head("GET", path)

    answers = [wire.answer() for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 200, 404, 200]
    assert answers[3].body == BLOB


@pytest.mark.parametrize("size", [100, 200_000])
def test_a_refused_request_doesnt_cost_the_connection(wire: Wire, size: int) -> None:
    """What was sent along with a request that is refused early is read, so the next one isn't cut."""
    for _ in range(3):
        wire.send_head("PUT", "/v2/Not-A-Name/manifests/x", [("Content-Length", str(size))])
        wire.send(b"x" * size)
        answer = wire.answer("PUT")
        assert (answer.status, answer.code, answer.headers.get("connection")) == (400, "NAME_INVALID", None)

    wire.send_head("GET", "/v2/")
    assert wire.answer().status == 200


def test_a_large_refused_body_ends_the_connection_in_words(wire: Wire) -> None:
    """More than is worth reading isn't read: the answer comes at once and says that the connection ends."""
    wire.send_head("PUT", "/v2/Not-A-Name/manifests/x", [("Content-Length", str(1 << 40))])

    answer = wire.answer("PUT")

    assert (answer.status, answer.headers.get("connection")) == (400, "close")
    assert wire.is_closed()


def test_who_waits_for_a_word_is_told_before_sending(wire: Wire, location: str) -> None:
    """``Expect: 100-continue``: a refusal comes instead of the invitation; a lawful request is invited."""
    expecting = [("Content-Length", "5"), ("Expect", "100-continue")]
    wire.send_head("PATCH", location, expecting)
    invited = wire.informed()
    wire.send(b"hello")
    accepted = wire.answer("PATCH").status

    wire.send_head("PATCH", location.replace(NAME, "other/name"), expecting)
    refused = wire.answer("PATCH")

    assert (invited, accepted) == (100, 202)
    assert (refused.status, refused.code) == (404, "BLOB_UPLOAD_UNKNOWN")
