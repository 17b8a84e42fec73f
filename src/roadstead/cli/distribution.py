"""The command ``registry``: what distribution's users have in their scripts and images, answered by Roadstead."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from roadstead.cli.existing import require_data
from roadstead.cli.gc import collect
from roadstead.cli.main import version
from roadstead.cli.report import report
from roadstead.cli.serve import run
from roadstead.errors import RoadsteadError
from roadstead.settings.distribution import find_config
from roadstead.settings.load import load
from roadstead.settings.model import UntaggedManifests

app = typer.Typer(
    name="registry",
    help="Serve images as distribution's registry does, from its configuration. This is Roadstead; its own command is "
    "roadstead.",
    epilog="Example: registry serve /etc/distribution/config.yml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


ConfigArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG",
        help="distribution's config.yml; by default REGISTRY_CONFIGURATION_PATH, /etc/distribution/config.yml or "
        "/etc/docker/registry/config.yml.",
    ),
]


@app.command("serve", epilog="Example: registry serve /etc/distribution/config.yml")
def serve(config: ConfigArgument = None) -> None:
    """Serve images until SIGTERM or Ctrl-C; a second one ends it at once."""
    raise typer.Exit(run(load(find_config(config, os.environ), environment=os.environ)))


@app.command("garbage-collect", epilog="Example: registry garbage-collect --dry-run /etc/distribution/config.yml")
def garbage_collect(
    config: ConfigArgument = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-d", help="Change nothing; say what goes, and why.")] = False,
    delete_untagged: Annotated[
        bool,
        typer.Option(
            "--delete-untagged",
            "-m",
            help="Remove manifests without a tag too, a week after they lost theirs (gc.untagged_after); what an index "
            "lists stays, and so do signatures of what stays.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Taken, as distribution does; only sums are printed in any case.")
    ] = False,
) -> None:
    """Collect blobs and manifests that nothing needs, whether the server runs or not; it does so by itself, too."""
    overrides = {"gc.untagged": UntaggedManifests.DELETE} if delete_untagged else {}
    loaded = load(find_config(config, os.environ), environment=os.environ, overrides=overrides)
    require_data(loaded.settings)
    collect(loaded.settings, dry_run=dry_run)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"registry (roadstead) {version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", "-v", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the entry point of the package."""
    arguments = sys.argv[1:]
    if len(arguments) == 1 and arguments[0].endswith((".yml", ".yaml")):
        arguments = ["serve", *arguments]  # as the images of distribution do
    try:
        app(arguments, prog_name="registry")
    except RoadsteadError as error:
        report(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
