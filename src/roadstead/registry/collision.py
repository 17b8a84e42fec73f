"""A name that means something else here than it did where its images come from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from roadstead.oci.reference import RepositoryName


@dataclass(frozen=True, slots=True)
class Collision:
    """What becomes of a repository under such a name."""

    name: RepositoryName
    reason: str
    reachable: bool
    """Whether it can be pulled here all the same, and what the name would else mean can't."""

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


Collides: TypeAlias = Callable[[RepositoryName], Collision | None]


def never(_name: RepositoryName) -> Collision | None:
    """Know of no name that collides."""
    return None
