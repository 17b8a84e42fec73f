"""What the supervisor hands to the processes it starts: by value, so that nobody reads settings twice."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from roadstead.settings.model import Settings
from roadstead.settings.plain import as_plain, from_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Everything that a worker or the background process starts with.

    ``rules_json`` holds the prepared augmentation rules, ``run_directory`` is a directory of this run alone, gone
    when the server has stopped. Its JSON holds secrets: it goes through pipes, never to disk.
    """

    settings: Settings
    rules_json: str
    run_directory: Path

    def as_json(self) -> str:
        """Return the handover as one JSON text."""
        return json.dumps(
            {
                "settings": as_plain(self.settings),
                "rules_json": self.rules_json,
                "run_directory": str(self.run_directory),
            }
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the handover that `as_json` wrote."""
        plain = json.loads(text)
        return cls(
            settings=from_plain(plain["settings"]),
            rules_json=plain["rules_json"],
            run_directory=Path(plain["run_directory"]),
        )
