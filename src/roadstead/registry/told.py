"""What a long piece of work has to tell a person at its end: how often each thing was met, and where first."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

F = TypeVar("F", bound=StrEnum)

NAMED = 20
"""Findings of one kind that are told by name; the others are counted, so that memory stays flat."""


@dataclass(slots=True)
class Told(Generic[F]):
    """Findings, counted, and the first of each kind by name. A finding's value is its meaning, in words."""

    findings: dict[F, int] = field(default_factory=dict)
    named: dict[F, list[str]] = field(default_factory=dict)

    def tell(self, finding: F, what: str, count: int = 1) -> None:
        """Note something that a person may want to look at."""
        if not count:
            return
        self.findings[finding] = self.findings.get(finding, 0) + count
        names = self.named.setdefault(finding, [])
        if len(names) < NAMED:
            names.append(what)

    def findings_as_json(self) -> list[dict[str, Any]]:
        """Return the findings as plain data."""
        return [
            {"finding": finding.name.lower(), "means": finding.value, "count": count, "first": self.named[finding]}
            for finding, count in self.findings.items()
        ]

    def findings_as_text(self) -> list[str]:
        """Return the findings as lines for people."""
        lines = []
        for finding, count in self.findings.items():
            lines.append(f"{finding.value}: {count:,}")
            lines += [f"  {name}" for name in self.named[finding]]
            if count > len(self.named[finding]):
                lines.append("  …")
        return lines
