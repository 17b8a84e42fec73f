"""What the API sends and takes, as its document shows it."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from roadstead.acts import ActKind, Line, Outcome
from roadstead.auth.caller import Action
from roadstead.auth.ports import Account, ApiKey
from roadstead.events.ports import Letter, LetterState
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.history import as_of
from roadstead.registry.ports import ChangeOrigin, TagChange

NAME = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$"
KEY_ID = r"^[a-z2-7]{16}$"
REPOSITORY = r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$"
TAG = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
MAX_POSITION = 2**53 - 1  # what every reader of JSON holds exactly (RFC 8259 §6)

RepositoryText = Annotated[str, Meta(pattern=REPOSITORY, max_length=255, examples=["team/app"])]
TagText = Annotated[str, Meta(pattern=TAG, max_length=128, examples=["latest"])]
NameText = Annotated[str, Meta(pattern=NAME, max_length=128, examples=["ana"])]
GlobText = Annotated[str, Meta(min_length=1, max_length=255, examples=["team/*"])]
Position = Annotated[int, Meta(ge=1, le=MAX_POSITION)]


class Problem(msgspec.Struct, omit_defaults=True):
    """What went wrong (RFC 9457), and what to try next where that is known."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    advice: str = ""


class Repositories(msgspec.Struct):
    """Names, component by component; ``next`` is the ``last`` of the next page."""

    repositories: list[str]
    next: str | None


class Repository(msgspec.Struct):
    """A repository; ``size`` is the sum of its blobs in bytes."""

    name: str
    size: int


class Tags(msgspec.Struct):
    """Tags in lexical order; ``next`` is the ``last`` of the next page."""

    repository: str
    tags: list[str]
    next: str | None


class Change(msgspec.Struct):
    """Where a tag pointed from then on (null: nowhere); ``pull`` is the name by which it is pulled as it was."""

    position: int
    at: datetime
    origin: ChangeOrigin
    digest: str | None
    previous: str | None
    pull: str | None


class History(msgspec.Struct):
    """Changes of a tag, the latest first; ``next`` is the ``before`` of the next page."""

    repository: str
    tag: str
    changes: list[Change]
    next: int | None


class RestoreTag(msgspec.Struct, forbid_unknown_fields=True):
    """Which tag to put back: to where it was at a time, from a position on, or (neither) before its last change."""

    repository: RepositoryText
    tag: TagText
    at: datetime | None = None
    position: Position | None = None


class Restored(msgspec.Struct):
    """Where the tag points now."""

    repository: str
    tag: str
    digest: str


class User(msgspec.Struct):
    """A user or a robot account; ``issuer`` says who they are and in which groups, where that isn't ours to say."""

    name: str
    kind: str
    groups: list[str]
    has_password: bool
    created_at: datetime
    disabled: bool
    issuer: str | None
    signed_in_at: datetime | None


class Users(msgspec.Struct):
    """Accounts by name; ``next`` is the ``last`` of the next page."""

    users: list[User]
    next: str | None


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    """An account to be. A robot may do without a password: programs sign in with keys."""

    name: NameText
    robot: bool = False
    groups: Annotated[list[NameText], Meta(max_length=100)] = []
    password: Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[^\x00\n]+$")] | None = None
    replace: bool = False


class ChangedUser(msgspec.Struct, forbid_unknown_fields=True):
    """What is to change of an account; what is left out stays. `groups` are all that it is to be in."""

    disabled: bool | None = None
    groups: Annotated[list[NameText], Meta(max_length=100)] | None = None


class Key(msgspec.Struct):
    """An API key, without its secret."""

    id: str
    owner: str
    repositories: list[str]
    actions: list[Action]
    description: str
    created_at: datetime
    expires_at: datetime | None


