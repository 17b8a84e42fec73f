"""Whether the master key opens the keys that sign tokens: looked at as a start would, without changing anything."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from roadstead.app.plugs import CLOCK
from roadstead.app.tokens import MASTER_KEY_FILE
from roadstead.auth.ports import SealedKey, SigningKeyStore
from roadstead.auth.sealing import MasterKeyInvalidError, MasterKeyWrongError, Sealer
from roadstead.auth.signing_keys import SigningKeys
from roadstead.db.engine import Database
from roadstead.db.stores.accounts import names_in_file
from roadstead.db.stores.tokens import signing_keys_in_file
from roadstead.errors import UnavailableError
from roadstead.secret import Secret
from roadstead.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Sealed:
    """The keys that are there, and whether there is an account, by which it may be decided that they are used."""

    keys: Sequence[SealedKey]
    has_accounts: bool

    @classmethod
    def in_file(cls, path: Path) -> "Sealed":
        """Read them from a SQLite file, beside whoever uses it."""
        return cls(signing_keys_in_file(path) or (), bool(names_in_file(path)))

    @classmethod
    async def in_database(cls, database: Database) -> "Sealed":
        """Read them from an open database."""
        return cls(await database.tokens.signing_keys(), bool(await database.accounts.accounts(limit=1)))

    async def objection(self, settings: Settings) -> str | None:
        """Return why a start would fall over them; None if they can be opened or aren't used."""
        auth = settings.auth
        accounts = auth.accounts if auth.accounts is not None else self.has_accounts or auth.oidc is not None
        issue = replace(settings, auth=replace(auth, accounts=accounts)).issue
        if issue is None or not self.keys:
            return None
        try:
            sealer = Sealer(await asyncio.to_thread(_master_key, settings))
            keys = SigningKeys(
                _Looking(self.keys),
                sealer,
                CLOCK,
                issuer="",
                algorithm=issue.algorithm.value,
                rotate_every=issue.rotate_every,
                tokens_last=issue.lifetime,
            )
            await keys.published()
        except OSError as error:
            return f"{error.filename} can't be read ({error.strerror}), and signing keys are sealed under what it held"
        except (MasterKeyWrongError, MasterKeyInvalidError) as error:
            return str(error)
        return None


def _master_key(settings: Settings) -> Secret:
    """Return the master key that was given, else the one in the data directory, which isn't made here; OSError."""
    if settings.auth.master_key is not None:
        return settings.auth.master_key
    return Secret((settings.storage.path / MASTER_KEY_FILE).read_text(encoding="ascii", errors="replace").strip())


class _Looking:
    """`SigningKeyStore` of what was read: nothing is added or removed."""

    def __init__(self, keys: Sequence[SealedKey]) -> None:
        self._keys = keys

    async def signing_keys(self) -> Sequence[SealedKey]:
        """Return all keys."""
        return self._keys

    async def add_signing_key(self, key: SealedKey) -> None:
        """Refuse: nobody asks here for one to sign with."""
        raise UnavailableError(f"the signing key {key.kid} isn't added by looking")

    async def remove_signing_key(self, kid: str) -> bool:
        """Leave those whose time is over to the server."""
        del kid
        return False


if TYPE_CHECKING:
    _: type[SigningKeyStore] = _Looking
