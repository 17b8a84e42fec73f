"""Bearer tokens: asked for once, kept until shortly before they end (Docker token spec, and its OAuth2 form)."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from roadstead.secret import Secret
from roadstead.upstream.challenge import Challenge
from roadstead.upstream.credentials import Credentials, IdentityToken, Password
from roadstead.upstream.errors import BadAnswerError, RateLimitedError, UnreachableError, UpstreamDeniedError
from roadstead.upstream.retry import RETRYABLE
from roadstead.upstream.transport import Transport, retry_after_s

MAX_ANSWER = 1 << 20  # bytes; a token for many repositories has some KiB
MAX_TOKENS = 10_000
_DEFAULT_LIFETIME_S = 60.0  # Docker token spec: when it doesn't say
_MARGIN = 0.1
"""The part of a token's life that is left to requests under way, at most half a minute."""

_CLIENT = "roadstead"


@dataclass(frozen=True, slots=True)
class _Key:
    realm: str
    service: str | None
    scopes: frozenset[str]
    # The secrets themselves, compared and never printed: a shortened form of them has mixed up users elsewhere.
    identity: tuple[str, str] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Token:
    secret: Secret
    expires: float  # on the monotonic clock


@dataclass(slots=True)
class Tokens:
    """The tokens of a process, by who asked for what where. Those who want one at the same time share one request."""

    transport: Transport
    _kept: dict[_Key, _Token] = field(default_factory=dict)
    _asked: dict[_Key, asyncio.Task[_Token]] = field(default_factory=dict)

    async def get(
        self, host: str, challenge: Challenge, scopes: frozenset[str], credentials: Credentials | None
    ) -> Secret:
        """Return a token for *scopes*, at the challenge's realm, which was checked.

        Raises UpstreamDeniedError for wrong credentials, BadAnswerError, RateLimitedError, UnreachableError.
        """
        key = _Key(challenge.realm, challenge.service, scopes, _identity(credentials))
        kept = self._kept.get(key)
        if kept is not None and kept.expires > monotonic():
            return kept.secret
        task = self._asked.get(key)
        if task is None:
            task = asyncio.create_task(self._fetch(host, key, credentials))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        # Whoever gives up doesn't take the token from the others.
        return (await asyncio.shield(task)).secret

    def drop(self, refused: Secret) -> None:
        """Forget a token that was refused; one that came since stays."""
        for key in [key for key, kept in self._kept.items() if kept.secret is refused]:
            del self._kept[key]

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, key: _Key, task: "asyncio.Task[_Token]") -> None:
        self._asked.pop(key, None)
        # Read here too, so that an error nobody waited for isn't reported as lost.
        if task.cancelled() or task.exception() is not None:
            return
        while len(self._kept) >= MAX_TOKENS:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = task.result()

    async def _fetch(self, host: str, key: _Key, credentials: Credentials | None) -> _Token:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._fetch_once(host, key, credentials)
            except UnreachableError as error:
                if not await self.transport.wait(attempt, error):
                    error.lasting = True
                    raise

    async def _fetch_once(self, host: str, key: _Key, credentials: Credentials | None) -> _Token:
        if isinstance(credentials, IdentityToken):
            form = {"grant_type": "refresh_token", "refresh_token": credentials.secret.reveal()}
            status, token = await self._post(host, key, form)
        else:
            status, token = await self._get(host, key, credentials)
            if status in {404, 405} and credentials is not None:
                # Some know the OAuth2 form only.
                form = {"grant_type": "password", "username": credentials.username}
                status, token = await self._post(host, key, form | {"password": credentials.secret.reveal()})
        if token is None:
            reason = f"its token service answered {status}"
            raise UpstreamDeniedError(host, "signing in", reason, anonymous=credentials is None)
        return token

    async def _get(self, host: str, key: _Key, credentials: Password | None) -> tuple[int, _Token | None]:
        query = [("scope", scope) for scope in sorted(key.scopes)]
        if key.service is not None:
            query.append(("service", key.service))
        authorization = None
        if credentials is not None:
            query += [("client_id", _CLIENT), ("account", credentials.username)]
            authorization = basic(credentials)
        parts = urlsplit(key.realm)
        joined = "&".join(part for part in (parts.query, urlencode(query)) if part)
        return await self._ask(host, "GET", urlunsplit(parts._replace(query=joined)), authorization, None)

    async def _post(self, host: str, key: _Key, form: Mapping[str, str]) -> tuple[int, _Token | None]:
        fields = {**form, "client_id": _CLIENT, "scope": " ".join(sorted(key.scopes))}
        if key.service is not None:
            fields["service"] = key.service
        return await self._ask(host, "POST", key.realm, None, urlencode(fields).encode())

    async def _ask(
        self, host: str, method: str, url: str, authorization: str | None, form: bytes | None
    ) -> tuple[int, _Token | None]:
        started = monotonic()
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
        async with self.transport.exchange(
            method, url, host=host, headers=headers, authorization=authorization, body=form
        ) as answer:
            if answer.status == 429:
                raise RateLimitedError(host, "signing in", retry_after_s(answer))
            if answer.status in RETRYABLE:
                told = f"its token service answered {answer.status}"
                raise UnreachableError(host, told, retry_after_s=retry_after_s(answer))
            if answer.status != 200:
                return answer.status, None
            return 200, parse_token(host, await answer.read(MAX_ANSWER), started)


def parse_token(host: str, body: bytes, started: float) -> _Token:
    """Read a token service's answer to a request sent at *started* (on the monotonic clock). Raises BadAnswerError."""
    try:
        document: Any = json.loads(body)
    except ValueError as error:
        raise BadAnswerError(host, "its token service answered something that isn't JSON") from error
    found = document.get("token") or document.get("access_token") if isinstance(document, dict) else None
    if not isinstance(found, str) or not found.isascii() or not found.isprintable() or " " in found:
        raise BadAnswerError(host, "its token service answered no token")
    lifetime = document.get("expires_in")
    if not isinstance(lifetime, int | float) or isinstance(lifetime, bool) or not 0 < lifetime < 10**9:
        lifetime = _DEFAULT_LIFETIME_S
    return _Token(Secret(found), started + lifetime - min(30.0, lifetime * _MARGIN))


def basic(credentials: Password) -> str:
    """Return the ``Authorization`` value of a name and password (RFC 7617), in UTF-8."""
    return f"Basic {b64encode(f'{credentials.username}:{credentials.secret.reveal()}'.encode()).decode()}"


def _identity(credentials: Credentials | None) -> tuple[str, str] | None:
    match credentials:
        case None:
            return None
        case Password(username, secret):
            return username, secret.reveal()
        case IdentityToken(secret):
            return "", secret.reveal()