class Keys(msgspec.Struct):
    """Keys by their ids; ``next`` is the ``last`` of the next page."""

    keys: list[Key]
    next: str | None


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key to be; it is never good for more than its account. Without ``expires_at`` it is good for 90 days.

    With null there it never ends, which administrators alone can have. Without an ``owner`` it is for whoever asks.
    """

    owner: NameText | None = None
    repositories: Annotated[list[GlobText], Meta(max_length=100)] = msgspec.field(default_factory=lambda: ["**"])
    actions: Annotated[list[Action], Meta(min_length=1)] = msgspec.field(default_factory=lambda: [Action.PULL])
    expires_at: datetime | msgspec.UnsetType | None = msgspec.UNSET
    description: Annotated[str, Meta(max_length=256)] = ""


class MadeKey(msgspec.Struct):
    """A new key. ``secret`` is what one signs in with, as the password of the owner; it is not shown again."""

    secret: str
    key: Key


class Event(msgspec.Struct):
    """An event on its way to an endpoint; ``event`` is as the endpoint gets it.

    Of pulls that are told together it is the first, and ``more`` says how many others there are.
    """

    position: int
    id: str
    endpoint: str
    state: LetterState
    attempts: int
    error: str | None
    created_at: datetime
    settled_at: datetime | None
    next_attempt_at: datetime | None
    event: dict[str, Any]
    more: int


class Events(msgspec.Struct):
    """Events, the latest first; ``next`` is the ``before`` of the next page."""

    events: list[Event]
    next: int | None


class Replay(msgspec.Struct, forbid_unknown_fields=True):
    """Which events to send again, of those that were delivered or given up: by id, by state, or since a time."""

    endpoint: Annotated[str, Meta(max_length=128)] | None = None
    id: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9-]+$")] | None = None
    state: LetterState | None = None
    since: datetime | None = None


class Replayed(msgspec.Struct):
    """How many are sent again."""

    replayed: int


class AuditLine(msgspec.Struct):
    """Who did what; ``count`` is how many refusals alike a line stands for."""

    position: int
    at: datetime
    subject: str
    client: str
    action: ActKind
    target: str
    outcome: Outcome
    reason: str
    count: int


class Audit(msgspec.Struct):
    """Lines of the audit log, the latest first; ``next`` is the ``before`` of the next page."""

    lines: list[AuditLine]
    next: int | None


class Explanation(msgspec.Struct):
    """Whether somebody may do something, and what decides."""

    allowed: bool
    because: str


def aware(moment: datetime | None) -> datetime | None:
    """Return a moment in UTC where no zone was said."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def change(found: TagChange, repository: RepositoryName, tag: Tag) -> Change:
    """Return a line of a tag's journal."""
    return Change(
        position=found.position,
        at=found.at,
        origin=found.origin,
        digest=None if found.digest is None else str(found.digest),
        previous=None if found.previous is None else str(found.previous),
        pull=None if found.digest is None else as_of(found.at, repository, tag),
    )


def user(account: Account) -> User:
    """Return an account."""
    who = account.principal
    return User(
        name=who.name,
        kind=who.kind.value,
        groups=sorted(who.groups),
        has_password=account.password_hash is not None,
        created_at=account.created_at,
        disabled=account.disabled,
        issuer=None if account.vouched is None else account.vouched.issuer,
        signed_in_at=None if account.vouched is None else account.vouched.at,
    )


def key(found: ApiKey) -> Key:
    """Return a key."""
    return Key(
        id=found.key_id,
        owner=str(found.owner),
        repositories=[str(glob) for glob in found.scope.repositories],
        actions=sorted(found.scope.actions),
        description=found.description,
        created_at=found.created_at,
        expires_at=found.expires_at,
    )


def event(letter: Letter) -> Event:
    """Return an event."""
    return Event(
        position=letter.position,
        id=letter.event_id,
        endpoint=letter.endpoint,
        state=letter.state,
        attempts=letter.attempts,
        error=letter.error or None,
        created_at=letter.created_at,
        settled_at=letter.settled_at,
        next_attempt_at=letter.held_until,
        event=dict(letter.event),
        more=len(letter.more),
    )


def audit_line(line: Line) -> AuditLine:
    """Return a line of the audit log."""
    act = line.act
    return AuditLine(
        line.position, act.at, act.by, act.client, act.kind, act.target, act.outcome, act.reason, act.count
    )
