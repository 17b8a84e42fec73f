"""Why somebody can't sign in at an issuer, told to them and to the log.

SignInLostError         InvalidError      the browser brings nothing that was begun here
SignInDeclinedError     DeniedError       the issuer didn't let them in, or they didn't want to
PersonRefusedError      DeniedError       the issuer did, and they may not come in here
IdTokenInvalidError     UnavailableError  what the issuer says can't be believed
└── ClocksDifferError                     as its clock, or ours, is wrong
IssuerUnavailableError  UnavailableError  the issuer doesn't answer, or badly
"""

from roadstead.errors import DeniedError, InvalidError, UnavailableError


class SignInLostError(InvalidError):
    """The issuer's answer comes from a browser that hasn't begun here, or too late."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this sign-in is not known here: {reason}")

    def advice(self) -> str:
        """Say what leads in."""
        return (
            "Begin again, in one tab and within ten minutes, at the address that this registry is known by. The "
            "browser has to keep cookies for it meanwhile."
        )


class SignInDeclinedError(DeniedError):
    """The issuer sends somebody back without having let them in; ``code`` is what it calls that."""

    def __init__(self, issuer: str, code: str) -> None:
        said = "you, or its rules, did not agree" if code == "access_denied" else f"it says {code}"
        super().__init__(f"{issuer} did not sign you in: {said}")
        self.code = code

    def advice(self) -> str:
        """Say what can be tried."""
        if self.code == "access_denied":
            return "Begin again and agree there; if that isn't offered, ask those who look after it to let you in."
        return (
            "Begin again. If it stays so, tell those who look after this registry: it may be registered wrongly there."
        )


class PersonRefusedError(DeniedError):
    """Somebody has signed in at the issuer, and may not come in here."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self._advice = advice

    def advice(self) -> str:
        """Say who can settle it."""
        return self._advice


class IdTokenInvalidError(UnavailableError):
    """The issuer's statement of who it is can't be believed."""

    def __init__(self, issuer: str, reason: str) -> None:
        super().__init__(f"what {issuer} says of you can't be believed: {reason}")
        self.reason = reason

    def advice(self) -> str:
        """Say who can settle it."""
        return "Begin again. If it stays so, tell those who look after this registry; its log has the same reason."


class ClocksDifferError(IdTokenInvalidError):
    """The issuer's statement isn't of this time: one of the clocks is wrong."""

    def advice(self) -> str:
        """Say who can settle it."""
        return (
            "Begin again. If it stays so, the clock of this registry or of the issuer is wrong: those who look after "
            "them have to set it."
        )


class IssuerUnavailableError(UnavailableError):
    """The issuer doesn't answer, or answers what isn't OpenID Connect."""

    retry_after_s = 10

    def __init__(self, issuer: str, reason: str) -> None:
        super().__init__(f"{issuer} can't be asked: {reason}")
        self.reason = reason

    def advice(self) -> str:
        """Say what goes on meanwhile."""
        return "Try again in a while. Keys that you have go on working, and so do docker's."
