"""``roadstead tag``: where a tag pointed, and putting it back (docs/how-to/tag-history.md)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from roadstead.cli.existing import load_existing
from roadstead.oci.reference import NameInvalidError, RepositoryName, Tag
from roadstead.registry.history import MomentInvalidError, TagHistory, as_of
from roadstead.registry.history import parse_moment as parse_name_moment
from roadstead.registry.ports import TagChange
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

    async def run(past: TagHistory) -> list[TagChange]:
        shown: list[TagChange] = []
        async with aclosing(past.changes(repository, tag)) as changes:
            async for change in changes:
                if len(shown) == limit:
                    break
                typer.echo(json.dumps(_described(change, repository, tag)) if as_json else _line(change))
                shown.append(change)
        return shown

    shown = asyncio.run(_with_history(load_existing(config, data), run))
    if not shown:
        typer.echo(f"error: {image} was never pushed here", err=True)
        host, slash, rest = image.partition("/")
        if slash and (host == "localhost" or "." in host):  # it may be a repository's name all the same
            typer.echo(f"  If {host} is the registry, leave it out: {rest}", err=True)
        raise typer.Exit(1)
    pullable = next((change for change in shown[1:] if change.digest is not None), None)
    if pullable is not None and not as_json:
        typer.echo(f"pull it as it was: docker pull HOST/{as_of(pullable.at, repository, tag)}", err=True)


@app.command(
    "restore", epilog="Example: roadstead tag restore team/app:latest roadstead.toml --at 2026-11-22T08:00:00Z"
)
def restore(
    image: ImageArgument,
    config: ConfigArgument = None,
    data: DataOption = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Where it pointed then: 2026-11-22, 2026-11-22T08:00:00Z (UTC if not said), or as the history has it.",
        ),
    ] = None,
    position: Annotated[
        int | None, typer.Option(metavar="N", help="Where it pointed from that line of its history on.")
    ] = None,
) -> None:
    """Put a tag back: by default to where it pointed before its last change."""
    if at is not None and position is not None:
        raise typer.BadParameter("give --at or --position, not both")
    moment = None if at is None else parse_moment(at)
    repository, tag = _parse(image)
    digest = asyncio.run(
        _with_history(
            load_existing(config, data), lambda past: past.restore(repository, tag, at=moment, position=position)
        )
    )
    typer.echo(f"{image} points at {digest} again")


def _parse(image: str) -> tuple[RepositoryName, Tag]:
    repository, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:  # what follows a host's port is no tag
        raise typer.BadParameter(f"{image} has no tag: write REPOSITORY:TAG", param_hint="REPOSITORY:TAG")
    try:
        return RepositoryName.parse(repository), Tag.parse(tag)
    except NameInvalidError as error:
        host, _, rest = repository.partition("/")
        if ":" not in host:
            raise
        raise typer.BadParameter(
            f"{image} begins with a host: leave it out, {rest}:{tag}", param_hint="REPOSITORY:TAG"
        ) from error


def parse_moment(text: str) -> datetime:
    """Read a date, or a date with a time, in UTC if no zone is said; typer's error for wrong usage.

    Times as names have them (``2026-11-22t08.00.00z``) are printed by `history`, so they are read, too.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return parse_name_moment(text)
        except MomentInvalidError as error:
            raise typer.BadParameter(
                f"{text} is not a time: write it like 2026-11-22T08:00:00Z", param_hint="--at"
            ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _line(change: TagChange) -> str:
    where = "nowhere" if change.digest is None else str(change.digest)
    return f"{change.position:>8}  {change.at:%Y-%m-%d %H:%M:%S.%f}  {change.origin.value:<9}  {where}"


def _described(change: TagChange, repository: RepositoryName, tag: Tag) -> dict[str, Any]:
    return {
        "position": change.position,
        "at": change.at.isoformat(),
        "origin": change.origin.value,
        "digest": None if change.digest is None else str(change.digest),
        "previous": None if change.previous is None else str(change.previous),
        "pull": None if change.digest is None else as_of(change.at, repository, tag),
    }


async def _with_history(settings: Settings, run: Callable[[TagHistory], Awaitable[Any]]) -> Any:
    # Opening storage and database is what takes its time to import: --help need not wait for it.
    from roadstead.app.adoption import open_taken_up
    from roadstead.app.services import tag_history

    async with open_taken_up(settings) as plugs:
        return await run(tag_history(plugs, settings))
