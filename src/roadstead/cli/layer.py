"""``roadstead layer``: make layers that rules can put on images (design "The door")."""

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from roadstead.oci.layer import LayerInvalidError, PackedLayer
from roadstead.oci.layer import pack as pack_layer

_FAILED, _USAGE = 1, 2

EXAMPLE = "Example: roadstead layer pack ./site --output site.tar.gz && tar -tzf site.tar.gz"

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
