"""What ``roadstead copy`` does once its options are read: clients, progress, the summary."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from roadstead.cli.copy import How, Reach
from roadstead.http.names import RESERVED
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import ImageReference, RepositoryName, Tag, TagInvalidError
from roadstead.proxy.collisions import collisions
from roadstead.registry.collision import Collides, Collision
from roadstead.settings.quantity import counted, rounded_size
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.copying import Copier, Tally
from roadstead.upstream.credentials import CredentialSource, DockerConfig, Given, parse_given
from roadstead.upstream.layout import Layout
from roadstead.upstream.moving import Failure, Move, Report
from roadstead.upstream.ports import ImageSource, ImageTarget
from roadstead.upstream.proxies import Proxies
from roadstead.upstream.repository import RemoteRepository
from roadstead.upstream.tokens import Tokens
from roadstead.upstream.transport import Exchange, Transport

T = TypeVar("T")
_LAYOUT = "oci:"
_TICK_S = 0.2
_LINE_EVERY = 50  # ticks
_SHOWN_FAILURES = 50


@dataclass(frozen=True, slots=True)
class _Clients:
    reach: Reach
    transport: Transport
    tokens: Tokens

    def client(self, host: str, credentials: str | None) -> RegistryClient:
        """Return a client for a host or an address, with what was given for it, or what Docker and podman keep."""
        address = RegistryAddress.parse(
            host, plain_http=self.reach.plain_http, tls_on_loopback=self.reach.ca_file is not None
        )
        source: CredentialSource = DockerConfig(credential_files(os.environ))
        if credentials is not None:
            source = Given(parse_given(credentials) if credentials else None)
        return RegistryClient(
            address,
            self.transport,
            tokens=self.tokens,
            credentials=source,
            trusted_realms=frozenset(self.reach.trusted_realms),
        )


def copy_one(reach: Reach, how: How, source: str, target: str, platform: str | None) -> None:
    """Copy an image and print what was done."""
    copier = Copier(jobs=how.jobs, referrers=how.referrers)
    wanted = Platform.parse(platform) if platform is not None else None
    with _shown(copier, quiet=how.quiet) as show:
        digest = uvloop.run(_beside(_copy(reach, copier, source, target, wanted), show))
    _tell_copy(source, target, digest, copier.tally, as_json=how.as_json)


def move_all(
    reach: Reach,
    how: How,
    source: str,
    target: str,
    match: str | None,
    repositories: Path | None,
    config: Path | None = None,
) -> None:
    """Copy a registry, print what was done, and exit with 1 if something failed."""
    copier = Copier(jobs=how.jobs, referrers=how.referrers)
    pattern = Pattern.parse(match) if match is not None else None
    names = _names(repositories) if repositories is not None else None
    watch = _Collisions(_collides(config))
    with _shown(copier, quiet=how.quiet) as show:
        report = uvloop.run(_beside(_move(reach, copier, source, target, pattern, names, watch), show))
    _tell_move(report, copier.tally, watch.found, as_json=how.as_json)


@dataclass(slots=True)
class _Collisions:
    """Which of the names that went by mean something else at the target."""

    collides: Collides
    found: list[Collision] = field(default_factory=list)

    def look(self, name: RepositoryName) -> None:
        """Look at a name; tell of it at once, for a move takes long."""
        collision = self.collides(name)
        if collision is not None:
            self.found.append(collision)
            typer.echo(f"means something else there: {collision}", err=True)


def _collides(config: Path | None) -> Collides:
    """Return what knows the names that mean something else at the target, as far as its settings are at hand."""
    if config is None:
        return collisions((), RESERVED)
    # Most copies know nothing of the target's settings, and need not load what reads them.
    from roadstead.app.upstreams import build_upstreams
    from roadstead.settings.load import load

    return collisions(build_upstreams(load(config, environment=os.environ).settings), RESERVED)


@asynccontextmanager
async def _clients(reach: Reach) -> AsyncIterator[_Clients]:
    trace = _print_exchange if reach.trace else None
    async with Transport(ca_file=reach.ca_file, proxies=Proxies.from_environment(os.environ), trace=trace) as transport:
        tokens = Tokens(transport)
        try:
            yield _Clients(reach, transport, tokens)
        finally:
            await tokens.close()


def credential_files(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files that docker and podman keep credentials in, the one that was named first."""
    named = environment.get("REGISTRY_AUTH_FILE")
    docker = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    podman = Path(environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") / "containers" / "auth.json"
    return (Path(named),) if named else (docker, podman)


async def _copy(reach: Reach, copier: Copier, source: str, target: str, platform: Platform | None) -> Digest:
    async with _clients(reach) as clients:
        taken, reference = _source(clients, source, reach.source_credentials)
        put, tag = _target(clients, target, reach.target_credentials)
        if tag is None and not target.startswith(_LAYOUT) and "@" not in target:
            tag = _tag_of(source, taken, reference)
        return await copier.copy(
            taken, put, reference, tag=tag, platform=platform, cosign=copier.referrers and taken.host is not None
        )


async def _move(
    reach: Reach,
    copier: Copier,
    source: str,
    target: str,
    pattern: Pattern | None,
    names: Sequence[str] | None,
    watch: _Collisions,
) -> Report:
    async with _clients(reach) as clients:
        taken = clients.client(source, reach.source_credentials)
        put = clients.client(target, reach.target_credentials)
        return await Move(taken, put, copier, pattern, _warn, watch.look).run(names)


def _source(clients: _Clients, text: str, credentials: str | None) -> tuple[ImageSource, Tag | Digest]:
    if text.startswith(_LAYOUT):
        directory, tag = _layout(text)
        layout = Layout(directory)
        return layout, tag or layout.only_image()
    image = ImageReference.parse(text)
    reference = image.reference
    assert reference is not None  # noqa: S101 (there is a default tag)
    return RemoteRepository(clients.client(image.host, credentials), image.repository), reference


def _target(clients: _Clients, text: str, credentials: str | None) -> tuple[ImageTarget, Tag | None]:
    if text.startswith(_LAYOUT):
        directory, tag = _layout(text)
        return Layout(directory), tag or Tag("latest")
    image = ImageReference.parse(text, default_tag=None)
    if image.digest is not None:
        raise typer.BadParameter("a target has a tag or none, its digest is that of the source", param_hint="TARGET")
    return RemoteRepository(clients.client(image.host, credentials), image.repository, writing=True), image.tag


def _layout(text: str) -> tuple[Path, Tag | None]:
    """Read ``oci:DIR[:TAG]``; what follows the last colon is a tag if it can be one."""
    path, colon, last = text.removeprefix(_LAYOUT).rpartition(":")
    if colon and path:
        try:
            return Path(path), Tag.parse(last)
        except TagInvalidError:
            pass
    return Path(text.removeprefix(_LAYOUT)), None


def _tag_of(source: str, taken: ImageSource, reference: Tag | Digest) -> Tag | None:
    """Return the tag that a copy gets at a target that names none: the source's, if it has one."""
    if isinstance(taken, Layout):  # its only image needs no name in the source
        return reference if isinstance(reference, Tag) else taken.tag_of(reference)
    return ImageReference.parse(source).tag


def _names(file: Path) -> list[str]:
    """Read repositories, one a line; empty lines and comments with # don't count."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as error:
        raise typer.BadParameter(f"{file} can't be read: {error.strerror}", param_hint="--repositories") from error
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


# What people see


Show = Callable[[], None]


async def _beside(run: Coroutine[Any, Any, T], show: Show) -> T:
    """Await *run*, and call *show* now and then meanwhile."""
    task = asyncio.create_task(run)
    try:
        while not (await asyncio.wait([task], timeout=_TICK_S))[0]:
            show()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    return task.result()


@contextmanager
def _shown(copier: Copier, *, quiet: bool) -> Iterator[Show]:
    """Show what is under way: bars on a terminal, else a line on standard error now and then."""
    if quiet:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        ticks = 0

        def line() -> None:
            nonlocal ticks
            ticks += 1
            if ticks % _LINE_EVERY == 0:
                typer.echo(_progress_line(copier), err=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars: dict[int, Any] = {}

        def draw() -> None:
            for key in [key for key in bars if key not in copier.transfers]:
                progress.remove_task(bars.pop(key))
            for key, transfer in copier.transfers.items():
                if key not in bars:
                    bars[key] = progress.add_task(transfer.what[:60], total=transfer.size)
                progress.update(bars[key], completed=transfer.sent)

        yield draw


def _progress_line(copier: Copier) -> str:
    tally = copier.tally
    done = (
        f"{counted(tally.manifests, 'manifest')} and {counted(tally.blobs, 'blob')} copied, {rounded_size(tally.bytes)}"
    )
    there = tally.manifests_present + tally.blobs_present + tally.blobs_mounted
    return f"{done}; {there:,} were there; {len(copier.transfers)} under way"


def _print_exchange(exchange: Exchange) -> None:
    status = exchange.status if exchange.status is not None else "no answer"
    typer.echo(f"{exchange.method} {exchange.url} {status} {exchange.duration_s:.3f} s", err=True)


def _warn(failure: Failure) -> None:
    typer.echo(f"failed: {failure.name}: {failure.reason}", err=True)


def _tell_copy(source: str, target: str, digest: Digest, tally: Tally, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"source": source, "target": target, "digest": str(digest), **asdict(tally)}))
        return
    typer.echo(f"{target} is {digest}")
    typer.echo(_counts(tally))


def _tell_move(report: Report, tally: Tally, collisions: Sequence[Collision], *, as_json: bool) -> None:
    if as_json:
        found = [{"name": str(one.name), "reason": one.reason, "reachable": one.reachable} for one in collisions]
        typer.echo(json.dumps({**asdict(report), **asdict(tally), "collisions": found}, indent=2))
    else:
        typer.echo(f"there now: {counted(report.repositories, 'repository')} and {counted(report.tags, 'tag')}")
        typer.echo(_counts(tally))
        _tell_collisions(collisions)
        if report.failures:
            typer.echo(f"{len(report.failures):,} failed:")
            for failure in report.failures[:_SHOWN_FAILURES]:
                typer.echo(f"  {failure.name}: {failure.reason}")
            if len(report.failures) > _SHOWN_FAILURES:
                typer.echo("  … --json prints all")
    if report.failures:
        raise typer.Exit(1)


def _tell_collisions(collisions: Sequence[Collision]) -> None:
    for reachable, told in (
        (False, "can't be pulled there, for their names mean something else: copy each to another name"),
        (True, "hide images of an upstream there, which are still to be had with its host in front"),
    ):
        names = [str(one) for one in collisions if one.reachable is reachable]
        if names:
            typer.echo(f"{counted(len(names), 'repository')} {told}:")
            typer.echo("\n".join(f"  {name}" for name in names))


def _counts(tally: Tally) -> str:
    lines = [
        f"manifests: {tally.manifests:,} copied, {tally.manifests_present:,} were there",
        f"blobs: {tally.blobs:,} copied, {rounded_size(tally.bytes)}",
        f"blobs: {tally.blobs_mounted:,} mounted, {tally.blobs_present:,} were there",
    ]
    if tally.blobs_elsewhere:
        lines.append(f"{counted(tally.blobs_elsewhere, 'foreign layer')} left where the manifests say")
    return "\n".join(lines)
