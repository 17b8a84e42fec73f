"""``roadstead audit``: who did what to the registry, and who was kept from it (docs/how-to/audit.md)."""

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from roadstead.acts import ActKind, Line
from roadstead.cli.existing import load_named
from roadstead.cli.tag import parse_moment
from roadstead.events.event import timestamp

EXAMPLE = "Example: roadstead audit roadstead.toml --since 2026-11-22 --subject user:ana"

_PAGE = 500
_SUBJECT = re.compile(r"anonymous|server|(?:user|robot|issued|shell):.+")


def audit(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="The server's settings file.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The data directory (storage.path).")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on: 2026-11-22, or 2026-11-22T08:00:00Z.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="SUBJECT", help="Of one alone: user:ana, shell:root, anonymous, server.")
    ] = None,
    action: Annotated[ActKind | None, typer.Option(help="Of this kind alone.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Lines at the most, the latest first.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each.")] = False,
) -> None:
    """List who did what to the registry, when and from where, and who was refused; the latest first."""
    if subject is not None and not _SUBJECT.fullmatch(subject):
        raise typer.BadParameter(
            f"{subject} is nobody: write user:NAME, robot:NAME, issued:NAME, shell:NAME, anonymous or server",
            param_hint="--subject",
        )
    moment = None if since is None else parse_moment(since, "--since")
    settings = load_named(config, data)

    async def run() -> int:
        # What opens a database takes its time to import: --help need not wait for it.
        from roadstead.app.auditing import open_acts

        before, left = None, limit
        async with open_acts(settings) as acts:
            while left and (
                page := await acts.lines(since=moment, by=subject, kind=action, before=before, limit=min(left, _PAGE))
            ):
                for line in page:
                    typer.echo(json.dumps(_described(line), ensure_ascii=False) if as_json else _line(line))
                before, left = page[-1].position, left - len(page)
        return limit - left

    if not asyncio.run(run()) and not as_json:
        typer.echo("nothing was written down", err=True)


def _line(line: Line) -> str:
    act = line.act
    times = f" ({act.count} times)" if act.count > 1 else ""
    where = f" from {act.client}" if act.client else ""
    reason = f": {act.reason}" if act.reason else ""
    return (
        f"{act.at:%Y-%m-%d %H:%M:%SZ}  {act.outcome.value:<6}  {act.kind.value:<15}  {act.by}{where}  "
        f"{act.target}{reason}{times}"
    )


def _described(line: Line) -> dict[str, Any]:
    act = line.act
    return {
        "position": line.position,
        "at": timestamp(act.at),
        "subject": act.by,
        "client": act.client,
        "action": act.kind.value,
        "target": act.target,
        "outcome": act.outcome.value,
        "reason": act.reason,
        "count": act.count,
    }
