"""Blobs from one repository to another without sending them (distribution-spec end-11; registry spec §1.7)."""

import secrets

import pytest

from roadstead.oci.digest import Algorithm, Digest
from roadstead.testing.client import Answer, Client, with_query


def _data() -> bytes:
    """Bytes that no other test has: an anonymous mount asks everybody."""
    return secrets.token_bytes(600)


def _mount(client: Client, name: str, query: str) -> Answer:
    return client.post(f"/v2/{name}/blobs/uploads/?{query}")


@pytest.mark.parametrize("form", ["mount={0}&from={1}", "from={1}&mount={0}", "mount={0}"])
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_blob_is_mounted(client: Client, name: str, other: str, form: str, algorithm: Algorithm) -> None:
    """201 as after an upload; also from nobody in particular (anonymous mount)."""
    data = _data()
    digest = Digest.of(data, algorithm)
    client.post(f"/v2/{other}/blobs/uploads/?digest={digest}", data)

    answer = _mount(client, name, form.format(digest, other))

    assert (answer.status, answer.body, answer.headers["content-length"]) == (201, b"", "0")
    assert answer.headers["location"] == f"/v2/{name}/blobs/{digest}"
    assert answer.headers["docker-content-digest"] == str(digest)
    assert client.get(answer.headers["location"]).body == data


def test_a_mounted_blob_is_its_own(client: Client, name: str, other: str) -> None:
    """It stays when the source unlinks it, and a second mount changes nothing."""
    data = _data()
    digest = client.push_blob(other, data)
    for _ in range(2):
        assert _mount(client, name, f"mount={digest}&from={other}").status == 201

    client.delete(f"/v2/{other}/blobs/{digest}")

    assert client.get(f"/v2/{name}/blobs/{digest}").body == data
    assert client.head(f"/v2/{other}/blobs/{digest}").status == 404


@pytest.mark.parametrize(
    "form",
    [
        "mount={absent}&from={other}",
        "mount={absent}",
        "mount={digest}&from={name}/unknown",
        "mount={digest}&from=Not%20A%20Name",
        "mount={digest}&from=..%2F..%2Fetc",
        "mount={digest}&from=as-of/never/{other}",
        "mount={digest}&from=",
        "mount=&from={other}",
        "mount=sha256:abc&from={other}",
        "mount=md5:00000000000000000000000000000000&from={other}",
        "mount=latest",
        "mount=%00",
        "mount={digest}&from={name}",
    ],
)
def test_a_mount_that_cant_be_is_an_upload(client: Client, name: str, other: str, form: str) -> None:
    """202 with a session that works: never an error, never a word on what exists where."""
    data = _data()
    digest = client.push_blob(other, data)

    answer = _mount(client, name, form.format(absent=Digest.of(b"absent"), digest=digest, other=other, name=name))

    assert (answer.status, answer.body, answer.headers["range"]) == (202, b"", "0-0")
    assert client.head(f"/v2/{name}/blobs/{digest}").status == 404
    assert client.put(with_query(answer.headers["location"], f"digest={digest}"), data).status == 201


def test_an_unlinked_blob_isnt_mounted_from_there(client: Client, name: str, other: str) -> None:
    """What a repository no longer serves, it no longer gives away; nor does anybody when all have let it go."""
    digest = client.push_blob(other, _data())
    client.delete(f"/v2/{other}/blobs/{digest}")

    answers = [_mount(client, name, f"mount={digest}&from={other}"), _mount(client, name, f"mount={digest}")]

    assert [answer.status for answer in answers] == [202, 202]


def test_a_mount_with_a_body_takes_the_body_when_it_fails(client: Client, name: str, other: str) -> None:
    """Mount and digest in one request: the mount wins, else the bytes are taken."""
    data = _data()
    digest = Digest.of(data)

    answer = client.post(f"/v2/{name}/blobs/uploads/?mount={digest}&from={other}&digest={digest}", data)

    assert answer.status == 201
    assert client.get(f"/v2/{name}/blobs/{digest}").body == data
