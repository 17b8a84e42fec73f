"""Whether somebody whom the database knows counts now: not disabled, and vouched for lately by an issuer we trust."""

from collections.abc import Callable, Mapping
from datetime import timedelta

from roadstead.auth.ports import Account, ApiKey
from roadstead.clock import Clock


def _nobody(_: str) -> bool:
    return False


class Standing:
    """Judges accounts and the keys of accounts.

    `issuers` are those that are trusted, and how long their word counts. `elsewhere` says whether a name is somebody's
    whom the database doesn't know (a line of htpasswd): an issuer's word makes nobody that one.
    """

    def __init__(
        self,
        clock: Clock,
        issuers: Mapping[str, timedelta] | None = None,
        elsewhere: Callable[[str], bool] = _nobody,
    ) -> None:
        self._clock = clock
        self._issuers = issuers or {}
        self.is_taken = elsewhere

    def objection(self, who: Account | ApiKey) -> str | None:
        """Return why they don't count, as a sentence without its full stop; None if they do."""
        name = who.owner.name if isinstance(who, ApiKey) else who.principal.name
        if who.disabled:
            return f"the account {name} is disabled"
        if who.vouched is None:
            return None
        longest = self._issuers.get(who.vouched.issuer)
        if longest is None:
            return f"{name} signed in at {who.vouched.issuer}, which is not trusted here any more"
        if self.is_taken(name):
            return f"the name {name} is somebody else's in the password file"
        if self._clock.now() - who.vouched.at > longest:
            return f"{name} has to sign in again with a browser, as the last time was {who.vouched.at:%Y-%m-%d}"
        return None
