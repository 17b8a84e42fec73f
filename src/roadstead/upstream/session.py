"""Requests to one registry: signed in as it asks, tried again when that may help, refusals turned into errors."""

import json
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from roadstead.secret import Secret
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.challenge import Challenge, parse_challenges, preferred
from roadstead.upstream.credentials import BearerKey, Credentials, CredentialSource, Password
from roadstead.upstream.errors import (
    BadAnswerError,
    OtherProtocolError,
    RateLimitedError,
    RealmUntrustedError,
    UnreachableError,
    UpstreamDeniedError,
    UpstreamError,
    UpstreamNotFoundError,
    UpstreamRefusedError,
)
from roadstead.upstream.realm import belongs, check_realm
from roadstead.upstream.retry import RETRYABLE
from roadstead.upstream.tokens import Tokens, basic
from roadstead.upstream.transport import Transport, retry_after_s, same_origin

if TYPE_CHECKING:
    # For its types only: it is imported with the first request.
    from roadstead.upstream.wire import Answer, Body

_MESSAGE = 4096  # bytes of an error's body that are read
_SIGN_INS = 2
"""Times that one request may be answered with 401: for want of a token, and for one that had ended."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a caller means it."""

    method: str
    url: str
    """Absolute, or a path that begins with ``/v2/``."""

    what: str
    """What it is about, for messages: ``the manifest library/busybox:latest``."""

    scopes: frozenset[str] = frozenset()
    """What a token has to allow: ``repository:NAME:pull``."""

    repository: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: "bytes | Body | None" = None
    """A ``Body`` can be sent once, so its request isn't tried again here."""

    accepted: Collection[int] = (200,)
    """The statuses that are answers; all others are errors."""


@dataclass(frozen=True, slots=True)
class _SignedIn:
    """What was sent to say who we are."""

    header: str | None = None
    token: Secret | None = None


