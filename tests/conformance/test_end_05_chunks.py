"""Blobs on their way in, piece by piece (distribution-spec end-5, end-6, end-13; registry spec §1.7)."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from tests.conformance.stores import WITHOUT_STORES

from roadstead.oci.digest import Algorithm, Digest
from roadstead.testing.client import Answer, Client, ConnectionBrokenError, with_query
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until
from roadstead.testing.wire import Wire

BLOB = random.Random(6).randbytes(3 * 1024)
PIECES = [BLOB[start : start + 1024] for start in range(0, 3072, 1024)]
LARGE = random.Random(7).randbytes(5 << 20)


@pytest.fixture
def location(client: Client, name: str) -> str:
    """Where a new session goes on."""
    return client.post(f"/v2/{name}/blobs/uploads/").headers["location"]


def _patch(client: Client, location: str, data: bytes, start: int) -> Answer:
    return client.patch(location, data, {"Content-Range": f"{start}-{start + len(data) - 1}"})


def _commit(client: Client, location: str, data: bytes) -> Answer:
    return client.put(with_query(location, f"digest={Digest.of(data)}"))


def _assert_stands_at(answer: Answer, location: str, size: int) -> None:
    """The three headers that tell a client how to go on."""
    assert answer.headers["location"] == location
    assert answer.headers["range"] == f"0-{max(0, size - 1)}"
    assert answer.headers["docker-upload-uuid"] == location.rpartition("/")[2]


# Streaming


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
def test_a_blob_is_streamed_in_a_patch(
    client: Client, name: str, location: str, algorithm: Algorithm, *, chunked: bool
) -> None:
    """end-5 without Content-Range, with a length or chunked: what docker and containerd send."""
    digest = Digest.of(LARGE, algorithm)
    body = [LARGE[start : start + 300_000] for start in range(0, len(LARGE), 300_000)] if chunked else LARGE

    patched = client.patch(location, body, {"Content-Type": "application/octet-stream"})
    told = client.get(location)
    answer = client.put(with_query(patched.headers["location"], f"digest={digest}"))

    assert (patched.status, patched.body, patched.headers["content-length"]) == (202, b"", "0")
    _assert_stands_at(patched, location, len(LARGE))
    _assert_stands_at(told, location, len(LARGE))
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, str(digest))
    assert client.get(f"/v2/{name}/blobs/{digest}").body == LARGE


@pytest.mark.parametrize("media_type", [None, "application/json", "text/plain", "nonsense"])
def test_the_type_of_a_chunk_doesnt_matter(client: Client, location: str, media_type: str | None) -> None:
    """Clients send odd types; a chunk is bytes."""
    headers = {} if media_type is None else {"Content-Type": media_type}

    assert client.patch(location, BLOB, headers).status == 202


def test_patches_without_a_range_append(client: Client, name: str, location: str) -> None:
    """Several PATCH requests without Content-Range go one behind the other."""
    answers = [client.patch(location, piece) for piece in PIECES]

    assert [answer.headers["range"] for answer in answers] == ["0-1023", "0-2047", "0-3071"]
    assert _commit(client, location, BLOB).status == 201
    assert client.get(f"/v2/{name}/blobs/{Digest.of(BLOB)}").body == BLOB


# In chunks


@pytest.mark.parametrize("form", ["{0}-{1}", "bytes {0}-{1}/*", "bytes {0}-{1}/3072"])
def test_a_blob_comes_in_chunks(client: Client, name: str, location: str, form: str) -> None:
    """end-5 with Content-Range, in the spec's form and in HTTP's own; the range says what is held."""
    for position, piece in enumerate(PIECES):
        span = form.format(position * 1024, position * 1024 + 1023)
        answer = client.patch(location, piece, {"Content-Range": span})
        assert answer.status == 202
        _assert_stands_at(answer, location, (position + 1) * 1024)

    assert _commit(client, location, BLOB).status == 201
    assert client.get(f"/v2/{name}/blobs/{Digest.of(BLOB)}").body == BLOB


@pytest.mark.parametrize("ranged", [True, False])
def test_the_last_chunk_may_come_with_the_put(client: Client, name: str, location: str, *, ranged: bool) -> None:
    """end-6 with a body: the final chunk, with Content-Range or without."""
    for position, piece in enumerate(PIECES[:2]):
        _patch(client, location, piece, position * 1024)
    headers = {"Content-Range": "2048-3071"} if ranged else {}

    answer = client.put(with_query(location, f"digest={Digest.of(BLOB)}"), PIECES[2], headers)

    assert answer.status == 201
    assert client.get(f"/v2/{name}/blobs/{Digest.of(BLOB)}").body == BLOB


@pytest.mark.parametrize("held", [0, 1, 2])
@pytest.mark.parametrize("start", [0, 1, 512, 1023, 1025, 2048, 4096, 10**18])
def test_a_chunk_out_of_order_is_refused(client: Client, location: str, held: int, start: int) -> None:
    """416 with where the session stands; the session lives and takes the right chunk (code RANGE_INVALID)."""
    for position in range(held):
        _patch(client, location, PIECES[position], position * 1024)
    if start == held * 1024:
        start += 7

    refused = _patch(client, location, PIECES[held], start)
    told = client.get(location)

    assert (refused.status, refused.code) == (416, "RANGE_INVALID")
    _assert_stands_at(refused, location, held * 1024)
    assert told.status == 204
    _assert_stands_at(told, location, held * 1024)
    for position in range(held, 3):
        assert _patch(client, location, PIECES[position], position * 1024).status == 202
    assert _commit(client, location, BLOB).status == 201


def test_a_chunk_sent_twice_is_refused_the_second_time(client: Client, location: str) -> None:
    """A client that didn't get its answer sends the chunk again: 416 tells it that the bytes are here."""
    _patch(client, location, PIECES[0], 0)

    again = _patch(client, location, PIECES[0], 0)

    assert again.status == 416
    _assert_stands_at(again, location, 1024)


