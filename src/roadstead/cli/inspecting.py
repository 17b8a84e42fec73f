"""What ``roadstead inspect`` does once its options are read: asks the registry or the data, and shows what it found."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from roadstead.app.inspecting import image_here
from roadstead.augment.inspecting import Augmented, Inspected, Verdict, inspect, what_it_is
from roadstead.augment.inspection import Change, Difference, LayerFacts
from roadstead.cli.copying import credential_files
from roadstead.cli.existing import load_existing
from roadstead.errors import InvalidError
from roadstead.oci.descriptor import Descriptor, Platform, PlatformInvalidError
from roadstead.oci.digest import Digest
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.reference import ImageReference, NameInvalidError, RepositoryName, Tag, parse_reference
from roadstead.settings.quantity import counted, rounded_size
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.credentials import CredentialSource, DockerConfig, Given, parse_given
from roadstead.upstream.proxies import Proxies
from roadstead.upstream.transport import Transport


@dataclass(frozen=True, slots=True)
class Reach:
    """How a registry is reached, as the options say."""

    plain_http: tuple[str, ...]
    ca_file: Path | None
    credentials: str | None


def wanted_platform(text: str | None) -> Platform | None:
    """Read the option; typer's error for wrong usage."""
    if text is None:
        return None
    try:
        return Platform.parse(text)
    except PlatformInvalidError as error:
        raise typer.BadParameter(f"{error}. {error.advice() or ''}".strip(), param_hint="--platform") from error


def inspect_here(image: str, config: Path | None, data: Path | None, platform: Platform | None) -> Inspected:
    """Look at an image in the data of a registry."""
    name, reference = _named_here(image)
    settings = load_existing(config, data)
    if config is None and data is None:
        # Rules decide what a pull is answered with: without the server's settings another digest may be shown.
        typer.echo(
            f"read with the default settings, from {settings.storage.path}; the server's rules and upstreams are known "
            f"where its settings are named: roadstead inspect {image} CONFIG",
            err=True,
        )

    async def run() -> Inspected:
        async with image_here(name, settings) as source:
            return await inspect(source, image, reference, platform)

    return asyncio.run(run())


def inspect_there(image: str, reach: Reach, platform: Platform | None) -> Inspected:
    """Look at an image in any registry."""
    named = ImageReference.parse(image)
    assert named.reference is not None  # noqa: S101 (there is a default tag)
    reference = named.reference

    async def run() -> Inspected:
        async with _client(named.host, reach) as client:
            return await inspect(_There(client, named.repository), str(named), reference, platform)

    return asyncio.run(run())


def _named_here(image: str) -> tuple[str, Tag | Digest]:
    name, at, digest = image.partition("@")
    first, slash, _ = name.partition("/")
    if slash and ":" in first:
        raise typer.BadParameter(
            f"{image} begins with a host: leave it out, or leave out the settings", param_hint="IMAGE"
        )
    repository, colon, tag = name.rpartition(":")
    if not colon:
        repository, tag = name, "latest"
    try:
        return str(RepositoryName.parse(repository)), parse_reference(digest if at else tag)
    except NameInvalidError as error:
        raise typer.BadParameter(f"{error}. {error.advice()}", param_hint="IMAGE") from error


@asynccontextmanager
async def _client(host: str, reach: Reach) -> AsyncIterator[RegistryClient]:
    address = RegistryAddress.parse(host, plain_http=reach.plain_http, tls_on_loopback=reach.ca_file is not None)
    source: CredentialSource = DockerConfig(credential_files(os.environ))
    if reach.credentials is not None:
        source = Given(parse_given(reach.credentials) if reach.credentials else None)
    async with Transport(ca_file=reach.ca_file, proxies=Proxies.from_environment(os.environ)) as transport:
        yield RegistryClient(address, transport, credentials=source)


