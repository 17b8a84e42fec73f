"""``roadstead events``: what was told to whom, what waits, and telling it again (docs/how-to/webhooks.md)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from roadstead.cli.asking import asked
from roadstead.cli.existing import load_named
from roadstead.cli.tag import parse_moment
from roadstead.errors import NotFoundError
from roadstead.events.event import timestamp
from roadstead.events.ports import EndpointUnknownError, Letter, LetterState, OutboxStore, ReplayTooWideError
from roadstead.settings.model import Settings

T = TypeVar("T")

app = typer.Typer(
    help="Events: what was told to whom, what waits, and telling it again.",
    no_args_is_help=True,
    epilog="Example: roadstead events list roadstead.toml --state dead",
)


class EventMissingError(NotFoundError):
    """No event of that id was delivered or given up."""

    def __init__(self, event_id: str) -> None:
        super().__init__(f"no event that was delivered or given up has the id {event_id}")

    def advice(self) -> str:
        """Say where the ids are."""
        return "roadstead events list shows the ids; what is pending is sent anyway."


ConfigArgument = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="The server's settings file.")]
DataOption = Annotated[Path | None, typer.Option(metavar="DIR", help="The data directory (storage.path).")]
EndpointOption = Annotated[str | None, typer.Option(metavar="NAME", help="Of this endpoint alone.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog="Example: roadstead events list roadstead.toml --endpoint audit --state pending --json")
def list_events(
    config: ConfigArgument = None,
    data: DataOption = None,
    endpoint: EndpointOption = None,
    state: Annotated[LetterState | None, typer.Option(help="In this state alone.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Events at the most, the latest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List events, the latest first: those that wait, were delivered, or were given up. A line of JSON for each."""
    settings = load_named(config, data)

    async def run(outbox: OutboxStore) -> int:
        before, left = None, limit
        while left and (
            page := await outbox.letters(endpoint=endpoint, state=state, before=before, limit=min(left, 500))
        ):
            for letter in page:
                typer.echo(json.dumps(_described(letter), ensure_ascii=False) if as_json else _line(letter))
            before, left = page[-1].position, left - len(page)
        return limit - left

    if not asyncio.run(_with_outbox(settings, run)):
        _require_known(settings, endpoint)
        if not as_json:
            typer.echo("no events", err=True)


@app.command("replay", epilog="Example: roadstead events replay roadstead.toml --endpoint audit --state dead")
def replay(
    config: ConfigArgument = None,
    data: DataOption = None,
    endpoint: EndpointOption = None,
    event_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="The event with this id.")] = None,
    state: Annotated[LetterState | None, typer.Option(help="Those in this state: delivered or dead.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Those since then: 2026-11-22, or 2026-11-22T08:00:00Z.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send events again that were delivered or given up; the running server does it. Their ids stay the same."""
    if state is LetterState.PENDING:
        raise typer.BadParameter("what is pending is sent anyway", param_hint="--state")
    moment = None if since is None else parse_moment(since, "--since")
    settings = load_named(config, data)
    if event_id is None and state is None and moment is None:
        raise ReplayTooWideError
    _require_known(settings, endpoint)

    async def run(outbox: OutboxStore) -> int:
        return await outbox.replay(endpoint=endpoint, event_id=event_id, state=state, since=moment, asked=asked())

    count = asyncio.run(_with_outbox(settings, run))
    if event_id is not None and not count:
        raise EventMissingError(event_id)
    said = "1 event is" if count == 1 else f"{count} events are"
    typer.echo(json.dumps({"replayed": count}) if as_json else f"{said} sent again")


def _require_known(settings: Settings, endpoint: str | None) -> None:
    known = [each.name for each in settings.events.endpoints]
    if endpoint is not None and endpoint not in known:
        raise EndpointUnknownError(endpoint, known)


def _line(letter: Letter) -> str:
    target = letter.event["target"]
    tag, digest = target.get("tag"), target.get("digest", "")
    what = f"{letter.repository}:{tag}" if tag else f"{letter.repository}@{digest[:19]}"
    more = f" and {letter.more} more" if letter.more else ""
    said = f"  {letter.attempts} failed: {letter.error}" if letter.error else ""
    return (
        f"{letter.created_at:%Y-%m-%d %H:%M:%SZ}  {letter.state.value:<9}  {letter.endpoint}  "
        f"{letter.action.value} {letter.subject.value}  {what}{more}  {letter.event_id}{said}"
    )


def _described(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.event_id,
        "endpoint": letter.endpoint,
        "state": letter.state.value,
        "attempts": letter.attempts,
        "error": letter.error or None,
        "created_at": timestamp(letter.created_at),
        "settled_at": None if letter.settled_at is None else timestamp(letter.settled_at),
        "next_attempt_at": None if letter.held_until is None else timestamp(letter.held_until),
        "event": letter.event,
        "more": letter.more,
    }


async def _with_outbox(settings: Settings, run: Callable[[OutboxStore], Awaitable[T]]) -> T:
    # Opening storage and database is what takes its time to import: --help need not wait for it.
    from roadstead.app.plugs import open_plugs

    async with open_plugs(settings, migrate=False) as plugs:
        return await run(plugs.database.outbox)
