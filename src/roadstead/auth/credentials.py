"""What a request brings to sign in with: the Authorization header, parsed once (RFC 7617, RFC 6750)."""

import binascii
from base64 import b64decode
from dataclasses import dataclass, field

from roadstead.auth.errors import CredentialsWrongError
from roadstead.secret import Secret

MAX_HEADER = 16 << 10
"""Longer than any token that clients send; more isn't worth looking at."""

MAX_PASSWORD = 4096


@dataclass(frozen=True, slots=True)
class Password:
    """A name and a password. ``client`` is the address they came from, for the limit on guessing."""

    username: str
    password: Secret
    client: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token."""

    token: Secret
    client: str = field(default="", compare=False)


Credentials = Password | Bearer


def parse_authorization(text: str, client: str) -> Credentials | None:
    """Return what the header holds; raises CredentialsWrongError for what can't be read or isn't known here.

    None: neither a name nor a password stands in it (``curl -u :``), so nobody says who they are.
    """
    scheme, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if len(text) > MAX_HEADER or not rest:
        raise CredentialsWrongError("the Authorization header can't be read")
    match scheme.lower():
        case "basic":
            return _basic(rest, client)
        case "bearer":
            return Bearer(Secret(rest), client)
        case _:
            raise CredentialsWrongError("the Authorization header can't be read: expected Basic or Bearer")


def _basic(encoded: str, client: str) -> Password | None:
    try:
        raw = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CredentialsWrongError("the Authorization header can't be read: Basic wants base64") from error
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # what clients send that have not heard of UTF-8
    username, colon, password = text.partition(":")
    if not colon or "\0" in text or len(password) > MAX_PASSWORD:
        raise CredentialsWrongError("the Authorization header can't be read: Basic wants NAME:PASSWORD")
    if not username and not password:
        return None
    return Password(username, Secret(password), client)
