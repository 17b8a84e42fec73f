"""What somebody is shown of a listing of repositories: policies, decided for many names at once. Pure.

A decision is looked up by everything that it depends on, name by name. Whoever lists 100,000 names and may see ten of
them would pay for each, so a listing asks for what is common to all of them first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from roadstead.oci.pattern import Glob

Globs = tuple[Glob, ...]


@dataclass(frozen=True, slots=True)
class Sight:
    """Whoever has it sees what an allowing glob fits and no denying one; through a key what fits that, too.

    Every name that is seen begins with one of ``beginnings``, of which none begins with another. An empty one means
    that names may begin with anything.
    """

    allowed: Globs
    denied: Globs
    key: Globs | None
    beginnings: Sequence[str]

    def sees(self, repository: str) -> bool:
        """Say whether a listing tells of this repository."""
        return (
            any(glob.matches(repository) for glob in self.allowed)
            and not any(glob.matches(repository) for glob in self.denied)
            and (self.key is None or any(glob.matches(repository) for glob in self.key))
        )


def shortest(beginnings: Iterable[str]) -> Sequence[str]:
    """Return those of which none begins with another; together they stand for the same names."""
    found: list[str] = []
    for beginning in sorted(beginnings):
        if not found or not beginning.startswith(found[-1]):
            found.append(beginning)
    return found


def common(some: Sequence[str], others: Sequence[str]) -> Sequence[str]:
    """Return the beginnings of the names that begin with one of some, and with one of the others."""
    return shortest(
        max(one, other, key=len) for one in some for other in others if one.startswith(other) or other.startswith(one)
    )
