"""What a registry says is left of our budget: ``RateLimit-Remaining: 97;w=21600``, as Docker Hub writes it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_VALUE = re.compile(r"\s*+([0-9]{1,18}+)(?:\s*+;\s*+w=([0-9]{1,18}+))?+")


@dataclass(frozen=True, slots=True)
class Budget:
    """How many requests are left in the present window."""

    remaining: int
    limit: int | None = None
    window_s: int | None = None


def parse_budget(headers: Mapping[str, str]) -> Budget | None:
    """Read the budget that an answer's headers tell of (names compared as *headers* does); None if they don't. Pure."""
    remaining = _VALUE.match(headers.get("ratelimit-remaining", ""))
    if remaining is None:
        return None
    limit = _VALUE.match(headers.get("ratelimit-limit", ""))
    window = remaining[2] or (limit[2] if limit else None)
    return Budget(int(remaining[1]), int(limit[1]) if limit else None, int(window) if window else None)
