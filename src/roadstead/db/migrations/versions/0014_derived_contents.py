"""What was ever derived, and from what: it outlives the source."""

import json
from collections.abc import Iterator
from typing import Any

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKeyConstraint,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    insert,
    select,
)

revision = "0014"
down_revision = "0013"

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")

_BATCH = 500

# As they are at this revision; not roadstead.db.schema, which is what they are today.
_known = MetaData()
_derivations = Table(
    "derivations",
    _known,
    Column("id", BigInteger),
    Column("repository_id", BigInteger),
    Column("source", BYTEWISE),
    Column("plan_digest", BYTEWISE),
    Column("plan", Text),
)
_members = Table("derivation_manifests", _known, Column("derivation_id", BigInteger), Column("digest", BYTEWISE))
_contents = Table("contents", _known, Column("digest", BYTEWISE), Column("body", LargeBinary))
_kept = Table(
    "derived_contents",
    _known,
    Column("repository_id", BigInteger),
    Column("digest", BYTEWISE),
    Column("source", BYTEWISE),
    Column("plan_digest", BYTEWISE),
)
_plans = Table("derivation_plans", _known, Column("digest", BYTEWISE), Column("plan", Text))


def upgrade() -> None:
    """Make the tables and note what was derived so far. An earlier release doesn't look at them."""
    op.create_table(
        "derivation_plans",
        Column("digest", BYTEWISE, nullable=False),
        Column("plan", Text(), nullable=False),
        PrimaryKeyConstraint("digest", name="pk_derivation_plans"),
    )
    op.create_table(
        "derived_contents",
        Column("repository_id", BigInteger(), nullable=False),
        Column("digest", BYTEWISE, nullable=False),
        Column("source", BYTEWISE, nullable=False),
        Column("plan_digest", BYTEWISE, nullable=False),
        ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name="fk_derived_contents_repository_id_repositories",
            ondelete="CASCADE",
        ),
        PrimaryKeyConstraint("digest", "repository_id", "source", "plan_digest", name="pk_derived_contents"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_derived_contents_repository_id", "derived_contents", ["repository_id"])
    _note_earlier(op.get_bind())


def _note_earlier(connection: Connection) -> None:
    found = connection.execute(select(_derivations.c.plan_digest, _derivations.c.plan).distinct()).all()
    if found:
        connection.execute(insert(_plans), [{"digest": digest, "plan": plan} for digest, plan in found])
    after = -1
    while numbers := _next_derivations(connection, after):
        after = numbers[-1]
        rows = {tuple(row.values()): row for row in _rows(connection, numbers)}
        if rows:
            connection.execute(insert(_kept), list(rows.values()))


def _next_derivations(connection: Connection, after: int) -> list[int]:
    chosen = select(_derivations.c.id).where(_derivations.c.id > after).order_by(_derivations.c.id).limit(_BATCH)
    return list(connection.execute(chosen).scalars())


def _rows(connection: Connection, numbers: list[int]) -> Iterator[dict[str, Any]]:
    found = connection.execute(
        select(
            _derivations.c.repository_id,
            _members.c.digest,
            _derivations.c.source,
            _derivations.c.plan_digest,
            _contents.c.body,
        )
        .join(_members, _members.c.derivation_id == _derivations.c.id)
        .outerjoin(_contents, _contents.c.digest == _members.c.digest)
        .where(_derivations.c.id.in_(numbers))
    ).all()
    for repository, digest, source, plan_digest, body in found:
        row = {"repository_id": repository, "digest": digest, "source": source, "plan_digest": plan_digest}
        yield row
        config = _config_of(body)
        if config is not None:
            yield {**row, "digest": config}


def _config_of(body: bytes | None) -> str | None:
    """Return the digest of the config that a manifest names; None for an index, or what was collected."""
    try:
        return str(json.loads(body or b"{}")["config"]["digest"])
    except (ValueError, KeyError, TypeError):
        return None
