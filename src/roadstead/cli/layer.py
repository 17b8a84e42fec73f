"""``roadstead layer``: make layers that rules can put on images (design "The door")."""

import json
import os
import secrets
import sys
import tempfile
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from roadstead.errors import RoadsteadError
from roadstead.layers.errors import PackageMissingError
from roadstead.oci.layer import LayerInvalidError, PackedLayer
from roadstead.oci.layer import pack as pack_layer

if TYPE_CHECKING:
    # Its readers cost 20 ms, see below.
    from roadstead.layers.deb import Package

_FAILED, _USAGE = 1, 2

EXAMPLE = "Example: roadstead layer pack ./site --output site.tar.gz && tar -tzf site.tar.gz"
MOUNT_EXAMPLE = "Example: roadstead layer s3-mount --output s3-mount.tar.gz"

app = typer.Typer(name="layer", no_args_is_help=True)


@app.callback(epilog=EXAMPLE)
def layer() -> None:
    """Make layers that rules can put on images."""


@app.command(epilog=EXAMPLE)
def pack(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What is below it becomes the root of the layer.")],
    location: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The layer to write, a .tar.gz.")],
) -> None:
    """Pack a directory into a layer; its JSON goes to standard output.

    The same files give the same layer: owner, group and times are set to nothing, permissions stay. The output
    appears whole or not at all; a file of that name is replaced.
    """
    output = Path(location)
    if not directory.is_dir():
        reason = "is not a directory" if directory.exists() else "is not there"
        _fail(f"{directory} {reason}", "name the directory whose content becomes the layer")
    if output.resolve().is_relative_to(directory.resolve()):
        _fail(f"{output} is inside {directory}, so it would be packed into itself", "write it elsewhere", _USAGE)
    if output.is_dir():
        _fail(f"{output} is a directory", "name a file, for example layer.tar.gz", _USAGE)
    try:
        packed = _write(directory, output)
    except LayerInvalidError as error:
        _fail(f"{directory} can't be packed: {error.reason}", error.advice())
    except OSError as error:
        _fail(f"{output} can't be written: {error.strerror or error}", "check its directory, permissions and space")
    typer.echo(json.dumps(packed.as_json() | {"location": location}))
    typer.echo(f"packed {directory} into {output}: {packed.gzip_size} bytes, {packed.tar_size} unpacked", err=True)


class Architecture(StrEnum):
    """What a layer with programs in it can be made for."""

    AMD64 = "amd64"
    ARM64 = "arm64"


@app.command("s3-mount", epilog=MOUNT_EXAMPLE)
def s3_mount_layer(
    location: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The layer to write, a .tar.gz.")],
    architecture: Annotated[
        Architecture, typer.Option(help="Which machines' images it is for. Any machine can make either.")
    ] = Architecture.AMD64,
    packages: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder of Debian's packages to make it from; else apt fetches them."),
    ] = None,
) -> None:
    """Make the layer that mounts S3 buckets in any image; its JSON goes to standard output.

    It is made from Debian's programs, fetched by apt from the sources this machine is set to, or taken from a folder.
    The same packages give the same layer, and it lists their versions. On a terminal the rule that uses it is shown.
    """
    # 20 ms that every other command would pay: readers of packages, and of mail, whose headers they have.
    from roadstead.layers import s3_mount

    output = Path(location)
    if output.is_dir():
        _fail(f"{output} is a directory", "name a file, for example s3-mount.tar.gz", _USAGE)
    if packages is not None and not packages.is_dir():
        _fail(f"{packages} is not a directory", "name the folder in which the .deb files are", _USAGE)
    try:
        with tempfile.TemporaryDirectory(prefix="roadstead-layer-") as folder:
            root = Path(folder) / "root"
            root.mkdir()
            used = s3_mount.assemble(_packages(packages, architecture, Path(folder)), architecture, root)
            packed = _write(root, output)
    except RoadsteadError as error:
        _fail(f"the layer can't be made: {error}", error.advice())
    except OSError as error:
        _fail(f"{error.filename or output} can't be read or written: {error.strerror or error}", "check its directory")
    typer.echo(json.dumps(packed.as_json() | {"location": location}))
    made_from = f"{len(used)} packages, s3fs {next(package.version for package in used if package.name == 's3fs')}"
    typer.echo(f"made {output} from {made_from}: {packed.gzip_size} bytes, {packed.tar_size} unpacked", err=True)
    if sys.stdout.isatty():
        rule = _rule(location, architecture, s3_mount.ENTRYPOINT)
        typer.echo(f"\nA rule that uses it, for roadstead.toml:\n\n{rule}", err=True)


def _packages(folder: Path | None, architecture: Architecture, scratch: Path) -> "list[Package]":
    """Read packages from a folder, or have apt fetch them into *scratch* first."""
    # Late for the same reason as above.
    from roadstead.layers import apt, s3_mount
    from roadstead.layers.deb import Package

    if folder is None:
        typer.echo("fetching packages with apt", err=True)
        return [Package.read(path) for path in apt.fetch(s3_mount.PACKAGES, architecture, scratch)]
    paths = sorted(folder.glob("*.deb"))
    if not paths:
        raise PackageMissingError("a name that ends in .deb", architecture)
    return [Package.read(path) for path in paths]


def _rule(location: str, architecture: Architecture, entrypoint: str) -> str:
    layer = f'{{ path = {json.dumps(location)}, platform = "linux/{architecture}" }}'
    return f'[[augment.rules]]\nmatch = "team/*"\nlayers = [{layer}]\nentrypoint = ["{entrypoint}"]\n'


def _write(directory: Path, output: Path) -> PackedLayer:
    """Write the layer beside its place and move it there once it is durable, so that nobody ever reads half of one."""
    unfinished = output.with_name(f".{output.name}.{secrets.token_hex(4)}")
    try:
        with unfinished.open("xb") as file:
            packed = pack_layer(directory, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(output)
    except BaseException:
        with suppress(FileNotFoundError):
            unfinished.unlink()
        raise
    return packed


def _fail(what: str, advice: str | None, status: int = _FAILED) -> NoReturn:
    typer.echo(f"error: {what}", err=True)
    if advice:
        typer.echo(advice, err=True)
    raise typer.Exit(status)
