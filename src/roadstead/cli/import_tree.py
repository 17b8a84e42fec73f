"""``roadstead import``: take up the tree of Docker's registry where it lies (design "The door")."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from roadstead.errors import InvalidError
from roadstead.registry.importer import Report
from roadstead.settings.load import LoadedSettings, load
from roadstead.settings.model import Settings, StorageDriver
from roadstead.settings.origin import OriginKind
from roadstead.telemetry.logs import configure_logging

EXAMPLE = "Example: roadstead import /var/lib/registry --config roadstead.toml"

Tell = Callable[[str, Report], None]


class OtherStorageError(InvalidError):
    """The tree that was named isn't the one in the storage that settings name."""

    def __init__(self, named: str, settings: str) -> None:
        super().__init__(
            f"{named} is not the storage of the settings, which is {settings}; a tree is taken up in place"
        )

    def advice(self) -> str:
        """Say how the two become one."""
        return "Name the tree in [storage] and import it there; to bring images from elsewhere, push them."


def import_tree(
    tree: Annotated[
        str, typer.Argument(metavar="DIR_OR_S3_URL", help="The registry's root directory, or s3://BUCKET/PREFIX.")
    ],
    config: Annotated[Path | None, typer.Option(metavar="CONFIG", help="A TOML file; none is needed.")] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="End the adoption: nobody goes back, collection may touch everything.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every blob and compare its digest.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Take up the images of Docker's registry (distribution) where they lie; no blob is copied.

    Stop that registry first. An import that was interrupted goes on when it is run again. What can't be taken up is
    told and left as it is.
    """
    settings = _settings(tree, config)
    configure_logging(format=settings.log.format, level=settings.log.level, threaded=False)
    if finish:
        _finish(settings)
        typer.echo(json.dumps({"finished": True}) if as_json else "the adoption has ended; collection may touch all")
        return
    with _progress() as tell:
        report = asyncio.run(_run(settings, tell, verify=verify))
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else _text(report))


def _settings(tree: str, config: Path | None) -> Settings:
    """Return the settings, with the tree for the storage where they name none."""
    overrides = _as_storage(tree)
    if config is None and not any(name.startswith("ROADSTEAD_STORAGE_") for name in os.environ):
        return load(None, environment=os.environ, overrides=overrides).settings
    loaded = load(config, environment=os.environ)
    if not _names_storage(loaded):
        return load(config, environment=os.environ, overrides=overrides).settings
    storage = loaded.settings.storage
    if storage.driver is StorageDriver.FILESYSTEM:
        same = overrides["storage.driver"] == "filesystem" and Path(overrides["storage.path"]).resolve() == (
            storage.path.resolve()
        )
        there = str(storage.path)
    else:
        prefix = storage.prefix.strip("/")
        same = (overrides.get("storage.bucket"), overrides.get("storage.prefix")) == (storage.bucket, prefix)
        there = f"s3://{storage.bucket}/{prefix}"
    if not same:
        raise OtherStorageError(tree, there)
    return loaded.settings


def _as_storage(tree: str) -> Mapping[str, str]:
    url = urlsplit(tree)
    if url.scheme == "s3":
        return {"storage.driver": "s3", "storage.bucket": url.netloc, "storage.prefix": url.path.strip("/")}
    return {"storage.driver": "filesystem", "storage.path": tree}


def _names_storage(loaded: LoadedSettings) -> bool:
    return any(loaded.origins[f"storage.{key}"].kind is not OriginKind.DEFAULT for key in ("path", "bucket"))


async def _run(settings: Settings, tell: Tell, *, verify: bool) -> Report:
    # Database and drivers cost more to import than the command's help has to take.
    from roadstead.app.adoption import taking_up

    async with taking_up(settings, verify=verify, progress=tell) as run:
        return await run()


def _finish(settings: Settings) -> None:
    # As above.
    from roadstead.app.adoption import finish_import

    asyncio.run(finish_import(settings))


@contextmanager
def _progress() -> Iterator[Tell]:
    """Show where the import is: on a terminal a line that changes, else a line of the log now and then."""
    if not sys.stderr.isatty():
        # As above.
        from roadstead.app.adoption import logged_progress

        yield logged_progress()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")

        def tell(where: str, report: Report) -> None:
            counts = f"{report.blobs:,} blobs, {report.manifests:,} manifests, {report.tags:,} tags"
            progress.update(task, description=f"{counts}: {where}")

        yield tell


def _text(report: Report) -> str:
    images = f"{report.repositories:,} repositories, {report.manifests:,} manifests, {report.tags:,} tags"
    lines = [f"{images}, {report.blobs:,} blobs of {report.blob_bytes:,} bytes"]
    for finding, count in report.findings.items():
        lines.append(f"{count:,} {finding.value}")
        lines += [f"  {name}" for name in report.named[finding]]
        if count > len(report.named[finding]):
            lines.append("  …")
    return "\n".join(lines)
