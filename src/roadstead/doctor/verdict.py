"""What an examination finds: verdicts, and what a command ends with for them."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    WARN = "warn"  # it works, and may not for long, or not for everybody
    FAIL = "fail"  # somebody can't push or pull, or data is at risk


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was looked at: which (``proxy.body-limit``), how it stands, and what to do about it."""

    check: str
    level: Level
    message: str
    advice: str | None = None


def ok(check: str, message: str) -> Verdict:
    """Return that a thing is as it should be."""
    return Verdict(check, Level.OK, message)


def warn(check: str, message: str, advice: str | None = None) -> Verdict:
    """Return that somebody should look at it."""
    return Verdict(check, Level.WARN, message, advice)


def fail(check: str, message: str, advice: str | None = None) -> Verdict:
    """Return that it has to be mended."""
    return Verdict(check, Level.FAIL, message, advice)


def exit_status(verdicts: Iterable[Verdict]) -> int:
    """Return 0 if all is well, 1 if something is to be looked at, 2 if something has to be mended."""
    levels = {verdict.level for verdict in verdicts}
    return 2 if Level.FAIL in levels else 1 if Level.WARN in levels else 0
