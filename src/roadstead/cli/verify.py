"""``roadstead verify``: read everything, say what is wrong, mend what can be."""

import asyncio
import json
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from roadstead.acts import ActKind
from roadstead.cli.asking import asked
from roadstead.cli.existing import load_existing
from roadstead.registry.verify import Checked, Finding
from roadstead.settings.model import LogFormat, Settings
from roadstead.settings.quantity import counted, rounded_size
from roadstead.telemetry.logs import configure_logging

EXAMPLE = "Example: roadstead verify roadstead.toml && echo everything is as it should be"


def verify(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="The server's TOML file.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The data directory (storage.path).")] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Put wrong bytes aside, so that a push heals; give back what is stored."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each finding.")] = False,
) -> None:
    """Read every blob and compare everything with everything; status 1 if anything is wrong and wasn't mended."""
    settings = load_existing(config, data)
    configure_logging(format=LogFormat.TEXT, level=settings.log.level, threaded=False)
    if not asyncio.run(_verify(settings, repair, as_json)):
        raise typer.Exit(1)


async def _verify(settings: Settings, repair: bool, as_json: bool) -> bool:
    # Opening storage and database is what takes its time to import: --help need not wait for it.
    from roadstead.app.adoption import open_taken_up
    from roadstead.app.auditing import written_down

    # As above.
    from roadstead.app.upkeep import verifier

    fine = True
    async with open_taken_up(settings) as plugs:
        checking = verifier(plugs, settings, repair=repair)
        async with AsyncExitStack() as stack:
            mended = 0
            if repair:
                line = written_down(plugs.database.acts, asked(), ActKind.VERIFY_REPAIR, "the registry")
                told = await stack.enter_async_context(line)
            findings = await stack.enter_async_context(aclosing(checking.run()))
            async for finding in findings:
                fine = fine and finding.mended is not None
                mended += finding.mended is not None
                typer.echo(json.dumps(asdict(finding)) if as_json else _line(finding))
            if repair:
                told.reason = f"{mended} findings mended"
    typer.echo(_summary(checking.checked), err=True)
    return fine


def _line(finding: Finding) -> str:
    mended = f"; {finding.mended}" if finding.mended else ""
    return f"{finding.problem.value}: {finding.where}: {finding.message}{mended}"


def _summary(checked: Checked) -> str:
    return (
        f"checked {counted(checked.blobs, 'blob')}, {rounded_size(checked.size)} at {checked.rate / 2**20:.0f} MiB/s, "
        f"{counted(checked.manifests, 'manifest')} and {counted(checked.tags, 'tag')}"
    )
