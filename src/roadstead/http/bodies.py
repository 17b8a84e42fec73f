"""What a request says of its body, read into values."""

from collections.abc import AsyncGenerator, AsyncIterator

from roadstead.errors import InvalidError
from roadstead.http.asgi import Request
from roadstead.http.ranges import parse_content_range
from roadstead.registry.errors import BlobTooLargeError, ContentTooLargeError
from roadstead.registry.ports import UploadRecord
from roadstead.registry.pump import Body, BodyBrokenError


class BodyLengthError(InvalidError):
    """The body ended before its announced length (SIZE_INVALID)."""

    def __init__(self, announced: int | None, received: int) -> None:
        said = "a chunked body" if announced is None else f"{announced} bytes were announced"
        super().__init__(f"{said}, and the body ended after {received}")


class LimitedBody:
    """A part of a blob that ends with an error where the blob becomes too large; `before` bytes came earlier."""

    def __init__(self, body: Body, *, before: int, max_bytes: int) -> None:
        """Raise BlobTooLargeError where the announced size is too much already."""
        if before + (body.announced or 0) > max_bytes:
            raise BlobTooLargeError(max_bytes)
        self._body = body
        self._left = max_bytes - before
        self._max_bytes = max_bytes

    @property
    def announced(self) -> int | None:
        """Bytes announced by Content-Length."""
        return self._body.announced

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come."""
        return self._limited()

    async def _limited(self) -> AsyncGenerator[bytes, None]:
        async for piece in self._body.chunks():
            self._left -= len(piece)
            if self._left < 0:
                raise BlobTooLargeError(self._max_bytes)
            yield piece


class ContentRangeInvalidError(InvalidError):
    """Content-Range can't be read (RANGE_INVALID), told with where the session stands."""

    def __init__(self, text: str, record: UploadRecord) -> None:
        super().__init__(f"Content-Range {text!r} is not <first>-<last>, both inclusive")
        self.repository = record.repository
        self.upload_id = record.upload_id
        self.received = record.size


def chunk_range(request: Request, record: UploadRecord) -> tuple[int | None, int | None]:
    """Return (start, size) of the chunk as Content-Range says; (None, None) where there is none."""
    text = request.header(b"content-range")
    if text is None:
        return None, None
    parsed = parse_content_range(text)
    if parsed is None:
        raise ContentRangeInvalidError(text[:100], record)
    return parsed


async def read_whole(request: Request, what: str, *, max_bytes: int) -> bytes:
    """Return a body that has to be small; refuses it as soon as it is larger, chunked or not (CVE-2017-11468)."""
    if request.announced is not None and request.announced > max_bytes:
        raise ContentTooLargeError(what, max_bytes)
    data = bytearray()
    try:
        async for chunk in request.chunks():
            data += chunk
            if len(data) > max_bytes:
                raise ContentTooLargeError(what, max_bytes)
    except BodyBrokenError as error:
        raise BodyLengthError(request.announced, error.received) from error
    return bytes(data)
