"""Blobs on their way in, whole (distribution-spec end-4, end-6, end-13, end-14; registry spec §1.7)."""

import random
import re

import pytest
from tests.conformance.documents import CONFIG
from tests.conformance.stores import WITHOUT_STORES

from roadstead.oci.digest import Algorithm, Digest
from roadstead.testing.client import Answer, Client, with_query

BLOB = random.Random(4).randbytes(3000)
LARGE = random.Random(5).randbytes(1_500_000)
WRONG = Digest.of(b"something else")
ALGORITHMS = pytest.mark.parametrize("algorithm", list(Algorithm))


def _start(client: Client, name: str) -> str:
    """Start a session and return where it goes on."""
    return client.post(f"/v2/{name}/blobs/uploads/").headers["location"]


def _assert_created(client: Client, name: str, answer: Answer, data: bytes, digest: Digest) -> None:
    """The answer of every finished upload, and that its Location gives the blob."""
    assert (answer.status, answer.body, answer.headers["content-length"]) == (201, b"", "0")
    assert answer.headers["docker-content-digest"] == str(digest)
    assert answer.headers["location"] == f"/v2/{name}/blobs/{digest}"
    assert client.get(answer.headers["location"]).body == data


# Starting


@pytest.mark.parametrize("slash", ["/", ""])
def test_a_session_is_started(client: Client, name: str, slash: str) -> None:
    """end-4a: 202 with a path-absolute Location below the repository, an empty range, the session's id."""
    answer = client.post(f"/v2/{name}/blobs/uploads{slash}", headers={"Content-Type": "application/json"})

    assert (answer.status, answer.body, answer.headers["content-length"]) == (202, b"", "0")
    assert answer.headers["range"] == "0-0"
    upload_id = answer.headers["docker-upload-uuid"]
    assert re.fullmatch(r"[A-Za-z0-9_.=-]{20,100}", upload_id)
    assert answer.headers["location"] == f"/v2/{name}/blobs/uploads/{upload_id}"


def test_a_started_session_can_be_asked(client: Client, name: str) -> None:
    """end-13: 204 with Location, Range and id, before a byte came; HEAD says the same."""
    location = _start(client, name)

    answer = client.get(location)
    head = client.head(location)

    assert (answer.status, answer.body, answer.headers["range"]) == (204, b"", "0-0")
    assert answer.headers["location"] == location
    assert location.endswith(answer.headers["docker-upload-uuid"])
    assert (head.status, {**head.headers, "date": ""}) == (204, {**answer.headers, "date": ""})


def test_starting_makes_no_repository(client: Client, name: str) -> None:
    """A session is no content: the repository stays unknown."""
    _start(client, name)

    assert client.get(f"/v2/{name}/tags/list").code == "NAME_UNKNOWN"


def test_every_session_is_another(client: Client, name: str) -> None:
    """Ids don't repeat."""
    assert len({_start(client, name) for _ in range(20)}) == 20


@WITHOUT_STORES
@pytest.mark.parametrize(("algorithm", "status"), [("sha256", 202), ("sha512", 202), ("md5", 400), ("", 400)])
def test_an_algorithm_can_be_announced(client: Client, name: str, algorithm: str, status: int) -> None:
    """end-4c: what can't be checked later is refused before the bytes are sent."""
    answer = client.post(f"/v2/{name}/blobs/uploads/?digest-algorithm={algorithm}")

    assert (answer.status, answer.code) == (status, None if status == 202 else "DIGEST_INVALID")


# In one request


