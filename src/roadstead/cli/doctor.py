"""``roadstead doctor``: look at everything a server needs, and say what to do about what isn't right."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from roadstead.doctor.verdict import Level, Verdict, exit_status, fail, ok, warn
from roadstead.settings.check import check_settings
from roadstead.settings.findings import NO_EFFECT, Finding
from roadstead.settings.load import LoadedSettings, load_with_findings
from roadstead.settings.model import Settings

EXAMPLE = "Example: roadstead doctor roadstead.toml --url https://registry.example.com"

_COLOURS = {Level.OK: typer.colors.GREEN, Level.WARN: typer.colors.YELLOW, Level.FAIL: typer.colors.RED}


def doctor(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="The server's TOML file, or distribution's config.yml.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The address that clients use (server.public_url).")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", readable=False, help="The data directory (storage.path).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each check.")] = False,
) -> None:
    """Check settings, disks, storage, database, port, proxy, certificate and clocks, with a server running or without.

    Writes nothing but an object and a file of 4 KiB, which it removes again. Status 0 if all is well, 1 if something is
    to be looked at, 2 if something has to be mended.
    """
    if url is not None and not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url} is not http://… or https://…", param_hint="--url")
    overrides = {} if data is None else {"storage.path": str(data)}
    loaded, findings = load_with_findings(
        config,
        environment=os.environ,
        overrides=overrides,
        check=_judge,
    )
    verdicts: list[Verdict] = []

    async def run() -> None:
        async for verdict in _everything(loaded, findings, url):
            verdicts.append(verdict)
            typer.echo(json.dumps(asdict(verdict)) if as_json else _line(verdict))

    asyncio.run(run())
    raise typer.Exit(exit_status(verdicts))


def _judge(settings: Settings) -> Iterator[Finding]:
    # It knows rules, storage and databases, which --help need not wait for.
    from roadstead.cli.preflight import preflight

    yield from check_settings(settings)
    yield from preflight(settings)


async def _everything(loaded: LoadedSettings, findings: Sequence[Finding], url: str | None) -> AsyncIterator[Verdict]:
    # Storage, database and all: --help need not wait for it.
    from roadstead.app.examination import examine

    # As above.
    from roadstead.cli.preflight import remarks

    warnings = [*loaded.warnings, *remarks(loaded.settings, findings)]
    for verdict in _of_settings(warnings, findings):
        yield verdict
    async for verdict in examine(loaded.settings, url):
        yield verdict


def _of_settings(warnings: Sequence[Finding], findings: Sequence[Finding]) -> list[Verdict]:
    verdicts = [fail("settings", str(finding), finding.advice) for finding in findings]
    notes = [ok("settings", str(finding)) for finding in warnings if finding.id == NO_EFFECT]
    verdicts += [warn("settings", str(finding), finding.advice) for finding in warnings if finding.id != NO_EFFECT]
    return [*notes, *(verdicts or [ok("settings", "the settings are fine")])]


def _line(verdict: Verdict) -> str:
    level = typer.style(f"{verdict.level:<5}", fg=_COLOURS[verdict.level], bold=verdict.level is not Level.OK)
    text = f"{level} {verdict.check}: {verdict.message}"
    return f"{text}\n      {verdict.advice}" if verdict.advice else text
