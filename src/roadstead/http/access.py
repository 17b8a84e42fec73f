"""Access control over HTTP: who sent a request, whether they may, and how the others are told.

A guard stands before every handler where access is controlled at all; elsewhere a request costs one look at an
attribute. Handlers that touch more than their path names (a mount, the catalog) ask ``request.rights`` themselves.

What clients are told (docs/how-to/sign-in.md): 401 with challenges while nobody has signed in, or if the token that
came isn't good for it; 403 DENIED for somebody we know who may not. Both are the same whether the repository, the
manifest or the blob exists or not: the guard has decided before anybody looked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
        wish = _Wish(request, route.needs, repository, repository if asked is None else asked, challenges)
        caller = self._access.known(request.octets(b"authorization"))
        self._settle(wish, await self._found_out(wish) if caller is None else caller)

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
        wish = _Wish(request, action, repository, repository, self._elsewhere)
        if caller is None and (request.octets(b"authorization") or authorization is None):
            caller = self._access.known(request.octets(b"authorization"))
        self._settle(wish, await self._found_out(wish, authorization) if caller is None else caller)

    async def _found_out(self, wish: "_Wish", authorization: str | None = None) -> Caller:
        """Return who wishes it; who can't be told is asked to sign in for it (SignInNeededError)."""
        request = wish.request
        try:
            return await self._access.identify(request.header(b"authorization") or authorization, request.client or "")
        except SignInNeededError as error:
            self._ask_again(wish, error)
            raise

    def _settle(self, wish: "_Wish", caller: Caller) -> None:
        """Note in a request who sent it, and see whether they may."""
        if wish.named != wish.repository and wish.named is not None and wish.repository is not None:
            caller = caller.known_as(wish.named, wish.repository)
        wish.request.rights = DecidedRights(caller, self._access)
        if wish.repository is None and wish.action.of_repository:
            self._admit_at_the_door(wish.request, caller)
            return
        decision = self._access.decide(caller, wish.action, wish.repository)
        if not decision.allowed:
            raise self._refusal(wish, caller, decision)

    async def identify(self, request: Request) -> Caller:
        """Return who sent a request by its Authorization header, NOBODY where it has none, and note it there.

        Raises SignInNeededError, AttemptsTooManyError.
        """
        try:
            caller = await self._access.identify(request.header(b"authorization"), request.client or "")
        except SignInNeededError as error:
            self._ask_again(_Wish(request, Action.ADMIN, None, None, self._elsewhere), error)
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

    def _refusal(self, wish: "_Wish", caller: Caller, decision: Decision) -> Exception:
        request, action, repository = wish.request, wish.action, wish.repository
        _log.info(
            "access denied",
            subject=str(caller.principal),
            via=caller.via or None,
            action=action.value,
            repository=repository,
            client=request.client,
            reason=decision.because,
        )
        if decision.by_token and not caller.is_anonymous:
            # Clients ask for a token first, and are told no by one that is good for less than they have asked.
            by_policy = self._access.decide(replace(caller, grants=None), action, repository)
            if not by_policy.allowed:
                self._note(wish, caller, by_policy.because)
        if caller.is_anonymous or decision.by_token:
            wanted = (needed(action, wish.named),)
            if decision.by_token:
                # What was asked, and nothing else: it is the same whether there is such a repository or not.
                said = f"the token is not good to {action} {'the registry' if wish.named is None else wish.named}"
                values = _values(self._challenges, request, wanted, "insufficient_scope", said)
            else:
                said = "sign in to do this"
                values = _values(wish.challenges, request, wanted)
            if values:
                return SignInNeededError(said, values, wanted)
        if not decision.by_token:
            self._note(wish, caller, decision.because)
        # By the name that was asked for: which repository it stands for tells what is here.
        doing = "administer" if action is Action.ADMIN else action
        return AccessDeniedError(f"{caller.principal} may not {doing} {_place(wish.named)}")

    def _note(self, wish: "_Wish", caller: Caller, reason: str) -> None:
        """Take note for the audit log of a refusal."""
        target = f"{wish.action} {_place(wish.repository)}"
        self._access.refused(str(caller.principal), wish.request.client or "", ActKind.ACCESS, target, reason)

    def _ask_again(self, wish: "_Wish", error: SignInNeededError) -> None:
        """Add to an error how to sign in; what came was wrong."""
        request = wish.request
        _log.info("sign-in refused", client=request.client, who=_claimed(request), reason=str(error))
        at_the_door = wish.action.of_repository and wish.repository is None
        error.wanted = () if at_the_door else (needed(wish.action, wish.named),)
        error.challenges = _values(wish.challenges, request, error.wanted, "invalid_token")


@dataclass(slots=True)
class _Wish:
    """What somebody asks for: something to be done to a repository, which they may have `named` otherwise."""

    request: Request
    action: Action
    repository: str | None
    named: str | None
    challenges: Challenges  # how they are asked to sign in for it


def _place(repository: str | None) -> str:
    return "the registry" if repository is None else repository


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
