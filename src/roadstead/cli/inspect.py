"""``roadstead inspect``: what an image is, and where it comes from (docs/how-to/verify-and-sign.md)."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: roadstead inspect localhost:5000/library/busybox:latest"


def inspect(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="HOST/NAME:TAG or HOST/NAME@DIGEST in any registry; NAME:TAG in the data of this one.",
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG", help="The server's settings: then IMAGE is a name in its data, without a host."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The data directory (storage.path), likewise.")
    ] = None,
    platform: Annotated[
        str | None,
        typer.Option(metavar="OS/ARCH", help="Which image of an index is shown; linux/amd64 if there is one."),
    ] = None,
    creds: Annotated[
        str | None,
        typer.Option(
            metavar="USER:PASSWORD",
            envvar="INSPECT_CREDS",
            show_envvar=True,
            help="For the registry; better in the variable, where ps doesn't show it.",
        ),
    ] = None,
    plain_http: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Ask this registry without TLS, as loopback is; may be given again."),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Certificates to trust, PEM; loopback is asked over TLS then, but for --plain-http."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain an image: its digest, platforms, layers and config, what refers to it, and what was added to it.

    Where a Roadstead serves an image that its rules add to, the original is shown beside it, with the difference.
    """
    # The client, the database and the terminal's library cost time to import, which --help need not spend.
    from roadstead.cli.inspecting import Reach, inspect_here, inspect_there, show, wanted_platform

    wanted = wanted_platform(platform)
    if config is not None or data is not None or not _names_host(image):
        _refuse_remote_options({"--creds": creds, "--plain-http": plain_http, "--ca": ca})
        found = inspect_here(image, config, data, wanted)
    else:
        found = inspect_there(image, Reach(tuple(plain_http or ()), ca, creds), wanted)
    show(found, as_json=as_json)


def _names_host(image: str) -> bool:
    """Say whether a name begins with a host, by Docker's rule."""
    first, slash, _ = image.partition("/")
    return bool(slash) and (first == "localhost" or "." in first or ":" in first)


def _refuse_remote_options(given: dict[str, object]) -> None:
    for name, value in given.items():
        if value:
            raise typer.BadParameter("is for an image in a registry, HOST/NAME:TAG", param_hint=name)
