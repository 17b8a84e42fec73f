"""Reading, storing and deleting manifests (distribution-spec end-3, end-7, end-9; registry spec §1.8 to §1.10)."""

import json
import random
from typing import Any

import pytest
from tests.conformance.documents import CONFIG, descriptor, index, manifest, push, push_bare, push_image
from tests.conformance.stores import WITHOUT_STORES

from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.mediatypes import (
    DOCKER_CONFIG,
    DOCKER_FOREIGN_LAYER_GZIP,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_LAYER_TAR,
    OCI_MANIFEST,
    OCI_NONDISTRIBUTABLE_GZIP,
)
from roadstead.testing.client import Answer, Client

LAYER = random.Random(9).randbytes(500)
MISSING = Digest.of(b"nobody pushed this")
SUBJECT = {"mediaType": OCI_MANIFEST, "digest": str(MISSING), "size": 17}
EMPTY = {
    "mediaType": OCI_EMPTY,
    "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "size": 2,
}


@pytest.fixture
def filled(client: Client, name: str) -> str:
    """A repository that holds a config, a layer, ``{}`` and an image under the tag ``child``."""
    for data in (CONFIG, LAYER, b"{}"):
        client.push_blob(name, data)
    return name


def _put(client: Client, name: str, raw: bytes, media_type: str = OCI_MANIFEST, reference: str = "latest") -> Answer:
    return client.put(f"/v2/{name}/manifests/{reference}", raw, {"Content-Type": media_type})


def _assert_served(client: Client, name: str, raw: bytes, media_type: str, digest: Digest, *references: str) -> None:
    """The exact bytes under each reference, and the same headers for GET and HEAD."""
    for reference in references:
        answer = client.get(f"/v2/{name}/manifests/{reference}")
        head = client.head(f"/v2/{name}/manifests/{reference}")
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, raw, media_type)
        assert answer.headers["content-length"] == str(len(raw))
        assert answer.headers["docker-content-digest"] == str(digest)
        assert answer.headers["etag"] == f'"{digest}"'
        caching = "max-age=31536000, immutable" if ":" in reference else "no-cache"
        assert answer.headers["cache-control"] == caching
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox"
        assert answer.headers["content-disposition"] == "attachment"
        assert (head.status, head.body) == (200, b"")
        assert {**head.headers, "date": ""} == {**answer.headers, "date": ""}


_ARTIFACT = "application/vnd.example"
_LAYERS = [descriptor(LAYER)]


def _changed(**members: Any) -> bytes:
    """An image manifest with members changed; ``...`` takes one away."""
    document = json.loads(manifest(layers=_LAYERS)) | members
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


# What is accepted

_DOCKER_CONFIG = descriptor(CONFIG, DOCKER_CONFIG)
_FOREIGN = {"digest": str(MISSING), "size": 7, "urls": ["https://layers.example/one"]}

