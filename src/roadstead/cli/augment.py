"""``roadstead augment``: ask a running service for a container token, and print the name to pull."""

import json
import re
import ssl
import sys
import tempfile
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, Request, build_opener

import typer

from roadstead.augment.locations import HERE
from roadstead.augment.wanted_layers import MAX_LAYER_BYTES, MAX_RATIO, MAX_TAR_BYTES, MAX_TOTAL_BYTES
from roadstead.cli.existing import configured
from roadstead.errors import DeniedError, InvalidError, UnavailableError
from roadstead.oci.layer import PackedLayer, measure, pack
from roadstead.oci.reference import ImageReference, NameInvalidError, ReferenceInvalidError, RepositoryName
from roadstead.settings.model import Settings

EXAMPLE = "Example: roadstead augment library/busybox --layer ./files --env GREETING=hello"

_PATIENCE_S = 120.0
_FETCHING_PATIENCE_S = 900.0
"""How long the service may take that has to fetch layers: it gives up on one after ten minutes, and says so."""

_MAX_ANSWER = 1 << 20
_REMOTE = re.compile(r"https?://")


class LayerHomelessError(InvalidError):
    """A layer is too large for a request, and nobody said which repository it is to be pushed to."""

    def __init__(self, layer: str, size: int, image: str) -> None:
        super().__init__(
            f"the layer {layer} has {size} bytes packed: too large to go with the request, and {image} is not an image "
            "of the service's own, whose repository could keep it"
        )

    def advice(self) -> str:
        """Say how it is named."""
        return "Name a repository of the service that you may pull from and push to: --layers-to NAME."


class LayerUnreadableError(InvalidError):
    """A layer can't be read."""


class ServiceError(InvalidError):
    """The service said no; its words."""


class ServiceDeniedError(DeniedError):
    """The service wants to know who asks, or somebody else (401); its words."""

    def __init__(self, said: str, *, with_key: bool) -> None:
        super().__init__(said)
        self.with_key = with_key

    def advice(self) -> str:
        """Say how to sign in."""
        if self.with_key:
            return "The key in --key-file is refused: it may be revoked, past its end, or of another registry."
        return (
            "Give an API key: --key-file FILE. The registry makes one: roadstead key create NAME CONFIG "
            "--action pull --action augment"
        )


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
    layers_to: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Where layers are pushed that are too large for the request; by default the image's."
        ),
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

    Words that begin with a dash are written --cmd=-c. Local layers go with the request, 1 MiB each at the most; larger
    ones are pushed to a repository of the service first, for which push is needed.
    """
    url = service.rstrip("/") if service is not None else address(configured(config, None))
    home, key = _repository(layers_to), _key(key_file)
    additions: dict[str, Any] = {"env": env, "entrypoint": entrypoint, "cmd": cmd, "workingDir": workdir}
    with ExitStack() as kept:
        layers = [measured(text, kept) for text in layer or ()]
        if large := too_large(layers):
            # The client of registries costs time to import, which only a large layer is worth.
            from roadstead.cli.pushing_layers import push_layers

            home = home or home_of(image, url) or _homeless(large[0], image)
            located = push_layers(large, url, home, key, ca)
            layers = [located.get(one, one) for one in layers]
        additions["layers"] = [one.described() for one in layers]
    body: dict[str, Any] = {"containerImage": image}
    if given := {name: value for name, value in additions.items() if value}:
        body["containerConfig"] = given
    if include:
        body["containerIncludes"] = include
    if platform:
        body["containerPlatform"] = ",".join(platform)
    fetches = bool(include) or any(one.location for one in layers)
    answer = ask(url, body, key, ca, patience_s=_FETCHING_PATIENCE_S if fetches else _PATIENCE_S)
    typer.echo(json.dumps(answer, indent=2) if as_json else answer["targetImage"])


def address(settings: Settings) -> str:
    """Return where the service of these settings is asked."""
    if settings.server.public_url is not None:
        return settings.server.public_url.rstrip("/")
    listen = settings.server.listen
    host = "127.0.0.1" if listen.host in ("0.0.0.0", "::") else listen.host  # noqa: S104 - everywhere is here, too
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.speaks_tls else 'http'}://{shown}:{listen.port}"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as it was given, and what is there: where it is fetched from, or a file that holds it."""

    given: str
    packed: PackedLayer
    location: str = ""
    file: BinaryIO | None = None

    @property
    def unpacks_far(self) -> bool:
        """Whether more comes out of it than a service takes of a layer within a request."""
        return (self.packed.tar_size or 0) > max(MAX_TAR_BYTES, MAX_RATIO * self.packed.gzip_size)

    def described(self) -> Mapping[str, Any]:
        """Return it as a request has it: one that lies here with its bytes."""
        location = self.location
        if self.file is not None and not location:
            self.file.seek(0)
            location = f"data:{b64encode(self.file.read()).decode()}"
        return {**self.packed.as_json(), "location": location}


