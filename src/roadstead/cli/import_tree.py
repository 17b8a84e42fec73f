"""``roadstead import``: take up the tree of Docker's registry where it lies (design "The door")."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import typer

from roadstead.errors import InvalidError
from roadstead.registry.importer import Report
from roadstead.settings.load import LoadedSettings, load
from roadstead.settings.model import Settings, StorageDriver
from roadstead.settings.origin import OriginKind
from roadstead.settings.quantity import counted

Tell = Callable[[str, Report], None]


class OtherStorageError(InvalidError):
    """The tree that was named isn't the one in the storage that settings name."""

    def __init__(self, named: str, settings: str) -> None:
        super().__init__(
            f"{named} is not the storage of the settings, which is {settings}; a tree is taken up in place"
        )

    def advice(self) -> str:
        """Say how the two become one."""
        return "Name the tree in [storage] and import it there; from elsewhere, bring images as files, or push them."


def take_up(settings: Settings, tell: Tell, *, verify: bool) -> Report:
    """Take up the tree of these settings' storage."""
    return asyncio.run(_run(settings, tell, verify=verify))


def finish(settings: Settings, *, as_json: bool) -> None:
    """End the adoption, and say so."""
    asyncio.run(_finish(settings))
    typer.echo(json.dumps({"finished": True}) if as_json else "the adoption has ended; collection may touch all")


def print_report(report: Report, *, as_json: bool) -> None:
    """Print what was taken up, and end with status 1 if something was left out or isn't whole."""
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else _text(report))
    if not report.is_whole:
        raise typer.Exit(1)


def described(report: Report) -> str:
    """Return how far it is, for a line that changes."""
    return ", ".join(
        [counted(report.blobs, "blob"), counted(report.manifests, "manifest"), counted(report.tags, "tag")]
    )


def logged() -> Tell:
    """Return what writes a line of the log now and then."""
    # Database and drivers cost more to import than the command's help has to take.
    from roadstead.app.adoption import logged_progress

    return logged_progress()


def tree_settings(tree: str, config: Path | None) -> Settings:
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
    # As above.
    from roadstead.app.adoption import taking_up

    async with taking_up(settings, verify=verify, progress=tell) as run:
        return await run()


async def _finish(settings: Settings) -> None:
    # As above.
    from roadstead.app.adoption import finish_import

    await finish_import(settings)


def _text(report: Report) -> str:
    repositories, size = counted(report.repositories, "repository"), counted(report.blob_bytes, "byte")
    manifests, tags = counted(report.manifests, "manifest"), counted(report.tags, "tag")
    taken_up = f"{repositories}, {manifests}, {tags}, {counted(report.blobs, 'blob')} of {size}"
    return "\n".join([taken_up, *report.findings_as_text()])
