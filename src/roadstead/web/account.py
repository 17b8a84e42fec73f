"""``/account``: who one is here, in which groups, with which keys. It works without scripts."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from urllib.parse import quote, urlsplit

from roadstead.acts import Asked
from roadstead.auth.api_keys import NewKey
from roadstead.auth.caller import Action, Caller, RepositoryGlob
from roadstead.auth.own_keys import WantedKey
from roadstead.auth.ports import WebSession
from roadstead.auth.web_sessions import caller_of
from roadstead.clock import SystemClock
from roadstead.http.asgi import Request, Response
from roadstead.http.causes import asked_by
from roadstead.http.forms import FormUnreadableError, read_form
from roadstead.http.people import HasPeople, People
from roadstead.web.sign_in import people_of

LASTING = (7, 30, 90, 365)
"""Days that a key can be good for; 90 unless something else is chosen."""

CHOSEN_DAYS = 90
ACTIONS = (Action.PULL, Action.PUSH, Action.DELETE, Action.CATALOG)
_LONGEST_TEXT = 256
_MOST_PATTERNS = 100


async def show(request: Request, found: Mapping[str, str], services: HasPeople) -> Response:
    """Show it; whoever isn't signed in is sent to do so."""
    people = people_of(request, services)
    session = await _session(request, services, people)
    return await _page(request, services, people, session) if session is not None else _sign_in_first()


async def make_key(request: Request, found: Mapping[str, str], services: HasPeople) -> Response:
    """Make a key, and show it this once."""
    people = people_of(request, services)
    session = await _session(request, services, people)
    if session is None:
        return _sign_in_first()
    wanted = _wanted(await read_form(request))
    made = await people.own_keys.make(caller_of(session), wanted, _asked(request))
    return await _page(request, services, people, session, made=made)


async def revoke_key(request: Request, found: Mapping[str, str], services: HasPeople) -> Response:
    """Revoke a key, at once and everywhere."""
    people = people_of(request, services)
    session = await _session(request, services, people)
    if session is None:
        return _sign_in_first()
    form = await read_form(request)
    await people.own_keys.revoke(caller_of(session), _one(form, "key"), _asked(request))
    return Response(303, [(b"location", b"/account"), (b"cache-control", b"no-store")])


async def _session(request: Request, services: HasPeople, people: People) -> WebSession | None:
    session = await people.session(request)
    if session is not None and services.guard is not None:
        services.guard.recognise(request, caller_of(session))
    return session


def _sign_in_first() -> Response:
    location = f"/auth/login?next={quote('/account')}"
    return Response(303, [(b"location", location.encode()), (b"cache-control", b"no-store")])


def _may(services: HasPeople, caller: Caller, action: Action) -> bool:
    """Say whether they may do that somewhere: no key of theirs is good for anything else."""
    return services.guard is None or services.guard.policies.may_somewhere(caller.principal, action)


async def _page(
    request: Request, services: HasPeople, people: People, session: WebSession, *, made: NewKey | None = None
) -> Response:
    # As in failure.py.
    from roadstead.web.pages import rendered

    caller: Caller = caller_of(session)
    vouched = session.account.vouched
    return rendered(
        "account.html",
        root=people.front.prefix,
        host=urlsplit(people.front.origin(request)).netloc,
        name=caller.principal.name,
        issuer=None if vouched is None else people.shown(vouched.issuer),
        groups=sorted(caller.principal.groups),
        keys=await people.own_keys.all(caller),
        now=SystemClock().now(),
        made=made,
        secret=None if made is None else made.text.reveal(),
        actions=[action.value for action in ACTIONS if _may(services, caller, action)],
        lasting=LASTING,
        chosen_days=CHOSEN_DAYS,
    )


def _asked(request: Request) -> Asked:
    return asked_by(request)


def _wanted(form: Mapping[str, Sequence[str]]) -> WantedKey:
    """Return the key that a form asks for; raises FormUnreadableError, PatternInvalidError."""
    actions = frozenset(Action(text) for text in form.get("action", ()) if text in ACTIONS)
    if not actions:
        raise FormUnreadableError("choose at least one thing that the key is good for")
    patterns = _one(form, "repositories").split() or ["**"]
    if len(patterns) > _MOST_PATTERNS:
        raise FormUnreadableError(f"there are more than {_MOST_PATTERNS} patterns of repositories")
    days = _one(form, "days")
    if days not in map(str, LASTING):
        raise FormUnreadableError("choose how long the key is to be good for")
    return WantedKey(
        tuple(RepositoryGlob.parse(text) for text in patterns),
        actions,
        SystemClock().now() + timedelta(days=int(days)),
        _one(form, "description").strip()[:_LONGEST_TEXT],
    )


def _one(form: Mapping[str, Sequence[str]], name: str) -> str:
    values = form.get(name, ())
    if len(values) != 1:
        raise FormUnreadableError(f"{name} has to be there once")
    return values[0]
