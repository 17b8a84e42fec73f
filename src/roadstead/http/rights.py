"""What the sender of a request may do, as handlers ask it."""

from roadstead.auth.access import Access
from roadstead.auth.caller import NOBODY, Action, Caller
from roadstead.auth.principal import Principal
from roadstead.auth.sight import Sight


class Rights:
    """What the sender of a request may do; where access isn't controlled, everything."""

    __slots__ = ()

    caller: Caller = NOBODY

    @property
    def principal(self) -> Principal:
        """Return who it is."""
        return self.caller.principal

    @property
    def holder(self) -> str:
        """Return the name that upload sessions are bound to; empty for whoever hasn't signed in."""
        return "" if self.caller.is_anonymous else str(self.caller.principal)

    @property
    def is_limited(self) -> bool:
        """Say whether `may` can say no."""
        return False

    @property
    def is_personal(self) -> bool:
        """Say whether what they get may not be for everybody: they have signed in for it."""
        return False

    def may(self, action: Action, repository: str | None) -> bool:
        """Say whether they may do that to the repository, or to the registry as a whole (None)."""
        return True

    def sight(self) -> Sight | None:
        """Return which repositories a listing, which they may ask for, tells them of; None for all."""
        return None


EVERYTHING = Rights()


class DecidedRights(Rights):
    """Rights that policies decide."""

    __slots__ = ("_access", "caller")

    def __init__(self, caller: Caller, access: Access) -> None:
        self.caller = caller
        self._access = access

    @property
    def is_limited(self) -> bool:
        """Say whether `may` can say no."""
        return True

    @property
    def is_personal(self) -> bool:
        """Say whether what they get may not be for everybody."""
        return not self.caller.is_anonymous

    def may(self, action: Action, repository: str | None) -> bool:
        """Ask the policies."""
        return self._access.decide(self.caller, action, repository).allowed

    def sight(self) -> Sight | None:
        """Ask the policies."""
        return self._access.sight(self.caller)
