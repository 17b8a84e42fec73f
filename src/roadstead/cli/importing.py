"""``roadstead import``: a tree taken up where it lies, or images in files (design "The door")."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from roadstead.cli import import_images, import_tree
from roadstead.cli.existing import configured_by_name
from roadstead.errors import InvalidError, NotFoundError
from roadstead.oci.reference import RepositoryName
from roadstead.registry.bundle import MAX_UNPACKED_BYTES
from roadstead.registry.saved_images import INDEX_FILE, LAYOUT_FILE, SAVED_FILE, Format
from roadstead.settings.model import Settings
from roadstead.settings.quantity import parse_size
from roadstead.storage import keys
from roadstead.telemetry.logs import configure_logging

EXAMPLE = "Examples: roadstead import /var/lib/registry · docker save -o app.tar team/app:1 && roadstead import app.tar"

R = TypeVar("R")


class Source(StrEnum):
    """What images are brought from; the default is to look."""

    TREE = "distribution"
    LAYOUT = "oci-layout"
    ARCHIVE = "docker-archive"


class AmbiguousSourceError(InvalidError):
    """A folder is two things at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} holds both a registry's tree ({keys.ROOT}) and images ({LAYOUT_FILE})")

    def advice(self) -> str:
        """Say how one is chosen."""
        return f"Say which is meant: --as {Source.TREE} or --as {Source.LAYOUT}."


class SourceMissingError(NotFoundError):
    """Nothing lies where the images are said to."""

    def __init__(self, source: str) -> None:
        super().__init__(f"{source} is not there")

    def advice(self) -> str:
        """Say what is meant."""
        return "Name a registry's root directory, s3://BUCKET/PREFIX, an OCI layout or an archive of docker save."


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A registry's root directory or s3://BUCKET/PREFIX, taken up in place; or an OCI layout (folder or "
            ".tar) or an archive of docker save (.tar, .tar.gz, .tar.zst), whose images are brought in.",
        ),
    ],
    config: Annotated[Path | None, typer.Option(metavar="CONFIG", help="A TOML file; none is needed.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Images: the data directory they go to (storage.path).")
    ] = None,
    kind: Annotated[
        Source | None, typer.Option("--as", help="What SOURCE is, where a look at it isn't to decide.")
    ] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="NAME", help="Images: the repository they go to, whatever they are called.")
    ] = None,
    max_unpacked: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Images: what a compressed archive may unpack to in TMPDIR, on its way."),
    ] = f"{MAX_UNPACKED_BYTES >> 30}GiB",
    finish: Annotated[
        bool, typer.Option("--finish", help="End the adoption: nobody goes back, collection may touch everything.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="A tree: read every blob and compare its digest, as is done of images.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Take up the images of Docker's registry (distribution) where they lie, or bring in images from files.

    A tree isn't copied; stop its registry first. An import that was interrupted goes on when it is run again. What
    can't be taken up, or brought in whole, is left out and told, and the status is 1. Images from files may come while
    the server runs.
    """
    found = Source.TREE if finish else kind or detect_source(source)
    if found is Source.TREE:
        if data is not None or repository is not None:
            raise typer.BadParameter("--data and --repository are for images in files; a tree is its own storage")
        _import_tree(import_tree.tree_settings(source, config), finish=finish, verify=verify, as_json=as_json)
        return
    if not Path(source).exists():  # or what is missing would be told of the registry's own folder
        raise SourceMissingError(source)
    settings = configured_by_name(config, data)
    _configure_logging(settings)
    name = None if repository is None else RepositoryName.parse(repository)
    with _progress(import_images.described, lambda: _silent) as tell:
        report = import_images.load_images(
            settings,
            Path(source),
            format=None if kind is None else Format(kind.value),
            repository=name,
            max_unpacked=parse_size(max_unpacked),
            progress=tell,
        )
    import_images.print_report(report, as_json=as_json)


def detect_source(source: str) -> Source | None:
    """Return TREE for a registry's tree; None for images in files, whose own look tells what they are."""
    path = Path(source)
    if source.startswith("s3://"):
        return Source.TREE
    if not path.is_dir():
        return None
    is_tree = (path / keys.ROOT).is_dir()
    has_images = (path / LAYOUT_FILE).exists() or (path / INDEX_FILE).exists() or (path / SAVED_FILE).exists()
    if is_tree and has_images:
        raise AmbiguousSourceError(path)
    return None if has_images else Source.TREE


def _import_tree(settings: Settings, *, finish: bool, verify: bool, as_json: bool) -> None:
    _configure_logging(settings)
    if finish:
        import_tree.finish(settings, as_json=as_json)
        return
    with _progress(import_tree.described, import_tree.logged) as tell:
        report = import_tree.take_up(settings, tell, verify=verify)
    import_tree.print_report(report, as_json=as_json)


def _configure_logging(settings: Settings) -> None:
    configure_logging(format=settings.log.format, level=settings.log.level, threaded=False)


@contextmanager
def _progress(
    described: Callable[[R], str], otherwise: Callable[[], Callable[[str, R], None]]
) -> Iterator[Callable[[str, R], None]]:
    """Show where the import is: on a terminal a line that changes."""
    if not sys.stderr.isatty():
        yield otherwise()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")

        def tell(where: str, report: R) -> None:
            progress.update(task, description=f"{described(report)}: {where}")

        yield tell


def _silent(_where: str, _report: object) -> None:
    """Say nothing: the report comes soon enough."""