class _There:
    """A repository of any registry."""

    def __init__(self, client: RegistryClient, repository: RepositoryName) -> None:
        self._client = client
        self._repository = repository
        self.name = str(repository)
        self.origin = f"in {client.host}"

    def rule(self, tag: Tag) -> str | None:
        return None

    async def manifest(self, reference: Tag | Digest) -> tuple[str, bytes]:
        fetched = await self._client.manifest(self._repository, reference)
        return fetched.media_type, fetched.raw

    async def original(self, tag: Tag) -> Digest | None:
        found = await self._client.find_original(self._repository, tag)
        return None if found is None else found.digest

    async def blob(self, digest: Digest, *, max_bytes: int) -> bytes:
        content = bytearray()
        async with aclosing(self._client.blob(self._repository, digest)) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) > max_bytes:
                    raise InvalidError(f"the blob {digest} has more than {max_bytes:,} bytes")
        return bytes(content)

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        return (await self._client.referrers(self._repository, digest)).descriptors

    async def verdicts(self, digest: Digest) -> Sequence[Verdict]:
        return ()  # a registry has said already that it refuses an image, where it does


# What people and programs see


def show(found: Inspected, *, as_json: bool) -> None:
    """Print what was found."""
    if as_json:
        typer.echo(json.dumps(_described(found), indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(found.image)}[/bold]")
    _rows(console, _head(found))
    if found.platforms:
        _listed(console, "platforms", [_platform_line(one) for one in found.platforms])
    if found.layers:
        _listed(console, "layers", [_layer_line(layer) for layer in found.layers])
    if found.config is not None:
        _rows(console, _config_rows(found.config), "config")
    if found.referrers:
        _listed(console, "referrers", [(what_it_is(one), str(one.digest)) for one in found.referrers])
    if found.verdicts:
        _listed(console, "signatures", [line for verdict in found.verdicts for line in _verdict_lines(verdict)])
    if found.augmented is not None:
        _show_augmented(console, found.augmented)
    for note in found.notes:
        console.print(f"\n{escape(note)}")


def _head(found: Inspected) -> list[tuple[str, str]]:
    rows = [("digest", found.digest), ("type", found.media_type), ("origin", found.origin)]
    if not _is_in(found.repository, found.image):
        rows.append(("stands for", found.repository))
    if found.manifest is not None and found.platforms:
        rows.append(("shown", str(found.manifest.digest)))
    if found.rule is not None:
        rows.append(("rule", found.rule))
    if found.layers:
        total = sum(layer.descriptor.size for layer in found.layers)
        rows.append(("size", f"{rounded_size(total)} in {counted(len(found.layers), 'layer')}"))
    return rows


def _is_in(repository: str, image: str) -> bool:
    """Say whether an image's name has the repository's in it: then there is nothing more to say of that."""
    return f"/{image}".partition("@")[0].rpartition(":")[0].endswith(f"/{repository}") or image == repository


def _verdict_lines(verdict: Verdict) -> list[tuple[str, str]]:
    """Return what a policy says, and what is wrong with each signature that was found."""
    state = "held" if verdict.holds else "refused" if verdict.required else "not held"
    said = f"{verdict.policy} ({verdict.kind})"
    if not verdict.holds and not verdict.reasons:
        said = f"{said}: there is no signature"
    return [(state, said), *(("", reason) for reason in verdict.reasons if not verdict.holds)]


def _platform_line(entry: Descriptor) -> tuple[str, str]:
    name = "attestation" if entry.is_attestation else str(entry.platform or "any platform")
    return name, str(entry.digest)


def _layer_line(layer: LayerFacts) -> tuple[str, str]:
    command = " ".join((layer.created_by or "").split())
    return rounded_size(layer.descriptor.size), f"{layer.descriptor.digest}  {command[:80]}".rstrip()


def _config_rows(config: ImageConfig) -> list[tuple[str, str]]:
    rows = [("platform", str(config.platform)), ("entrypoint", _words(config.entrypoint)), ("cmd", _words(config.cmd))]
    rows += [("workdir", config.workdir or ""), ("user", config.user or "")]
    rows += [("env", one) for one in config.env]
    rows += [("label", f"{name}={value}") for name, value in sorted(config.labels.items())]
    return [(name, value) for name, value in rows if value]


def _show_augmented(console: Console, augmented: Augmented) -> None:
    rows = [("plan", augmented.plan_digest)]
    rows += [("rule", augmented.rule)] if augmented.rule else []
    rows += [("source", augmented.source)] if augmented.source else [("source", "not known here")]
    _rows(console, rows, "augmented")
    if augmented.difference is None:
        return
    console.print("\n[bold]difference from the source[/bold]")
    for sign, style, name, value in _difference_lines(augmented.difference):
        console.print(Text(f"  {sign} {_harmless(name)}: {_harmless(value)}", style=style))


def _difference_lines(difference: Difference) -> list[tuple[str, str, str, str]]:
    lines = [("+", "green", "layer", f"{one.digest} {rounded_size(one.size)}") for one in difference.added_layers]
    lines += [("-", "red", "layer", f"{one.digest} {rounded_size(one.size)}") for one in difference.removed_layers]
    for kind, changes in (("", difference.fields), ("env ", difference.env), ("label ", difference.labels)):
        for name, change in changes.items():
            if change.before is not None:
                lines.append(("-", "red", f"{kind}{name}", _words(change.before)))
            if change.after is not None:
                lines.append(("+", "green", f"{kind}{name}", _words(change.after)))
    return lines


def _words(value: str | tuple[str, ...] | None) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, tuple) else value or ""


