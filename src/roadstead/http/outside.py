"""How the service is seen from outside: what stands before its paths, and what its operator adds to every answer."""

from dataclasses import dataclass

from roadstead.http.asgi import Headers
from roadstead.http.routes import PathUnknownError

_PATHS = {b"location": b"/", b"link": b"</"}  # headers that hold a path of ours, and how they begin then


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """``prefix`` stands before every path (``/`` or ``/registry/``); ``origin`` (``https://host``) before locations.

    Without an origin locations are paths, which are right behind every proxy (registry spec §1.7).
    """

    prefix: str = "/"
    origin: str = ""
    headers: Headers = ()

    @property
    def is_plain(self) -> bool:
        """Tell whether answers leave as handlers made them."""
        return not (self.origin or self.headers) and self.prefix == "/"

    def inside(self, path: str) -> str:
        """Return the path without the prefix. Without it the API isn't found, health and metrics are."""
        if self.prefix == "/":
            return path
        if path.startswith(self.prefix):
            return path[len(self.prefix) - 1 :]
        if path.startswith("/v2"):
            raise PathUnknownError(path)
        return path

    def dressed(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return an answer's headers as they leave; what it says itself already isn't said twice."""
        base = (self.origin + self.prefix.rstrip("/")).encode()
        if base:
            headers = [(name, _based(name, value, base)) for name, value in headers]
        return headers + [pair for pair in self.headers if pair not in headers] if self.headers else headers


def _based(name: bytes, value: bytes, base: bytes) -> bytes:
    start = _PATHS.get(name)
    if start is None or not value.startswith(start):
        return value
    return start[:-1] + base + value[len(start) - 1 :]
