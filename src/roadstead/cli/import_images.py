"""``roadstead import`` of images in files: OCI layouts and archives of ``docker save``."""

import asyncio
import json
from pathlib import Path

import typer

from roadstead.oci.reference import RepositoryName
from roadstead.registry.bundle import open_bundle
from roadstead.registry.loader import LoadReport, Progress
from roadstead.registry.saved_images import Format, Saved, detect, read_saved
from roadstead.settings.model import Settings
from roadstead.settings.quantity import counted


def load_images(
    settings: Settings,
    path: Path,
    *,
    format: Format | None,  # noqa: A002 -- the word for it
    repository: RepositoryName | None,
    max_unpacked: int,
    progress: Progress,
) -> LoadReport:
    """Bring the images of a file or folder into the registry."""
    with open_bundle(path, max_unpacked=max_unpacked) as bundle:
        saved = read_saved(bundle, format or detect(bundle))
        return asyncio.run(_load(settings, saved, repository, progress))


async def _load(settings: Settings, saved: Saved, repository: RepositoryName | None, progress: Progress) -> LoadReport:
    # Database and drivers cost more to import than the command's help has to take.
    from roadstead.app.loading import loading

    async with loading(settings, progress) as run:
        return await run(saved, repository)


def print_report(report: LoadReport, *, as_json: bool) -> None:
    """Print what came, and end with status 1 if something didn't."""
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else _text(report))
    if not report.is_whole:
        raise typer.Exit(1)


def _text(report: LoadReport) -> str:
    stored = f"{counted(report.blobs, 'blob')} of {counted(report.blob_bytes, 'byte')} stored"
    there = f"{report.blobs_there:,} {'was' if report.blobs_there == 1 else 'were'} there"
    images = [f"{image}  {image.digest}" if image.tag else str(image) for image in report.images]
    return "\n".join(
        [*images, f"{counted(len(report.images), 'image')}: {stored}, {there}", *report.findings_as_text()]
    )


def described(report: LoadReport) -> str:
    """Return how far it is, for a line that changes."""
    blobs = f"{counted(report.blobs, 'blob')} of {counted(report.blob_bytes, 'byte')}"
    return f"{counted(len(report.images), 'image')}, {blobs}"
