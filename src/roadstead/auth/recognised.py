"""Those who were let in before, known again by what they send: what was proved is remembered, never who may what.

To find out who somebody is takes a password's hash or a token's signature, and clients send the same header with each
request. What is remembered of it is who was found, and what each way of signing in went by. That is read again with
every request (the row of the account or key, the line of the file, the keys that sign), and where it isn't what it was,
nothing that is remembered counts. So whoever is thrown out is out at once, in every worker (design decision 3).

Where it can be told for less that nothing of all that has changed (`edition`), what was read just now isn't read again.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from time import monotonic

from roadstead.auth.caller import Caller
from roadstead.auth.ports import Verdict

REMEMBERED = 4096
REMEMBERED_S = 3600.0
READ_AGAIN_S = 0.02
"""How long an edition is trusted: time ends keys and tokens, too, and programs write that don't say so."""

_MAC_BYTES = 16


@dataclass(slots=True)
class _Known:
    caller: Caller
    verdicts: tuple[Verdict, ...]  # of the ways that were asked, but for those that go by the credentials alone
    until: float
    edition: Hashable | None = None  # of what they went by when it was last read
    edition_until: float = 0.0


def _unknown() -> None:
    return


class Recognised:
    """The callers of one process, by a keyed MAC of their Authorization header: the header itself isn't kept.

    `edition` gives what is another one once anything has changed that verdicts go by, None where that can't be told.
    """

    def __init__(
        self, *, edition: Callable[[], Hashable | None] = _unknown, clock: Callable[[], float] = monotonic
    ) -> None:
        self._edition = edition
        self._clock = clock
        # With the key in it: to begin anew with each request takes longer than the rest.
        self._mac = hashlib.blake2b(digest_size=_MAC_BYTES, key=secrets.token_bytes(32))
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def mark(self, authorization: bytes) -> bytes:
        """Return what stands for a header here, and tells nobody what was in it."""
        mac = self._mac.copy()
        mac.update(authorization)
        return mac.digest()

    def at_once(self, mark: bytes) -> Caller | None:
        """Return who sent this a moment ago, if nothing has changed since; None where it has to be read again."""
        known = self._known.get(mark)
        if known is None or known.edition is None or self._clock() >= known.edition_until:
            return None
        return known.caller if self._edition() == known.edition else None

    async def find(self, mark: bytes) -> Caller | None:
        """Return who sent this before, if all that it was found by is as it was; raises what reading raises."""
        known = self._known.get(mark)
        if known is None:
            return None
        now = self._clock()
        edition = self._edition()  # before it is read: what changes meanwhile is another edition
        if known.until > now and await _stand(known.verdicts):
            known.edition, known.edition_until = edition, min(now + READ_AGAIN_S, known.until)
            return known.caller
        self._known.pop(mark, None)
        return None

    def keep(self, mark: bytes, caller: Caller, verdicts: Sequence[Verdict]) -> None:
        """Remember somebody, and what was said on the way to them."""
        going_by = tuple(verdict for verdict in verdicts if verdict.read is not None)
        self._known[mark] = _Known(caller, going_by, self._clock() + REMEMBERED_S)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


async def _stand(verdicts: Sequence[Verdict]) -> bool:
    """Say whether everything that verdicts go by is as it was."""
    for verdict in verdicts:
        if verdict.read is not None:
            found = await verdict.read()
            if found is not verdict.found and found != verdict.found:
                return False
    return True
