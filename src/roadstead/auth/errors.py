"""What keeps somebody out."""

from collections.abc import Sequence

from roadstead.auth.principal import Grant
from roadstead.errors import ConflictError, DeniedError, UnavailableError


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
    """What came to sign in with isn't right; the same answer whether the name or the password is wrong.

    ``because`` is what operators are told in its place: which key it was, or whom an administrator keeps out.
    """

    def __init__(self, message: str = "the name or the password is wrong", *, because: str | None = None) -> None:
        super().__init__(because or message)
        self._told = message

    def told(self) -> str:
        """Return the answer, which doesn't say what there is here."""
        return self._told


class AccessDeniedError(DeniedError):
    """We know who asks, and they may not (DENIED, 403); the same whether what they ask for exists or not."""


class AttemptsTooManyError(UnavailableError):
    """Too many wrong passwords came from there (TOOMANYREQUESTS, 429)."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong passwords; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class SourceUnreadableError(UnavailableError):
    """A file that says who may sign in can't be read: nobody can, until it is back (503)."""


class AccountVouchedError(ConflictError):
    """An issuer says who an account is of, and in which groups they are."""

    def __init__(self, name: str, issuer: str) -> None:
        super().__init__(f"{name} signs in at {issuer}, which also says in which groups they are")

    def advice(self) -> str:
        """Say what can be done to them here."""
        return "roadstead user disable keeps them out at once; what is removed they get anew when they sign in again."


class SignInSpentError(DeniedError):
    """The same answer of an issuer comes a second time."""

    def __init__(self) -> None:
        super().__init__("this sign-in has been used already")

    def advice(self) -> str:
        """Say what leads in."""
        return "Begin again; going back in the browser, or opening the address a second time, doesn't sign in."


class NameTakenError(ConflictError):
    """Somebody else has the name that an issuer gives to somebody new."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the name {name} belongs to somebody else here")
        self.name = name

    def advice(self) -> str:
        """Say who can settle it."""
        return (
            "An administrator of this registry can remove the account that has the name, if it is nobody's any more, "
            "or have user_prefix put something before the names of this issuer."
        )


class AccountDisabledError(DeniedError):
    """An administrator keeps them out."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the account {name} is disabled here")

    def advice(self) -> str:
        """Say who can settle it."""
        return "An administrator of this registry can enable it again."
