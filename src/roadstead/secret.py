"""A value that doesn't print."""

import hmac
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Secret:
    """A string that shows as ``***`` wherever it is printed, logged or formatted; ``reveal()`` gives it."""

    _value: str

    def reveal(self) -> str:
        """Return the secret itself; call this only where it leaves for the place it is meant for."""
        return self._value

    def matches(self, candidate: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self._value.encode(), candidate.encode())

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._value)
