"""What happened and why: events, the audit log, and what policies come to. For administrators."""

import re
from datetime import UTC, datetime
from typing import Annotated

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from roadstead.acts import ActKind
from roadstead.auth.caller import Action, Caller
from roadstead.auth.principal import ANONYMOUS, Principal, PrincipalKind
from roadstead.events.ports import EndpointUnknownError, LetterState, ReplayTooWideError
from roadstead.http.api import wire
from roadstead.http.api.call import Call
from roadstead.http.api.documented import problems
from roadstead.http.api.errors import ParametersInvalidError
from roadstead.http.api.images import Before, Number
from roadstead.oci.reference import RepositoryName

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)

SUBJECT = r"^(anonymous|(user|robot|issued):[A-Za-z0-9][A-Za-z0-9._@+-]{0,127})$"

Endpoint = Annotated[str | None, QueryParameter(max_length=128, description="Of this endpoint alone.", required=False)]
State = Annotated[
    LetterState | None,
    QueryParameter(name="state", description="In this state alone.", required=False),  # Litestar keeps the word
]
Since = Annotated[
    str | None,  # Litestar would take a number for seconds since 1970
    QueryParameter(
        max_length=64,
        description="From then on; UTC if no zone is said.",
        schema_extra={"format": "date-time"},
        required=False,
    ),
]
OfSubject = Annotated[
    str | None,
    QueryParameter(max_length=255, description="Of one alone: `user:ana`, `shell:root`, `anonymous`.", required=False),
]
BeforeLine = Annotated[
    int | None,
    QueryParameter(
        ge=1,
        le=wire.MAX_POSITION,
        required=False,
        description="Lines behind this one alone: `next` of the page before.",
    ),
]
Kind = Annotated[ActKind | None, QueryParameter(description="Of this kind alone.", required=False)]


@get("/events", tags=["operations"], summary="List events", responses=problems(404))
async def events(
    call: NamedDependency[Call],
    endpoint: Endpoint = None,
    in_state: State = None,
    before: Before = wire.MAX_POSITION,
    n: Number = 100,
) -> wire.Events:
    """List events that wait, were delivered, or were given up, the latest first. Needs `admin`."""
    await call.needs_admin()
    _require_known(call, endpoint)
    found = await call.administration.outbox.letters(endpoint=endpoint, state=in_state, before=before, limit=n + 1)
    shown = [wire.event(letter) for letter in found[:n]]
    return wire.Events(shown, shown[-1].position if len(found) > n else None)


@post("/events/replay", tags=["operations"], summary="Send events again", status_code=200,
      responses=problems(404, 415))  # fmt: skip
async def replay(call: NamedDependency[Call], data: JSONBody[wire.Replay]) -> wire.Replayed:
    """Send events again that were delivered or given up; their ids stay the same. Needs `admin`."""
    await call.needs_admin()
    if data.state is LetterState.PENDING:
        raise ParametersInvalidError("what is pending is sent anyway")
    if data.id is None and data.state is None and data.since is None:
        raise ReplayTooWideError
    _require_known(call, data.endpoint)
    since = wire.aware(data.since)
    count = await call.administration.outbox.replay(
        endpoint=data.endpoint, event_id=data.id, state=data.state, since=since, asked=call.asked
    )
    return wire.Replayed(count)


@get("/audit", tags=["operations"], summary="List the audit log", responses=problems())
async def audit(
    call: NamedDependency[Call],
    since: Since = None,
    subject: OfSubject = None,
    action: Kind = None,
    before: BeforeLine = None,
    n: Number = 100,
) -> wire.Audit:
    """List who did what to the registry, and who was refused, the latest first. Needs `admin`."""
    await call.needs_admin()
    moment = None if since is None else _moment(since)
    found = await call.administration.acts.lines(since=moment, by=subject, kind=action, before=before, limit=n + 1)
    shown = [wire.audit_line(line) for line in found[:n]]
    return wire.Audit(shown, shown[-1].position if len(found) > n else None)


@get("/auth/explain", tags=["operations"], summary="Explain what policies come to", responses=problems())
async def explain(
    call: NamedDependency[Call],
    action: Annotated[Action, QueryParameter(description="What they would do.")],
    subject: Annotated[
        str,
        QueryParameter(pattern=SUBJECT, description="`user:NAME`, `robot:NAME`, `issued:NAME` or `anonymous`."),
    ] = "anonymous",
    repository: Annotated[
        str | None,
        QueryParameter(pattern=wire.REPOSITORY, max_length=255, required=False, description="Where."),
    ] = None,
    group: Annotated[
        list[wire.NameText] | None,
        QueryParameter(required=False, description="Groups they are in. By default those of the account."),
    ] = None,
) -> wire.Explanation:
    """Say whether somebody may do something, and which policy decides. Needs `admin`.

    `auth.policies[0]` is the first that is written.
    """
    await call.needs_admin()
    if action.of_repository and repository is None:
        raise ParametersInvalidError(f"{action} is done to a repository: say which")
    place = str(RepositoryName.parse(repository)) if repository is not None and action.of_repository else None
    if call.services.guard is None:
        return wire.Explanation(True, "nobody has to sign in here, so everybody may do everything")  # noqa: FBT003
    principal = await _principal(call, subject, group)
    decision = call.services.guard.policies.decide(Caller(principal), action, place)
    return wire.Explanation(decision.allowed, decision.because)


async def _principal(call: Call, subject: str, groups: list[str] | None) -> Principal:
    if subject == str(ANONYMOUS):
        return ANONYMOUS
    kind, _, name = subject.partition(":")
    principal = Principal(PrincipalKind(kind), name, frozenset(groups or ()))
    account = None if groups is not None else await call.administration.accounts.find_account(name)
    return account.principal if account is not None and account.principal.kind is principal.kind else principal


def _moment(text: str) -> datetime:
    """Return the moment of an RFC 3339 text, whose zone, or time of day, may be left out."""
    if _MOMENT.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text.upper())
        except ValueError:  # the 31st of June
            pass
        else:
            return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    raise ParametersInvalidError("since is not a time: write it like 2026-11-22T08:00:00Z")


def _require_known(call: Call, endpoint: str | None) -> None:
    if endpoint is not None and endpoint not in call.administration.endpoints:
        raise EndpointUnknownError(endpoint, call.administration.endpoints)


HANDLERS = (events, replay, audit, explain)