@pytest.mark.parametrize("data", [BLOB, LARGE, b"x"], ids=["small", "large", "one-byte"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
@ALGORITHMS
def test_a_blob_comes_in_one_post(
    client: Client, name: str, data: bytes, algorithm: Algorithm, *, chunked: bool
) -> None:
    """end-4b: POST with the digest and the bytes is 201."""
    digest = Digest.of(data, algorithm)

    body = [data[:1000], data[1000:]] if chunked else data
    answer = client.post(
        f"/v2/{name}/blobs/uploads/?digest={digest}", [part for part in body if part] if chunked else body
    )

    _assert_created(client, name, answer, data, digest)


def test_a_digest_without_a_body_starts_a_session(client: Client, name: str) -> None:
    """Clients that put the digest on an empty POST go on with PATCH and PUT."""
    digest = Digest.of(BLOB)
    started = client.post(f"/v2/{name}/blobs/uploads/?digest={digest}")

    answer = client.put(with_query(started.headers["location"], f"digest={digest}"), BLOB)

    assert started.status == 202
    _assert_created(client, name, answer, BLOB, digest)


@pytest.mark.parametrize("data", [BLOB, LARGE], ids=["small", "large"])
def test_a_post_of_other_bytes_is_refused(client: Client, name: str, data: bytes) -> None:
    """code-4: what isn't what its digest says leaves nothing."""
    answer = client.post(f"/v2/{name}/blobs/uploads/?digest={WRONG}", data)

    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert client.head(f"/v2/{name}/blobs/{WRONG}").status == 404
    assert client.head(f"/v2/{name}/blobs/{Digest.of(data)}").status == 404


# In two


@pytest.mark.parametrize("data", [BLOB, LARGE, b"", CONFIG], ids=["small", "large", "empty", "json"])
@ALGORITHMS
def test_a_blob_comes_in_a_put(client: Client, name: str, data: bytes, algorithm: Algorithm) -> None:
    """end-6: POST, then PUT with the bytes; the algorithm need not be announced."""
    digest = Digest.of(data, algorithm)

    answer = client.put(with_query(_start(client, name), f"digest={digest}"), data)

    _assert_created(client, name, answer, data, digest)


def test_a_digest_in_the_query_may_be_encoded(client: Client, name: str) -> None:
    """``digest=sha256%3A…`` is what most HTTP libraries make of it."""
    digest = str(Digest.of(BLOB)).replace(":", "%3A")

    assert client.put(with_query(_start(client, name), f"digest={digest}"), BLOB).status == 201


@pytest.mark.parametrize("query", ["", "digest=", "digest=sha256:abc", "digest=latest", "digest=md5:" + "0" * 32])
def test_a_put_without_a_usable_digest_can_be_repeated(client: Client, name: str, query: str) -> None:
    """code-4, and the session lives on: the client may have made a mistake in the URL only."""
    location = _start(client, name)
    client.patch(location, BLOB)

    refused = client.put(with_query(location, query))
    answer = client.put(with_query(location, f"digest={Digest.of(BLOB)}"))

    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    _assert_created(client, name, answer, BLOB, Digest.of(BLOB))


@pytest.mark.parametrize("earlier", [b"", BLOB, LARGE], ids=["in-the-put", "in-a-patch", "in-a-large-patch"])
@ALGORITHMS
def test_a_wrong_digest_ends_the_session(client: Client, name: str, earlier: bytes, algorithm: Algorithm) -> None:
    """code-4: the bytes aren't what they were called; the session is gone and nothing can be read."""
    location = _start(client, name)
    if earlier:
        client.patch(location, earlier)
    wrong = Digest.of(b"something else", algorithm)

    answer = client.put(with_query(location, f"digest={wrong}"), b"" if earlier else BLOB)

    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert client.head(f"/v2/{name}/blobs/{wrong}").status == 404
    assert client.head(f"/v2/{name}/blobs/{Digest.of(earlier or BLOB)}").status == 404
    assert client.get(location).code == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize("earlier", [b"", BLOB], ids=["in-the-put", "in-a-patch"])
def test_a_repeated_put_is_answered_again(client: Client, name: str, earlier: bytes) -> None:
    """A client whose answer got lost asks again and needs the same one, not a 404 and a second upload."""
    location = _start(client, name)
    if earlier:
        client.patch(location, earlier)
    digest = Digest.of(BLOB)
    target = with_query(location, f"digest={digest}")
    first = client.put(target, b"" if earlier else BLOB)

    again = client.put(target, b"" if earlier else BLOB)
    other = client.put(with_query(location, f"digest={WRONG}"), BLOB)

    assert first.status == 201
    _assert_created(client, name, again, BLOB, digest)
    assert (other.status, other.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_finished_session_takes_no_more(client: Client, name: str) -> None:
    """After the PUT the session is unknown to everything but the same PUT."""
    location = _start(client, name)
    client.put(with_query(location, f"digest={Digest.of(BLOB)}"), BLOB)

    answers = [client.get(location), client.patch(location, b"more"), client.delete(location)]

    assert [(answer.status, answer.code) for answer in answers] == [(404, "BLOB_UPLOAD_UNKNOWN")] * 3


def test_the_same_blob_can_be_pushed_twice(client: Client, name: str, other: str) -> None:
    """A blob that is here is taken again, in this repository and in another."""
    for repository in (name, name, other):
        digest = client.push_blob(repository, LARGE)
        assert client.get(f"/v2/{repository}/blobs/{digest}").body == LARGE


# Cancelling


@pytest.mark.parametrize("sent", [b"", BLOB], ids=["unused", "with-bytes"])
def test_a_session_is_cancelled(client: Client, name: str, sent: bytes) -> None:
    """end-14: 204, then it is unknown, whatever is asked of it; nothing of it can be read."""
    location = _start(client, name)
    if sent:
        client.patch(location, sent)

    answer = client.delete(location)

    assert (answer.status, answer.body) == (204, b"")
    digest = Digest.of(BLOB)
    afterwards = [
        client.get(location),
        client.patch(location, BLOB),
        client.put(with_query(location, f"digest={digest}"), BLOB),
        client.delete(location),
    ]
    assert [(later.status, later.code) for later in afterwards] == [(404, "BLOB_UPLOAD_UNKNOWN")] * 4
    assert client.head(f"/v2/{name}/blobs/{digest}").status == 404


# Sessions that aren't the caller's


def _every_use(client: Client, location: str) -> list[tuple[int, str | None]]:
    answers = [
        client.get(location),
        client.patch(location, BLOB),
        client.put(with_query(location, f"digest={Digest.of(BLOB)}"), BLOB),
        client.delete(location),
    ]
    return [(answer.status, answer.code) for answer in answers]


@pytest.mark.parametrize("sent", [b"", BLOB], ids=["unused", "with-bytes"])
def test_a_session_belongs_to_its_repository(client: Client, name: str, other: str, sent: bytes) -> None:
    """code-3 under another name, and the session is unharmed (CVE-2026-32589)."""
    location = _start(client, name)
    if sent:
        client.patch(location, sent)

    stolen = _every_use(client, location.replace(name, other))

    assert stolen == [(404, "BLOB_UPLOAD_UNKNOWN")] * 4
    answer = client.put(with_query(location, f"digest={Digest.of(BLOB)}"), b"" if sent else BLOB)
    assert answer.status == 201


def _forgeries(upload_id: str) -> list[str]:
    changed = ("B" if upload_id[0] != "B" else "C") + upload_id[1:]
    return [
        "x",
        "0" * len(upload_id),
        changed,
        upload_id + "A",
        upload_id[:-1],
        upload_id + "=",
        upload_id.lower() if upload_id.lower() != upload_id else upload_id.upper(),
        "..",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd".replace("%2f", "%5c"),
        f"{upload_id}%00",
        f"{upload_id}%0a",
        "00000000-0000-0000-0000-000000000000",
        "\u0661".encode().hex(),
        "%F0%9F%90%B3",
    ]


def test_a_forged_session_is_unknown(client: Client, name: str) -> None:
    """code-3: an id is what we gave out, to the letter; anything else is never a path or a row."""
    upload_id = _start(client, name).rpartition("/")[2]

    for forged in _forgeries(upload_id):
        assert _every_use(client, f"/v2/{name}/blobs/uploads/{forged}") == [(404, "BLOB_UPLOAD_UNKNOWN")] * 4, forged


@WITHOUT_STORES
@pytest.mark.parametrize("bad", ["Upper", "a..b", "-a", "a-", "a//b", "a/", "_a", "a__b_", "é", "a b", "a/../b"])
def test_a_session_needs_a_lawful_name(client: Client, bad: str) -> None:
    """code-8: no session under a name that no repository can have."""
    path = f"/v2/{bad}/blobs/uploads/".replace(" ", "%20").replace("é", "%C3%A9")

    answer = client.post(path)

    assert (answer.status, answer.code) == (400, "NAME_INVALID")


def test_a_name_has_255_characters_at_the_most(client: Client) -> None:
    """255 work everywhere, 256 nowhere."""
    longest = "/".join(["a" * 63] * 3 + ["b" * 63])
    assert len(longest) == 255
    digest = client.push_blob(longest, BLOB)

    answer = client.post(f"/v2/{longest}c/blobs/uploads/")

    assert client.get(f"/v2/{longest}/blobs/{digest}").body == BLOB
    assert (answer.status, answer.code) == (400, "NAME_INVALID")


@pytest.mark.parametrize("word", ["blobs", "manifests", "tags", "uploads", "referrers", "list", "blobs/uploads"])
def test_words_of_the_api_are_lawful_names(client: Client, name: str, word: str) -> None:
    """A path is read from its right end, so components may be called like its parts."""
    repository = f"{name}/{word}/b"
    under = f"{name}/{word}"

    digests = [client.push_blob(one, BLOB) for one in (repository, under)]

    assert [client.get(f"/v2/{one}/blobs/{digests[0]}").body for one in (repository, under)] == [BLOB, BLOB]
