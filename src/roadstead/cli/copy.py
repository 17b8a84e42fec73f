"""``roadstead copy``: images from one registry to another, or a whole registry (docs/how-to/copy-images.md)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: roadstead copy docker.io/library/busybox:1.37 localhost:5000/library/busybox:1.37"
DEFAULT_TARGET = "http://127.0.0.1:5000"


@dataclass(frozen=True, slots=True)
class Reach:
    """How registries are reached, as the options say."""

    plain_http: tuple[str, ...]
    ca_file: Path | None
    trusted_realms: tuple[str, ...]
    source_credentials: str | None
    target_credentials: str | None
    trace: bool


@dataclass(frozen=True, slots=True)
class How:
    """How to copy, and how to tell of it."""

    jobs: int
    referrers: bool
    quiet: bool
    as_json: bool


def copy(
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="An image, HOST/NAME:TAG or HOST/NAME@DIGEST; or oci:DIR:TAG."),
    ] = None,
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="HOST/NAME:TAG, or oci:DIR:TAG; without a tag the source's.")
    ] = None,
    whole: Annotated[
        str | None, typer.Option("--all", metavar="HOST", help="Copy every tag of every repository of a registry.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="HOST", help="With --all: where to. Default: http://127.0.0.1:5000.")
    ] = None,
    match: Annotated[
        str | None, typer.Option(metavar="GLOB", help='With --all: only these, such as "team/**" or "**:v*".')
    ] = None,
    repositories: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --all: the repositories, one a line; - is standard input."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --all: the target's settings, to tell which names its upstreams have."),
    ] = None,
    platform: Annotated[
        str | None, typer.Option(metavar="OS/ARCH", help="Only the image for this platform, such as linux/arm64.")
    ] = None,
    referrers: Annotated[
        bool, typer.Option(help="Copy signatures, SBOMs and whatever else refers to the image, too.")
    ] = True,
    src_creds: Annotated[
        str | None,
        typer.Option(
            metavar="USER:PASSWORD",
            envvar="COPY_SRC_CREDS",
            show_envvar=True,
            help="For the source; better in the variable, where ps doesn't show it.",
        ),
    ] = None,
    dest_creds: Annotated[
        str | None,
        typer.Option(
            metavar="USER:PASSWORD", envvar="COPY_DEST_CREDS", show_envvar=True, help="For the target, likewise."
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
    trust_realm: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A token service under another name that credentials may go to."),
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="How much is copied at the same time.")] = 4,
    trace: Annotated[bool, typer.Option("--trace", help="Print every request on standard error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Copy an image, or a whole registry with --all, without a temporary file.

    All platforms and what refers to them come along, byte for byte. What is there already isn't sent again, so a copy
    that was interrupted goes on when it is run again. Credentials are those of docker login and podman login.
    """
    reach = Reach(tuple(plain_http or ()), ca, tuple(trust_realm or ()), src_creds, dest_creds, trace)
    how = How(jobs, referrers, trace, as_json)
    if whole is not None:
        _check_usage({"SOURCE": source, "--platform": platform}, "can't be given with --all; the target is --to")
        # The client costs time to import, which `serve` and --help need not spend.
        from roadstead.cli.copying import move_all

        move_all(reach, how, whole, to or DEFAULT_TARGET, match, repositories, config)
        return
    _check_usage({"--to": to, "--match": match, "--repositories": repositories, "--config": config}, "needs --all")
    if source is None or target is None:
        raise typer.BadParameter("give SOURCE and TARGET, or --all HOST")
    # As above.
    from roadstead.cli.copying import copy_one

    copy_one(reach, how, source, target, platform)


def _check_usage(given: dict[str, object], reason: str) -> None:
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter(reason, param_hint=name)
