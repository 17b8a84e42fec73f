"""Answers that leave a blob's bytes to somebody else: to nginx in front of us, or to the bucket they lie in.

nginx sends a file by itself when an answer names it in ``X-Accel-Redirect``. It honours ranges then and passes on few
of our headers, so its configuration repeats them (docs/how-to/run-behind-nginx.md); what it would read otherwise than
we do, an ``If-Range`` and ranges that we answer whole, stays with us.

A request counts as nginx's by a secret in a header. Without one, anybody could ask for an empty answer through some
other proxy, which might keep it for everybody: blobs may be cached for a year.
"""

from dataclasses import dataclass
from datetime import timedelta

from roadstead.http.asgi import Headers, Request
from roadstead.http.headers import REVALIDATE
from roadstead.http.ranges import Part, Whole
from roadstead.secret import Secret
from roadstead.storage import keys
from roadstead.storage.ports import Key, PresignsUrl

ASKED_BY = b"x-roadstead-offload"
"""The header in which nginx says the secret."""

URL_HOLDS = timedelta(minutes=20)
"""How long a signed URL can be used, as long as distribution's: a slow client may begin late, and resume."""


@dataclass(frozen=True, slots=True)
class XAccel:
    """nginx's internal `location` for the folder of blobs, and the secret that tells its requests."""

    location: str
    secret: Secret

    def header(self, request: Request, wanted: Whole | tuple[Part, ...], key: Key) -> tuple[bytes, bytes] | None:
        """Return the header that names the blob's file to nginx; None where we send the bytes."""
        said = request.header(ASKED_BY)
        if said is None or not self.secret.matches(said) or not key.startswith(keys.BLOBS):
            return None
        if request.header(b"range") is not None and (isinstance(wanted, Whole) or request.header(b"if-range")):
            return None
        return b"x-accel-redirect", f"{self.location}{key.removeprefix(keys.BLOBS)}".encode()


async def redirected(presigner: PresignsUrl, key: Key, headers: Headers) -> Headers:
    """Return the headers of a redirect to the bucket, which may not be kept: its address soon says nothing any more."""
    url = await presigner.presign(key, URL_HOLDS)
    kept = [pair for pair in headers if pair[0] != b"cache-control"]
    return [*kept, REVALIDATE, (b"location", url.encode())]