@dataclass(slots=True)
class Session:
    """One registry, and how it wants to be asked."""

    address: RegistryAddress
    transport: Transport
    tokens: Tokens
    source: CredentialSource
    trusted_realms: Collection[str] = ()
    """Hosts of token services, beside its own, that credentials may go to."""

    _challenge: Challenge | None = None  # the last one: what it asked once it'll ask again
    _anonymous: bool = True

    @property
    def host(self) -> str:
        """Return the registry's name."""
        return self.address.host

    @asynccontextmanager
    async def request(self, call: Call) -> "AsyncIterator[Answer]":
        """Send a request and give its answer, whose status is one of those accepted.

        Raises UpstreamNotFoundError (404), UpstreamDeniedError (401, 403), RateLimitedError (429), UnreachableError
        (no answer, 5xx) when trying again didn't help, UpstreamRefusedError (other 4xx, 501), BadAnswerError (others).
        """
        async with AsyncExitStack() as stack:
            yield await self._answer(call, stack)

    async def _answer(self, call: Call, kept: AsyncExitStack) -> "Answer":
        attempt, refusals = 1, 0
        scopes = call.scopes
        while True:
            async with AsyncExitStack() as stack:
                try:
                    signed = await self._signed(call, scopes)
                    answer = await stack.enter_async_context(self._sent(call, signed))
                    if answer.status in call.accepted:
                        kept.push_async_exit(stack.pop_all())
                        return answer
                    if self._may_sign_in(call, answer, signed, refusals):
                        refusals += 1
                        await answer.read_start(_MESSAGE)  # so that the connection can be used again
                        scopes |= self._learn(answer, signed)
                        continue
                    raise await self._error(call, answer)
                except (RateLimitedError, UnreachableError) as error:
                    failed = error
            if isinstance(failed, RateLimitedError) and failed.what != call.what:
                raise failed  # the token service's, which waits itself
            if _is_streamed(call):
                raise failed
            if not await self.transport.wait(attempt, failed):
                if isinstance(failed, UnreachableError):
                    failed.lasting = True
                raise failed
            attempt += 1

    def _sent(self, call: Call, signed: _SignedIn) -> "AbstractAsyncContextManager[Answer]":
        url = call.url if "://" in call.url else f"{self.address.url}{call.url}"
        # An upload may go on at another host; there nobody needs to know who we are.
        header = signed.header if same_origin(self.address.url, url) else None
        return self.transport.exchange(
            call.method, url, host=self.host, headers=call.headers, authorization=header, body=call.body
        )

    def _may_sign_in(self, call: Call, answer: "Answer", signed: _SignedIn, refusals: int) -> bool:
        if refusals >= _SIGN_INS or not same_origin(self.address.url, answer.url):
            return False
        if answer.status == 401:
            usable = preferred(parse_challenges(answer.headers.getall("WWW-Authenticate", [])))
            # The same name and password again would be counted as another failure, and lock people out.
            again = usable is not None and (signed.header is None or signed.token is not None)
            if again and _is_streamed(call):
                self._learn(answer, signed)
                raise UnreachableError(self.host, f"{call.what}: the token had ended")
            return again
        # Amazon's public registry says 400 when a token has ended.
        return answer.status == 400 and signed.token is not None and call.method in {"GET", "HEAD"} and refusals == 0

    def _learn(self, answer: "Answer", signed: _SignedIn) -> frozenset[str]:
        """Take up the challenge, drop the token that was refused; return the scopes that are asked for."""
        if signed.token is not None:
            self.tokens.drop(signed.token)
        challenge = preferred(parse_challenges(answer.headers.getall("WWW-Authenticate", [])))
        if challenge is None:
            return frozenset()
        if challenge.scheme == "bearer":
            check_realm(self.host, self.address.url, challenge.realm)
        self._challenge = challenge
        return challenge.scopes if challenge.scheme == "bearer" else frozenset()

    async def _signed(self, call: Call, scopes: frozenset[str]) -> _SignedIn:
        if self._challenge is None:
            return _SignedIn()
        credentials = await self.source.find(self.address, call.repository)
        self._anonymous = credentials is None
        if isinstance(credentials, BearerKey):  # whichever scheme it asks for: it is the registry's own key
            return _SignedIn(f"Bearer {credentials.secret.reveal()}")
        if self._challenge.scheme == "basic":
            return _SignedIn(basic(credentials) if isinstance(credentials, Password) else None)
        self._check_may_have(self._challenge, credentials)
        token = await self.tokens.get(self.host, self._challenge, scopes, credentials)
        return _SignedIn(f"Bearer {token.reveal()}", token)

    def _check_may_have(self, challenge: Challenge, credentials: Credentials | None) -> None:
        if credentials is not None and not belongs(self.address.url, challenge.realm, self.trusted_realms):
            raise RealmUntrustedError(self.host, urlsplit(challenge.realm).netloc)

    async def _error(self, call: Call, answer: "Answer") -> UpstreamError:
        body = await answer.read_start(_MESSAGE)
        code, message, advised = _told(body)
        status = answer.status
        if status == 400 and answer.url.startswith("http:") and b"HTTPS" in body:
            # Go's server and nginx say so in plain HTTP; others send a TLS alert, which isn't HTTP at all.
            return OtherProtocolError(self.host, over_tls=False)
        if status == 429:
            return RateLimitedError(self.host, call.what, retry_after_s(answer))
        if status in RETRYABLE or not same_origin(self.address.url, answer.url):
            # What an object store refuses is an address that has ended: the registry makes a new one.
            who = "" if same_origin(self.address.url, answer.url) else f"its storage {urlsplit(answer.url).netloc} "
            told = f"{call.what}: {who}answered {status}{f' ({message})' if message else ''}"
            return UnreachableError(self.host, told, retry_after_s=retry_after_s(answer))
        if status == 404:
            return UpstreamNotFoundError(self.host, call.what)
        if status in {401, 403}:
            advised = "" if status == 401 else advised  # of how to sign in we know more
            return UpstreamDeniedError(self.host, call.what, message, anonymous=self._anonymous, advised=advised)
        if status >= 400:
            return UpstreamRefusedError(self.host, call.what, status, code, message)
        return BadAnswerError(self.host, f"{call.what}: it answered {status}, which isn't among the answers to that")


def _is_streamed(call: Call) -> bool:
    return call.body is not None and not isinstance(call.body, bytes)


def _told(body: bytes) -> tuple[str, str, str]:
    """Return code, message and detail of an error's body, each made fit for one line; empty if it has none. Pure.

    The detail may be anything; only words count. What a Roadstead says of signatures that don't hold is long.
    """
    try:
        first = json.loads(body)["errors"][0]
        code, message, detail = first.get("code", ""), first.get("message", ""), first.get("detail")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", "", ""
    return _line(code, 60), _line(message, 1500), _line(detail, 500) if isinstance(detail, str) else ""


def _line(text: object, length: int) -> str:
    printable = "".join(character if character.isprintable() else " " for character in str(text or ""))
    return " ".join(printable.split())[:length]
