"""Reading and unlinking blobs (distribution-spec end-2, end-10; registry spec §1.6, §1.10)."""

import random
from email import message_from_bytes

import pytest
from tests.conformance.documents import push_image
from tests.conformance.stores import WITHOUT_STORES

from roadstead.oci.digest import Algorithm, Digest
from roadstead.testing.client import Answer, Client

SMALL = random.Random(1).randbytes(4096)  # is served from memory
LARGE = random.Random(2).randbytes(700_001)  # is served from storage
EVERY_SIZE = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
MISSING = Digest.of(b"nobody pushed this")


def _safety(answer: Answer) -> tuple[str, str, str]:
    headers = answer.headers
    return headers["x-content-type-options"], headers["content-security-policy"], headers["content-disposition"]


@EVERY_SIZE
def test_a_blob_is_given_whole(client: Client, name: str, data: bytes) -> None:
    """end-2: the bytes, with everything that clients and caches ask of the head."""
    digest = client.push_blob(name, data)

    answer = client.get(f"/v2/{name}/blobs/{digest}")

    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["docker-content-digest"] == str(digest)
    assert answer.headers["etag"] == f'"{digest}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["cache-control"] == "max-age=31536000, immutable"
    assert _safety(answer) == ("nosniff", "sandbox", "attachment")


@EVERY_SIZE
def test_the_head_of_a_blob_is_that_of_its_get(client: Client, name: str, data: bytes) -> None:
    """HEAD is what every push asks first: all headers, the length, no body."""
    digest = client.push_blob(name, data)
    got = client.get(f"/v2/{name}/blobs/{digest}")

    answer = client.head(f"/v2/{name}/blobs/{digest}")

    assert (answer.status, answer.body) == (200, b"")
    assert {**answer.headers, "date": ""} == {**got.headers, "date": ""}


def test_a_digest_may_come_percent_encoded(client: Client, name: str) -> None:
    """Some clients write ``sha256%3A…``; the path is decoded once."""
    digest = client.push_blob(name, SMALL)

    answer = client.get(f"/v2/{name}/blobs/{digest}".replace(":", "%3A"))

    assert (answer.status, answer.body) == (200, SMALL)


def test_a_blob_has_the_digest_it_was_asked_by(client: Client, name: str) -> None:
    """A blob pushed under sha512 is served under it, and its head never shows another algorithm's digest."""
    digest = Digest.of(SMALL, Algorithm.SHA512)
    pushed = client.post(f"/v2/{name}/blobs/uploads/?digest={digest}", SMALL)

    answer = client.get(f"/v2/{name}/blobs/{digest}")

    assert (pushed.status, pushed.headers["docker-content-digest"]) == (201, str(digest))
    assert (answer.status, answer.body) == (200, SMALL)
    assert (answer.headers["docker-content-digest"], answer.headers["etag"]) == (str(digest), f'"{digest}"')


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_missing_blob_is_unknown(client: Client, name: str, method: str) -> None:
    """code-1: in a repository that exists and in one that doesn't."""
    client.push_blob(name, SMALL)

    answers = [client.request(method, f"/v2/{one}/blobs/{MISSING}") for one in (name, f"{name}/none")]

    assert [answer.status for answer in answers] == [404, 404]
    assert method == "HEAD" or [answer.code for answer in answers] == ["BLOB_UNKNOWN"] * 2


def test_another_repositorys_blob_looks_like_a_missing_one(client: Client, name: str, other: str) -> None:
    """Only membership serves a blob; that others have it isn't told, not even by a word in the message."""
    digest = client.push_blob(name, SMALL)

    elsewhere = client.get(f"/v2/{other}/blobs/{digest}")
    missing = client.get(f"/v2/{other}/blobs/{MISSING}")

    assert (elsewhere.status, elsewhere.code) == (404, "BLOB_UNKNOWN")
    assert elsewhere.body.replace(str(digest).encode(), b"") == missing.body.replace(str(MISSING).encode(), b"")


MALFORMED = [
    "sha256:",
    "sha256:abc",
    "sha256:" + "A" * 64,
    "sha256:" + "0" * 63,
    "sha256:" + "0" * 65,
    "sha256:" + "g" * 64,
    "Sha256:" + "0" * 64,
    "sha384:" + "0" * 96,
    "md5:" + "0" * 32,
    "sha512:" + "0" * 64,
    "0" * 64,
    "latest",
    "sha256:" + "0" * 64 + "%0A",
    "sha256:" + "0" * 64 + "%00",
    "sha256%253A" + "0" * 64,
]


