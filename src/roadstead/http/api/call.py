"""One call of the API: the request as the rest of the server sees it, and what it may do."""

import ipaddress

from roadstead.acts import Asked
from roadstead.augment.inspecting import Source
from roadstead.auth.caller import Action, Caller
from roadstead.auth.own_keys import OwnKeys, comes_in_person
from roadstead.auth.policies import Policies
from roadstead.auth.web_sessions import caller_of
from roadstead.events.event import Cause
from roadstead.http.api.administration import Administration
from roadstead.http.api.errors import NotAtHomeError
from roadstead.http.asgi import Request
from roadstead.http.causes import asked_by, deliberate
from roadstead.http.context import Services
from roadstead.http.health import is_local
from roadstead.http.inspecting import ImageOfToken, ImageServed
from roadstead.http.names import parse_name
from roadstead.http.upstreams import ASKED, routed
from roadstead.http.wave import pulls
from roadstead.http.wave.door import TokenRights
from roadstead.oci.reference import CONTAINER_TOKENS, RepositoryName


class Call:
    """What a handler works with. Before it does anything it says what the caller has to be allowed."""

    def __init__(self, request: Request, services: Services) -> None:
        self.request = request
        self.services = services
        self._caller: Caller | None = None  # who asks, once `in_person` has found it out

    @property
    def administration(self) -> Administration:
        """Return what is worked on besides images."""
        return self.services.administration

    async def needs(self, action: Action, repository: RepositoryName | None = None) -> None:
        """Let the caller through, or raise as the guard and the limits do for `/v2/`."""
        if self.services.guard is not None:
            name = None if repository is None else str(repository)
            caller = self._caller or await self._signed_in_with_a_browser()
            await self.services.guard.admit_to(self.request, action, name, caller=caller)
        if self.services.limits is not None:
            self.services.limits.admit_user(self.request)

    async def image(self, text: str) -> Source:
        """Return what a name stands for in a pull, once the caller may pull it.

        Raises as `needs` does, NameInvalidError, MomentInvalidError, and for what begins with a container token the
        errors of `ContainerDoor.open`, ContainerPathError.
        """
        if text.partition("/")[0] == CONTAINER_TOKENS:
            token, containers = await pulls.token_of(self.request, text, self.services)
            self.request.rights = TokenRights(token, text)
            self.admit_user()
            return ImageOfToken(self.services, containers, token)
        found = await routed(self.request, {"name": text}, self.services)
        named = parse_name(found["name"])
        await self.needs(Action.PULL, named.repository)
        asked = found.get(ASKED)
        return ImageServed(self.services, named, None if asked is None else parse_name(asked).repository)

    async def needs_admin(self) -> None:
        """Let administrators through; where access isn't controlled, this machine alone. Raises NotAtHomeError too."""
        if self.services.guard is None and not (is_local(self.request) and _names_this_machine(self.request)):
            raise NotAtHomeError
        await self.needs(Action.ADMIN)

    async def in_person(self) -> Caller | None:
        """Return who has signed in themselves, by a browser or a password; None where nobody has, or a key came.

        Raises SignInNeededError, AttemptsTooManyError, PageForeignError.
        """
        if self.services.guard is None:
            return None
        caller = await self._signed_in_with_a_browser()
        if caller is None:
            caller = await self.services.guard.identify(self.request)
        else:
            self.services.guard.recognise(self.request, caller)
        self._caller = caller
        return caller if comes_in_person(caller) else None

    async def _signed_in_with_a_browser(self) -> Caller | None:
        session = None if self.services.people is None else await self.services.people.session(self.request)
        return None if session is None else caller_of(session)

    @property
    def own_keys(self) -> OwnKeys:
        """Return what makes the keys of whoever asks."""
        policies = Policies() if self.services.guard is None else self.services.guard.policies
        return OwnKeys(self.administration.accounts, policies)

    def may_administer(self) -> bool:
        """Say whether whoever was found to ask is an administrator."""
        return self.request.rights.may(Action.ADMIN, None)

    def admit_user(self) -> None:
        """Count the request of whoever was found to ask; `needs` does so itself. Raises RateExceededError."""
        if self.services.limits is not None:
            self.services.limits.admit_user(self.request)

    @property
    def asked(self) -> Asked:
        """Return who asks, for the audit log."""
        return asked_by(self.request)

    @property
    def cause(self) -> Cause:
        """Return what events and the audit log say of the request."""
        return deliberate(self.request, self.services.telling)


def _names_this_machine(request: Request) -> bool:
    """Say whether the client meant this machine: another name for it is a page's (DNS rebinding)."""
    host = (request.header(b"host") or "").rpartition("@")[2]
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