@pytest.mark.parametrize("start", [0, 1023, 1025, 5000])
@pytest.mark.parametrize("held", [0, 1024])
def test_a_put_out_of_order_is_refused(client: Client, name: str, location: str, held: int, start: int) -> None:
    """A last chunk has to fit like any other: 416, and the session is kept (registry spec §10)."""
    if held:
        _patch(client, location, PIECES[0], 0)
    if start == held:
        start += 1
    rest = BLOB[held:]

    headers = {"Content-Range": f"{start}-{start + len(rest) - 1}"}
    refused = client.put(with_query(location, f"digest={Digest.of(BLOB)}"), rest, headers)
    told = client.get(location)
    answer = client.put(with_query(location, f"digest={Digest.of(BLOB)}"), rest)

    assert (refused.status, refused.code) == (416, "RANGE_INVALID")
    _assert_stands_at(refused, location, held)
    _assert_stands_at(told, location, held)
    assert answer.status == 201
    assert client.get(f"/v2/{name}/blobs/{Digest.of(BLOB)}").body == BLOB


@WITHOUT_STORES
@pytest.mark.parametrize(
    "text",
    ["x", "-", "0-", "-9", "9-0", "bytes", "bytes=0-9", "0-9-10", "1e3-2e3", "+0-9", "0x0-9", "0 - 9", "9" * 30 + "-0"],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_an_unreadable_range_is_refused(client: Client, location: str, method: str, text: str) -> None:
    """Content-Range that isn't one is 416 with where the session stands, never a guess."""
    _patch(client, location, PIECES[0], 0)

    refused = client.request(
        method, with_query(location, f"digest={Digest.of(BLOB)}"), BLOB[1024:], {"Content-Range": text}
    )

    assert (refused.status, refused.code) == (416, "RANGE_INVALID")
    _assert_stands_at(refused, location, 1024)
    assert client.put(with_query(location, f"digest={Digest.of(BLOB)}"), BLOB[1024:]).status == 201


@pytest.mark.parametrize("size", [1, 1023, 1025, 4096])
@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_chunk_of_another_size_is_refused(
    client: Client, location: str, size: int, method: str, *, chunked: bool
) -> None:
    """code-10: a body that isn't as long as Content-Range says is dropped whole; the session is kept."""
    _patch(client, location, PIECES[0], 0)
    body = [PIECES[1]] if chunked else PIECES[1]

    refused = client.request(
        method,
        with_query(location, f"digest={Digest.of(BLOB)}"),
        body,
        {"Content-Range": f"1024-{1024 + size - 1}"},
    )

    assert (refused.status, refused.code) == (400, "SIZE_INVALID")
    _assert_stands_at(client.get(location), location, 1024)
    assert client.patch(location, BLOB[1024:]).status == 202
    assert _commit(client, location, BLOB).status == 201


@pytest.mark.parametrize("held", [b"", BLOB], ids=["fresh", "with-bytes"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
def test_an_empty_chunk_changes_nothing(
    client: Client, name: str, location: str, held: bytes, *, chunked: bool
) -> None:
    """A PATCH of no bytes is 202 and leaves the range as it was; a blob of no bytes can be made that way."""
    if held:
        client.patch(location, held)

    answer = client.patch(location, [] if chunked else b"")

    assert answer.status == 202
    _assert_stands_at(answer, location, len(held))
    assert _commit(client, location, held).status == 201
    assert client.get(f"/v2/{name}/blobs/{Digest.of(held)}").body == held


def test_many_chunks_give_their_sum(client: Client, name: str, location: str) -> None:
    """A hundred uneven chunks, then an empty PUT, under sha512 that nobody announced."""
    cuts = sorted(random.Random(8).sample(range(1, len(BLOB)), 99))
    for first, last in zip([0, *cuts], [*cuts, len(BLOB)], strict=True):
        assert _patch(client, location, BLOB[first:last], first).status == 202
    digest = Digest.of(BLOB, Algorithm.SHA512)

    answer = client.put(with_query(location, f"digest={digest}"))

    assert answer.status == 201
    assert client.get(f"/v2/{name}/blobs/{digest}").body == BLOB


# Several at a time


@pytest.mark.parametrize("last", [b"", BLOB, LARGE[:50_000], LARGE], ids=["nothing", "few", "some", "many"])
@pytest.mark.parametrize("sizes", [(100,), (30_000, 5_000), (32 << 10, 1, 1), (100, 200_000, 100), (2 << 20, 7)])
def test_few_bytes_and_many_make_one_blob(
    client: Client, name: str, location: str, sizes: tuple[int, ...], last: bytes
) -> None:
    """Where the bytes of a session are kept depends on how many there are; nobody notices when that changes."""
    sent = b""
    for size in sizes:
        piece = random.Random(size).randbytes(size)
        assert _patch(client, location, piece, len(sent)).status == 202
        sent += piece
        _assert_stands_at(client.get(location), location, len(sent))
    whole = sent + last

    answer = client.put(with_query(location, f"digest={Digest.of(whole)}"), last)

    assert answer.status == 201
    assert client.get(f"/v2/{name}/blobs/{Digest.of(whole)}").body == whole
    assert client.put(with_query(location, f"digest={Digest.of(whole)}")).status == 201
    assert client.get(location).status == 404


@pytest.mark.parametrize("first", [0, 100, 100_000])
def test_a_chunk_that_breaks_leaves_what_had_come(client: Client, location: str, wire: Wire, first: int) -> None:
    """The client goes on from where the session says it stands, which is never behind what was acknowledged."""
    piece = LARGE[:first]
    if piece:
        _patch(client, location, piece, 0)
    wire.send_head("PATCH", location, [("Content-Length", "1000")])
    wire.send(BLOB[:600])
    wire.close()
    reached = f"0-{first + 599}"
    assert wait_until(lambda: client.get(location).headers.get("range") == reached, timeout=timedelta(seconds=10))
    whole = piece + BLOB

    assert _patch(client, location, BLOB[600:], first + 600).status == 202
    assert _commit(client, location, whole).status == 201


def test_two_writers_never_mix(server: RoadsteadServer, client: Client, location: str) -> None:
    """code-2: of two chunks for the same place one is taken, the other told 416 or 409; bytes are of one of them."""
    bodies = [bytes([letter]) * (2 << 20) for letter in b"ab"]

    def write(body: bytes) -> int:
        with server.client() as own:
            return _patch(own, location, body, 0).status

    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(write, bodies))

    assert 202 in statuses
    assert set(statuses) <= {202, 409, 416}
    winner = bodies[statuses.index(202)]
    assert statuses.count(202) == 1
    _assert_stands_at(client.get(location), location, len(winner))
    assert _commit(client, location, winner).status == 201


def test_a_second_writer_doesnt_disturb_the_first(client: Client, location: str, wire: Wire) -> None:
    """code-2: a session that is being written to is busy (409); a store that can't tell lets the quicker one win."""
    half = len(LARGE) // 2
    wire.send_head("PATCH", location, [("Content-Length", str(len(LARGE)))])
    wire.send(LARGE[:half])

    second = _patch(client, location, b"x", 0)
    empty = client.patch(location, b"")
    first = _rest(wire, LARGE[half:])

    # Both succeed where the second was over before the first was looked at: then one follows the other.
    assert (first, second.status) in {(202, 409), (416, 202), (409, 202), (None, 202), (202, 202)}
    assert second.code in {None, "BLOB_UPLOAD_INVALID"}
    assert empty.status in {202, 409}
    held = (b"x" if second.status == 202 else b"") + (LARGE if first == 202 else b"")
    _assert_stands_at(client.get(location), location, len(held))
    assert _commit(client, location, held).status == 201


def _rest(wire: Wire, data: bytes) -> int | None:
    """Send the rest of a body and return the answer's status; None if it was refused and cut before its end."""
    try:
        wire.send(data)
        return wire.answer("PATCH").status
    except ConnectionBrokenError:
        return None