ACCEPTED: dict[str, tuple[str, bytes]] = {
    "oci-image": (OCI_MANIFEST, manifest(layers=_LAYERS)),
    "docker-image": (DOCKER_MANIFEST, manifest(_DOCKER_CONFIG, _LAYERS, media_type=DOCKER_MANIFEST)),
    "uncompressed": (OCI_MANIFEST, manifest(layers=[descriptor(LAYER, OCI_LAYER_TAR)])),
    "the-same-layer-twice": (OCI_MANIFEST, manifest(layers=_LAYERS * 2)),
    "no-layers": (OCI_MANIFEST, manifest()),
    "layers-absent": (
        OCI_MANIFEST,
        json.dumps({"schemaVersion": 2, "config": descriptor(CONFIG, OCI_CONFIG)}).encode(),
    ),
    "no-media-type": (
        OCI_MANIFEST,
        manifest(layers=_LAYERS).replace(b'"mediaType": "%b",\n' % OCI_MANIFEST.encode(), b"", 1),
    ),
    "artifact": (
        OCI_MANIFEST,
        manifest(EMPTY, [descriptor(LAYER, "text/plain")], artifactType="application/vnd.example"),
    ),
    "artifact-of-nothing": (OCI_MANIFEST, manifest(EMPTY, [EMPTY], artifactType="application/vnd.example")),
    "own-config": (OCI_MANIFEST, manifest(descriptor(b"{}", "application/vnd.cncf.helm.config.v1+json"), _LAYERS)),
    "subject-missing": (OCI_MANIFEST, manifest(layers=_LAYERS, subject=SUBJECT)),
    "foreign-layer": (OCI_MANIFEST, manifest(layers=[{"mediaType": OCI_NONDISTRIBUTABLE_GZIP, **_FOREIGN}])),
    "docker-foreign": (
        DOCKER_MANIFEST,
        manifest(
            _DOCKER_CONFIG, [{"mediaType": DOCKER_FOREIGN_LAYER_GZIP, **_FOREIGN}, *_LAYERS], media_type=DOCKER_MANIFEST
        ),
    ),
    "data-inside": (OCI_MANIFEST, manifest(descriptor(b"{}", OCI_CONFIG, data="e30="), _LAYERS)),
    "unknown-members": (OCI_MANIFEST, manifest(layers=_LAYERS, custom={"a": [1, None, 1.5, "ü"]}, other="x")),
    "annotations": (OCI_MANIFEST, manifest(layers=_LAYERS, annotations={"a": "ü\u0000\U0001f433", "": ""})),
    "sha512-inside": (OCI_MANIFEST, manifest(layers=_LAYERS, annotations={"x": "y" * 100_000})),
    "empty-index": (OCI_INDEX, index()),
    "empty-list": (DOCKER_LIST, index(media_type=DOCKER_LIST)),
    "index-of-no-type": (OCI_INDEX, b'{"schemaVersion":2,"manifests":[]}'),
    "artifact-index": (OCI_INDEX, index(artifactType="application/vnd.example", annotations={"a": "b"})),
    "index-with-subject": (OCI_INDEX, index(subject=SUBJECT)),
}


@pytest.mark.parametrize("kind", list(ACCEPTED))
def test_a_manifest_is_kept_to_the_byte(client: Client, filled: str, kind: str) -> None:
    """end-7a and end-3: 201 with its digest's URL; by tag and by digest the bytes as they came."""
    media_type, raw = ACCEPTED[kind]
    digest = Digest.of(raw)

    answer = _put(client, filled, raw, media_type)

    assert (answer.status, answer.body, answer.headers["content-length"]) == (201, b"", "0"), answer.body
    assert answer.headers["location"] == f"/v2/{filled}/manifests/{digest}"
    assert answer.headers["docker-content-digest"] == str(digest)
    assert answer.headers.get("oci-subject") == (str(MISSING) if b'"subject"' in raw else None)
    _assert_served(client, filled, raw, media_type, digest, "latest", str(digest))
    assert client.get(answer.headers["location"]).body == raw


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_index_lists_manifests_that_are_here(client: Client, filled: str, media_type: str) -> None:
    """An index of two platforms and of another index; its children are manifests, not blobs."""
    one = push_bare(client, filled, "one", text="1").as_descriptor
    two = push_bare(client, filled, "two", text="2").as_descriptor
    nested = push(client, filled, "nested", index([one], media_type=media_type), media_type).as_descriptor
    raw = index(
        [
            {**one, "platform": {"os": "linux", "architecture": "amd64"}},
            {**two, "platform": {"os": "unknown", "architecture": "unknown"}, "annotations": {"a": "b"}},
            nested,
        ],
        media_type=media_type,
    )

    answer = _put(client, filled, raw, media_type)

    assert answer.status == 201
    _assert_served(client, filled, raw, media_type, Digest.of(raw), "latest", str(Digest.of(raw)))


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_manifest_is_known_by_the_digest_it_was_pushed_by(client: Client, filled: str, algorithm: Algorithm) -> None:
    """end-7a by digest: under sha512 that digest answers, and a tag put there tells it too."""
    raw = manifest(layers=_LAYERS)
    digest = Digest.of(raw, algorithm)

    answer = _put(client, filled, raw, reference=f"{digest}?tag=latest")

    assert (answer.status, answer.headers["docker-content-digest"]) == (201, str(digest))
    assert answer.headers["location"] == f"/v2/{filled}/manifests/{digest}"
    _assert_served(client, filled, raw, OCI_MANIFEST, digest, str(digest), "latest")


