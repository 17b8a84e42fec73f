"""Scopes, as token requests name what they want: ``repository:team/app:pull,push`` (Docker token spec)."""

import re
from collections.abc import Iterable, Sequence

from roadstead.auth.principal import Grant

MAX_SCOPES = 100

_KIND = re.compile(r"[a-z0-9]+(?:\([a-z0-9]+\))?")


def parse_scopes(texts: Iterable[str]) -> Sequence[Grant]:
    """Return what is asked for, each thing once with all actions asked of it; what can't be read is left out.

    Several scopes come as several texts, or separated by spaces in one. A name may have a port in it, so the kind
    ends at the first colon and the actions begin at the last.
    """
    found: dict[tuple[str, str], frozenset[str]] = {}
    words = [word for text in texts for word in text.split(" ") if word]
    for word in words[:MAX_SCOPES]:
        kind, colon, rest = word.partition(":")
        name, second, actions = rest.rpartition(":")
        if colon and second and name and _KIND.fullmatch(kind):
            asked = frozenset(action for action in actions.split(",") if action)
            found[kind, name] = found.get((kind, name), frozenset()) | asked
    return [Grant(kind, name, actions) for (kind, name), actions in found.items()]


def format_scope(grant: Grant) -> str:
    """Return a grant as a scope, its actions in a fixed order; ``parse_scopes`` gives it back."""
    return f"{grant.kind}:{grant.name}:{','.join(sorted(grant.actions))}"
