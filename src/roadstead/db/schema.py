"""The tables, as SQLAlchemy Core metadata. How a database comes to have them is in ``migrations``.

Digests are text (``sha256:<64 hex>``), moments whole microseconds since 1970 (``moments``), and text is compared
bytewise on every database. A repository's rows hang on its number, so that a key is short and pages of one
repository lie together.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal_column,
    true,
)

REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
)
"""Every revision of the schema, oldest first; the last is the one that this release works with."""

HEAD = REVISIONS[-1]

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by its bytes. SQLite compares so by itself."""

# SQLite numbers rows by itself only where the type is called INTEGER; it has 64 bits there.
NUMBER = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# A repository comes to be with its first blob or manifest and its row stays, a tombstone once it is empty (design
# decision 9). `listed`: it holds a pushed manifest, so the catalog shows it; kept here, so that a page of the
# catalog is one range of an index that knows nothing else. `sort_key`: the name with U+0001 for "/", which puts
# "a/b" before "a-b", as distribution walks its tree.
repositories = Table(
    "repositories",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("name", BYTEWISE, nullable=False),
    Column("sort_key", BYTEWISE, nullable=False),
    Column("listed", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("name"),
)
Index(
    "ix_repositories_catalog",
    repositories.c.sort_key,
    repositories.c.name,
    sqlite_where=repositories.c.listed.is_(true()),
    postgresql_where=repositories.c.listed.is_(true()),
)

# Bytes in storage, whoever may serve them. `state` as in design decision 5; only live ones are served.
# `lease_until`: collection leaves it alone until then, because somebody was told that it is here.
blobs = Table(
    "blobs",
    metadata,
    Column("digest", BYTEWISE, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("storage_key", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_since", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("digest"),
    CheckConstraint("state IN ('live', 'condemned', 'deleting')", name="state"),
)
Index("ix_blobs_dying", blobs.c.state, blobs.c.state_since, sqlite_where=blobs.c.state != "live",
      postgresql_where=blobs.c.state != "live")  # fmt: skip

# Distribution keeps what was pushed under its sha512 under its sha256: such a blob has two rows at one key, and whoever
# removes bytes has to know.
Index("ix_blobs_aliases", blobs.c.storage_key, sqlite_where=blobs.c.digest >= "sha512:",
      postgresql_where=blobs.c.digest >= "sha512:")  # fmt: skip

# Which repository may serve which blob.
repository_blobs = Table(
    "repository_blobs",
    metadata,
    Column("repository_id", BigInteger, ForeignKey("repositories.id"), nullable=False),
    Column("digest", BYTEWISE, ForeignKey("blobs.digest"), nullable=False),
    PrimaryKeyConstraint("repository_id", "digest"),
    Index("ix_repository_blobs_digest", "digest"),
    sqlite_with_rowid=False,
)

# The exact bytes of manifests, once for all repositories that hold them; gone with the last of these.
contents = Table(
    "contents",
    metadata,
    Column("digest", BYTEWISE, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("digest"),
)

# What a repository holds, pushed or derived. `annotations` (JSON) are kept where there is a subject: the referrers
# API tells them, nothing else asks. A derived image has no subject here, so it is never listed as a referrer of what
# its source refers to; what is said of derived images (provenance, signatures) is derived itself, and has one.
manifests = Table(
    "manifests",
    metadata,
    Column("repository_id", BigInteger, ForeignKey("repositories.id"), nullable=False),
    Column("digest", BYTEWISE, ForeignKey("contents.digest"), nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("artifact_type", BYTEWISE),
    Column("subject", BYTEWISE),
    Column("annotations", Text),
    Column("derived", Boolean, nullable=False),
    Column("pushed_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "digest"),
    Index("ix_manifests_digest", "digest"),
)
Index(
    "ix_manifests_referrers",
    manifests.c.repository_id,
    manifests.c.subject,
    manifests.c.digest,
    sqlite_where=manifests.c.subject.is_not(None),
    postgresql_where=manifests.c.subject.is_not(None),
)
Index(
    "ix_manifests_referrers_by_type",
    manifests.c.repository_id,
    manifests.c.subject,
    manifests.c.artifact_type,
    manifests.c.digest,
    sqlite_where=manifests.c.subject.is_not(None),
    postgresql_where=manifests.c.subject.is_not(None),
)
# Answers "does the repository still hold anything that was pushed?" with one row.
Index(
    "ix_manifests_pushed",
    manifests.c.repository_id,
    sqlite_where=manifests.c.derived.is_(false()),
    postgresql_where=manifests.c.derived.is_(false()),
)

# What a manifest needs in its repository. `optional` content need not be there (non-distributable layers).
manifest_references = Table(
    "manifest_references",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("manifest", BYTEWISE, nullable=False),
    Column("kind", Text, nullable=False),
    Column("digest", BYTEWISE, nullable=False),
    Column("optional", Boolean, nullable=False),
    PrimaryKeyConstraint("repository_id", "manifest", "kind", "digest"),
    ForeignKeyConstraint(
        ["repository_id", "manifest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    ),
    CheckConstraint("kind IN ('config', 'layer', 'child')", name="kind"),
    Index("ix_manifest_references_digest", "digest", "repository_id"),
    sqlite_with_rowid=False,
)

# Where a tag points now.
tags = Table(
    "tags",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("name", BYTEWISE, nullable=False),
    Column("digest", BYTEWISE, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "name"),
    ForeignKeyConstraint(["repository_id", "digest"], ["manifests.repository_id", "manifests.digest"]),
    Index("ix_tags_digest", "repository_id", "digest"),
    sqlite_with_rowid=False,
)

# Where tags pointed: a line for every change, never altered. Per tag, `previous` of a line is `digest` of the one
# before it, so that the journal replays to the present state. `digest` is null where the tag was removed.
tag_journal = Table(
    "tag_journal",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("repository_id", BigInteger, ForeignKey("repositories.id"), nullable=False),
    Column("tag", BYTEWISE, nullable=False),
    Column("digest", BYTEWISE),
    Column("previous", BYTEWISE),
    Column("at", BigInteger, nullable=False),
    Column("origin", Text, nullable=False),
    Index("ix_tag_journal_tag", "repository_id", "tag", "id"),
    sqlite_autoincrement=True,
)
# Tells when a manifest lost a tag.
Index(
    "ix_tag_journal_previous",
    tag_journal.c.repository_id,
    tag_journal.c.previous,
    tag_journal.c.at,
    sqlite_where=tag_journal.c.previous.is_not(None),
    postgresql_where=tag_journal.c.previous.is_not(None),
)

# Upload sessions from their first durable byte on (registry.ports.UploadRecord). The repository is a name: it may
# not be there before its first blob is.
# `hash_state` of a short upload is all its bytes, and `staged_state` the word "held".
uploads = Table(
    "uploads",
    metadata,
    Column("upload_id", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("staged_size", BigInteger, nullable=False),
    Column("staged_state", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("digest_so_far", Text, nullable=False),
    Column("hash_state", LargeBinary),
    Column("committed", Text),
    Column("version", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("touched_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("upload_id"),
    CheckConstraint("state IN ('open', 'committed', 'cancelled')", name="state"),
    Index("ix_uploads_started", "state", "started_at"),
    Index("ix_uploads_touched", "state", "touched_at"),
)

# What was derived from a source under a plan (augment.ports.Derivation). It goes with its source and outlives its
# results, which can be derived again. `root` answers a pull.
derivations = Table(
    "derivations",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("repository_id", BigInteger, nullable=False),
    Column("source", BYTEWISE, nullable=False),
    Column("plan_digest", BYTEWISE, nullable=False),
    Column("plan", Text, nullable=False),
    Column("root", BYTEWISE, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("repository_id", "source", "plan_digest"),
    ForeignKeyConstraint(
        ["repository_id", "source"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    ),
)

# Which manifests came of a derivation, now or earlier, each with the manifest it was made from. No foreign key to
# the manifest: this is how a derived digest is known after its bytes were collected.
derivation_manifests = Table(
    "derivation_manifests",
    metadata,
    Column("derivation_id", BigInteger, ForeignKey("derivations.id", ondelete="CASCADE"), nullable=False),
    Column("digest", BYTEWISE, nullable=False),
    Column("repository_id", BigInteger, nullable=False),
    Column("source", BYTEWISE, nullable=False),
    Column("root", Boolean, nullable=False),
    PrimaryKeyConstraint("derivation_id", "digest"),
    Index("ix_derivation_manifests_digest", "repository_id", "digest"),
    Index("ix_derivation_manifests_source", "repository_id", "source"),
    sqlite_with_rowid=False,
)

# What was ever derived (manifests, and image configs), and from what: it outlives the derivation, which goes with its
# source, so that a digest which somebody pinned can be derived again when the source is back. A memory goes with its
# repository. That a config is here tells, too, that an image was augmented already by that plan.
derived_contents = Table(
    "derived_contents",
    metadata,
    Column("repository_id", BigInteger, ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("digest", BYTEWISE, nullable=False),
    Column("source", BYTEWISE, nullable=False),
    Column("plan_digest", BYTEWISE, nullable=False),
    PrimaryKeyConstraint("digest", "repository_id", "source", "plan_digest"),
    Index("ix_derived_contents_repository_id", "repository_id"),
    sqlite_with_rowid=False,
)

# The plans that derived contents name, as canonical JSON, each once.
derivation_plans = Table(
    "derivation_plans",
    metadata,
    Column("digest", BYTEWISE, nullable=False),
    Column("plan", Text, nullable=False),
    PrimaryKeyConstraint("digest"),
)

# Notes that links in the tree may not agree with the facts any more (registry.ports.LinkChange). Triggers write them,
# in the transaction of the change and whoever makes it, while `instance` has the row `links`: so no write can forget.
link_changes = Table(
    "link_changes",
    metadata,
    Column("id", NUMBER, primary_key=True),
    Column("repository_id", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", BYTEWISE, nullable=False),
    Column("digest", BYTEWISE),
    Index("ix_link_changes_repository", "repository_id", "id"),
    sqlite_autoincrement=True,
)

# Who may sign in with what is kept here (auth.ports.Account). `member_of` (JSON) is read in one row with the request,
# so that leaving a group counts at once. Whom an issuer vouches for is known by what it calls them, which never changes
# hands; `signed_in_at` is when it last did.
accounts = Table(
    "accounts",
    metadata,
    Column("name", BYTEWISE, nullable=False),
    Column("kind", Text, nullable=False),
    Column("password_hash", Text),
    Column("member_of", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("issuer", BYTEWISE),
    Column("subject", BYTEWISE),
    Column("signed_in_at", BigInteger),
    Column("disabled_at", BigInteger),
    PrimaryKeyConstraint("name"),
    CheckConstraint("kind IN ('user', 'robot')", name="kind"),
)
Index("ix_accounts_subject", accounts.c.issuer, accounts.c.subject, unique=True)

# Who is signed in with a browser, by the SHA-256 of what their cookie holds. They go with their account.
web_sessions = Table(
    "web_sessions",
    metadata,
    Column("session_hash", BYTEWISE, nullable=False),
    Column("owner", BYTEWISE, ForeignKey("accounts.name", ondelete="CASCADE"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("session_hash"),
)
Index("ix_web_sessions_owner", web_sessions.c.owner)
Index("ix_web_sessions_expires_at", web_sessions.c.expires_at)

# Attempts to sign in that have led to a session: each does so once.
spent_sign_ins = Table(
    "spent_sign_ins",
    metadata,
    Column("attempt_hash", BYTEWISE, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("attempt_hash"),
)
Index("ix_spent_sign_ins_expires_at", spent_sign_ins.c.expires_at)

# Keys of accounts, and what each is limited to (JSON lists). They go with their account.
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", BYTEWISE, nullable=False),
    Column("owner", BYTEWISE, ForeignKey("accounts.name", ondelete="CASCADE"), nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("repositories", Text, nullable=False),
    Column("actions", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    PrimaryKeyConstraint("key_id"),
    Index("ix_api_keys_owner", "owner"),
)

# Events on their way (events.ports.Letter): a row for each endpoint that wants to hear, written in the transaction of
# the change. `position` orders those of one repository, since it is taken while the transaction holds the locks that
# order its change. `state` alone says what is undelivered. `held_until`: an attempt failed, and the repository's later
# events wait with it.
outbox = Table(
    "outbox",
    metadata,
    Column("position", NUMBER, primary_key=True),
    Column("endpoint", BYTEWISE, nullable=False),
    Column("event_id", BYTEWISE, nullable=False),
    Column("repository", BYTEWISE, nullable=False),
    Column("subject", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
    Column("held_until", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    Column("events", BigInteger, nullable=False, server_default="1"),
    CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
    sqlite_autoincrement=True,
)
_PENDING = outbox.c.state == literal_column("'pending'")
_DEAD = outbox.c.state == literal_column("'dead'")
_HELD = outbox.c.held_until.is_not(None)
Index("ix_outbox_pending", outbox.c.endpoint, outbox.c.position, sqlite_where=_PENDING, postgresql_where=_PENDING)
Index(
    "ix_outbox_held",
    outbox.c.endpoint,
    outbox.c.repository,
    outbox.c.held_until,
    sqlite_where=_HELD,
    postgresql_where=_HELD,
)
# Few ever: all of them are found without a look at what was delivered, of one endpoint or of all.
Index("ix_outbox_dead", outbox.c.position, sqlite_where=_DEAD, postgresql_where=_DEAD)
_SETTLED = outbox.c.settled_at.is_not(None)
Index("ix_outbox_settled", outbox.c.settled_at, sqlite_where=_SETTLED, postgresql_where=_SETTLED)
Index("ix_outbox_event", outbox.c.event_id)

# The keys that sign our bearer tokens; `sealed` is encrypted under the master key.
signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", BYTEWISE, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("certificate", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("signs_from", BigInteger, nullable=False),
    PrimaryKeyConstraint("kid"),
)

# What clients get new bearer tokens with, by its SHA-256. Whom it is for may have no account (htpasswd).
refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("token_hash", BYTEWISE, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", BYTEWISE, nullable=False),
    Column("service", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("bond", Text),
    PrimaryKeyConstraint("token_hash"),
)
Index("ix_refresh_tokens_name", refresh_tokens.c.name)
Index("ix_refresh_tokens_expires_at", refresh_tokens.c.expires_at)

# The audit log (acts.Act): lines are written, read and, when they are old, removed; never changed.
acts = Table(
    "acts",
    metadata,
    Column("position", NUMBER, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("by", BYTEWISE, nullable=False),
    Column("client", Text, nullable=False),
    Column("kind", BYTEWISE, nullable=False),
    Column("target", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    CheckConstraint("outcome IN ('done', 'failed', 'denied')", name="outcome"),
    sqlite_autoincrement=True,
)
Index("ix_acts_at_position", acts.c.at, acts.c.position)
Index("ix_acts_by_at", acts.c.by, acts.c.at, acts.c.position)
Index("ix_acts_kind_at", acts.c.kind, acts.c.at, acts.c.position)

# How often somebody has pulled since a moment: whose pulls are limited has a row.
pull_windows = Table(
    "pull_windows",
    metadata,
    Column("subject", BYTEWISE, nullable=False),
    Column("began_at", BigInteger, nullable=False),
    Column("pulls", BigInteger, nullable=False),
    PrimaryKeyConstraint("subject"),
)
Index("ix_pull_windows_began_at", pull_windows.c.began_at)

# Container tokens (augment.container_token.ContainerToken) by their SHA-256. They stay for a while after their end, so
# that whoever comes with one is told so. `space`: the repository, of no registry, that holds what is derived for it.
container_tokens = Table(
    "container_tokens",
    metadata,
    Column("token_hash", BYTEWISE, nullable=False),
    Column("creator_kind", Text, nullable=False),
    Column("creator_name", BYTEWISE, nullable=False),
    Column("creator_groups", Text, nullable=False),
    Column("key_id", BYTEWISE),
    Column("repository", BYTEWISE, nullable=False),
    Column("path", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("plan", Text),
    Column("space", BYTEWISE),
    Column("described", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("token_hash"),
)
Index("ix_container_tokens_expires_at", container_tokens.c.expires_at)
Index("ix_container_tokens_space", container_tokens.c.space, container_tokens.c.expires_at)

# Values of which the whole installation has one: secrets, where the import stands, whether links are written.
instance = Table(
    "instance",
    metadata,
    Column("name", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    PrimaryKeyConstraint("name"),
)

# Who may do something alone (lease.Lease). The row of a released lease stays, so that tokens never fall.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("name"),
)

# When an upstream was last asked where a tag is (proxy.ports.PulledTag). It goes with the tag.
upstream_tags = Table(
    "upstream_tags",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("name", BYTEWISE, nullable=False),
    Column("checked_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "name"),
    ForeignKeyConstraint(["repository_id", "name"], ["tags.repository_id", "tags.name"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

# When a manifest of an upstream was last pulled, to the hour; also one that was derived. It goes with the manifest.
upstream_pulls = Table(
    "upstream_pulls",
    metadata,
    Column("repository_id", BigInteger, nullable=False),
    Column("digest", BYTEWISE, nullable=False),
    Column("pulled_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository_id", "digest"),
    ForeignKeyConstraint(
        ["repository_id", "digest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    ),
    sqlite_with_rowid=False,
)