@WITHOUT_STORES
@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_malformed_digest_is_refused(client: Client, name: str, method: str, text: str) -> None:
    """code-4: upper case, wrong lengths, unknown algorithms, doubly encoded: never looked up, always 400."""
    answer = client.request(method, f"/v2/{name}/blobs/{text}")

    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("form", ['"{0}"', 'W/"{0}"', '"other", "{0}"', "*", '"a",W/"{0}"'])
@EVERY_SIZE
def test_what_a_client_has_isnt_sent_again(client: Client, name: str, data: bytes, form: str) -> None:
    """If-None-Match in its forms (RFC 9110 §13.1.2): 304 with the tag and the digest, without a body."""
    digest = client.push_blob(name, data)

    answer = client.get(f"/v2/{name}/blobs/{digest}", {"If-None-Match": form.format(digest)})

    assert (answer.status, answer.body) == (304, b"")
    assert (answer.headers["etag"], answer.headers["docker-content-digest"]) == (f'"{digest}"', str(digest))


def test_another_tag_is_no_reason_to_send_nothing(client: Client, name: str) -> None:
    """If-None-Match of other content gets the blob."""
    digest = client.push_blob(name, SMALL)

    assert client.get(f"/v2/{name}/blobs/{digest}", {"If-None-Match": f'"{MISSING}"'}).status == 200


# Ranges


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=500-1499", 500, 1499),
        ("bytes=500-", 500, None),
        ("bytes=-500", -500, None),
        ("bytes=2000-999999999", 2000, None),
        ("bytes=0-", 0, None),
        ("bytes=-99999999", 0, None),
        ("bytes= 500-1499", 500, 1499),
    ],
)
@EVERY_SIZE
def test_a_part_is_given(client: Client, name: str, data: bytes, wanted: str, first: int, last: int | None) -> None:
    """One satisfiable range: 206, clipped at the end, with Content-Range and the part's own length."""
    digest = client.push_blob(name, data)
    start = first if first >= 0 else len(data) + first
    end = len(data) - 1 if last is None else last

    answer = client.get(f"/v2/{name}/blobs/{digest}", {"Range": wanted})
    head = client.head(f"/v2/{name}/blobs/{digest}", {"Range": wanted})

    assert (answer.status, answer.body) == (206, data[start : end + 1])
    assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(data)}"
    assert answer.headers["content-length"] == str(end - start + 1)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["docker-content-digest"] == str(digest)
    # Range is for GET alone (RFC 9110 §14.2).
    assert (head.status, head.headers["content-length"]) == (200, str(len(data)))
    assert "content-range" not in head.headers


@pytest.mark.parametrize("wanted", ["bytes=500-0", "bytes=9999999-", "bytes=9999999-99999999", "bytes=-0"])
@EVERY_SIZE
def test_a_part_outside_is_unsatisfiable(client: Client, name: str, data: bytes, wanted: str) -> None:
    """416 tells the size, in its header and as an error document; it is nothing for caches to keep."""
    digest = client.push_blob(name, data)

    answer = client.get(f"/v2/{name}/blobs/{digest}", {"Range": wanted})

    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(data)}")
    assert answer.code == "RANGE_INVALID"
    assert "cache-control" not in answer.headers


@pytest.mark.parametrize(
    "wanted",
    [
        "items=0-5",
        "bytes=x-5",
        "bytes=5",
        "bytes=",
        "bytes=-",
        "bytes=--5",
        "bytes=1-2-3",
        "bytes=\u0661-2".encode().decode("latin-1"),
        "bytes=0-9,5-14",  # overlapping
        "bytes=10-19,0-9",  # backwards
        "bytes=0-,0-",  # more than there is
        "bytes=" + ",".join(f"{n}-{n}" for n in range(1001)),
    ],
)
def test_what_isnt_a_plain_range_gets_the_whole(client: Client, name: str, wanted: str) -> None:
    """Ranges that can't be read, or that ask for more than there is, are as good as absent (RFC 9110 §14.2)."""
    digest = client.push_blob(name, SMALL)

    answer = client.get(f"/v2/{name}/blobs/{digest}", {"Range": wanted})

    assert (answer.status, answer.body) == (200, SMALL)


@pytest.mark.parametrize(
    "ranges",
    [
        [(0, 9), (20, 29)],
        [(0, 9), (10, 19), (20, 29)],  # neighbours stay parts of their own: containers/image counts them
        [(0, 0), (4095, 4095)],
        [(n, n) for n in range(50)],
    ],
    ids=["two", "neighbours", "ends", "fifty"],
)
@EVERY_SIZE
def test_several_parts_come_in_order(client: Client, name: str, data: bytes, ranges: list[tuple[int, int]]) -> None:
    """``multipart/byteranges``: one part for each range, in the order asked, never merged (§1.6)."""
    digest = client.push_blob(name, data)

    wanted = ",".join(f"{first}-{last}" for first, last in ranges)
    answer = client.get(f"/v2/{name}/blobs/{digest}", {"Range": f"bytes={wanted}"})

    assert answer.status == 206
    assert _parts(answer) == [
        ("application/octet-stream", f"bytes {first}-{last}/{len(data)}", data[first : last + 1])
        for first, last in ranges
    ]


