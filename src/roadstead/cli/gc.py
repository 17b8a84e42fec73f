"""``roadstead gc``: collect what nothing needs, or say what would go and why (docs/how-to/collect-garbage.md)."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from roadstead.acts import ActKind, Told
from roadstead.cli.asking import asked
from roadstead.cli.existing import load_existing
from roadstead.registry.gc import Collector, Explained, Fate
from roadstead.settings.model import LogFormat, Settings
from roadstead.settings.quantity import counted, rounded_size
from roadstead.telemetry.logs import configure_logging

EXAMPLE = "Example: roadstead gc --dry-run roadstead.toml"


def gc(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="The server's TOML file, or distribution's config.yml.")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The data directory (storage.path).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what goes, and why.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --dry-run a line for each blob and manifest.")
    ] = False,
) -> None:
    """Collect blobs and manifests that nothing needs, whether the server runs or not.

    What nothing needs is condemned first and removed by a pass that begins a minute later or more: the server's next,
    or yours.
    """
    collect(load_existing(config, data), dry_run=dry_run, as_json=as_json)


def collect(settings: Settings, *, dry_run: bool, as_json: bool = False) -> None:
    """Run one pass of collection, or explain what it would do, and print the outcome."""
    configure_logging(format=LogFormat.TEXT, level=settings.log.level, threaded=False)
    asyncio.run(_explain(settings, as_json) if dry_run else _collect(settings, as_json))


async def _collect(settings: Settings, as_json: bool) -> None:
    async def run(collector: Collector, told: Told) -> None:
        await _tell_adoption(collector)
        strays = await collector.sweep()
        tally = await collector.run()
        told.reason = f"{tally.tags} tags, {tally.manifests} manifests, {tally.blobs} blobs removed"
        if as_json:
            typer.echo(json.dumps({**asdict(tally), "strays": strays}))
            return
        if tally.tags:
            typer.echo(f"{counted(tally.tags, 'tag')} removed, which retention keeps no longer")
        typer.echo(f"{counted(tally.manifests, 'manifest')} removed")
        typer.echo(f"{counted(tally.condemned, 'blob')} condemned, to go in a minute or later, with the next pass")
        typer.echo(f"{counted(tally.blobs, 'blob')} removed, {rounded_size(tally.freed)} freed")
        if strays:
            typer.echo(f"{counted(strays, 'file')} found that a crash had left, to go in an hour or later")
        if tally.postponed:
            typer.echo(f"{counted(tally.postponed, 'blob')} left to a later pass; see the log above")

    await _with_collector(settings, run, changes=True)


async def _explain(settings: Settings, as_json: bool) -> None:
    async def run(collector: Collector, _: Told) -> None:
        await _tell_adoption(collector)
        counts: Counter[tuple[str, Fate]] = Counter()
        sizes: Counter[tuple[str, Fate]] = Counter()
        async with aclosing(collector.explain(name_needs=as_json)) as explained:
            async for item in explained:
                if as_json:
                    typer.echo(json.dumps(_described(item)))
                counts[item.kind, item.fate] += 1
                sizes[item.kind, item.fate] += item.size
        if not as_json:
            for line in _summary(counts, sizes):
                typer.echo(line)

    await _with_collector(settings, run, changes=False)


async def _tell_adoption(collector: Collector) -> None:
    """Say on standard error that nothing goes before the adoption has ended."""
    if await collector.is_adopted():
        typer.echo(
            "nothing is collected while somebody may go back to the registry that this was taken up from; "
            "when nobody will: roadstead import --finish",
            err=True,
        )


def _summary(counts: Counter[tuple[str, Fate]], sizes: Counter[tuple[str, Fate]]) -> list[str]:
    lines = []
    for goes in (True, False):
        found = [key for key in counts if key[1].goes is goes]
        lines.append("goes:" if goes else "stays:")
        lines += [
            f"  {counted(counts[key], key[0])}, {rounded_size(sizes[key])}: {key[1].reason}" for key in sorted(found)
        ] or ["  nothing"]
    lines.append("what only a manifest needs that goes now, goes with the passes after it")
    return lines


def _described(item: Explained) -> dict[str, Any]:
    described = {
        "kind": item.kind,
        "repository": item.repository,
        "tag": item.tag,
        "digest": item.digest,
        "size": item.size,
        "goes": item.fate.goes,
        "fate": item.fate.value,
        "reason": item.fate.reason,
        "needed_by": item.needed_by,
    }
    return {name: value for name, value in described.items() if value is not None}


async def _with_collector(
    settings: Settings, run: Callable[[Collector, Told], Awaitable[None]], *, changes: bool
) -> None:
    # Opening storage and database is what takes its time to import: --help need not wait for it.
    from roadstead.app.adoption import open_taken_up
    from roadstead.app.auditing import written_down

    # As above.
    from roadstead.app.upkeep import collector

    async with open_taken_up(settings) as plugs:
        if not changes:
            await run(collector(plugs, settings), Told())
            return
        async with written_down(plugs.database.acts, asked(), ActKind.GC_RUN, "the registry") as told:
            await run(collector(plugs, settings), told)
