"""How clients are told to get a token: the Bearer challenge (RFC 6750 §3, Docker token spec)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from roadstead.auth.challenges import quoted
from roadstead.auth.ports import Challenges, Occasion
from roadstead.auth.principal import Grant
from roadstead.auth.scope import format_scope

_ORDER = {"pull": 0, "push": 1}  # as clients and distribution write them


class BearerChallenge:
    """`Challenges` of a token server: its address may depend on the scheme and host that the client used."""

    asks_everybody = True

    def __init__(self, realm: str | Callable[[str, str], str], service: str) -> None:
        self._realm = realm
        self._service = service

    def values(self, occasion: Occasion) -> Sequence[str]:
        """Return the one value."""
        realm = self._realm if isinstance(self._realm, str) else self._realm(occasion.scheme, occasion.host)
        parts = [f'realm="{quoted(realm)}"', f'service="{quoted(self._service)}"']
        if occasion.wanted:
            parts.append(f'scope="{quoted(" ".join(map(_scope, occasion.wanted)))}"')
        if occasion.error is not None:
            parts.append(f'error="{occasion.error}"')
        if occasion.said is not None:  # docker, podman and skopeo show it in place of their own words
            parts.append(f'error_description="{quoted(occasion.said)}"')
        return (f"Bearer {','.join(parts)}",)


def _scope(grant: Grant) -> str:
    if not grant.actions <= _ORDER.keys():
        return format_scope(grant)
    return f"{grant.kind}:{grant.name}:{','.join(sorted(grant.actions, key=lambda word: _ORDER[word]))}"


if TYPE_CHECKING:
    _: type[Challenges] = BearerChallenge