def test_a_thousand_parts_are_served(client: Client, name: str) -> None:
    """As many ranges as are taken in one header; one more gets the whole."""
    digest = client.push_blob(name, SMALL)

    answer = client.get(f"/v2/{name}/blobs/{digest}", {"Range": "bytes=" + ",".join(f"{n}-{n}" for n in range(1000))})

    assert [data for _, _, data in _parts(answer)] == [SMALL[n : n + 1] for n in range(1000)]


def _parts(answer: Answer) -> list[tuple[str, str, bytes]]:
    """Read a multipart body (RFC 2046 §5.1): type, range and bytes of each part."""
    kind, _, boundary = answer.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    preamble, *pieces, end = answer.body.split(f"\r\n--{boundary}".encode())
    assert (preamble, end) == (b"", b"--\r\n")
    heads = [piece.removeprefix(b"\r\n").partition(b"\r\n\r\n") for piece in pieces]
    fields = [message_from_bytes(head) for head, _, _ in heads]
    return [
        (field["content-type"], field["content-range"], data) for field, (_, _, data) in zip(fields, heads, strict=True)
    ]


@pytest.mark.parametrize(("tag", "status"), [("{0}", 206), ("sha256:other", 200)])
def test_if_range_gives_parts_of_the_same_content_only(client: Client, name: str, tag: str, status: int) -> None:
    """If-Range with the blob's tag gives the part, with any other the whole (RFC 9110 §13.1.5)."""
    digest = client.push_blob(name, SMALL)
    headers = {"Range": "bytes=0-9", "If-Range": f'"{tag.format(digest)}"'}

    answer = client.get(f"/v2/{name}/blobs/{digest}", headers)

    assert (answer.status, len(answer.body)) == (status, 10 if status == 206 else len(SMALL))


def test_an_empty_blob_is_a_blob(client: Client, name: str) -> None:
    """No bytes are content too; no range lies in them."""
    digest = client.push_blob(name, b"")

    whole = client.get(f"/v2/{name}/blobs/{digest}")
    head = client.head(f"/v2/{name}/blobs/{digest}")
    part = client.get(f"/v2/{name}/blobs/{digest}", {"Range": "bytes=0-0"})

    assert (whole.status, whole.body, whole.headers["content-length"]) == (200, b"", "0")
    assert (head.status, head.headers["content-length"]) == (200, "0")
    assert (part.status, part.headers["content-range"]) == (416, "bytes */0")


def test_a_manifest_can_be_read_as_a_blob(client: Client, name: str, other: str) -> None:
    """containerd asks ``/blobs/`` for a manifest it didn't get under ``/manifests/``: same rules as for a blob."""
    image = push_image(client, name, "latest")
    path = f"/v2/{name}/blobs/{image.digest}"

    whole = client.get(path)
    head = client.head(path)
    part = client.get(path, {"Range": "bytes=0-9"})
    had = client.get(path, {"If-None-Match": f'"{image.digest}"'})
    elsewhere = client.get(f"/v2/{other}/blobs/{image.digest}")

    assert (whole.status, whole.body) == (200, image.raw)
    assert whole.headers["content-type"] == "application/octet-stream"
    assert (head.status, {**head.headers, "date": ""}) == (200, {**whole.headers, "date": ""})
    assert (part.status, part.body) == (206, image.raw[:10])
    assert had.status == 304
    assert elsewhere.status == 404


# Unlinking


def test_an_unlinked_blob_is_gone_at_once(client: Client, name: str, other: str) -> None:
    """end-10: 202, then 404; whoever else has the blob keeps it."""
    digest = client.push_blob(name, SMALL)
    client.push_blob(other, SMALL)

    answer = client.delete(f"/v2/{name}/blobs/{digest}")

    assert (answer.status, answer.headers["content-length"]) == (202, "0")
    assert client.head(f"/v2/{name}/blobs/{digest}").status == 404
    assert client.delete(f"/v2/{name}/blobs/{digest}").status == 404
    assert client.get(f"/v2/{other}/blobs/{digest}").body == SMALL


def test_an_unlinked_blob_can_be_pushed_again(client: Client, name: str) -> None:
    """Deleting is no tombstone for content."""
    digest = client.push_blob(name, SMALL)
    client.delete(f"/v2/{name}/blobs/{digest}")

    client.push_blob(name, SMALL)

    assert client.get(f"/v2/{name}/blobs/{digest}").body == SMALL
