"""Local layers that are too large for a request for a token: pushed as blobs, and then named by where they lie."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import typer
import uvloop

from roadstead.cli.augment import Layer
from roadstead.errors import ConflictError, DeniedError
from roadstead.oci.reference import RepositoryName
from roadstead.secret import Secret
from roadstead.settings.quantity import rounded_size
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.credentials import BearerKey, Given
from roadstead.upstream.errors import UpstreamDeniedError, UpstreamNotFoundError, UpstreamRefusedError
from roadstead.upstream.ports import PushOutcome, Source
from roadstead.upstream.proxies import Proxies
from roadstead.upstream.tokens import Tokens
from roadstead.upstream.transport import Transport

_PIECE = 1 << 20


class LayerChangedError(ConflictError):
    """A layer isn't any longer what it was when it was measured."""

    def __init__(self, layer: Layer, reason: str) -> None:
        super().__init__(f"the layer {layer.given} has changed while it was pushed: {reason}")

    def advice(self) -> str:
        """Say what to do."""
        return "Run it again once nobody writes to the file."


class LayerNotPushedError(DeniedError):
    """The service doesn't take a layer into the repository that it was pushed to."""

    def __init__(self, layer: Layer, home: RepositoryName, reason: str) -> None:
        super().__init__(
            f"the layer {layer.given} has {layer.packed.gzip_size} bytes packed: too large to go with the request, and "
            f"it can't be pushed to {home}: {reason}"
        )
        self.home = home

    def advice(self) -> str:
        """Say what is needed."""
        return (
            "Name a repository of the service that you may pull from and push to: --layers-to NAME; a key needs these "
            "rights, too: roadstead key create NAME CONFIG --action pull --action push --action augment"
        )


def push_layers(
    layers: Sequence[Layer], url: str, home: RepositoryName, key: str | None, ca: Path | None
) -> Mapping[Layer, Layer]:
    """Have layers in a repository of the service, and return each with its location there; what is there isn't sent.

    Raises LayerNotPushedError, LayerChangedError, and the errors of upstreams.
    """
    return uvloop.run(_pushed(layers, url, home, key, ca))


async def _pushed(
    layers: Sequence[Layer], url: str, home: RepositoryName, key: str | None, ca: Path | None
) -> Mapping[Layer, Layer]:
    credentials = Given(None if key is None else BearerKey(Secret(key)))
    async with Transport(ca_file=ca, proxies=Proxies.from_environment(os.environ)) as transport:
        tokens = Tokens(transport)
        client = RegistryClient(RegistryAddress.parse(url), transport, tokens=tokens, credentials=credentials)
        try:
            return {layer: await _push(client, layer, url, home) for layer in layers}
        finally:
            await tokens.close()


async def _push(client: RegistryClient, layer: Layer, url: str, home: RepositoryName) -> Layer:
    assert layer.file is not None  # noqa: S101 (`too_large` returns local ones alone)
    packed = layer.packed
    try:
        outcome = await client.push_blob(home, packed.gzip_digest, packed.gzip_size, _source(layer, layer.file))
    except (UpstreamDeniedError, UpstreamRefusedError, UpstreamNotFoundError) as error:
        raise LayerNotPushedError(layer, home, str(error)) from error
    done = "pushed" if outcome is PushOutcome.PUSHED else "found, and not sent again"
    typer.echo(f"{layer.given}, {rounded_size(packed.gzip_size)}: {done} as {home}@{packed.gzip_digest}", err=True)
    return replace(layer, location=f"docker://{urlsplit(url).netloc}/{home}@{packed.gzip_digest}")


def _source(layer: Layer, file: BinaryIO) -> Source:
    """Return what reads a file from an offset on, as far as it was measured, without moving where others read it.

    What it gives raises LayerChangedError where the file has become shorter, or can't be read any longer.
    """
    end = layer.packed.gzip_size

    async def pieces(start: int) -> AsyncGenerator[bytes, None]:
        while start < end:
            try:
                piece = await asyncio.to_thread(os.pread, file.fileno(), min(_PIECE, end - start), start)
            except OSError as error:
                raise LayerChangedError(layer, str(error.strerror)) from error
            if not piece:
                raise LayerChangedError(layer, f"it ends after {start} bytes of {end}")
            start += len(piece)
            yield piece

    return pieces
