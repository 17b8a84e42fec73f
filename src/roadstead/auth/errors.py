"""What keeps somebody out."""

from collections.abc import Sequence

from roadstead.auth.principal import Grant
from roadstead.errors import DeniedError, UnavailableError


class SignInNeededError(DeniedError):
    """Nobody has proved who they are, or what they came with proves nothing (UNAUTHORIZED, 401).

    ``challenges`` are the values of WWW-Authenticate: how to sign in here. ``wanted`` is what a token would have to
    grant. Whoever raises it need know neither; the guard fills them in.
    """

    def __init__(
        self, message: str = "sign in first", challenges: Sequence[str] = (), wanted: Sequence[Grant] = ()
    ) -> None:
        super().__init__(message)
        self.challenges = tuple(challenges)
        self.wanted = tuple(wanted)


class CredentialsWrongError(SignInNeededError):
    """What came to sign in with isn't right; the same answer whether the name or the password is wrong."""

    def __init__(self, message: str = "the name or the password is wrong") -> None:
        super().__init__(message)


class AccessDeniedError(DeniedError):
    """We know who asks, and they may not (DENIED, 403); the same whether what they ask for exists or not."""


class AttemptsTooManyError(UnavailableError):
    """Too many wrong passwords came from there (TOOMANYREQUESTS, 429)."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong passwords; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class SourceUnreadableError(UnavailableError):
    """A file that says who may sign in can't be read: nobody can, until it is back (503)."""
