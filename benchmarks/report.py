"""Figures as tables: medians, ratios of pairs, how far these lie apart, and whether they hold."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.measures import Sample
from benchmarks.rows import Goal, Group, Row
from roadstead.testing.components import ComponentMissingError, require


@dataclass(frozen=True, slots=True)
class Measured:
    """A row's samples by column, as many of each as there were rounds; what couldn't be measured is `missing`."""

    row: Row
    samples: Mapping[str, Sequence[Sample]]
    missing: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and what came of it: the median of the rounds' ratios, the least and the most."""

    goal: Goal
    ratio: float
    least: float
    most: float

    @property
    def held(self) -> bool:
        """Tell whether what has to hold does."""
        return self.ratio <= self.goal.hold if self.goal.most else self.ratio >= self.goal.hold

    @property
    def reached(self) -> bool:
        """Tell whether what we want is reached as well."""
        return self.ratio <= self.goal.want if self.goal.most else self.ratio >= self.goal.want


def verdicts(measured: Measured) -> list[Verdict]:
    """Return what came of a row's goals, those left out whose peers are missing."""
    found = []
    ours, *_ = measured.row.columns
    for goal in measured.row.goals:
        needed = (ours, *goal.against)
        if any(name not in measured.samples for name in needed):
            continue
        rounds = zip(*(measured.samples[name] for name in needed), strict=True)
        ratios = sorted(_ratio(goal, own, others) for own, *others in rounds)
        found.append(Verdict(goal, median(ratios), ratios[0], ratios[-1]))
    return found


def table(group: Group, rows: Sequence[Measured]) -> str:
    """Return a group's rows as Markdown."""
    columns = list(dict.fromkeys(name for measured in rows for name in measured.row.columns))
    head = ["", *columns, "ratio (least to most)", "hold · want", ""]
    lines = [f"### {group.title} ({_units(group)})", "", _line(head), _line("---" for _ in head)]
    for measured in rows:
        cells = [_cell(group, measured, name) for name in columns]
        found = verdicts(measured)
        lines.append(
            _line(
                [
                    measured.row.about,
                    *cells,
                    "<br>".join(
                        f"{_number(v.ratio)}{_against(v.goal)} ({_number(v.least)} to {_number(v.most)})" for v in found
                    ),
                    "<br>".join(_goal(v.goal) for v in found),
                    "<br>".join("wanted" if v.reached else "held" if v.held else "**not held**" for v in found),
                ]
            )
        )
    return "\n".join(lines)


def machine() -> str:
    """Return what was measured on, without a name: cores, kernel, versions."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    names = ("granian", "uvloop", "sqlalchemy", "msgspec")
    parts = [
        f"{os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()})",
        f"Linux {platform.release().partition('-')[0]}",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in names),
        *_peers(),
    ]
    return ", ".join(parts)


def _peers() -> Iterable[str]:
    for name, program, flag in (("D2", "docker-registry", "--version"), ("nginx", "nginx", "-v")):
        try:
            done = subprocess.run([require(program, install=""), flag], check=False, capture_output=True, text=True)
        except ComponentMissingError:
            continue
        found = re.search(r"v?(\d+\.\d+\.\d+)", done.stdout + done.stderr)
        yield f"{name} {found[1] if found else '?'}"


def _ratio(goal: Goal, own: Sample, others: Sequence[Sample]) -> float:
    if goal.of_cpu:
        return (own.cpu_s or 0) / max(other.cpu_s or 0 for other in others)
    if not others:
        return own.figure
    figures = [other.figure for other in others]
    return own.figure / (max(figures) if goal.most else min(figures))


def _cell(group: Group, measured: Measured, name: str) -> str:
    if name in measured.missing:
        return "missing"
    if name not in measured.samples:
        return ""
    samples = measured.samples[name]
    text = _number(median(sample.figure for sample in samples))
    used = [sample.cpu_s for sample in samples if sample.cpu_s is not None]
    if group.cpu is not None and used:
        text += f" · {_number(median(used) * group.cpu[1])}"
    return text


def _units(group: Group) -> str:
    return group.unit if group.cpu is None else f"{group.unit} · server's processor time in {group.cpu[0]}"


def _against(goal: Goal) -> str:
    what = "the processor time of " if goal.of_cpu else ""
    return f" of {what}{' or '.join(goal.against)}" if goal.against else ""


def _goal(goal: Goal) -> str:
    sign = "≤" if goal.most else "≥"
    return f"{sign} {_number(goal.hold)} · {_number(goal.want)}"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
