"""Who refers to a manifest (distribution-spec end-12; registry spec §1.13)."""

from typing import Any

import pytest
from tests.conformance.documents import CONFIG, Pushed, descriptor, index, manifest, push, push_image
from tests.conformance.stores import WITHOUT_STORES

from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.mediatypes import OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from roadstead.testing.client import Answer, Client

SBOM = "application/vnd.example.sbom"
SIGNATURE = "application/vnd.example.signature+json"
EMPTY = descriptor(b"{}", OCI_EMPTY)
ZEROS = "sha256:" + "0" * 64


@pytest.fixture
def subject(client: Client, name: str) -> Pushed:
    """An image, in a repository that also holds an artifact's empty config."""
    client.push_blob(name, b"{}")
    return push_image(client, name, "latest")


def _refer(client: Client, name: str, subject: dict[str, Any], kind: str, text: str) -> Pushed:
    """Push an artifact that refers to *subject*, without a tag."""
    raw = manifest(EMPTY, [EMPTY], artifactType=kind, subject=subject, annotations={"text": text})
    return push(client, name, str(Digest.of(raw)), raw)


def _referrers(client: Client, name: str, digest: object, query: str = "") -> Answer:
    answer = client.get(f"/v2/{name}/referrers/{digest}{query}")
    assert (answer.status, answer.headers["content-type"]) == (200, OCI_INDEX)
    assert {key: value for key, value in answer.json().items() if key != "manifests"} == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
    }
    return answer


@pytest.mark.parametrize("digest", [ZEROS, "sha512:" + "0" * 128])
def test_nobody_refers_to_what_isnt_here(client: Client, name: str, subject: Pushed, digest: str) -> None:
    """200 with an empty index: in an unknown repository, for an unknown digest, for one that nobody refers to."""
    for repository, asked in ((name, digest), (f"{name}/unknown", digest), (name, subject.digest)):
        assert _referrers(client, repository, asked).json()["manifests"] == []


@WITHOUT_STORES
@pytest.mark.parametrize("text", ["latest", "sha256:abc", "md5:" + "0" * 32, "sha256:" + "A" * 64, "%00"])
def test_a_malformed_subject_is_refused(client: Client, name: str, text: str) -> None:
    """code-4."""
    answer = client.get(f"/v2/{name}/referrers/{text}")

    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_referrers_are_listed_with_what_they_are(client: Client, name: str, subject: Pushed) -> None:
    """end-12a: media type, digest, size, type and annotations of each; image, artifact and index."""
    to = subject.as_descriptor
    artifact = _refer(client, name, to, SBOM, "ü")
    image = push(client, name, "image", manifest(subject=to))
    listing = push(client, name, "index", index(subject=to, artifactType=SIGNATURE), OCI_INDEX)
    plain = push(client, name, "plain", index(subject=to, annotations={"a": "b"}), OCI_INDEX)

    found = {one["digest"]: one for one in _referrers(client, name, subject.digest).json()["manifests"]}

    assert found == {
        str(artifact.digest): {**artifact.as_descriptor, "artifactType": SBOM, "annotations": {"text": "ü"}},
        str(image.digest): {**image.as_descriptor, "artifactType": OCI_CONFIG},
        str(listing.digest): {**listing.as_descriptor, "artifactType": SIGNATURE},
        str(plain.digest): {**plain.as_descriptor, "annotations": {"a": "b"}},
    }


def test_a_push_says_that_its_subject_was_noted(client: Client, name: str, subject: Pushed) -> None:
    """OCI-Subject on every push with a subject: without it clients write fallback tags as well."""
    raw = manifest(EMPTY, [EMPTY], artifactType=SBOM, subject=subject.as_descriptor)
    listing = index(subject=subject.as_descriptor)

    answers = [
        client.put(f"/v2/{name}/manifests/{reference}", body, {"Content-Type": media_type})
        for body, media_type in ((raw, OCI_MANIFEST), (listing, OCI_INDEX))
        for reference in ("tag", Digest.of(body))
    ]

    assert [(answer.status, answer.headers["oci-subject"]) for answer in answers] == [(201, str(subject.digest))] * 4


