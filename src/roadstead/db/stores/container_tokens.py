"""Container tokens, and the end of what was derived for them (``augment.container_token.ContainerTokenStore``)."""

import json
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import BindParameter, Connection, bindparam, delete, exists, insert, select, update

from roadstead.augment.container_token import ContainerToken, ContainerTokenStore
from roadstead.augment.plan import Plan
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.db.access import Access, Query
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import (
    container_tokens,
    contents,
    link_changes,
    manifests,
    repositories,
    repository_blobs,
)
from roadstead.db.stores import repositories as repository_rows
from roadstead.oci.reference import CONTAINER_TOKENS, RepositoryName, parse_reference

_AFTER_SLASH = "0"  # the character behind "/": what begins with "wt/" sorts before "wt0"
_SPACES_AT_ONCE = 100

FIND = Query(
    select(
        container_tokens.c.creator_kind,
        container_tokens.c.creator_name,
        container_tokens.c.creator_groups,
        container_tokens.c.key_id,
        container_tokens.c.repository,
        container_tokens.c.path,
        container_tokens.c.reference,
        container_tokens.c.plan,
        container_tokens.c.described,
        container_tokens.c.created_at,
        container_tokens.c.expires_at,
    ).where(container_tokens.c.token_hash == bindparam("token_hash")),
    "token_hash",
)
_END = (
    update(container_tokens)
    .where(container_tokens.c.token_hash == bindparam("of"), container_tokens.c.expires_at > bindparam("now"))
    .values(expires_at=bindparam("now"))
)
_FORGET = delete(container_tokens).where(container_tokens.c.expires_at < bindparam("before"))
# A space without a good token; what is just being derived for a new one has a while to get it.
_LEFT_BEHIND = Query(
    select(repositories.c.name)
    .where(
        repositories.c.name > bindparam("from_name"),
        repositories.c.name < bindparam("to_name"),
        repositories.c.created_at < bindparam("before"),
        ~exists(container_tokens.c.token_hash).where(
            container_tokens.c.space == repositories.c.name, container_tokens.c.expires_at > bindparam("now")
        ),
    )
    .order_by(repositories.c.name)
    .limit(_SPACES_AT_ONCE),
    "from_name",
    "to_name",
    "before",
    "now",
)
_IS_GOOD = (
    select(container_tokens.c.token_hash)
    .where(container_tokens.c.space == bindparam("space"), container_tokens.c.expires_at > bindparam("now"))
    .limit(1)
)
_OF_SPACE: BindParameter[int] = bindparam("number")
_DIGESTS = select(manifests.c.digest).where(manifests.c.repository_id == _OF_SPACE)
_REMOVE = (
    delete(manifests).where(manifests.c.repository_id == _OF_SPACE),  # references and derivations go with them
    delete(repository_blobs).where(repository_blobs.c.repository_id == _OF_SPACE),
    delete(link_changes).where(link_changes.c.repository_id == _OF_SPACE),  # notes of what was just removed
    delete(repositories).where(repositories.c.id == _OF_SPACE),
)
_REMOVE_CONTENT = delete(contents).where(
    contents.c.digest == bindparam("of"), ~exists(manifests.c.digest).where(manifests.c.digest == bindparam("of"))
)
_YOUNG_US = 3_600_000_000


class DatabaseContainerTokens:
    """`ContainerTokenStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def put(self, token: ContainerToken) -> None:
        """Store a new token."""
        await self._access.write(_put, token)

    async def find(self, token_hash: str) -> ContainerToken | None:
        """Return the token with that hash."""
        row = await self._access.row(FIND, token_hash)
        if row is None:
            return None
        kind, name, groups, key_id, repository, path, reference, plan, described, created, expires = row
        return ContainerToken(
            token_hash=token_hash,
            creator=Principal(PrincipalKind(kind), name, frozenset(json.loads(groups))),
            key_id=key_id,
            repository=RepositoryName.parse(repository),
            path=path,
            reference=parse_reference(reference),
            plan=None if plan is None else Plan.parse(plan),
            described=described,
            created_at=from_micros(created),
            expires_at=from_micros(expires),
        )

    async def end(self, token_hash: str, *, now: datetime) -> bool:
        """End a token."""
        return await self._access.write(_end, token_hash, to_micros(now))

    async def purge(self, *, now: datetime, forget_before: datetime) -> int:
        """Remove what was derived for tokens that have ended, and tokens that ended long ago."""
        at = to_micros(now)
        bounds = (f"{CONTAINER_TOKENS}/", f"{CONTAINER_TOKENS}{_AFTER_SLASH}")
        done = 0
        while rows := await self._access.rows(_LEFT_BEHIND, *bounds, at - _YOUNG_US, at):
            removed = [await self._access.write(_remove_space, RepositoryName.parse(name), at) for (name,) in rows]
            done += sum(removed)
            if not any(removed):  # all of them have a token again
                break
        return done + await self._access.write(_forget, to_micros(forget_before))


def _put(connection: Connection, token: ContainerToken) -> None:
    connection.execute(
        insert(container_tokens),
        {
            "token_hash": token.token_hash,
            "creator_kind": token.creator.kind.value,
            "creator_name": token.creator.name,
            "creator_groups": json.dumps(sorted(token.creator.groups)),
            "key_id": token.key_id,
            "repository": token.repository.value,
            "path": token.path,
            "reference": str(token.reference),
            "plan": None if token.plan is None else token.plan.canonical(),
            "space": None if token.space is None else token.space.value,
            "described": token.described,
            "created_at": to_micros(token.created_at),
            "expires_at": to_micros(token.expires_at),
        },
    )


def _end(connection: Connection, token_hash: str, now: int) -> bool:
    return connection.execute(_END, {"of": token_hash, "now": now}).rowcount == 1


def _forget(connection: Connection, before: int) -> int:
    return connection.execute(_FORGET, {"before": before}).rowcount


def _remove_space(connection: Connection, space: RepositoryName, now: int) -> bool:
    number = repository_rows.have_alone(connection, space)
    if number is None or connection.execute(_IS_GOOD, {"space": space.value, "now": now}).first() is not None:
        return False
    digests = list(connection.execute(_DIGESTS, {"number": number}).scalars())
    for statement in _REMOVE:
        connection.execute(statement, {"number": number})
    for digest in digests:
        connection.execute(_REMOVE_CONTENT, {"of": digest})
    return True


if TYPE_CHECKING:
    _: type[ContainerTokenStore] = DatabaseContainerTokens
