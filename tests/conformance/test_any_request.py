"""Whatever is asked, the server answers and stays itself (registry spec §8.3)."""

import os
import string

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadstead.testing.client import Client

METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "X-OTHER"])
DIGESTS = st.sampled_from(["sha256:" + "0" * 64, "sha512:" + "0" * 128, "sha256:", "sha256:x", "md5:0", ":"])
# What may stand in a path as it is (RFC 3986 §3.3); the rest comes percent-encoded.
PLAIN = st.text(string.ascii_letters + string.digits + "-._~!$'()*,;:@", max_size=12)
ENCODED = st.binary(max_size=6).map(lambda data: "".join(f"%{byte:02X}" for byte in data))
SEGMENTS = st.one_of(
    st.sampled_from(["blobs", "manifests", "uploads", "tags", "list", "referrers", "_catalog", "a", "b.c", "..", ""]),
    DIGESTS,
    PLAIN,
    ENCODED,
)
PATHS = st.lists(SEGMENTS, max_size=8).map(lambda segments: "/v2/" + "/".join(segments))
PARAMETERS = st.sampled_from(["n", "last", "digest", "mount", "from", "tag", "artifactType", "digest-algorithm", "ns"])
VALUES = st.one_of(DIGESTS, PLAIN, ENCODED)
QUERIES = st.lists(st.tuples(PARAMETERS, VALUES), max_size=4).map(
    lambda pairs: "?" + "&".join(f"{name}={value}" for name, value in pairs) if pairs else ""
)
FIELDS = st.sampled_from(
    ["Range", "If-Range", "If-Match", "If-None-Match", "Content-Range", "Content-Type", "Accept", "Forwarded"]
)
FIELD_VALUES = st.one_of(
    PLAIN,
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20),
    st.sampled_from(["bytes=0-", "bytes=-1", "0-9", "*", '"x"', "application/vnd.oci.image.manifest.v1+json"]),
)
HEADERS = st.dictionaries(FIELDS, FIELD_VALUES.map(str.strip), max_size=4)
BODIES = st.one_of(st.none(), st.binary(max_size=40), st.just(b'{"schemaVersion":2,"manifests":[]}'))


@settings(
    max_examples=150,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(method=METHODS, path=PATHS, query=QUERIES, headers=HEADERS, body=BODIES)
def test_any_request_is_answered(
    client: Client, method: str, path: str, query: str, headers: dict[str, str], body: bytes | None
) -> None:
    """No request of this shape is a server error, hangs, or goes without the version header; errors are JSON."""
    answer = client.request(method, path + query, body, headers)

    assert answer.status < 500
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    if answer.status >= 400 and method != "HEAD":
        assert answer.code is not None
