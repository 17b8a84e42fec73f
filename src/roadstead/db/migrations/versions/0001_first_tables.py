"""The first tables: repositories, blobs, manifests, tags, uploads, derivations, leases."""

from typing import Any

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    text,
)

revision = "0001"
down_revision = None

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")
NUMBER = BigInteger().with_variant(Integer(), "sqlite")


def where(condition: str, postgres: str | None = None) -> dict[str, Any]:
    """Return the arguments that make an index cover only some rows."""
    return {"sqlite_where": text(condition), "postgresql_where": text(postgres or condition)}


def upgrade() -> None:
    """Create them; `db.schema` says what each is for."""
    _create_repositories_and_blobs()
    _create_manifests_and_tags()
    _create_derivations()
    _create_the_rest()


def _create_repositories_and_blobs() -> None:
    op.create_table(
        "repositories",
        Column("id", NUMBER, nullable=False),
        Column("name", BYTEWISE, nullable=False),
        Column("sort_key", BYTEWISE, nullable=False),
        Column("listed", Boolean(), nullable=False),
        Column("created_at", BigInteger(), nullable=False),
        PrimaryKeyConstraint("id", name="pk_repositories"),
        UniqueConstraint("name", name="uq_repositories_name"),
    )
    op.create_index(
        "ix_repositories_catalog", "repositories", ["sort_key", "name"], **where("listed IS 1", "listed IS true")
    )
    op.create_table(
        "blobs",
        Column("digest", BYTEWISE, nullable=False),
        Column("size", BigInteger(), nullable=False),
        Column("storage_key", Text(), nullable=False),
        Column("state", Text(), nullable=False),
        Column("state_since", BigInteger(), nullable=False),
        Column("lease_until", BigInteger(), nullable=False),
        Column("created_at", BigInteger(), nullable=False),
        CheckConstraint("state IN ('live', 'condemned', 'deleting')", name="ck_blobs_state"),
        PrimaryKeyConstraint("digest", name="pk_blobs"),
    )
    op.create_index("ix_blobs_dying", "blobs", ["state", "state_since"], **where("state != 'live'"))
    op.create_table(
        "repository_blobs",
        Column("repository_id", BigInteger(), nullable=False),
        Column("digest", BYTEWISE, nullable=False),
        ForeignKeyConstraint(["digest"], ["blobs.digest"], name="fk_repository_blobs_digest_blobs"),
        ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name="fk_repository_blobs_repository_id_repositories"
        ),
        PrimaryKeyConstraint("repository_id", "digest", name="pk_repository_blobs"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_repository_blobs_digest", "repository_blobs", ["digest"])


def _create_manifests_and_tags() -> None:
    op.create_table(
        "contents",
        Column("digest", BYTEWISE, nullable=False),
        Column("body", LargeBinary(), nullable=False),
        PrimaryKeyConstraint("digest", name="pk_contents"),
    )
    op.create_table(
        "manifests",
        Column("repository_id", BigInteger(), nullable=False),
        Column("digest", BYTEWISE, nullable=False),
        Column("media_type", Text(), nullable=False),
        Column("size", BigInteger(), nullable=False),
        Column("artifact_type", BYTEWISE),
        Column("subject", BYTEWISE),
        Column("annotations", Text()),
        Column("derived", Boolean(), nullable=False),
        Column("pushed_at", BigInteger(), nullable=False),
        ForeignKeyConstraint(["digest"], ["contents.digest"], name="fk_manifests_digest_contents"),
        ForeignKeyConstraint(["repository_id"], ["repositories.id"], name="fk_manifests_repository_id_repositories"),
        PrimaryKeyConstraint("repository_id", "digest", name="pk_manifests"),
    )
    op.create_index("ix_manifests_digest", "manifests", ["digest"])
    op.create_index("ix_manifests_pushed", "manifests", ["repository_id"], **where("derived IS 0", "derived IS false"))
    op.create_index(
        "ix_manifests_referrers", "manifests", ["repository_id", "subject", "digest"], **where("subject IS NOT NULL")
    )
    op.create_index(
        "ix_manifests_referrers_by_type",
        "manifests",
        ["repository_id", "subject", "artifact_type", "digest"],
        **where("subject IS NOT NULL"),
    )
    op.create_table(
        "manifest_references",
        Column("repository_id", BigInteger(), nullable=False),
        Column("manifest", BYTEWISE, nullable=False),
        Column("kind", Text(), nullable=False),
        Column("digest", BYTEWISE, nullable=False),
        Column("optional", Boolean(), nullable=False),
        CheckConstraint("kind IN ('config', 'layer', 'child')", name="ck_manifest_references_kind"),
        ForeignKeyConstraint(
            ["repository_id", "manifest"],
            ["manifests.repository_id", "manifests.digest"],
            name="fk_manifest_references_repository_id_manifest_manifests",
            ondelete="CASCADE",
        ),
        PrimaryKeyConstraint("repository_id", "manifest", "kind", "digest", name="pk_manifest_references"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_manifest_references_digest", "manifest_references", ["digest", "repository_id"])
    op.create_table(
        "tags",
        Column("repository_id", BigInteger(), nullable=False),
        Column("name", BYTEWISE, nullable=False),
        Column("digest", BYTEWISE, nullable=False),
        Column("updated_at", BigInteger(), nullable=False),
        ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["manifests.repository_id", "manifests.digest"],
            name="fk_tags_repository_id_digest_manifests",
        ),
        PrimaryKeyConstraint("repository_id", "name", name="pk_tags"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tags_digest", "tags", ["repository_id", "digest"])
    op.create_table(
        "tag_journal",
        Column("id", NUMBER, nullable=False),
        Column("repository_id", BigInteger(), nullable=False),
        Column("tag", BYTEWISE, nullable=False),
        Column("digest", BYTEWISE),
        Column("previous", BYTEWISE),
        Column("at", BigInteger(), nullable=False),
        Column("origin", Text(), nullable=False),
        ForeignKeyConstraint(["repository_id"], ["repositories.id"], name="fk_tag_journal_repository_id_repositories"),
        PrimaryKeyConstraint("id", name="pk_tag_journal"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tag_journal_tag", "tag_journal", ["repository_id", "tag", "id"])


def _create_derivations() -> None:
    op.create_table(
        "derivations",
        Column("id", NUMBER, nullable=False),
        Column("repository_id", BigInteger(), nullable=False),
        Column("source", BYTEWISE, nullable=False),
        Column("plan_digest", BYTEWISE, nullable=False),
        Column("plan", Text(), nullable=False),
        Column("root", BYTEWISE, nullable=False),
        Column("created_at", BigInteger(), nullable=False),
        ForeignKeyConstraint(
            ["repository_id", "source"],
            ["manifests.repository_id", "manifests.digest"],
            name="fk_derivations_repository_id_source_manifests",
            ondelete="CASCADE",
        ),
        PrimaryKeyConstraint("id", name="pk_derivations"),
        UniqueConstraint(
            "repository_id", "source", "plan_digest", name="uq_derivations_repository_id_source_plan_digest"
        ),
    )
    op.create_table(
        "derivation_manifests",
        Column("derivation_id", BigInteger(), nullable=False),
        Column("digest", BYTEWISE, nullable=False),
        Column("repository_id", BigInteger(), nullable=False),
        Column("source", BYTEWISE, nullable=False),
        Column("root", Boolean(), nullable=False),
        ForeignKeyConstraint(
            ["derivation_id"],
            ["derivations.id"],
            name="fk_derivation_manifests_derivation_id_derivations",
            ondelete="CASCADE",
        ),
        PrimaryKeyConstraint("derivation_id", "digest", name="pk_derivation_manifests"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_derivation_manifests_digest", "derivation_manifests", ["repository_id", "digest"])
    op.create_index("ix_derivation_manifests_source", "derivation_manifests", ["repository_id", "source"])


def _create_the_rest() -> None:
    op.create_table(
        "uploads",
        Column("upload_id", Text(), nullable=False),
        Column("repository", Text(), nullable=False),
        Column("state", Text(), nullable=False),
        Column("staged_size", BigInteger(), nullable=False),
        Column("staged_state", Text(), nullable=False),
        Column("algorithm", Text(), nullable=False),
        Column("digest_so_far", Text(), nullable=False),
        Column("hash_state", LargeBinary()),
        Column("committed", Text()),
        Column("version", BigInteger(), nullable=False),
        Column("started_at", BigInteger(), nullable=False),
        Column("touched_at", BigInteger(), nullable=False),
        CheckConstraint("state IN ('open', 'committed', 'cancelled')", name="ck_uploads_state"),
        PrimaryKeyConstraint("upload_id", name="pk_uploads"),
    )
    op.create_index("ix_uploads_started", "uploads", ["state", "started_at"])
    op.create_index("ix_uploads_touched", "uploads", ["state", "touched_at"])
    op.create_table(
        "instance",
        Column("name", Text(), nullable=False),
        Column("value", LargeBinary(), nullable=False),
        PrimaryKeyConstraint("name", name="pk_instance"),
    )
    op.create_table(
        "leases",
        Column("name", Text(), nullable=False),
        Column("owner", Text(), nullable=False),
        Column("token", BigInteger(), nullable=False),
        Column("expires_at", BigInteger(), nullable=False),
        PrimaryKeyConstraint("name", name="pk_leases"),
    )
