"""A small HTTP client for tests that lets them say exactly what goes over the wire, and shows what came back."""

import http.client
import json
import select
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from roadstead.oci.digest import Digest


class ConnectionBrokenError(Exception):
    """The server closed the connection instead of answering, or in the middle of an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are lower case, a header that came several times is a list in `all_headers`."""

    status: int
    headers: Mapping[str, str]
    all_headers: tuple[tuple[str, str], ...]
    body: bytes

    def json(self) -> Any:
        """Return the body, read as JSON."""
        return json.loads(self.body)

    def every(self, name: str) -> list[str]:
        """Return all values of a header that may come several times."""
        return [value for header, value in self.all_headers if header == name]

    @property
    def code(self) -> str | None:
        """Return the first error code of the body, None where it has none."""
        try:
            return str(self.json()["errors"][0]["code"])
        except (ValueError, KeyError, IndexError, TypeError):
            return None


class Client:
    """One kept-alive connection to one server; reconnects by itself when the server closed it between requests.

    `source` is the address that it comes from: all of 127.0.0.0/8 are this machine's.
    """

    def __init__(self, host: str, *, timeout_s: float = 30, source: str = "") -> None:
        self._connection = http.client.HTTPConnection(host, timeout=timeout_s, source_address=(source, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def local_port(self) -> int:
        """Return our end's port; a request was made and the connection is still open."""
        port: int = self._connection.sock.getsockname()[1]
        return port

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request; bytes with Content-Length, an iterable of bytes chunked. Raises ConnectionBrokenError."""
        chunked = body is not None and not isinstance(body, bytes)
        sent = dict(headers or {})
        if body is None and method in {"POST", "PUT", "PATCH"}:
            sent.setdefault("Content-Length", "0")
        self._notice_the_end()
        try:
            if self._connection.sock is None:
                self._connection.connect()  # where that fails there is no answer
            # The server may answer before it has everything, and close: the answer is there to be read even so.
            with suppress(BrokenPipeError, ConnectionResetError):
                self._connection.request(method, path, body=body, headers=sent, encode_chunked=chunked)
            response = self._connection.getresponse()
            data = response.read()
        except (http.client.HTTPException, ConnectionError) as error:
            self._connection.close()
            raise ConnectionBrokenError(f"{method} {path}: {error!r}") from error
        pairs = tuple((name.lower(), value) for name, value in response.getheaders())
        return Answer(response.status, dict(pairs), pairs, data)

    def _notice_the_end(self) -> None:
        """Close our end where the server has closed its own since the last answer: an idle connection ends."""
        if self._connection.sock is None:
            return
        looking = select.poll()
        looking.register(self._connection.sock, select.POLLIN)
        if looking.poll(0):
            self._connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET."""
        return self.request("GET", path, headers=headers)

    def head(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """HEAD."""
        return self.request("HEAD", path, headers=headers)

    def put(
        self, path: str, body: bytes | Iterable[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """PUT."""
        return self.request("PUT", path, body, headers)

    def post(
        self, path: str, body: bytes | Iterable[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """POST."""
        return self.request("POST", path, body, headers)

    def patch(
        self, path: str, body: bytes | Iterable[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """PATCH."""
        return self.request("PATCH", path, body, headers)

    def delete(self, path: str) -> Answer:
        """DELETE."""
        return self.request("DELETE", path)

    def push_blob(self, name: str, data: bytes) -> Digest:
        """Push a blob in one request and return its digest; anything but 201 is an AssertionError."""
        digest = Digest.of(data)
        answer = self.post(f"/v2/{name}/blobs/uploads/?digest={digest}", data)
        if answer.status == 202:  # an empty blob comes without a body: finish the session
            answer = self.put(with_query(answer.headers["location"], f"digest={digest}"), data)
        if answer.status != 201:
            raise AssertionError(f"push of {digest} to {name}: {answer.status} {answer.body!r}")
        return digest

    def push_manifest(self, name: str, reference: str, raw: bytes, media_type: str) -> Digest:
        """Push a manifest and return its digest; anything but 201 is an AssertionError."""
        answer = self.put(f"/v2/{name}/manifests/{reference}", raw, {"Content-Type": media_type})
        if answer.status != 201:
            raise AssertionError(f"push of {name}:{reference}: {answer.status} {answer.body!r}")
        return Digest.parse(answer.headers["docker-content-digest"])

    def pages(self, path: str, member: str) -> Iterator[list[Any]]:
        """Yield a listing's pages, following Link to the end."""
        following: str | None = path
        while following:
            answer = self.get(following)
            yield answer.json()[member]
            link = answer.headers.get("link")
            following = link[1 : link.index(">")] if link else None


def with_query(location: str, query: str) -> str:
    """Return a URL with more in its query: a Location may have one already."""
    return f"{location}{'&' if '?' in location else '?'}{query}"