def test_descriptors_may_use_sha512(client: Client, name: str) -> None:
    """Config, layers and children may be named by sha512."""
    for data in (CONFIG, LAYER):
        digest = Digest.of(data, Algorithm.SHA512)
        assert client.post(f"/v2/{name}/blobs/uploads/?digest={digest}", data).status == 201
    raw = manifest(
        descriptor(CONFIG, OCI_CONFIG, Algorithm.SHA512), [descriptor(LAYER, OCI_LAYER_GZIP, Algorithm.SHA512)]
    )

    answer = _put(client, name, raw)

    assert answer.status == 201, answer.body


@pytest.mark.parametrize("media_type", [f"{OCI_MANIFEST}; charset=utf-8", f" {OCI_MANIFEST} ;x=y", None])
def test_the_type_is_kept_without_its_parameters(client: Client, filled: str, media_type: str | None) -> None:
    """Parameters of Content-Type don't count; without the header the document's own word does."""
    raw = manifest(layers=_LAYERS)

    headers = {} if media_type is None else {"Content-Type": media_type}
    answer = client.put(f"/v2/{filled}/manifests/latest", raw, headers)

    assert answer.status == 201, answer.body
    assert client.get(f"/v2/{filled}/manifests/latest").headers["content-type"] == OCI_MANIFEST


@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
def test_a_large_manifest_is_accepted(client: Client, filled: str, *, chunked: bool) -> None:
    """3.9 MB, as the conformance program pushes: nothing on the way has a smaller limit."""
    raw = manifest(layers=_LAYERS, annotations={f"org.example.{n}": "x" * 10_000 for n in range(390)})
    body = [raw[start : start + 100_000] for start in range(0, len(raw), 100_000)] if chunked else raw
    digest = Digest.of(raw)

    answer = client.put(f"/v2/{filled}/manifests/large", body, {"Content-Type": OCI_MANIFEST})

    assert answer.status == 201
    assert client.get(f"/v2/{filled}/manifests/{digest}").body == raw


def test_pushing_the_same_again_changes_nothing(client: Client, name: str) -> None:
    """A repeated push is 201 and the same digest."""
    first = push_image(client, name, "latest")

    again = push_image(client, name, "latest")

    assert first.digest == again.digest
    assert client.get(f"/v2/{name}/tags/list").json()["tags"] == ["latest"]


def test_a_tag_moves(client: Client, name: str) -> None:
    """The tag shows the last push at once; what it showed before stays under its digest."""
    old = push_image(client, name, "latest", text="old")

    new = push_image(client, name, "latest", text="new")

    assert client.get(f"/v2/{name}/manifests/latest").body == new.raw
    assert client.get(f"/v2/{name}/manifests/{old.digest}").body == old.raw


# Reading


@pytest.mark.parametrize("reference", ["latest", "none", str(MISSING)])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_an_unknown_manifest_is_told(client: Client, name: str, method: str, reference: str) -> None:
    """code-7, also where the repository is unknown."""
    answer = client.request(method, f"/v2/{name}/manifests/{reference}")

    assert (answer.status, answer.code) == (404, None if method == "HEAD" else "MANIFEST_UNKNOWN")


def test_another_repositorys_manifest_is_unknown(client: Client, name: str, other: str) -> None:
    """Digests are known per repository."""
    image = push_image(client, name, "latest")

    assert client.get(f"/v2/{other}/manifests/{image.digest}").code == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("form", ['"{0}"', 'W/"{0}"', '"sha256:x", "{0}"', "*"])