def too_large(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Return the local layers that can't go with one request: each is, or they are together. Pure."""
    total, found = 0, []
    for layer in layers:
        size = layer.packed.gzip_size
        if layer.file is None:
            continue
        if size > MAX_LAYER_BYTES or layer.unpacks_far or total + size > MAX_TOTAL_BYTES:
            found.append(layer)
        else:
            total += size
    return found


def home_of(image: str, url: str) -> RepositoryName | None:
    """Return the repository of an image, if it is the service's own as far as its name tells. Pure."""
    try:
        named = ImageReference.parse(image, default_host=HERE)
    except ReferenceInvalidError:
        return None  # the service says better what is wrong with it
    return named.repository if named.host in (HERE, urlsplit(url).netloc.lower()) else None


def _homeless(layer: Layer, image: str) -> RepositoryName:
    raise LayerHomelessError(layer.given, layer.packed.gzip_size, image)


def _repository(text: str | None) -> RepositoryName | None:
    try:
        return None if text is None else RepositoryName.parse(text)
    except NameInvalidError as error:
        raise typer.BadParameter(f"{error}. {error.advice() or ''}".strip(), param_hint="--layers-to") from error


def measured(text: str, kept: ExitStack) -> Layer:
    """Return a layer with its measures; its file is open for as long as `kept` is. Raises LayerUnreadableError."""
    if _REMOTE.match(text):
        packed = _measured(text)
        return Layer(text, packed, text)
    path = Path(text)
    try:
        if path.is_dir():
            file: BinaryIO = kept.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (`kept` closes it)
            packed = pack(path, file)
            file.flush()
        else:
            file = kept.enter_context(path.open("rb"))
            packed = measure(file)
    except OSError as error:
        raise LayerUnreadableError(f"the layer {text}: {error.strerror or error}") from error
    except InvalidError as error:
        raise LayerUnreadableError(f"the layer {text}: {error}") from error
    if not packed.is_compressed:
        raise LayerUnreadableError(f"the layer {text} is a plain tar: compress it with gzip")
    return Layer(text, packed, file=file)


def _measured(url: str) -> PackedLayer:
    """Return the measures of what is at an address, which has to be the same when the service fetches it."""
    try:
        with build_opener().open(Request(url), timeout=_PATIENCE_S) as answer:  # noqa: S310 - http(s), see _REMOTE
            return measure(answer, location=url)
    except (OSError, InvalidError) as error:
        raise LayerUnreadableError(f"the layer {url}: {error}") from error


def ask(
    url: str, body: Mapping[str, Any], key: str | None, ca: Path | None, *, patience_s: float = _PATIENCE_S
) -> Mapping[str, Any]:
    """Return the service's answer; raises ServiceError, ServiceDeniedError, ServiceUnreachableError."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    if urlsplit(url).scheme not in ("http", "https"):
        raise ServiceUnreachableError(url, "it is not an address that begins with http:// or https://")
    request = Request(f"{url}/container-token", json.dumps(body).encode(), headers)  # noqa: S310 - see above
    opener = build_opener(HTTPSHandler(context=_context(ca)))
    try:
        with opener.open(request, timeout=patience_s) as answer:
            found: Mapping[str, Any] = json.loads(answer.read(_MAX_ANSWER))
            return found
    except HTTPError as error:
        if error.code == HTTPStatus.UNAUTHORIZED:
            raise ServiceDeniedError(_said(error), with_key=key is not None) from error
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
