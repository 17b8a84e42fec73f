"""An issuer as this registry asks it: its discovery document, its keys, and codes for tokens.

Nothing is asked before somebody signs in. What is asked goes to the issuer itself, wherever it is since settings name
it, and to where its document says as far as that is public or settings name it, too (``upstream.egress``). Redirects
aren't followed at all.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import structlog

from roadstead.auth.oidc.errors import IssuerUnavailableError
from roadstead.auth.oidc.key_set import KeySet, KeySetInvalidError
from roadstead.errors import DeniedError, UnavailableError
from roadstead.secret import Secret
from roadstead.upstream.address import is_loopback
from roadstead.upstream.transport import Transport

REFRESHED_AFTER_S = 3600.0
"""How long its document and its keys are believed to be as they were."""

LOOKED_FOR_AGAIN_AFTER_S = 60.0
"""How often it is asked for keys at the most because a token names one that isn't known: anybody can name one."""

TIMEOUT_S = 15.0
MAX_DOCUMENT = 512 << 10
WELL_KNOWN = "/.well-known/openid-configuration"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What an issuer's discovery document says (OpenID Connect Discovery §3)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    takes_basic: bool
    names_itself: bool  # in its answers to browsers (RFC 9207)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a code was good for."""

    id_token: str
    access_token: str | None


class CodeRefusedError(DeniedError):
    """The issuer doesn't take a code; ``code`` is what it calls that."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the issuer does not take the code: {code}")
        self.code = code


class Issuer:
    """One issuer; ``url`` is what it calls itself."""

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: Secret | None,
        transport: Transport,
        *,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self.url = url
        self.client_id = client_id
        self._secret = client_secret
        self._transport = transport
        self._ticks = ticks
        self._asking = asyncio.Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None

    async def metadata(self) -> Metadata:
        """Return what its document says, asked for again when it is old; raises IssuerUnavailableError."""
        async with self._asking:
            return await self._current_metadata()

    async def keys(self, *, beyond: KeySet | None = None) -> KeySet:
        """Return its keys; those `beyond` ones that weren't enough, unless these were asked for just now.

        Raises IssuerUnavailableError.
        """
        async with self._asking:
            now = self._ticks()
            if self._keys is not None:
                asked, keys = self._keys
                longest = LOOKED_FOR_AGAIN_AFTER_S if keys is beyond else REFRESHED_AFTER_S
                if now - asked < longest:
                    return keys
            metadata = await self._current_metadata()
            try:
                keys = KeySet.parse(await self._get(metadata.jwks_uri))
            except KeySetInvalidError as error:
                raise IssuerUnavailableError(self.url, str(error)) from error
            self._keys = (now, keys)
            _log.info("an issuer's keys are read", issuer=self.url, keys=len(keys.keys))
            return keys

    async def redeem(self, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """Return what a code is good for (RFC 6749 §4.1.3, RFC 7636 §4.5).

        Raises CodeRefusedError, IssuerUnavailableError.
        """
        metadata = await self.metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        authorization = None
        if self._secret is not None and metadata.takes_basic:
            pair = f"{quote(self.client_id, safe='')}:{quote(self._secret.reveal(), safe='')}"  # RFC 6749 §2.3.1
            authorization = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = self.client_id
            if self._secret is not None:
                form["client_secret"] = self._secret.reveal()
        status, body = await self._exchange("POST", metadata.token_endpoint, urlencode(form).encode(), authorization)
        document = self._document(body, f"its answer to a code ({status})")
        if status != 200:
            raise CodeRefusedError(_error_code(document.get("error")))
        id_token, access_token = document.get("id_token"), document.get("access_token")
        if not isinstance(id_token, str):
            raise IssuerUnavailableError(self.url, "it gave no ID token: is openid among the scopes?")
        return Tokens(id_token, access_token if isinstance(access_token, str) else None)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.__aexit__(None, None, None)

    async def _current_metadata(self) -> Metadata:
        now = self._ticks()
        if self._metadata is not None and now - self._metadata[0] < REFRESHED_AFTER_S:
            return self._metadata[1]
        body = await self._get(self.url.rstrip("/") + WELL_KNOWN)
        metadata = self._read(self._document(body, "its discovery document"))
        self._metadata = (now, metadata)
        _log.info("an issuer's document is read", issuer=self.url)
        return metadata

    def _read(self, document: Mapping[str, Any]) -> Metadata:
        if document.get("issuer") != self.url:
            told = f"it calls itself {str(document.get('issuer'))[:200]!r}, and settings call it {self.url!r}"
            raise IssuerUnavailableError(self.url, f"{told}; they have to be the same, letter by letter")
        endpoints = [document.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        browsers, tokens, keys = (self._endpoint(endpoint) for endpoint in endpoints)
        methods = document.get("token_endpoint_auth_methods_supported")
        takes_basic = not isinstance(methods, list) or "client_secret_basic" in methods
        names_itself = document.get("authorization_response_iss_parameter_supported") is True
        return Metadata(browsers, tokens, keys, takes_basic, names_itself)

    def _endpoint(self, text: object) -> str:
        """Return an address that the document names; plain http is for an issuer on this machine alone."""
        try:
            parts = urlsplit(text) if isinstance(text, str) else None
            good = parts is not None and bool(parts.hostname) and not parts.fragment and parts.username is None
            plain = good and parts is not None and parts.scheme == "http" and is_loopback(parts.hostname or "")
        except ValueError:
            parts, good, plain = None, False, False
        here_alone = urlsplit(self.url).scheme == "http"
        if not good or parts is None or not (parts.scheme == "https" or (plain and here_alone)):
            raise IssuerUnavailableError(self.url, f"its document names {str(text)[:120]!r}, which is no safe address")
        return str(text)

    async def _get(self, url: str) -> bytes:
        status, body = await self._exchange("GET", url, None, None)
        if status != 200:
            raise IssuerUnavailableError(self.url, f"{url} answers {status}")
        return body

    async def _exchange(
        self, method: str, url: str, body: bytes | None, authorization: str | None
    ) -> tuple[int, bytes]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        host = urlsplit(url).netloc
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._transport.exchange(
                    method, url, host=host, headers=headers, authorization=authorization, body=body
                ) as answer,
            ):
                return answer.status, await answer.read(MAX_DOCUMENT)
        except TimeoutError as error:
            raise IssuerUnavailableError(self.url, f"{host} didn't answer within {TIMEOUT_S:.0f} s") from error
        except (UnavailableError, DeniedError) as error:
            raise IssuerUnavailableError(self.url, str(error)) from error

    def _document(self, body: bytes, what: str) -> Mapping[str, Any]:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise IssuerUnavailableError(self.url, f"{what} isn't JSON") from error
        if not isinstance(document, dict):
            raise IssuerUnavailableError(self.url, f"{what} isn't an object")
        return document


def _error_code(said: object) -> str:
    """Return an error's code as RFC 6749 §5.2 allows it, so that it can be shown."""
    text = said if isinstance(said, str) else ""
    return text[:64] if text.replace("_", "").isalnum() and text.isascii() else "an error without a name"
