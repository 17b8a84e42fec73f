"""What is wrong with settings: findings, and the errors that carry them."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from roadstead.errors import InvalidError

NO_EFFECT = "no-effect"
"""The id of findings about what another registry's settings say and nothing follows from here."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: which key, where it was written, what was expected, and what to do.

    ``id`` names the kind of thing for programs (``secret.missing``, deployment spec §9.4), where it has a name.
    """

    key: str  # dotted, `server.listen`
    message: str
    where: str | None = None  # the file or variable
    advice: str | None = None
    id: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.key}: {self.message}"


class SettingsInvalidError(InvalidError):
    """Settings can't be used as they are; ``findings`` has every reason, ``warnings`` what else is to be known."""

    def __init__(self, findings: Sequence[Finding], warnings: Sequence[Finding] = ()) -> None:
        super().__init__("; ".join(str(finding) for finding in findings))
        self.findings = tuple(findings)
        self.warnings = tuple(warnings)

    def advice(self) -> str | None:
        """Return the advice of the findings that have one."""
        return " ".join(finding.advice for finding in self.findings if finding.advice) or None


class SettingsFileError(InvalidError):
    """A settings file can't be read at all."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read the settings in {path}: {reason}")
        self.path = path


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean X?`` for the known word most like this one, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
