"""The error codes of the distribution-spec, each where its name says (code-1 … code-14; registry spec §1.3).

code-11 and code-14 need authentication and rate limits, which a registry without either never tells.
"""

import pytest
from tests.conformance.documents import descriptor, manifest, push_image

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_MANIFEST
from roadstead.testing.client import Client

ABSENT = Digest.of(b"absent")
MANIFEST_OF_ABSENT = manifest(descriptor(b"absent"))

# Spec's number, code, status, and the request; "{name}" is a repository with an image, "{upload}" an open session.
CODES = [
    ("code-1", "BLOB_UNKNOWN", 404, "GET", f"/v2/{{name}}/blobs/{ABSENT}", b""),
    ("code-3", "BLOB_UPLOAD_UNKNOWN", 404, "PATCH", "/v2/{name}/blobs/uploads/none", b"x"),
    ("code-4", "DIGEST_INVALID", 400, "PUT", f"{{upload}}?digest={ABSENT}", b"x"),
    ("code-5", "MANIFEST_BLOB_UNKNOWN", 400, "PUT", "/v2/{name}/manifests/new", MANIFEST_OF_ABSENT),
    ("code-6", "MANIFEST_INVALID", 400, "PUT", "/v2/{name}/manifests/new", b"{}"),
    ("code-7", "MANIFEST_UNKNOWN", 404, "GET", "/v2/{name}/manifests/none", b""),
    ("code-8", "NAME_INVALID", 400, "GET", "/v2/{name}_/tags/list", b""),
    ("code-9", "NAME_UNKNOWN", 404, "GET", "/v2/{name}/none/tags/list", b""),
    ("code-10", "SIZE_INVALID", 400, "PATCH", "{upload}", b"x"),
    ("code-12", "DENIED", 412, "PUT", "/v2/{name}/manifests/latest", manifest()),
    ("code-13", "UNSUPPORTED", 405, "POST", "/v2/{name}/manifests/latest", b""),
]
HEADERS = {
    "code-5": {"Content-Type": OCI_MANIFEST},
    "code-6": {"Content-Type": OCI_MANIFEST},
    "code-10": {"Content-Range": "0-5"},
    "code-12": {"Content-Type": OCI_MANIFEST, "If-None-Match": "*"},
}


@pytest.mark.parametrize(("number", "code", "status", "method", "path", "body"), CODES, ids=[row[0] for row in CODES])
def test_each_error_has_its_code(
    client: Client, name: str, number: str, code: str, status: int, method: str, path: str, body: bytes
) -> None:
    """The status, the code in upper case, a message for people; JSON, and nothing beside ``errors``."""
    push_image(client, name, "latest")
    upload = client.post(f"/v2/{name}/blobs/uploads/").headers["location"]

    answer = client.request(method, path.format(name=name, upload=upload), body, HEADERS.get(number, {}))

    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    [entry] = answer.json()["errors"]
    assert list(answer.json()) == ["errors"]
    assert entry["code"] == code
    assert entry["message"]
    assert set(entry) <= {"code", "message", "detail"}
