"""``/auth/token`` over HTTP: the query of the Docker token spec, and the form of its OAuth2 variant.

Loaded only where tokens are issued; ``token_routes.py`` is what every process has.
"""

import json
from collections.abc import Mapping
from datetime import UTC
from urllib.parse import parse_qsl

import msgspec

from roadstead.auth.credentials import MAX_PASSWORD, Credentials, Password, parse_authorization
from roadstead.auth.errors import CredentialsWrongError, SignInNeededError
from roadstead.auth.ports import Challenges, Occasion
from roadstead.auth.scope import format_scope, parse_scopes
from roadstead.auth.signing_keys import SigningKeys
from roadstead.auth.token_desk import Handed, TokenDesk
from roadstead.errors import InvalidError
from roadstead.http.asgi import MAX_PARAMETERS, ParametersTooManyError, Request, Response
from roadstead.http.bodies import read_whole
from roadstead.secret import Secret

MAX_FORM = 64 << 10

_TRUE = frozenset({"true", "1"})
_NOT_KEPT = (b"cache-control", b"no-store")  # RFC 6749 §5.1
_JSON = (b"content-type", b"application/json")
_KEYS_KEPT = (b"cache-control", b"public, max-age=60")


class FormInvalidError(InvalidError):
    """The form of a token request can't be used (400)."""


class TokenDoor:
    """Hands tokens out, and the keys they are signed with."""

    def __init__(self, desk: TokenDesk, keys: SigningKeys, challenges: Challenges) -> None:
        """`challenges` ask for a name and a password: who has the wrong ones is told to come with others."""
        self._desk = desk
        self._keys = keys
        self._challenges = challenges

    async def by_query(self, request: Request) -> Response:
        """Answer a GET: credentials in the header or none, what is wanted in the query."""
        text = request.header(b"authorization")
        asked = parse_scopes(request.query.get("scope", ()))
        offline = request.parameter("offline_token") in _TRUE
        try:
            credentials = None if text is None else _basic(parse_authorization(text, request.client or ""))
            handed = await self._desk.sign_in(
                credentials, asked, service=request.parameter("service") or None, offline=offline
            )
        except SignInNeededError as error:
            self._tell(request, error)
            raise
        answer = {"token": handed.token.text, "access_token": handed.token.text, **_times(handed)}
        if handed.refresh_token is not None:
            answer["refresh_token"] = handed.refresh_token
        return _answer(answer)

    async def by_form(self, request: Request) -> Response:
        """Answer a POST: everything in the form (RFC 6749 §4.3, §6)."""
        form = _form(await read_whole(request, "token request", max_bytes=MAX_FORM))
        asked, service = parse_scopes([form.get("scope", "")]), form.get("service") or None
        kind = form.get("grant_type")
        try:
            if kind == "password":
                name, password = _needed(form, "username"), _needed(form, "password")
                if len(password) > MAX_PASSWORD:
                    raise FormInvalidError(f"the password is longer than {MAX_PASSWORD} characters")
                if "\0" in name or "\0" in password:
                    # As Basic has it: no name has one, databases take none, and kinds of hashes differ about it.
                    raise CredentialsWrongError
                credentials = Password(name, Secret(password), request.client or "")
                offline = form.get("access_type") == "offline"
                handed = await self._desk.sign_in(credentials, asked, service=service, offline=offline)
            elif kind == "refresh_token":
                handed = await self._desk.refresh(_needed(form, "refresh_token"), asked, service=service)
            else:
                raise FormInvalidError(f"expected grant_type password or refresh_token, got {kind!r}")
        except SignInNeededError as error:
            self._tell(request, error)
            raise
        scope = " ".join(format_scope(grant) for grant in handed.token.grants)
        answer = {"access_token": handed.token.text, "token_type": "Bearer", "scope": scope, **_times(handed)}
        if handed.refresh_token is not None:
            answer["refresh_token"] = handed.refresh_token
        return _answer(answer)

    async def key_set(self, request: Request) -> Response:
        """Answer with the keys that tokens may be signed with, as a JWK set (RFC 7517)."""
        await self._keys.signing()  # so that there is one
        keys = [key.public for key in await self._keys.published()]
        body = json.dumps({"keys": keys}).encode()
        return Response(200, [(b"content-type", b"application/jwk-set+json"), _KEYS_KEPT], body)

    async def certificates(self, request: Request) -> Response:
        """Answer with certificates that carry the same keys, for registries with a ``rootcertbundle``."""
        await self._keys.signing()
        body = "".join(key.certificate for key in await self._keys.published()).encode()
        return Response(200, [(b"content-type", b"application/x-pem-file"), _KEYS_KEPT], body)

    def _tell(self, request: Request, error: SignInNeededError) -> None:
        """Add to an error how to sign in; what came was wrong."""
        error.challenges = tuple(self._challenges.values(Occasion(request.header(b"host") or "")))


def _basic(credentials: Credentials | None) -> Credentials | None:
    if credentials is None or isinstance(credentials, Password):
        return credentials
    raise CredentialsWrongError("tokens are given for a name and a password (Basic), not for another token")


def _times(handed: Handed) -> dict[str, object]:
    token = handed.token
    issued_at = token.issued_at.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    return {"expires_in": int(token.lifetime.total_seconds()), "issued_at": issued_at}


def _answer(answer: Mapping[str, object]) -> Response:
    return Response(200, [_JSON, _NOT_KEPT], msgspec.json.encode(answer))


def _form(body: bytes) -> Mapping[str, str]:
    """Return the form's fields; a field that comes twice is an error (RFC 6749 §3.2), but scopes add up."""
    if body.count(b"&") >= MAX_PARAMETERS:
        raise ParametersTooManyError
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise FormInvalidError("the form isn't application/x-www-form-urlencoded in UTF-8") from error
    form: dict[str, str] = {}
    for name, value in pairs:
        if name in form and name != "scope":
            raise FormInvalidError(f"{name[:50]!r} comes twice")
        form[name] = f"{form[name]} {value}" if name in form else value
    return form


def _needed(form: Mapping[str, str], name: str) -> str:
    value = form.get(name)
    if not value:
        raise FormInvalidError(f"{name} is missing")
    return value
