"""The command ``roadstead``: exit status 0 done, 1 failed, 2 wrong usage."""

import sys
from typing import Annotated

import typer

from roadstead.cli import (
    audit,
    augment,
    auth,
    config,
    copy,
    doctor,
    events,
    gc,
    importing,
    inspect,
    key,
    layer,
    serve,
    tag,
    user,
    verify,
)
from roadstead.cli.report import report
from roadstead.errors import RoadsteadError

app = typer.Typer(
    name="roadstead",
    help="A container-image service: a registry that adds layers to images while they are pulled.",
    epilog="Example: roadstead serve --data ./images",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve", epilog=serve.EXAMPLE)(serve.serve)
app.command("import", epilog=importing.EXAMPLE)(importing.import_)
app.command("copy", epilog=copy.EXAMPLE)(copy.copy)
app.command("augment", epilog=augment.EXAMPLE)(augment.augment)
app.command("inspect", epilog=inspect.EXAMPLE)(inspect.inspect)
app.command("gc", epilog=gc.EXAMPLE)(gc.gc)
app.command("verify", epilog=verify.EXAMPLE)(verify.verify)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
app.command("audit", epilog=audit.EXAMPLE)(audit.audit)
app.add_typer(config.app, name="config")
app.add_typer(user.app, name="user")
app.add_typer(key.app, name="key")
app.add_typer(auth.app, name="auth")
app.add_typer(layer.app, name="layer")
app.add_typer(tag.app, name="tag")
app.add_typer(events.app, name="events")


def version() -> str:
    """Return the version of the package as it is installed."""
    # 40 ms that only this answer should cost.
    from importlib import metadata

    try:
        return metadata.version("roadstead")
    except metadata.PackageNotFoundError:
        return "(not installed: run from its source)"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"roadstead {version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the entry point of the package."""
    try:
        app(prog_name="roadstead")  # the same under `python -m roadstead`
    except RoadsteadError as error:
        report(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