def test_a_manifest_the_client_has_isnt_sent_again(client: Client, name: str, form: str) -> None:
    """If-None-Match: 304 by tag and by digest, with the tag and the digest in the head."""
    image = push_image(client, name, "latest")

    for reference in ("latest", image.digest):
        answer = client.get(f"/v2/{name}/manifests/{reference}", {"If-None-Match": form.format(image.digest)})
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["etag"] == f'"{image.digest}"'
        assert answer.headers["docker-content-digest"] == str(image.digest)


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", OCI_INDEX, DOCKER_MANIFEST, "nonsense"])
def test_what_is_stored_is_served_whatever_is_accepted(client: Client, name: str, accept: str | None) -> None:
    """Accept doesn't hide an image by default: scripts that forget a type get what is there (§1.8)."""
    image = push_image(client, name, "latest")

    answer = client.get(f"/v2/{name}/manifests/latest", {} if accept is None else {"Accept": accept})

    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, image.raw, OCI_MANIFEST)


# What is refused

_PLAIN = manifest(layers=_LAYERS)
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"

REFUSED: dict[str, tuple[str, bytes]] = {
    "no-bytes": (OCI_MANIFEST, b""),
    "no-json": (OCI_MANIFEST, b"hello"),
    "half": (OCI_MANIFEST, _PLAIN[:-20]),
    "trailing": (OCI_MANIFEST, _PLAIN + b"x"),
    "two-documents": (OCI_MANIFEST, _PLAIN + _PLAIN),
    "byte-order-mark": (OCI_MANIFEST, b"\xef\xbb\xbf" + _PLAIN),
    "utf-16": (OCI_MANIFEST, _PLAIN.decode().encode("utf-16")),
    "not-utf-8": (OCI_MANIFEST, _PLAIN.replace(b"schemaVersion", b"schemaVersion\xff")),
    "nan": (OCI_MANIFEST, _changed(x=float("nan"))),
    "an-array": (OCI_MANIFEST, b"[]"),
    "a-string": (OCI_MANIFEST, b'"x"'),
    "deep": (OCI_MANIFEST, _changed(x=...)[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "long-number": (OCI_MANIFEST, _changed()[:-1] + b',"x":' + b"9" * 100_000 + b"}"),
    "schema-version-1": (OCI_MANIFEST, _changed(schemaVersion=1)),
    "schema-version-3": (OCI_MANIFEST, _changed(schemaVersion=3)),
    "schema-version-text": (OCI_MANIFEST, _changed(schemaVersion="2")),
    "schema-version-true": (OCI_MANIFEST, _changed(schemaVersion=True)),
    "schema-version-absent": (OCI_MANIFEST, _changed(schemaVersion=...)),
    "schema-1": (_SCHEMA1, b'{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[],"history":[],"signatures":[]}'),
    "unknown-type": ("application/vnd.example+json", _changed(mediaType=...)),
    "json-type": ("application/json", _changed(mediaType=...)),
    "withdrawn-type": ("application/vnd.oci.artifact.manifest.v1+json", b'{"blobs":[]}'),
    "other-type-inside": (OCI_MANIFEST, _changed(mediaType=DOCKER_MANIFEST)),
    "index-type-inside": (OCI_MANIFEST, _changed(mediaType=OCI_INDEX)),
    "image-as-index": (OCI_INDEX, _changed(mediaType=...)),
    "index-as-image": (OCI_MANIFEST, b'{"schemaVersion":2,"manifests":[]}'),
    "docker-without-type": (DOCKER_MANIFEST, _changed(mediaType=...)),
    "type-not-text": (OCI_MANIFEST, _changed(mediaType=7)),
    "both-kinds": (OCI_MANIFEST, _changed(manifests=[])),
    "both-kinds-null-type": (OCI_INDEX, _changed(mediaType=OCI_INDEX, manifests=[])),
    "fs-layers": (OCI_MANIFEST, _changed(fsLayers=[{"blobSum": "x"}])),
    "config-absent": (OCI_MANIFEST, _changed(config=...)),
    "config-null": (OCI_MANIFEST, _changed(config=None)),
    "config-text": (OCI_MANIFEST, _changed(config="x")),
    "config-without-digest": (OCI_MANIFEST, _changed(config={"mediaType": OCI_CONFIG, "size": 1})),
    "empty-config-without-artifact-type": (OCI_MANIFEST, manifest(EMPTY, _LAYERS)),
    "layers-object": (OCI_MANIFEST, _changed(layers={})),
    "layers-of-text": (OCI_MANIFEST, _changed(layers=["sha256:" + "0" * 64])),
    "bad-digest": (OCI_MANIFEST, _changed(layers=[{**_LAYERS[0], "digest": "sha256:abc"}])),
    "digest-path": (OCI_MANIFEST, _changed(layers=[{**_LAYERS[0], "digest": "sha256:../../../../etc/passwd"}])),
    "negative-size": (OCI_MANIFEST, _changed(layers=[{**_LAYERS[0], "size": -1}])),
    "fractional-size": (OCI_MANIFEST, _changed(layers=[{**_LAYERS[0], "size": 1.5}])),
    "size-text": (OCI_MANIFEST, _changed(layers=[{**_LAYERS[0], "size": "500"}])),
    "huge-size": (OCI_MANIFEST, _changed(layers=[{**_LAYERS[0], "size": 2**64}])),
    "wrong-size": (OCI_MANIFEST, _changed(layers=[{**_LAYERS[0], "size": 499}])),
    "wrong-config-size": (OCI_MANIFEST, _changed(config={**descriptor(CONFIG, OCI_CONFIG), "size": 1})),
    "subject-text": (OCI_MANIFEST, _changed(subject="x")),
    "subject-bad-digest": (OCI_MANIFEST, _changed(subject={**SUBJECT, "digest": "x"})),
    "annotations-list": (OCI_MANIFEST, _changed(annotations=["x"])),
    "annotation-number": (OCI_MANIFEST, _changed(annotations={"x": 1})),
    "member-twice": (OCI_MANIFEST, _PLAIN.replace(b'"schemaVersion": 2', b'"schemaVersion": 2, "schemaVersion": 2')),
    "type-twice": (OCI_MANIFEST, _PLAIN.replace(b'"mediaType"', b'"mediaType": "x", "mediaType"', 1)),
    "lookalike": (OCI_MANIFEST, _changed(Layers=[])),
    "surrogate": (OCI_MANIFEST, _changed(x="?").replace(b"?", rb"\ud800")),
    "manifests-null": (OCI_INDEX, b'{"schemaVersion":2}'),
    "manifests-object": (OCI_INDEX, b'{"schemaVersion":2,"manifests":{}}'),
    "layers-in-index": (OCI_INDEX, b'{"schemaVersion":2,"manifests":[],"layers":[{}]}'),
}


@WITHOUT_STORES
@pytest.mark.parametrize("kind", list(REFUSED))
def test_what_isnt_a_manifest_is_refused(client: Client, filled: str, kind: str) -> None:
    """code-6: never kept, never half kept, whatever a lenient parser would make of it (CVE-2021-41190)."""
    media_type, raw = REFUSED[kind]

    by_tag = _put(client, filled, raw, media_type)
    by_digest = _put(client, filled, raw, media_type, str(Digest.of(raw)))

    assert [(answer.status, answer.code) for answer in (by_tag, by_digest)] == [(400, "MANIFEST_INVALID")] * 2
    assert client.get(f"/v2/{filled}/manifests/latest").status == 404
    assert client.get(f"/v2/{filled}/manifests/{Digest.of(raw)}").status == 404
    assert client.get(f"/v2/{filled}/tags/list").json().get("tags") in (None, [])


def test_each_missing_blob_is_named(client: Client, filled: str) -> None:
    """code-5: one entry for each digest that isn't here, config and layers; each once."""
    absent = [descriptor(bytes([n])) for n in range(5)]
    raw = manifest(descriptor(b"no config", OCI_CONFIG), [absent[0], *_LAYERS, *absent])

    answer = _put(client, filled, raw)

    assert answer.status == 400
    entries = answer.json()["errors"]
    assert {entry["code"] for entry in entries} == {"MANIFEST_BLOB_UNKNOWN"}
    named = [entry["detail"]["digest"] for entry in entries]
    assert sorted(named) == sorted([str(Digest.of(b"no config")), *(one["digest"] for one in absent)])


def test_a_blob_elsewhere_is_missing_here(client: Client, filled: str, other: str) -> None:
    """A manifest needs its blobs in its own repository."""
    answer = _put(client, other, manifest(layers=_LAYERS))

    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_missing_children_are_named(client: Client, filled: str) -> None:
    """code-5 for an index; a blob is no manifest, and after the children came the index is taken."""
    raw_child = manifest(annotations={"x": "child"})
    child = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(raw_child)), "size": len(raw_child)}
    blob = descriptor(LAYER, OCI_MANIFEST)
    raw = index([child])

    with_blob = _put(client, filled, index([blob]), OCI_INDEX)
    too_early = _put(client, filled, raw, OCI_INDEX)
    push(client, filled, "child", raw_child)
    answer = _put(client, filled, raw, OCI_INDEX)

    assert (with_blob.status, with_blob.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert (too_early.status, too_early.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert too_early.json()["errors"][0]["detail"] == {"digest": child["digest"]}
    assert answer.status == 201


def test_a_childs_size_is_checked(client: Client, filled: str) -> None:
    """An index that says a wrong size breaks pulls, so it is refused."""
    child = push_bare(client, filled, "child").as_descriptor

    answer = _put(client, filled, index([{**child, "size": child["size"] + 1}]), OCI_INDEX)

    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize("reference", ["sha256:baddigeststring", "sha256:" + "A" * 64, "md5:" + "0" * 32, str(MISSING)])
def test_a_digest_that_isnt_the_bodys_is_refused(client: Client, filled: str, reference: str) -> None:
    """code-4: malformed, unsupported, or another one."""
    answer = _put(client, filled, manifest(layers=_LAYERS), reference=reference)

    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


TAGS_REFUSED = [".", "..", "-a", ".a", "a" * 129, "a%20b", "a%0d%0ab", "%C3%A9", "a%00", "a+b", "a@b", "%2e%2e"]


@WITHOUT_STORES
@pytest.mark.parametrize("tag", TAGS_REFUSED)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_malformed_tag_is_refused(client: Client, filled: str, method: str, tag: str) -> None:
    """A tag keeps to its grammar on every way in."""
    body = manifest(layers=_LAYERS) if method == "PUT" else None

    answer = client.request(method, f"/v2/{filled}/manifests/{tag}", body, {"Content-Type": OCI_MANIFEST})

    assert (answer.status, answer.code) == (400, "TAG_INVALID")


@WITHOUT_STORES
@pytest.mark.parametrize("tag", [*TAGS_REFUSED, ".INVALID_MANIFEST_NAME"])
def test_no_manifest_has_a_malformed_tag(client: Client, filled: str, tag: str) -> None:
    """A pull by what can't be a tag finds nothing, as one by a tag that isn't there."""
    answer = client.get(f"/v2/{filled}/manifests/{tag}")

    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert b"isn't a tag" in answer.body
    assert client.head(f"/v2/{filled}/manifests/{tag}").status == 404


@pytest.mark.parametrize("tag", ["a" * 128, "_a", "A.b-c_D", "0", "__", "v1.0.0-rc.1_x", "sha256-0.sig"])
def test_every_lawful_tag_works(client: Client, name: str, tag: str) -> None:
    """1 to 128 characters; case counts."""
    image = push_image(client, name, tag)

    assert client.get(f"/v2/{name}/manifests/{tag}").body == image.raw
    assert client.get(f"/v2/{name}/tags/list").json()["tags"] == [tag]


@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
def test_a_manifest_past_the_limit_is_refused(client: Client, filled: str, *, chunked: bool) -> None:
    """413 for more than 4 MiB, also when nobody said how long it would be (CVE-2017-11468)."""
    raw = manifest(layers=_LAYERS, annotations={"x": "x" * (4 << 20)})
    body = [raw[start : start + 65536] for start in range(0, len(raw), 65536)] if chunked else raw

    answer = client.put(f"/v2/{filled}/manifests/large", body, {"Content-Type": OCI_MANIFEST})

    assert (answer.status, answer.code) == (413, "MANIFEST_INVALID")
    assert client.head(f"/v2/{filled}/manifests/large").status == 404


# Several tags at once


def _push_tags(client: Client, name: str, raw: bytes, tags: list[str]) -> Answer:
    query = "&".join(f"tag={tag}" for tag in tags)
    return _put(client, name, raw, reference=f"{Digest.of(raw)}?{query}")


def test_a_push_by_digest_sets_tags(client: Client, filled: str) -> None:
    """end-7b: every ``tag`` parameter, each told back in an OCI-Tag header."""
    raw = manifest(layers=_LAYERS)
    tags = [f"v{n}" for n in range(11)]

    answer = _push_tags(client, filled, raw, tags)

    assert (answer.status, answer.every("oci-tag")) == (201, tags)
    assert client.get(f"/v2/{filled}/tags/list").json()["tags"] == sorted(tags)
    _assert_served(client, filled, raw, OCI_MANIFEST, Digest.of(raw), *tags)


def test_a_tag_said_twice_is_one(client: Client, filled: str) -> None:
    """Repeated parameters count once."""
    answer = _push_tags(client, filled, manifest(layers=_LAYERS), ["a", "b", "a"])

    assert (answer.status, answer.every("oci-tag")) == (201, ["a", "b"])


@WITHOUT_STORES
@pytest.mark.parametrize("count", [47, 255, 256, 1000])
def test_too_many_tags_are_refused(client: Client, filled: str, count: int) -> None:
    """414, and none of them is set."""
    raw = manifest(layers=_LAYERS)

    answer = _push_tags(client, filled, raw, [f"v{n}" for n in range(count)])

    assert answer.status == 414
    assert client.head(f"/v2/{filled}/manifests/{Digest.of(raw)}").status == 404


@WITHOUT_STORES
@pytest.mark.parametrize("bad", ["", "-x", "a%2Fb", "sha256:x", "a%00", "a%0d%0aX-Injected:%20yes", "a" * 129])
def test_one_malformed_tag_leaves_nothing(client: Client, filled: str, bad: str) -> None:
    """All or nothing: neither the manifest nor the good tags."""
    raw = manifest(layers=_LAYERS)

    answer = _push_tags(client, filled, raw, ["good", bad, "better"])

    assert (answer.status, answer.code) == (400, "TAG_INVALID")
    assert "x-injected" not in answer.headers
    for reference in ("good", "better", str(Digest.of(raw))):
        assert client.head(f"/v2/{filled}/manifests/{reference}").status == 404


def test_tag_parameters_of_a_push_by_tag_dont_count(client: Client, filled: str) -> None:
    """They belong to pushes by digest; OCI-Tag doesn't claim them."""
    answer = _put(client, filled, manifest(layers=_LAYERS), reference="one?tag=two")

    assert (answer.status, answer.every("oci-tag")) == (201, [])
    assert client.get(f"/v2/{filled}/tags/list").json()["tags"] == ["one"]


# Conditional pushes


def _conditional(client: Client, name: str, headers: dict[str, str], text: str = "new") -> Answer:
    raw = manifest(layers=_LAYERS, annotations={"text": text})
    return client.put(f"/v2/{name}/manifests/latest", raw, {"Content-Type": OCI_MANIFEST, **headers})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": '"{0}"'}, 201),
        ({"If-Match": f'"{MISSING}", "{{0}}"'}, 201),
        ({"If-Match": "*"}, 201),
        ({"If-Match": f'"{MISSING}"'}, 412),
        ({"If-None-Match": "*"}, 412),
        ({"If-None-Match": '"{0}"'}, 412),
        ({"If-None-Match": 'W/"x", "{0}"'}, 412),
        ({"If-None-Match": '"sha256:' + "0" * 64 + '"'}, 201),
        ({"If-Match": '""'}, 412),
        ({"If-Match": '"nonsense"'}, 412),
        ({"If-Match": ""}, 412),
    ],
)
def test_a_push_to_a_tag_may_be_conditional(client: Client, filled: str, headers: dict[str, str], status: int) -> None:
    """If-Match and If-None-Match: a tag that somebody else moved isn't overwritten (RFC 9110 §13.1)."""
    old = push_bare(client, filled, "latest", text="old")

    answer = _conditional(client, filled, {key: value.format(old.digest) for key, value in headers.items()})

    assert answer.status == status
    kept = client.get(f"/v2/{filled}/manifests/latest").headers["docker-content-digest"]
    assert (kept == str(old.digest)) == (status == 412)


