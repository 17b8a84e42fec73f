"""Access control over HTTP: who sent a request, whether they may, and how the others are told.

A guard stands before every handler where access is controlled at all; elsewhere a request costs one look at an
attribute. Handlers that touch more than their path names (a mount, the catalog) ask ``request.rights`` themselves.

What clients are told (docs/how-to/sign-in.md): 401 with challenges while nobody has signed in, or if the token that
came isn't good for it; 403 DENIED for somebody we know who may not. Both are the same whether the repository, the
manifest or the blob exists or not: the guard has decided before anybody looked.
"""

from collections.abc import Mapping

import structlog

from roadstead.acts import ActKind, printable
from roadstead.auth.access import Access
from roadstead.auth.caller import Action, Caller
from roadstead.auth.credentials import Password, parse_authorization
from roadstead.auth.errors import AccessDeniedError, CredentialsWrongError, SignInNeededError
from roadstead.auth.policies import Decision, Policies, needed
from roadstead.auth.ports import Challenges, Occasion
from roadstead.auth.principal import Grant
from roadstead.http.asgi import Request
from roadstead.http.names import parse_name
from roadstead.http.rights import DecidedRights
from roadstead.http.routes import Route

_log = structlog.get_logger()


class Guard:
    """Lets requests through to their handlers, or doesn't."""

    def __init__(self, access: Access, challenges: Challenges, elsewhere: Challenges | None = None) -> None:
        """Outside of `/v2/` people and programs are told what `elsewhere` says: there nobody knows of token servers."""
        self._access = access
        self._challenges = challenges
        self._elsewhere = elsewhere or challenges

    @property
    def policies(self) -> Policies:
        """Return the policies that decide here."""
        return self._access.policies

    async def admit(
        self, request: Request, route: Route, found: Mapping[str, str], *, asked: str | None = None
    ) -> None:
        """Find out who sent a request, note it there, and see whether they may.

        A token may be for the name that the repository was `asked` for by: clients know no other. Policies are about
        the repository. Raises SignInNeededError, AccessDeniedError, AttemptsTooManyError, NameInvalidError.
        """
        if route.needs is None:
            return
        name = found.get("name")
        repository = None if name is None else str(parse_name(name).repository)
        challenges = self._elsewhere if route.needs is Action.ADMIN else self._challenges
        await self._admit(request, route.needs, repository, challenges, asked=asked)

    def refusal(self, request: Request, what: str) -> SignInNeededError | AccessDeniedError:
        """Return the error for somebody who may not do what no policy is about."""
        caller = request.rights.caller
        if caller.is_anonymous:
            return SignInNeededError(f"sign in to {what}", _values(self._elsewhere, request, ()))
        self._access.refused(str(caller.principal), request.client or "", ActKind.ACCESS, what, "it is not theirs")
        return AccessDeniedError(f"{caller.principal} may not {what}")

    def ask(self, request: Request, action: Action, repository: str, said: str) -> SignInNeededError:
        """Return the error that asks somebody to sign in for something that nobody may do without."""
        wanted = (needed(action, repository),)
        return SignInNeededError(said, _values(self._elsewhere, request, wanted), wanted)

    async def admit_to(
        self,
        request: Request,
        action: Action,
        repository: str | None,
        *,
        caller: Caller | None = None,
        authorization: str | None = None,
    ) -> None:
        """Do the same outside of `/v2/` for an action on a repository, or on the registry as a whole (None).

        `caller` is who it is, where that is known otherwise than by the Authorization header. `authorization`
        is what the request says of who sends it elsewhere than in its header, which counts first.
        Raises SignInNeededError, AccessDeniedError, AttemptsTooManyError.
        """
        await self._admit(request, action, repository, self._elsewhere, caller=caller, authorization=authorization)

    async def _admit(
        self,
        request: Request,
        action: Action,
        repository: str | None,
        challenges: Challenges,
        *,
        asked: str | None = None,
        caller: Caller | None = None,
        authorization: str | None = None,
    ) -> None:
        named = repository if asked is None else asked
        try:
            if caller is None:
                said = request.header(b"authorization") or authorization
                caller = await self._access.identify(said, request.client or "")
        except SignInNeededError as error:
            self._ask_again(request, action, named, error, challenges)
            raise
        if asked is not None and repository is not None:
            caller = caller.known_as(asked, repository)
        request.rights = DecidedRights(caller, self._access)
        if action.of_repository and repository is None:
            self._admit_at_the_door(request, caller)
            return
        decision = self._access.decide(caller, action, repository)
        if not decision.allowed:
            raise self._refusal(request, caller, action, repository, decision, named, challenges)

    async def identify(self, request: Request) -> Caller:
        """Return who sent a request by its Authorization header, NOBODY where it has none, and note it there.

        Raises SignInNeededError, AttemptsTooManyError.
        """
        try:
            caller = await self._access.identify(request.header(b"authorization"), request.client or "")
        except SignInNeededError as error:
            self._ask_again(request, Action.ADMIN, None, error, self._elsewhere)
            raise
        self.recognise(request, caller)
        return caller

    def recognise(self, request: Request, caller: Caller) -> None:
        """Note in a request who sent it."""
        request.rights = DecidedRights(caller, self._access)

    def _admit_at_the_door(self, request: Request, caller: Caller) -> None:
        """``/v2/`` asks nothing of anybody but where clients find out how to sign in: they only do so if asked here."""
        if not caller.is_anonymous or caller.grants is not None:
            return  # somebody we know, or nobody in particular with a token that says so
        if self._challenges.asks_everybody or not self._access.policies.may_do_anything(caller):
            values = _values(self._challenges, request, ())
            if values:
                raise SignInNeededError(challenges=values)

    def _refusal(
        self,
        request: Request,
        caller: Caller,
        action: Action,
        repository: str | None,
        decision: Decision,
        named: str | None,
        challenges: Challenges,
    ) -> Exception:
        _log.info(
            "access denied",
            subject=str(caller.principal),
            via=caller.via or None,
            action=action.value,
            repository=repository,
            client=request.client,
            reason=decision.because,
        )
        if caller.is_anonymous or decision.by_token:
            wanted = (needed(action, named),)
            if decision.by_token:
                # What was asked, and nothing else: it is the same whether there is such a repository or not.
                said = f"the token is not good to {action} {'the registry' if named is None else named}"
                values = _values(self._challenges, request, wanted, "insufficient_scope", said)
            else:
                said = "sign in to do this"
                values = _values(challenges, request, wanted)
            if values:
                return SignInNeededError(said, values, wanted)
        what = "the registry" if repository is None else repository
        self._access.refused(
            str(caller.principal), request.client or "", ActKind.ACCESS, f"{action} {what}", decision.because
        )
        return AccessDeniedError(f"{caller.principal} may not {action} {what}")

    def _ask_again(
        self,
        request: Request,
        action: Action,
        repository: str | None,
        error: SignInNeededError,
        challenges: Challenges,
    ) -> None:
        """Add to an error how to sign in; what came was wrong."""
        _log.info("sign-in refused", client=request.client, who=_claimed(request), reason=str(error))
        at_the_door = action.of_repository and repository is None
        error.wanted = () if at_the_door else (needed(action, repository),)
        error.challenges = _values(challenges, request, error.wanted, "invalid_token")


def _claimed(request: Request) -> str | None:
    """Return the name that somebody has given with a password, whether it is theirs or not."""
    try:
        said = parse_authorization(request.header(b"authorization") or "", "")
    except CredentialsWrongError:
        return None
    return printable(said.username) if isinstance(said, Password) else None


def _values(
    challenges: Challenges,
    request: Request,
    wanted: tuple[Grant, ...],
    error: str | None = None,
    said: str | None = None,
) -> tuple[str, ...]:
    host = request.header(b"host") or ""
    return tuple(challenges.values(Occasion(host, wanted, request.scheme, error, said)))