@pytest.mark.parametrize("kind", [SBOM, SIGNATURE, "application/vnd.example.none", "", "%00", "%FF", "a%0d%0ab"])
def test_referrers_of_one_type(client: Client, name: str, subject: Pushed, kind: str) -> None:
    """end-12b: only that type, compared to the letter, and the answer says that it was filtered."""
    pushed = {kind: _refer(client, name, subject.as_descriptor, kind, "1") for kind in (SBOM, SIGNATURE)}

    answer = _referrers(client, name, subject.digest, f"?artifactType={kind.replace('+', '%2B')}")

    assert answer.headers["oci-filters-applied"] == "artifactType"
    expected = [str(pushed[kind].digest)] if kind in pushed else []
    assert [one["digest"] for one in answer.json()["manifests"]] == expected


def test_no_filter_is_claimed_without_one(client: Client, name: str, subject: Pushed) -> None:
    """OCI-Filters-Applied only where something was asked for."""
    assert "oci-filters-applied" not in _referrers(client, name, subject.digest).headers


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 100])
@pytest.mark.parametrize("kind", [None, SBOM])
def test_referrers_come_in_pages(client: Client, name: str, subject: Pushed, n: int, kind: str | None) -> None:
    """Link leads through all of them once, keeping the filter."""
    pushed = [_refer(client, name, subject.as_descriptor, SBOM, str(number)) for number in range(6)]
    others = [_refer(client, name, subject.as_descriptor, SIGNATURE, "x")] if kind is None else []
    query = f"?n={n}" if kind is None else f"?artifactType={kind}&n={n}"

    pages = list(client.pages(f"/v2/{name}/referrers/{subject.digest}{query}", "manifests"))

    assert all(len(page) <= n for page in pages)
    found = [one["digest"] for page in pages for one in page]
    assert sorted(found) == sorted(str(one.digest) for one in (*pushed, *others))


def test_a_page_stays_below_what_clients_read(client: Client, name: str, subject: Pushed) -> None:
    """Clients read 4 MiB at the most: annotations of many referrers are spread over pages."""
    pushed = [_refer(client, name, subject.as_descriptor, SBOM, f"{number}" * 1_500_000) for number in range(4)]

    following: str | None = f"/v2/{name}/referrers/{subject.digest}"
    found = []
    while following:
        answer = client.get(following)
        assert len(answer.body) < 4 << 20
        found += [one["digest"] for one in answer.json()["manifests"]]
        link = answer.headers.get("link")
        following = link[1 : link.index(">")] if link else None

    assert sorted(found) == sorted(str(one.digest) for one in pushed)


def test_a_removed_referrer_leaves_the_list(client: Client, name: str, subject: Pushed) -> None:
    """Deleting one takes it from the list at once; deleting the subject leaves those that refer to it."""
    one, two = (_refer(client, name, subject.as_descriptor, SBOM, text) for text in "12")

    client.delete(f"/v2/{name}/manifests/{one.digest}")
    after_one = _referrers(client, name, subject.digest).json()["manifests"]
    client.delete(f"/v2/{name}/manifests/{subject.digest}")
    after_subject = _referrers(client, name, subject.digest).json()["manifests"]

    assert [entry["digest"] for entry in after_one] == [str(two.digest)]
    assert after_subject == after_one


def test_a_referrer_may_come_before_its_subject(client: Client, name: str, other: str) -> None:
    """The subject need not be here, and repositories keep their referrers apart."""
    client.push_blob(name, b"{}")
    raw = manifest(annotations={"text": name})
    digest = Digest.of(raw)
    early = _refer(client, name, {"mediaType": OCI_MANIFEST, "digest": str(digest), "size": len(raw)}, SBOM, "early")

    client.push_blob(name, CONFIG)
    push(client, name, "latest", raw)

    assert [one["digest"] for one in _referrers(client, name, digest).json()["manifests"]] == [str(early.digest)]
    assert _referrers(client, other, digest).json()["manifests"] == []


def test_a_subject_may_be_named_by_sha512(client: Client, name: str, subject: Pushed) -> None:
    """Subjects are compared as they were written."""
    by_sha512 = {**subject.as_descriptor, "digest": str(Digest.of(subject.raw, Algorithm.SHA512))}
    pushed = _refer(client, name, by_sha512, SBOM, "512")

    found = _referrers(client, name, by_sha512["digest"]).json()["manifests"]

    assert [one["digest"] for one in found] == [str(pushed.digest)]


def test_strange_annotations_survive(client: Client, name: str, subject: Pushed) -> None:
    """NUL, quotes and four-byte characters come back as they were, from every database."""
    text = 'a\u0000b"\\\u2028\U0001f433'
    _refer(client, name, subject.as_descriptor, SBOM, text)

    [found] = _referrers(client, name, subject.digest).json()["manifests"]

    assert found["annotations"] == {"text": text}