def _rows(console: Console, rows: Sequence[tuple[str, str]], title: str | None = None) -> None:
    _listed(console, title, rows)


def _listed(console: Console, title: str | None, rows: Sequence[tuple[str, str]]) -> None:
    if title is not None:
        console.print(f"\n[bold]{title}[/bold]")
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        console.print(Text.assemble("  ", (f"{name:<{width}}", "dim"), f"  {_harmless(value)}"))


def _harmless(text: str) -> str:
    """Return a text that an image brought along without what a terminal would take for a command."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _described(found: Inspected) -> dict[str, Any]:
    document: dict[str, Any] = {
        "image": found.image,
        "repository": found.repository,
        "origin": found.origin,
        "served": not found.is_refused,
        "mediaType": found.media_type,
        "digest": found.digest,
        "size": found.size,
        "rule": found.rule,
        "platforms": [one.as_json() for one in found.platforms],
        "manifest": None if found.manifest is None else str(found.manifest.digest),
        "layers": [{**one.descriptor.as_json(), "createdBy": one.created_by} for one in found.layers],
        "config": None if found.config is None else _config(found.config),
        "referrers": [{**one.as_json(), "kind": what_it_is(one)} for one in found.referrers],
        "augmented": None if found.augmented is None else _augmented_json(found.augmented),
        "signatures": [
            {
                "policy": one.policy,
                "kind": one.kind,
                "required": one.required,
                "holds": one.holds,
                "reasons": list(one.reasons),
            }
            for one in found.verdicts
        ],
        "notes": list(found.notes),
    }
    return document


def _config(config: ImageConfig) -> dict[str, Any]:
    return {
        "digest": str(config.digest),
        "platform": str(config.platform),
        "env": list(config.env),
        "entrypoint": config.entrypoint,
        "cmd": config.cmd,
        "workdir": config.workdir,
        "user": config.user,
        "labels": dict(config.labels),
    }


def _augmented_json(augmented: Augmented) -> dict[str, Any]:
    difference = augmented.difference
    return {
        "planDigest": augmented.plan_digest,
        "plan": augmented.plan,
        "source": augmented.source,
        "rule": augmented.rule,
        "difference": None
        if difference is None
        else {
            "addedLayers": [one.as_json() for one in difference.added_layers],
            "removedLayers": [one.as_json() for one in difference.removed_layers],
            "env": _changes(difference.env),
            "labels": _changes(difference.labels),
            "fields": _changes(difference.fields),
        },
    }


def _changes(changes: Mapping[str, Change]) -> dict[str, Any]:
    return {name: {"before": _json(change.before), "after": _json(change.after)} for name, change in changes.items()}


def _json(value: str | tuple[str, ...] | None) -> Any:
    return list(value) if isinstance(value, tuple) else value
