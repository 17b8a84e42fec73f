"""API keys as texts: ``rs_ID_SECRET``. The id is no secret; of the secret only its SHA-256 is kept."""

import hashlib
import re
import secrets
from base64 import b32encode
from dataclasses import dataclass
from datetime import datetime, timedelta

from roadstead.auth.caller import Scope
from roadstead.auth.ports import ApiKey
from roadstead.auth.principal import Principal
from roadstead.secret import Secret

KEY_PREFIX = "rs_"
"""How a key begins: people and secret scanners know it by that."""

DEFAULT_LIFETIME = timedelta(days=90)
"""How long a key is good for where nobody says."""

_ID_BYTES = 10
_SECRET_BYTES = 20  # 160 bits
_KEY = re.compile(r"rs_([a-z2-7]{16})_([a-z2-7]{32})")
_ID = re.compile(r"[a-z2-7]{16}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; ``text`` is shown once and kept nowhere."""

    text: Secret
    row: ApiKey


def make_key(
    owner: Principal, scope: Scope, *, now: datetime, expires_at: datetime | None, description: str = ""
) -> NewKey:
    """Return a new random key."""
    key_id, secret = _random(_ID_BYTES), _random(_SECRET_BYTES)
    row = ApiKey(
        key_id=key_id,
        owner=owner,
        scope=scope,
        secret_hash=hashed(secret),
        created_at=now,
        expires_at=expires_at,
        description=description,
    )
    return NewKey(Secret(f"{KEY_PREFIX}{key_id}_{secret}"), row)


def _random(size: int) -> str:
    return b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()


def hashed(secret: str) -> str:
    """Return the SHA-256: of 160 random bits nobody finds the other half, so nothing slower is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def parse_key(text: str) -> tuple[str, str] | None:
    """Return id and secret; None for what isn't a key."""
    parts = _KEY.fullmatch(text)
    return None if parts is None else (parts[1], parts[2])


def is_key_id(text: str) -> bool:
    """Say whether a key can have this id."""
    return _ID.fullmatch(text) is not None
