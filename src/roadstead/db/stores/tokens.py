"""Keys that sign tokens, and refresh tokens (``auth.ports.SigningKeyStore``, ``auth.ports.RefreshTokenStore``)."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Connection, bindparam, delete, insert, select

from roadstead.auth.ports import RefreshToken, RefreshTokenStore, SealedKey, SigningKeyStore
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.auth.proof import Bond
from roadstead.db.access import Access, Query
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import refresh_tokens, signing_keys

_KEY = (
    signing_keys.c.kid,
    signing_keys.c.algorithm,
    signing_keys.c.sealed,
    signing_keys.c.certificate,
    signing_keys.c.created_at,
    signing_keys.c.signs_from,
)
_TOKEN = (
    refresh_tokens.c.kind,
    refresh_tokens.c.name,
    refresh_tokens.c.service,
    refresh_tokens.c.created_at,
    refresh_tokens.c.expires_at,
    refresh_tokens.c.bond,
)
ALL_KEYS = Query(select(*_KEY).order_by(signing_keys.c.signs_from, signing_keys.c.kid))
FIND_TOKEN = Query(select(*_TOKEN).where(refresh_tokens.c.token_hash == bindparam("token_hash")), "token_hash")

_REMOVE_KEY = delete(signing_keys).where(signing_keys.c.kid == bindparam("of"))
_REMOVE_ENDED = delete(refresh_tokens).where(refresh_tokens.c.expires_at <= bindparam("now"))
_REMOVE_OF = delete(refresh_tokens).where(
    refresh_tokens.c.name == bindparam("of"), refresh_tokens.c.kind == bindparam("of_kind")
)


def signing_keys_in_file(path: Path) -> Sequence[SealedKey] | None:
    """Return all keys in a SQLite file, beside whoever uses it; None where they can't be read.

    Nothing is opened for writing and nothing is migrated: for commands that only look.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            return [_sealed(row) for row in connection.execute(str(select(*_KEY)))]
    except sqlite3.Error:
        return None


def _sealed(row: Sequence[Any]) -> SealedKey:
    kid, algorithm, sealed, certificate, created, signs = row
    return SealedKey(kid, algorithm, bytes(sealed), certificate, from_micros(created), from_micros(signs))


class DatabaseTokens:
    """Both stores on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def signing_keys(self) -> Sequence[SealedKey]:
        """Return all keys."""
        return [_sealed(row) for row in await self._access.rows(ALL_KEYS)]

    async def add_signing_key(self, key: SealedKey) -> None:
        """Store a new key."""
        await self._access.write(_add_key, key)

    async def remove_signing_key(self, kid: str) -> bool:
        """Remove a key."""
        return await self._access.write(_remove_key, kid)

    async def put_refresh_token(self, token: RefreshToken) -> None:
        """Store a new token, and remove those that have ended."""
        await self._access.write(_put_token, token)

    async def find_refresh_token(self, token_hash: str) -> RefreshToken | None:
        """Return the token with that hash."""
        row = await self._access.row(FIND_TOKEN, token_hash)
        if row is None:
            return None
        kind, name, service, created, expires, bond = row
        principal = Principal(PrincipalKind(kind), name)
        made, ends = from_micros(created), from_micros(expires)
        return RefreshToken(token_hash, principal, service, made, ends, Bond.parse(bond))

    async def remove_refresh_tokens(self, principal: Principal) -> int:
        """Remove all tokens of one caller."""
        return await self._access.write(_remove_tokens, principal)


def _add_key(connection: Connection, key: SealedKey) -> None:
    connection.execute(
        insert(signing_keys),
        {
            "kid": key.kid,
            "algorithm": key.algorithm,
            "sealed": key.sealed,
            "certificate": key.certificate,
            "created_at": to_micros(key.created_at),
            "signs_from": to_micros(key.signs_from),
        },
    )


def _remove_key(connection: Connection, kid: str) -> bool:
    return connection.execute(_REMOVE_KEY, {"of": kid}).rowcount > 0


def _put_token(connection: Connection, token: RefreshToken) -> None:
    connection.execute(_REMOVE_ENDED, {"now": to_micros(token.created_at)})
    connection.execute(
        insert(refresh_tokens),
        {
            "token_hash": token.token_hash,
            "kind": token.principal.kind.value,
            "name": token.principal.name,
            "service": token.service,
            "created_at": to_micros(token.created_at),
            "expires_at": to_micros(token.expires_at),
            "bond": None if token.bond is None else str(token.bond),
        },
    )


def _remove_tokens(connection: Connection, principal: Principal) -> int:
    return connection.execute(_REMOVE_OF, {"of": principal.name, "of_kind": principal.kind.value}).rowcount


if TYPE_CHECKING:
    _: type[SigningKeyStore] = DatabaseTokens
    __: type[RefreshTokenStore] = DatabaseTokens
