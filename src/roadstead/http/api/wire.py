"""What the API sends and takes, as its document shows it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from roadstead.acts import ActKind, Line, Outcome
from roadstead.augment.inspecting import Augmented, Inspected, what_it_is
from roadstead.augment.inspection import Change as ValueChange
from roadstead.auth.caller import Action
from roadstead.auth.ports import Account, ApiKey
from roadstead.events.ports import Letter, LetterState
from roadstead.http.api.errors import ParametersInvalidError
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.history import as_of
from roadstead.registry.ports import ChangeOrigin, TagChange

NAME = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$"
KEY_ID = r"^[a-z2-7]{16}$"
REPOSITORY = r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$"
REFERENCE = r"^([A-Za-z0-9_][A-Za-z0-9._-]{0,127}|sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"
PLATFORM = r"^[a-z0-9]{1,32}/[a-z0-9_]{1,32}(/[a-z0-9]{1,16})?$"
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


class Platform(msgspec.Struct):
    """One entry of an index; ``platform`` is null where none is said, as of attestations."""

    platform: str | None
    media_type: str
    digest: str
    size: int


class ImageLayer(msgspec.Struct):
    """A layer, and the command that left it, where the history tells; ``size`` in bytes, as it is stored."""

    media_type: str
    digest: str
    size: int
    created_by: str | None


class ImageSettings(msgspec.Struct):
    """What the image's config says of running it."""

    digest: str
    platform: str
    env: list[str]
    entrypoint: list[str] | None
    cmd: list[str] | None
    workdir: str | None
    user: str | None
    labels: dict[str, str]


class Referrer(msgspec.Struct):
    """A manifest that refers to the image; ``kind`` is what it is, in words."""

    kind: str
    artifact_type: str | None
    media_type: str
    digest: str
    size: int
    annotations: dict[str, str]


class Value(msgspec.Struct):
    """What a value was and is; null: it wasn't there, or isn't any more."""

    before: str | list[str] | None
    after: str | list[str] | None


class ImageDifference(msgspec.Struct):
    """What sets the image apart from the one that it was made of."""

    added_layers: list[str]
    removed_layers: list[str]
    env: dict[str, Value]
    labels: dict[str, Value]
    fields: dict[str, Value]


class ImageAugmented(msgspec.Struct):
    """What was added: by which rule and plan, and to which digest, as far as that is known."""

    plan_digest: str
    plan: dict[str, Any] | None
    rule: str | None
    source: str | None
    difference: ImageDifference | None


class SignatureVerdict(msgspec.Struct):
    """What a policy says; ``reasons`` are of the signatures that were found, where none holds."""

    policy: str
    kind: str
    required: bool
    holds: bool
    reasons: list[str]


class Image(msgspec.Struct):
    """What a pull of this name gets. Of one that isn't ``served`` only its digest is told, and why.

    ``repository`` is the name that the image has here: one without a host may be an upstream's. ``manifest`` is the
    digest of the one image of an index that layers and config are of.
    """

    repository: str
    reference: str
    origin: str
    media_type: str
    digest: str
    size: int
    served: bool
    rule: str | None
    platforms: list[Platform]
    manifest: str | None
    layers: list[ImageLayer]
    config: ImageSettings | None
    referrers: list[Referrer]
    augmented: ImageAugmented | None
    signatures: list[SignatureVerdict]
    notes: list[str]


class User(msgspec.Struct):
    """A user or a robot account; ``issuer`` says who they are and in which groups, where that isn't ours to say.

    ``can_sign_in`` is false while they are disabled, and on a server that knows no accounts: one that was started
    before there were any does after its next start, one with `auth.accounts = false` never.
    """

    name: str
    kind: str
    groups: list[str]
    has_password: bool
    created_at: datetime
    disabled: bool
    can_sign_in: bool
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
    """Return a moment in UTC, which it is where no zone was said; ParametersInvalidError where UTC has none such."""
    if moment is None or moment.tzinfo is None:
        return None if moment is None else moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ParametersInvalidError(f"{moment.isoformat()} isn't within the years 1 to 9999 of UTC") from error


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


def image(found: Inspected, reference: str) -> Image:
    """Return what was found of an image."""
    return Image(
        repository=found.repository,
        reference=reference,
        origin=found.origin,
        media_type=found.media_type,
        digest=found.digest,
        size=found.size,
        served=not found.is_refused,
        rule=found.rule,
        platforms=[
            Platform(None if one.platform is None else str(one.platform), one.media_type, str(one.digest), one.size)
            for one in found.platforms
        ],
        manifest=None if found.manifest is None else str(found.manifest.digest),
        layers=[
            ImageLayer(one.descriptor.media_type, str(one.descriptor.digest), one.descriptor.size, one.created_by)
            for one in found.layers
        ],
        config=None if found.config is None else _settings(found.config),
        referrers=[
            Referrer(
                kind=what_it_is(one),
                artifact_type=one.artifact_type,
                media_type=one.media_type,
                digest=str(one.digest),
                size=one.size,
                annotations=dict(one.annotations),
            )
            for one in found.referrers
        ],
        augmented=None if found.augmented is None else _augmented(found.augmented),
        signatures=[
            SignatureVerdict(str(one.policy), str(one.kind), one.required, one.holds, list(one.reasons))
            for one in found.verdicts
        ],
        notes=list(found.notes),
    )


def _settings(config: ImageConfig) -> ImageSettings:
    return ImageSettings(
        digest=str(config.digest),
        platform=str(config.platform),
        env=list(config.env),
        entrypoint=None if config.entrypoint is None else list(config.entrypoint),
        cmd=None if config.cmd is None else list(config.cmd),
        workdir=config.workdir,
        user=config.user,
        labels=dict(config.labels),
    )


def _augmented(found: Augmented) -> ImageAugmented:
    difference = found.difference
    return ImageAugmented(
        plan_digest=found.plan_digest,
        plan=None if found.plan is None else dict(found.plan),
        rule=found.rule,
        source=found.source,
        difference=None
        if difference is None
        else ImageDifference(
            added_layers=[str(one.digest) for one in difference.added_layers],
            removed_layers=[str(one.digest) for one in difference.removed_layers],
            env=_values(difference.env),
            labels=_values(difference.labels),
            fields=_values(difference.fields),
        ),
    )


def _values(changes: Mapping[str, ValueChange]) -> dict[str, Value]:
    def plain(value: str | tuple[str, ...] | None) -> str | list[str] | None:
        return list(value) if isinstance(value, tuple) else value

    return {name: Value(plain(change.before), plain(change.after)) for name, change in changes.items()}


def user(account: Account, *, knows_accounts: bool) -> User:
    """Return an account, on a server that lets accounts sign in or doesn't."""
    who = account.principal
    return User(
        name=who.name,
        kind=who.kind.value,
        groups=sorted(who.groups),
        has_password=account.password_hash is not None,
        created_at=account.created_at,
        disabled=account.disabled,
        can_sign_in=knows_accounts and not account.disabled,
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
        more=letter.more,
    )


def audit_line(line: Line) -> AuditLine:
    """Return a line of the audit log."""
    act = line.act
    return AuditLine(
        line.position, act.at, act.by, act.client, act.kind, act.target, act.outcome, act.reason, act.count
    )
