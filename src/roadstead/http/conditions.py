"""Conditional requests on content addresses (RFC 9110 §13): an entity tag is the digest in quotes."""

from collections.abc import Sequence

from roadstead.errors import ConflictError
from roadstead.http.asgi import Request


class ConditionUnmetError(ConflictError):
    """If-Match names nothing that a tag could be at (412): digests in quotes, or ``*``."""

    def __init__(self) -> None:
        super().__init__('If-Match names no digest; it is written as "sha256:…" in quotes, or as *')


def etag(digest: str) -> bytes:
    """Return the entity tag of a digest."""
    return f'"{digest}"'.encode()


def etags(values: Sequence[str]) -> tuple[str, ...] | None:
    """Return the tags of If-Match or If-None-Match headers without quotes and ``W/``; None where there is no header."""
    if not values:
        return None
    items = (item.strip().removeprefix("W/").strip('"') for value in values for item in value.split(","))
    return tuple(item for item in items if item)


def none_match(request: Request, digest: str) -> bool:
    """Tell whether If-None-Match names this digest: the client has it already (304)."""
    values = request.headers(b"if-none-match")
    if not values:
        return False
    found = etags(values)
    return found is not None and (digest in found or "*" in found)