@pytest.mark.parametrize(("header", "value", "status"), [("If-None-Match", "*", 201), ("If-Match", "*", 412)])
def test_a_first_push_may_be_conditional(client: Client, filled: str, header: str, value: str, status: int) -> None:
    """``If-None-Match: *`` makes a tag only where there is none; ``If-Match: *`` only where there is one."""
    assert _conditional(client, filled, {header: value}).status == status


# Deleting


def test_a_tag_is_removed(client: Client, name: str) -> None:
    """end-9 by tag: 202, the tag is gone at once; the manifest and its other tags stay."""
    image = push_image(client, name, "one")
    push_image(client, name, "two")

    answer = client.delete(f"/v2/{name}/manifests/one")

    assert (answer.status, answer.body, answer.headers["content-length"]) == (202, b"", "0")
    assert client.get(f"/v2/{name}/manifests/one").code == "MANIFEST_UNKNOWN"
    assert client.get(f"/v2/{name}/tags/list").json()["tags"] == ["two"]
    assert client.get(f"/v2/{name}/manifests/{image.digest}").body == image.raw
    assert client.delete(f"/v2/{name}/manifests/one").code == "MANIFEST_UNKNOWN"


def test_a_manifest_is_removed_with_its_tags(client: Client, name: str) -> None:
    """end-9 by digest: every tag at it goes too, other manifests stay."""
    image = push_image(client, name, "one")
    push_image(client, name, "two")
    kept = push_image(client, name, "three", text="another")

    answer = client.delete(f"/v2/{name}/manifests/{image.digest}")

    assert answer.status == 202
    for reference in ("one", "two", image.digest):
        assert client.get(f"/v2/{name}/manifests/{reference}").code == "MANIFEST_UNKNOWN"
    assert client.get(f"/v2/{name}/tags/list").json()["tags"] == ["three"]
    assert client.get(f"/v2/{name}/manifests/three").body == kept.raw
    assert client.delete(f"/v2/{name}/manifests/{image.digest}").code == "MANIFEST_UNKNOWN"


def test_a_removed_manifest_can_be_pushed_again(client: Client, name: str, other: str) -> None:
    """Deleting says nothing of the future, nor of other repositories."""
    image = push_image(client, name, "latest")
    push_image(client, other, "latest")

    client.delete(f"/v2/{name}/manifests/{image.digest}")
    assert client.get(f"/v2/{other}/manifests/latest").body == image.raw
    push_image(client, name, "latest")

    assert client.get(f"/v2/{name}/manifests/latest").body == image.raw


def test_a_child_of_an_index_may_be_removed(client: Client, filled: str) -> None:
    """By default what an index lists may be deleted; the index stays readable (§1.10)."""
    child = push_bare(client, filled, "child")
    listed = push(client, filled, "index", index([child.as_descriptor]), OCI_INDEX)

    answer = client.delete(f"/v2/{filled}/manifests/{child.digest}")

    assert answer.status == 202
    assert client.get(f"/v2/{filled}/manifests/index").body == listed.raw
