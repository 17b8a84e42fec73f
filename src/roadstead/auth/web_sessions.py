"""Being signed in with a browser: a random text in a cookie, of which the database has the SHA-256.

The row is read with every request, so that a session that is ended, and an account that is disabled or removed, is so
at once in every worker and replica.
"""

import hashlib
import secrets
from datetime import timedelta

from roadstead.acts import Asked
from roadstead.auth.caller import Caller
from roadstead.auth.ports import PeopleStore, WebSession
from roadstead.auth.standing import Standing
from roadstead.clock import Clock

_BYTES = 32
_LONGEST = 128
_TOUCHED_EVERY = timedelta(minutes=1)
"""A session's last use is written this often at the most: a page is several requests."""


def new_text() -> str:
    """Return 256 random bits, as they stand in a cookie."""
    return secrets.token_urlsafe(_BYTES)


def hashed(text: str) -> str:
    """Return the SHA-256: of 256 random bits nobody finds the other half, so nothing slower is needed."""
    return hashlib.sha256(text.encode()).hexdigest()


class WebSessions:
    """Knows who is signed in with a browser."""

    def __init__(self, store: PeopleStore, standing: Standing, clock: Clock, *, idle: timedelta) -> None:
        self._store = store
        self._standing = standing
        self._clock = clock
        self._idle = idle

    async def find(self, text: str) -> WebSession | None:
        """Return the session of a cookie's text while it lasts, and take note that it is used."""
        if not text or len(text) > _LONGEST:
            return None
        session = await self._store.find_session(hashed(text))
        now = self._clock.now()
        if session is None or now >= session.expires_at or now - session.seen_at >= self._idle:
            return None
        if self._standing.objection(session.account) is not None:
            return None
        if now - session.seen_at >= min(_TOUCHED_EVERY, self._idle / 4):
            await self._store.touch_session(session.session_hash, now)
        return session

    async def end(self, text: str, asked: Asked | None = None) -> bool:
        """End the session of a cookie's text; False where there is none."""
        return len(text) <= _LONGEST and await self._store.end_session(hashed(text), asked=asked)


def caller_of(session: WebSession) -> Caller:
    """Return who it is, as policies see them."""
    return Caller(session.account.principal, via="session", expires_at=session.expires_at)
