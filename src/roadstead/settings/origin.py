"""Where a setting's value came from, and raw values that wait to become settings."""

from dataclasses import dataclass
from enum import StrEnum

from roadstead.settings.convert import Source


class OriginKind(StrEnum):
    """The ways a setting can get its value, from the weakest to the strongest."""

    DEFAULT = "default"
    DISTRIBUTION = "distribution's default"
    FILE = "file"
    ENVIRONMENT = "environment"
    COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting's value came from."""

    kind: OriginKind
    name: str = ""  # the file's path, for distribution's with the key: `config.yml:http.addr`; or the variable's name
    references: tuple[str, ...] = ()  # as written: `${env:NAME}`
    key: str = ""  # what the key is called there, where that is another: `upstreams` for a list of tables

    def __str__(self) -> str:
        through = f" through {', '.join(self.references)}" if self.references else ""
        return f"{self.kind} {self.name}".rstrip() + through


@dataclass(frozen=True, slots=True)
class Given:
    """A raw value for a key."""

    raw: object
    origin: Origin
    source: Source
