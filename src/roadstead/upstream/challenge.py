"""``WWW-Authenticate``: how a registry says that it wants to know who asks (RFC 9110 §11.6.1, Docker token spec)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_HEADER = 8192
"""Characters looked at; a challenge has some hundred."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 (RFC 9110's word for a name)
_SPACE = re.compile(r"[ \t,]*+")
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t,]|$)")
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*+=[ \t]*+(?:"((?:[^"\\]++|\\.)*+)"|({_TOKEN}))')
_TOKEN68 = re.compile(r"[ \t]*+([A-Za-z0-9._~+/-]++=*+)(?=[ \t]*+(?:,|$))")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to sign in: ``Bearer`` with its realm, service and scope, or ``Basic``."""

    scheme: str
    """In lower case."""

    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)
    """By name in lower case; of a name that is there twice the first one counts."""

    @property
    def realm(self) -> str:
        """Return the realm: for Bearer the address of the token service; empty if none is said."""
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str | None:
        """Return the service that the token is for; Google's Artifact Registry leaves it out."""
        return self.parameters.get("service")

    @property
    def scopes(self) -> frozenset[str]:
        """Return the scopes asked for, none if it says none."""
        return frozenset(self.parameters.get("scope", "").split())


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Read the challenges of all ``WWW-Authenticate`` lines, several a line too, in their order. Pure.

    What can't be read ends its line; what was read before it counts.
    """
    return tuple(challenge for header in headers for challenge in _parse(header[:MAX_HEADER]))


def preferred(challenges: Iterable[Challenge]) -> Challenge | None:
    """Return the challenge to answer: Bearer with a realm before Basic; None if there is neither."""
    usable = [one for one in challenges if (one.scheme == "bearer" and one.realm) or one.scheme == "basic"]
    return min(usable, key=lambda one: one.scheme != "bearer", default=None)


def _parse(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = _skip(header, 0)
    while position < len(header):
        # A name with = behind it is a parameter of the scheme before; a name by itself begins the next challenge.
        if found and (match := _PARAMETER.match(header, position)):
            name, quoted, plain = match.groups()
            value = _ESCAPED.sub(r"\1", quoted) if quoted is not None else plain
            found[-1][1].setdefault(name.lower(), value)
        elif match := _SCHEME.match(header, position):
            found.append((match[1].lower(), {}))
            if _PARAMETER.match(header, _skip(header, match.end())) is None and (
                token := _TOKEN68.match(header, match.end())
            ):
                match = token if "=" in token[1] else match
        else:
            break
        position = _skip(header, match.end())
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _skip(header: str, position: int) -> int:
    match = _SPACE.match(header, position)
    return match.end() if match else position
