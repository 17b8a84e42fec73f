"""``roadstead augment``: ask a running service for a container token, and print the name to pull."""

import json
import re
import ssl
import sys
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, Request, build_opener

import typer

from roadstead.cli.existing import configured
from roadstead.errors import InvalidError, UnavailableError
from roadstead.oci.layer import PackedLayer, measure, pack
from roadstead.settings.model import Settings

EXAMPLE = "Example: roadstead augment library/busybox --layer ./files --env GREETING=hello"

MAX_INLINE = 1 << 20
"""Bytes of a layer that goes with the request (Wave's limit, and the service's)."""

_PATIENCE_S = 120.0
_MAX_ANSWER = 1 << 20
_REMOTE = re.compile(r"https?://")


class LayerTooLargeError(InvalidError):
    """A local layer is larger than a request may carry."""

    def __init__(self, path: str, size: int) -> None:
        super().__init__(f"the layer {path} has {size} bytes packed, and a request carries {MAX_INLINE} at the most")

    def advice(self) -> str:
        """Say where large layers go."""
        return (
            "Push an image that has it and give --include HOST/NAME:TAG, or put it on a web server and give its "
            "address, or name it in a rule of the settings (layers = […])."
        )


class LayerUnreadableError(InvalidError):
    """A layer can't be read."""


class ServiceError(InvalidError):
    """The service said no; its words."""


class ServiceUnreachableError(UnavailableError):
    """There is no answer from the service."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url} doesn't answer: {reason}")

    def advice(self) -> str:
        """Say how it is named."""
        return "Start it, name its settings file, or give its address with --service URL."


def augment(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The image, [HOST/]NAME[:TAG][@DIGEST].")],
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="The server's settings file.")] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|DIR|URL", help="A layer to put on top: a .tar.gz, a directory, or an address."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="IMAGE", help="An image whose layers are put on top, with its registry: HOST/NAME:TAG."),
    ] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable to set.")] = None,
    entrypoint: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="The new entrypoint; one option for each word.")
    ] = None,
    cmd: Annotated[list[str] | None, typer.Option(metavar="WORD", help="The new command, likewise.")] = None,
    workdir: Annotated[str | None, typer.Option(metavar="DIR", help="The new working directory.")] = None,
    platform: Annotated[
        list[str] | None, typer.Option(metavar="OS/ARCH", help="A platform; may be repeated. By default all.")
    ] = None,
    service: Annotated[
        str | None, typer.Option(metavar="URL", help="The service; by default where the settings say that it is.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An API key to ask with; - is standard input.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificates to trust beside the system's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's whole answer as JSON.")] = False,
) -> None:
    """Have an image augmented while it is pulled, and print the name to pull. It ends by itself (token_lifetime).

    Words that begin with a dash are written --cmd=-c. Local layers go with the request, 1 MiB each at the most.
    """
    url = service.rstrip("/") if service is not None else address(configured(config, None))
    additions = {
        "layers": [described(text) for text in layer or ()],
        "env": env,
        "entrypoint": entrypoint,
        "cmd": cmd,
        "workingDir": workdir,
    }
    body: dict[str, Any] = {"containerImage": image}
    if given := {name: value for name, value in additions.items() if value}:
        body["containerConfig"] = given
    if include:
        body["containerIncludes"] = include
    if platform:
        body["containerPlatform"] = ",".join(platform)
    answer = ask(url, body, _key(key_file), ca)
    typer.echo(json.dumps(answer, indent=2) if as_json else answer["targetImage"])


def address(settings: Settings) -> str:
    """Return where the service of these settings is asked."""
    if settings.server.public_url is not None:
        return settings.server.public_url.rstrip("/")
    listen = settings.server.listen
    host = "127.0.0.1" if listen.host in ("0.0.0.0", "::") else listen.host  # noqa: S104 - everywhere is here, too
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.speaks_tls else 'http'}://{shown}:{listen.port}"


def described(text: str) -> Mapping[str, Any]:
    """Return a layer as a request has it: a local one with its bytes, one elsewhere with what is there now."""
    if _REMOTE.match(text):
        return _measured(text).as_json()
    path = Path(text)
    with tempfile.TemporaryFile() as packed_here:
        try:
            if path.is_dir():
                pack(path, packed_here)
            else:
                packed_here.write(path.read_bytes())
            packed_here.seek(0)
            packed = measure(packed_here)
        except OSError as error:
            raise LayerUnreadableError(f"the layer {text}: {error.strerror or error}") from error
        except InvalidError as error:
            raise LayerUnreadableError(f"the layer {text}: {error}") from error
        if not packed.is_compressed:
            raise LayerUnreadableError(f"the layer {text} is a plain tar: compress it with gzip")
        if packed.gzip_size > MAX_INLINE:
            raise LayerTooLargeError(text, packed.gzip_size)
        packed_here.seek(0)
        location = f"data:{b64encode(packed_here.read()).decode()}"
    return {**packed.as_json(), "location": location}


def _measured(url: str) -> PackedLayer:
    """Return the measures of what is at an address, which has to be the same when the service fetches it."""
    try:
        with build_opener().open(Request(url), timeout=_PATIENCE_S) as answer:  # noqa: S310 - http(s), see _REMOTE
            return measure(answer, location=url)
    except (OSError, InvalidError) as error:
        raise LayerUnreadableError(f"the layer {url}: {error}") from error


def ask(url: str, body: Mapping[str, Any], key: str | None, ca: Path | None) -> Mapping[str, Any]:
    """Return the service's answer; raises ServiceError with its words, ServiceUnreachableError."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    if urlsplit(url).scheme not in ("http", "https"):
        raise ServiceUnreachableError(url, "it is not an address that begins with http:// or https://")
    request = Request(f"{url}/container-token", json.dumps(body).encode(), headers)  # noqa: S310 - see above
    opener = build_opener(HTTPSHandler(context=_context(ca)))
    try:
        with opener.open(request, timeout=_PATIENCE_S) as answer:
            found: Mapping[str, Any] = json.loads(answer.read(_MAX_ANSWER))
            return found
    except HTTPError as error:
        raise ServiceError(_said(error)) from error
    except (URLError, OSError, ValueError) as error:
        raise ServiceUnreachableError(url, str(getattr(error, "reason", error))) from error


def _context(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    return context


def _said(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read(_MAX_ANSWER))["message"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered {error.code}"


def _key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise LayerUnreadableError(f"the key in {path} can't be read: {error}") from error
    return text.strip()
