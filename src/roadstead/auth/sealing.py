"""Secrets at rest: encrypted and authenticated under the installation's master key (AES-256-GCM, RFC 5116).

A sealed value is a version byte, a random nonce of 12 bytes, and the ciphertext with its tag. What it is for goes into
the tag, so that one value can't be put in another's place.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from base64 import b64encode
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from roadstead.errors import InvalidError, UnavailableError
from roadstead.secret import Secret

SHORTEST: Final = 32
"""Characters that a master key has at the least."""

_VERSION: Final = b"\x01"
_NONCE: Final = 12
_RANDOM: Final = 32


class MasterKeyWrongError(UnavailableError):
    """What was sealed can't be opened: under another master key, or changed."""

    def __init__(self, purpose: str) -> None:
        super().__init__(f"{purpose}: sealed under another master key than auth.master_key, or changed since")

    def advice(self) -> str:
        """Say where to look."""
        return (
            "Give every replica the same auth.master_key, and keep it where the database's backups aren't; "
            "docs/how-to/tokens.md says what to do where it is lost."
        )


class MasterKeyInvalidError(InvalidError):
    """The master key can't serve."""


class Sealer:
    """Seals and opens under one master key."""

    def __init__(self, master: Secret) -> None:
        """Take a text of 32 characters or more; raises MasterKeyInvalidError."""
        text = master.reveal().encode()
        if len(text) < SHORTEST:
            raise MasterKeyInvalidError(f"the master key is shorter than {SHORTEST} characters")
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"roadstead sealing").derive(text)
        self._cipher = AESGCM(key)
        self._marking = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"roadstead marking").derive(text)

    def seal(self, value: bytes, purpose: str) -> bytes:
        """Return the value sealed for a purpose (`signing key <kid>`)."""
        nonce = secrets.token_bytes(_NONCE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, value, _VERSION + purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Return what was sealed for that purpose; raises MasterKeyWrongError."""
        version, nonce, rest = sealed[:1], sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        if version != _VERSION:
            raise MasterKeyWrongError(purpose)
        try:
            return self._cipher.decrypt(nonce, rest, version + purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise MasterKeyWrongError(purpose) from error

    def mark(self, text: str) -> str:
        """Return what stands for a text: the same each time, and nobody without the master key can guess it back."""
        return hmac.new(self._marking, text.encode(), hashlib.sha256).hexdigest()


def kept_master_key(path: Path) -> Secret:
    """Return the master key in a file, which is made with a random one where there is none; only we can read it.

    Several processes may come at once: all get the one that was there first.
    """
    try:
        return Secret(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(b64encode(secrets.token_bytes(_RANDOM)).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # somebody else was first, and that one counts
            os.link(draft, path)
    finally:
        draft.unlink()
    return Secret(path.read_text(encoding="ascii").strip())
