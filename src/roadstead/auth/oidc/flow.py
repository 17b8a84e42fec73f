"""Signing in at an issuer: the authorisation-code flow with PKCE (OpenID Connect Core §3.1, RFC 7636, RFC 9700).

What an attempt needs when the browser comes back (state, nonce, the PKCE secret, where to go then) is sealed into a
cookie of that browser: to begin costs the database nothing, and only the browser that has begun can finish. What was
finished is written down in the transaction that begins the session, so the same answer never does so twice.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode, urlsplit

import structlog

from roadstead.auth.errors import NameTakenError
from roadstead.auth.oidc.errors import IssuerUnavailableError, SignInDeclinedError, SignInLostError
from roadstead.auth.oidc.id_token import Exchanged, IdTokenRules, KeyUnknownError, verify_id_token
from roadstead.auth.oidc.issuer import CodeRefusedError, Issuer
from roadstead.auth.oidc.person import Person, PersonRules, person_of
from roadstead.auth.ports import Account, Arrival, PeopleStore
from roadstead.auth.sealing import MasterKeyWrongError, Sealer
from roadstead.auth.standing import Standing
from roadstead.auth.web_sessions import hashed, new_text
from roadstead.clock import Clock
from roadstead.errors import RoadsteadError

ATTEMPT_LASTS = timedelta(minutes=10)
_PURPOSE = "sign-in"
_LONGEST_COOKIE = 4096
_LONGEST_PARAMETER = 4096

_log = structlog.get_logger()


@dataclass(frozen=True)
class Provider:
    """An issuer, what its tokens must say, and who its people are here."""

    name: str
    issuer: Issuer
    scopes: Sequence[str]
    tokens: IdTokenRules
    people: PersonRules


@dataclass(frozen=True, slots=True)
class Attempt:
    """Somebody on their way to an issuer and back."""

    provider: str
    state: str
    nonce: str
    verifier: str
    begun_at: int  # seconds since 1970
    onward: str

    @property
    def ends_at(self) -> datetime:
        """Return when it is too late to come back."""
        return datetime.fromtimestamp(self.begun_at, UTC) + ATTEMPT_LASTS


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser is to go, and what it is to keep meanwhile."""

    url: str
    cookie: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Somebody has signed in: what their browser is to keep, and where it goes on."""

    session: str
    account: Account
    onward: str


Refused = Callable[[str, str, str], None]
"""Takes note of a refusal: from which address, who it would have been, why."""


class SignIn:
    """Signs people in at any of the issuers."""

    def __init__(
        self,
        providers: Sequence[Provider],
        secret: Callable[[], Awaitable[Sealer]],
        store: PeopleStore,
        standing: Standing,
        clock: Clock,
        *,
        session_lifetime: timedelta,
        refused: Refused,
    ) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._sealer = secret
        self._store = store
        self._standing = standing
        self._clock = clock
        self._session_lifetime = session_lifetime
        self._refused = refused

    async def begin(self, provider_name: str, onward: str, redirect_uri: str) -> Begun:
        """Begin an attempt; raises SignInLostError for an issuer that isn't known, IssuerUnavailableError."""
        provider = self._providers.get(provider_name)
        if provider is None:
            raise SignInLostError("there is no such issuer")
        try:
            metadata = await provider.issuer.metadata()
        except IssuerUnavailableError as error:
            _log.warning("an issuer can't be asked", issuer=provider.issuer.url, reason=error.reason)
            raise
        begun_at = int(self._clock.now().timestamp())
        attempt = Attempt(provider.name, new_text(), new_text(), new_text(), begun_at, onward)
        query = {
            "response_type": "code",
            "client_id": provider.issuer.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *provider.scopes))),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge_of(attempt.verifier),
            "code_challenge_method": "S256",
        }
        endpoint = metadata.authorization_endpoint
        joint = "&" if urlsplit(endpoint).query else "?"
        return Begun(f"{endpoint}{joint}{urlencode(query)}", await self._seal(attempt))

    async def finish(
        self, cookie: str | None, parameters: Mapping[str, str], redirect_uri: str, *, client: str
    ) -> Finished:
        """Finish the attempt in a browser's cookie with what the issuer has sent it back with.

        Raises SignInLostError, SignInSpentError, SignInDeclinedError, PersonRefusedError, NameTakenError,
        AccountDisabledError, IdTokenInvalidError, IssuerUnavailableError; each is in the log, and in the audit log.
        """
        known: list[str] = []  # what is known of who it is, for the logs
        try:
            attempt = await self._opened(cookie, parameters)
            provider = self._providers[attempt.provider]
            known.append(provider.name)
            claims = await self._claims(provider, attempt, parameters, redirect_uri)
            known.append(str(claims["sub"]))
            person = person_of(claims, provider.people)
            known.append(person.name)
            return await self._arrived(provider, attempt, person, client)
        except RoadsteadError as error:
            who = " ".join(("oidc", *known))
            _log.warning("sign-in refused", client=client, who=who, reason=str(error))
            self._refused(client, who, str(error))
            raise

    async def _opened(self, cookie: str | None, parameters: Mapping[str, str]) -> Attempt:
        """Return the attempt that a browser has begun and comes back from."""
        attempt = await self._unseal(cookie)
        if not hmac.compare_digest(attempt.state.encode(), parameters.get("state", "").encode()):
            raise SignInLostError("this browser has begun another one since, or somebody else has")
        if self._clock.now() >= attempt.ends_at:
            raise SignInLostError("it took longer than ten minutes")
        return attempt

    async def _claims(
        self, provider: Provider, attempt: Attempt, parameters: Mapping[str, str], redirect_uri: str
    ) -> Mapping[str, object]:
        metadata = await provider.issuer.metadata()
        itself = parameters.get("iss")
        if itself != provider.issuer.url and (itself is not None or metadata.names_itself):  # RFC 9207 §2.4
            raise SignInLostError("the answer is of another issuer than the one that was asked")
        if "error" in parameters:
            said = parameters["error"]
            code = said[:64] if said.isascii() and said.replace("_", "").isalnum() else "an error without a name"
            _log.info("an issuer declines", issuer=provider.issuer.url, error=code,
                      description=parameters.get("error_description", "")[:200])  # fmt: skip
            raise SignInDeclinedError(provider.issuer.url, code)
        code = parameters.get("code", "")
        if not code or len(code) > _LONGEST_PARAMETER:
            raise SignInLostError("the issuer's answer has no code")
        try:
            tokens = await provider.issuer.redeem(code, attempt.verifier, redirect_uri)
        except CodeRefusedError as error:
            raise SignInDeclinedError(provider.issuer.url, error.code) from error
        exchanged = Exchanged(attempt.nonce, tokens.access_token)
        keys, now = await provider.issuer.keys(), self._clock.now()
        try:
            return verify_id_token(tokens.id_token, keys, provider.tokens, exchanged, now)
        except KeyUnknownError:
            newer = await provider.issuer.keys(beyond=keys)
            if newer is keys:
                raise
            return verify_id_token(tokens.id_token, newer, provider.tokens, exchanged, now)

    async def _arrived(self, provider: Provider, attempt: Attempt, person: Person, client: str) -> Finished:
        if self._standing.is_taken(person.name):
            raise NameTakenError(person.name)
        text, now = new_text(), self._clock.now()
        arrival = Arrival(
            issuer=provider.issuer.url,
            subject=person.subject,
            name=person.name,
            groups=person.groups,
            attempt_hash=hashed(attempt.state),
            attempt_ends_at=attempt.ends_at,
            session_hash=hashed(text),
            session_ends_at=now + self._session_lifetime,
        )
        account = await self._store.sign_in(arrival, now=now, client=client)
        _log.info("signed in", subject=str(account.principal), issuer=provider.issuer.url,
                  groups=sorted(account.principal.groups), client=client)  # fmt: skip
        return Finished(text, account, attempt.onward)

    async def _seal(self, attempt: Attempt) -> str:
        values = [attempt.provider, attempt.state, attempt.nonce, attempt.verifier, attempt.begun_at, attempt.onward]
        sealed = (await self._sealer()).seal(json.dumps(values).encode(), _PURPOSE)
        return urlsafe_b64encode(sealed).decode().rstrip("=")

    async def _unseal(self, cookie: str | None) -> Attempt:
        if cookie is None or len(cookie) > _LONGEST_COOKIE:
            raise SignInLostError("this browser brings nothing that says it has begun one")
        try:
            sealed = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
            values = json.loads((await self._sealer()).open(sealed, _PURPOSE))
        except (MasterKeyWrongError, ValueError) as error:
            raise SignInLostError("what this browser brings was not made here") from error
        attempt = Attempt(*values)
        if attempt.provider not in self._providers:
            raise SignInLostError("its issuer is not trusted here any more")
        return attempt

    async def aclose(self) -> None:
        """Close every connection to issuers."""
        for provider in self._providers.values():
            await provider.issuer.aclose()


def challenge_of(verifier: str) -> str:
    """Return the PKCE challenge of a secret (RFC 7636 §4.2, S256). Pure."""
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
