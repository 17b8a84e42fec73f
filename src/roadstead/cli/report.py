"""How commands tell what went wrong: ``error: …`` on standard error, then what to try."""

from collections.abc import Iterable

import typer

from roadstead.errors import RoadsteadError
from roadstead.settings.findings import Finding, SettingsInvalidError


def report(error: RoadsteadError) -> None:
    """Write an error and its advice on standard error; of settings, a line for each finding."""
    if isinstance(error, SettingsInvalidError):
        for finding in error.findings:
            _write(str(finding), finding.advice)
    else:
        _write(str(error), error.advice())


def report_warnings(warnings: Iterable[Finding]) -> None:
    """Write on standard error what to know although nothing speaks against serving."""
    for finding in warnings:
        typer.secho("warning: ", err=True, fg=typer.colors.YELLOW, bold=True, nl=False)
        typer.echo(finding_lines(finding), err=True)


def finding_lines(finding: Finding) -> str:
    """Return a finding with its advice, if it has one, indented below."""
    return f"{finding}\n  {finding.advice}" if finding.advice else str(finding)


def _write(message: str, advice: str | None) -> None:
    typer.secho("error: ", err=True, fg=typer.colors.RED, bold=True, nl=False)
    typer.echo(message, err=True)
    if advice:
        typer.echo(f"  {advice}", err=True)
