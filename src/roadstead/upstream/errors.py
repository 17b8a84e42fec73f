"""What can go wrong with another registry; ``host`` says with which.

``UpstreamError`` is a mark beside the families of ``roadstead.errors``: each kind here belongs to one of them too.

UpstreamError
├── UpstreamNotFoundError     what was named isn't there, or may not be seen
├── UpstreamDeniedError       it wants other credentials, or forbids it
│   └── RealmUntrustedError   it sends us to a stranger for a token, with our credentials
├── UpstreamRefusedError      it doesn't accept what was sent
├── AddressForbiddenError     the address is one we may not connect to
├── CredentialsError          our own credentials can't be read
└── UpstreamUnavailableError  the same call may work later
    ├── RateLimitedError      it asks us to slow down
    ├── UnreachableError      no connection, no answer in time, or an answer that breaks off
    │   └── OtherProtocolError    one side speaks TLS and the other doesn't
    ├── BadAnswerError        an answer that isn't the distribution API's
    └── ContentMismatchError  bytes that aren't what their digest or length says
"""

from roadstead.errors import DeniedError, InvalidError, NotFoundError, UnavailableError


class UpstreamError(Exception):
    """Something went wrong with another registry; its family says what."""

    def __init__(self, host: str, message: str) -> None:
        super().__init__(f"{host}: {message}")
        self.host = host


class UpstreamNotFoundError(UpstreamError, NotFoundError):
    """The registry doesn't have what was asked for, or doesn't show it to us."""

    def __init__(self, host: str, what: str) -> None:
        super().__init__(host, f"{what} isn't there")
        self.what = what


class UpstreamDeniedError(UpstreamError, DeniedError):
    """The registry wants other credentials, or forbids the request (401, 403)."""

    def __init__(self, host: str, what: str, reason: str, *, anonymous: bool, advised: str = "") -> None:
        super().__init__(host, f"{what} was denied{f': {reason}' if reason else ''}")
        self.what = what
        self.reason = reason
        self.anonymous = anonymous
        """Whether we sent no credentials."""

        self.advised = advised
        """What the registry itself advises, where it does so in words (as a Roadstead does)."""

    def advice(self) -> str:
        """Say what the registry does, where credentials come from, or that they may be the wrong ones."""
        if self.advised:
            return self.advised
        if self.anonymous:
            return f"No credentials were sent. If there are some: docker login {self.host}"
        return "The credentials are refused, or don't reach that far; some registries say so of names that don't exist."


class RealmUntrustedError(UpstreamDeniedError):
    """The registry names a token service that our credentials for the registry aren't for (CVE-2026-33540)."""

    def __init__(self, host: str, realm: str) -> None:
        super().__init__(host, "signing in", f"its token service {realm} belongs to somebody else", anonymous=False)
        self.realm = realm

    def advice(self) -> str:
        """Say how the token service is vouched for."""
        return "The credentials were not sent. If that is its token service, name it as trusted (--trust-realm)."


class UpstreamRefusedError(UpstreamError, InvalidError):
    """The registry doesn't accept what was sent: a status with its code and message."""

    def __init__(self, host: str, what: str, status: int, code: str, message: str) -> None:
        told = ": ".join(part for part in (code, message) if part)
        super().__init__(host, f"{what} was refused with {status}{f' ({told})' if told else ''}")
        self.what = what
        self.status = status
        self.code = code


class AddressForbiddenError(UpstreamError, DeniedError):
    """A name leads to an address that may not be connected to on a caller's behalf."""

    def __init__(self, host: str, address: str, reason: str) -> None:
        super().__init__(host, f"{address} may not be connected to: {reason}")
        self.address = address

    def advice(self) -> str:
        """Say who may be reached."""
        return "Public addresses and configured registries may be reached; trusted_hosts of [[upstreams]] names others."


class CredentialsError(UpstreamError, InvalidError):
    """Credentials are there but can't be read: a broken file, a helper that fails."""


class UpstreamUnavailableError(UpstreamError, UnavailableError):
    """The registry can't serve us now; the same call may work later."""


class RateLimitedError(UpstreamUnavailableError):
    """The registry asks us to slow down (429)."""

    def __init__(self, host: str, what: str, retry_after_s: float | None) -> None:
        later = f", it says to come back in {retry_after_s:.0f} s" if retry_after_s is not None else ""
        super().__init__(host, f"{what}: too many requests{later}")
        self.what = what
        self.asked_to_wait_s = retry_after_s
        """What its ``Retry-After`` said, in seconds; None: nothing."""

        self.retry_after_s = max(1, round(retry_after_s or 1))

    def advice(self) -> str:
        """Say what raises the limit."""
        return "Signing in raises most registries' limits; what is done already is not done again the next time."


class UnreachableError(UpstreamUnavailableError):
    """No connection, no answer in time, an answer that breaks off, or one that only tells of trouble (5xx)."""

    def __init__(self, host: str, reason: str, *, retry_after_s: float | None = None, lasting: bool = False) -> None:
        super().__init__(host, reason)
        self.reason = reason
        self.lasting = lasting
        """Whether trying again now is of no use: it was tried often enough, or nothing will change."""

        self.asked_to_wait_s = retry_after_s
        """What its ``Retry-After`` said, in seconds."""


class OtherProtocolError(UnreachableError):
    """One side speaks TLS and the other doesn't."""

    def __init__(self, host: str, *, over_tls: bool) -> None:
        spoken = "it doesn't answer in TLS: it seems to speak plain HTTP"
        super().__init__(host, spoken if over_tls else "its answer isn't HTTP: it seems to speak TLS", lasting=True)
        self.over_tls = over_tls

    def advice(self) -> str:
        """Say how it is asked in the other way."""
        if self.over_tls:
            return f"Ask it without TLS: --plain-http {self.host}"
        return (
            "Loopback is asked over TLS when --ca FILE names the certificate to trust; "
            "one beside it that speaks plain HTTP is named with --plain-http HOST."
        )


class BadAnswerError(UpstreamUnavailableError):
    """The registry answered something that isn't the distribution API's."""


class ContentMismatchError(UpstreamUnavailableError):
    """Bytes aren't what their digest, or their announced length, says. What was read of them is worthless."""
