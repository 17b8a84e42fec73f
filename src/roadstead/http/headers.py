"""Headers that several handlers send."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

JSON = (b"content-type", b"application/json")

SAFE = (
    # What was pushed is data, never a page of ours: no sniffing, no scripts, no cookies in reach (design decision 11).
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox"),
    (b"content-disposition", b"attachment"),
)

IMMUTABLE = (b"cache-control", b"max-age=31536000, immutable")
PERSONAL = (b"cache-control", b"private, max-age=31536000, immutable")
"""As IMMUTABLE, for somebody who has signed in: caches that many share keep it from others (some, as nginx's, keep what
an Authorization header was sent for)."""

REVALIDATE = (b"cache-control", b"no-cache")


def upload_path(name: str, upload_id: str) -> str:
    """Return the session's URL, path-absolute: right behind every proxy (registry spec §1.7)."""
    return f"/v2/{name}/blobs/uploads/{upload_id}"


def upload_headers(name: str, upload_id: str, received: int) -> list[tuple[bytes, bytes]]:
    """Return what every answer about an open session carries; an empty session's range is ``0-0``."""
    return [
        (b"location", upload_path(name, upload_id).encode()),
        (b"range", f"0-{max(0, received - 1)}".encode()),
        (b"docker-upload-uuid", upload_id.encode()),
    ]


def next_link(path: str, parameters: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Return the Link header to the next page (RFC 8288), its query sorted as distribution's is."""
    query = urlencode(sorted(parameters.items()), quote_via=quote)
    return (b"link", f'<{path}?{query}>; rel="next"'.encode())
