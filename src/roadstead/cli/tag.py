"""``roadstead tag``: where a tag pointed, and putting it back (docs/how-to/tag-history.md)."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.history import TagHistory
from roadstead.registry.ports import TagChange
from roadstead.settings.load import load
from roadstead.settings.model import Settings

app = typer.Typer(
    help="Where tags pointed, and putting them back.",
    no_args_is_help=True,
    epilog="Example: roadstead tag history team/app:latest roadstead.toml",
)

ImageArgument = Annotated[str, typer.Argument(metavar="REPOSITORY:TAG", help="The tag, without a host.")]
ConfigArgument = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="The server's TOML file.")]
DataOption = Annotated[Path | None, typer.Option(metavar="DIR", help="The data directory (storage.path).")]


@app.command("history", epilog="Example: roadstead tag history team/app:latest roadstead.toml")
def history(
    image: ImageArgument,
    config: ConfigArgument = None,
    data: DataOption = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Changes at the most, the latest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each change.")] = False,
) -> None:
    """List where a tag pointed, the latest change first."""
    repository, tag = _parse(image)

    async def run(past: TagHistory) -> int:
        shown = 0
        async with aclosing(past.changes(repository, tag)) as changes:
            async for change in changes:
                if shown == limit:
                    break
                typer.echo(json.dumps(_described(change)) if as_json else _line(change))
                shown += 1
        return shown

    if not asyncio.run(_with_history(_settings(config, data), run)):
        typer.echo(f"error: {image} was never pushed here", err=True)
        raise typer.Exit(1)


@app.command("restore", epilog="Example: roadstead tag restore team/app:latest roadstead.toml --at 2026-03-01T12:00")
def restore(
    image: ImageArgument,
    config: ConfigArgument = None,
    data: DataOption = None,
    at: Annotated[
        datetime | None,
        typer.Option(metavar="TIME", help="Where it pointed then: 2026-03-01, or 2026-03-01T12:00:00 (UTC)."),
    ] = None,
    position: Annotated[
        int | None, typer.Option(metavar="N", help="Where it pointed from that line of its history on.")
    ] = None,
) -> None:
    """Put a tag back: by default to where it pointed before its last change."""
    if at is not None and position is not None:
        raise typer.BadParameter("give --at or --position, not both")
    repository, tag = _parse(image)
    moment = None if at is None else at.replace(tzinfo=UTC)
    digest = asyncio.run(
        _with_history(_settings(config, data), lambda past: past.restore(repository, tag, at=moment, position=position))
    )
    typer.echo(f"{image} points at {digest} again")


def _parse(image: str) -> tuple[RepositoryName, Tag]:
    repository, colon, tag = image.rpartition(":")
    if not colon:
        raise typer.BadParameter(f"{image} has no tag: write REPOSITORY:TAG", param_hint="REPOSITORY:TAG")
    return RepositoryName.parse(repository), Tag.parse(tag)


def _settings(config: Path | None, data: Path | None) -> Settings:
    overrides = {} if data is None else {"storage.path": str(data)}
    return load(config, environment=os.environ, overrides=overrides).settings


def _line(change: TagChange) -> str:
    where = "nowhere" if change.digest is None else str(change.digest)
    return f"{change.position:>8}  {change.at:%Y-%m-%d %H:%M:%S}  {change.origin.value:<9}  {where}"


def _described(change: TagChange) -> dict[str, Any]:
    return {
        "position": change.position,
        "at": change.at.isoformat(),
        "origin": change.origin.value,
        "digest": None if change.digest is None else str(change.digest),
        "previous": None if change.previous is None else str(change.previous),
    }


async def _with_history(settings: Settings, run: Callable[[TagHistory], Awaitable[Any]]) -> Any:
    # Opening storage and database is what takes its time to import: --help need not wait for it.
    from roadstead.app import open_plugs, tag_history

    async with open_plugs(settings, migrate=False) as plugs:
        return await run(tag_history(plugs, settings))
