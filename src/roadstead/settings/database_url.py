"""Where the database is: the address as people write it, read as far as settings need it."""

import re
from urllib.parse import urlsplit

_POSTGRESQL = frozenset({"postgresql", "postgres"})
# To the last @ before the parameters, whatever else should have been written otherwise.
_PASSWORD = re.compile(r"^([a-z0-9+]+://[^:@/]*):(?:[^?]+|.+)@", re.IGNORECASE | re.DOTALL)
_PASSWORD_PARAMETER = re.compile(r"([?&][a-z_]*password=)[^&#]*", re.IGNORECASE)


def is_postgresql(url: str) -> bool:
    """Say whether a database's URL is one of PostgreSQL."""
    return url.partition(":")[0].partition("+")[0] in _POSTGRESQL


def has_good_port(url: str) -> bool:
    """Say whether the port of a database's URL is one, or isn't said."""
    try:
        return urlsplit(without_password(url)).port != 0
    except ValueError:
        return False


def without_password(url: str) -> str:
    """Return the URL with ``***`` for its passwords: before the host, and among its parameters."""
    return _PASSWORD_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))
