"""So many in a second, and some at once: the arithmetic of a token bucket, kept as one moment.

A bucket that holds `burst` tokens and gains `per_second` of them is described by when it will be full again (GCRA,
ITU-T I.371 annex A): each token that is taken moves that moment on by the time that one token takes to come.
"""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

_SLACK = 1e-3
"""Part of a token that may be missing: sums of fractions of seconds aren't exact."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` in the long run, `burst` at once."""

    per_second: float
    burst: int

    @property
    def step_s(self) -> float:
        """Return the seconds in which one more may come."""
        return 1 / self.per_second

    @property
    def most_s(self) -> float:
        """Return how far ahead of now a bucket may be that has given everything."""
        return self.burst / self.per_second


def advanced(mark: float, now: float, by: float, most: float) -> tuple[float, float]:
    """Return a mark moved `by` seconds on and 0; or as it was, and the seconds by which it would be too far. Pure."""
    moved = max(mark, now) + by
    too_far = moved - now - most
    if too_far > by * _SLACK:
        return mark, too_far
    return moved, 0.0


@lru_cache(maxsize=4096)
def source(address: str) -> str:
    """Return what stands for a client's address: of IPv6 the network, of which a single customer gets a /64. Pure."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    return f"{IPv6Address(int(found) >> 64 << 64)}/64"
