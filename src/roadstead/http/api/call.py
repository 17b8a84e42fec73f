"""One call of the API: the request as the rest of the server sees it, and what it may do."""

import ipaddress

from roadstead.acts import Asked
from roadstead.auth.caller import Action
from roadstead.events.event import Cause
from roadstead.http.api.administration import Administration
from roadstead.http.api.errors import NotAtHomeError
from roadstead.http.asgi import Request
from roadstead.http.causes import asked_by, deliberate
from roadstead.http.context import Services
from roadstead.http.health import is_local
from roadstead.oci.reference import RepositoryName


class Call:
    """What a handler works with. Before it does anything it says what the caller has to be allowed."""

    def __init__(self, request: Request, services: Services) -> None:
        self.request = request
        self.services = services

    @property
    def administration(self) -> Administration:
        """Return what is worked on besides images."""
        return self.services.administration

    async def needs(self, action: Action, repository: RepositoryName | None = None) -> None:
        """Let the caller through, or raise as the guard and the limits do for `/v2/`."""
        if self.services.guard is not None:
            await self.services.guard.admit_to(self.request, action, None if repository is None else str(repository))
        if self.services.limits is not None:
            self.services.limits.admit_user(self.request)

    async def needs_admin(self) -> None:
        """Let administrators through; where access isn't controlled, this machine alone. Raises NotAtHomeError too."""
        if self.services.guard is None and not (is_local(self.request) and _names_this_machine(self.request)):
            raise NotAtHomeError
        await self.needs(Action.ADMIN)

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
