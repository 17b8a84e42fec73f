"""A whole registry moved into another: every repository, every tag, what refers to them.

What has been done is read from the target, so a move that was interrupted goes on when it is run again, and one that is
run once more brings what is new.
"""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

from roadstead.errors import RoadsteadError, UnavailableError
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.copying import Copier
from roadstead.upstream.each import for_each
from roadstead.upstream.errors import UpstreamDeniedError, UpstreamError
from roadstead.upstream.repository import RemoteRepository


class CatalogUnavailableError(UpstreamError, UnavailableError):
    """The registry doesn't tell which repositories it has."""

    def __init__(self, host: str, error: UpstreamError) -> None:
        super().__init__(host, f"it doesn't tell which repositories it has ({error})")

    def advice(self) -> str:
        """Say what does instead."""
        return "Write their names into a file, one a line, and give it with --repositories."


@dataclass(frozen=True, slots=True)
class Failure:
    """What couldn't be moved, and why."""

    name: str
    """A repository, or ``REPOSITORY:TAG``."""

    reason: str


@dataclass(slots=True)
class Report:
    """How far a move has got; what it copied is in its copier's tally."""

    repositories: int = 0
    tags: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(slots=True)
class Move:
    """One registry on its way into another. Nothing that fails stops the rest."""

    source: RegistryClient
    target: RegistryClient
    copier: Copier
    pattern: Pattern | None = None
    """Which tags of which repositories; None: all."""

    failed: Callable[[Failure], None] = lambda failure: None
    """Told of each failure as it happens."""

    begun: Callable[[RepositoryName], None] = lambda name: None
    """Told of each repository before anything of it is moved."""

    report: Report = field(default_factory=Report)

    async def run(self, names: Collection[str] | None = None) -> Report:
        """Move the repositories of the catalogue, or those of *names*; return the report.

        Raises CatalogUnavailableError, and what keeps either registry from answering at all.
        """
        with suppress(UpstreamDeniedError):  # some show their public repositories and not their front
            await self.source.ping()
        await self.target.ping()
        await for_each(self._repositories(names), self._move_repository, limit=self.copier.jobs)
        return self.report

    async def _repositories(self, names: Collection[str] | None) -> AsyncIterator[RepositoryName]:
        if names is None:
            found = self._catalog()
        else:
            found = self._named(names)
        async for repository in found:
            if self.pattern is None or self.pattern.matches_repository(repository):
                yield repository

    async def _catalog(self) -> AsyncIterator[RepositoryName]:
        begun = False
        try:
            async for repository in self.source.repositories(
                invalid=lambda name: self._fail(name, "it can't be a repository's name")
            ):
                begun = True
                yield repository
        except UpstreamError as error:
            if not begun:
                raise CatalogUnavailableError(self.source.host, error) from error
            self._fail("the list of repositories", f"it ends early: {error}")

    async def _named(self, names: Collection[str]) -> AsyncIterator[RepositoryName]:
        for name in names:
            try:
                yield self.source.address.repository(name)
            except RoadsteadError as error:
                self._fail(name, str(error))

    async def _move_repository(self, name: RepositoryName) -> None:
        self.begun(name)
        # Fallback tags are tags and come along as such.
        source = RemoteRepository(self.source, name, fallback=False, originals=True)
        target = RemoteRepository(self.target, name, writing=True)

        async def move(tag: Tag) -> None:
            try:
                await self.copier.copy(source, target, tag, tag=tag)
                self.report.tags += 1
            except RoadsteadError as error:
                self._fail(f"{name}:{tag}", str(error))

        failures = len(self.report.failures)
        try:
            await for_each(self._tags(name), move, limit=self.copier.jobs)
        except RoadsteadError as error:
            self._fail(str(name), str(error))
        if len(self.report.failures) == failures:
            self.report.repositories += 1

    async def _tags(self, name: RepositoryName) -> AsyncIterator[Tag]:
        def fail(text: str) -> None:
            self._fail(f"{name}:{text}", "it can't be a tag")

        async for tag in self.source.tags(name, invalid=fail):
            if self.pattern is None or self.pattern.matches(name, tag):
                yield tag

    def _fail(self, name: str, reason: str) -> None:
        failure = Failure(name, reason)
        self.report.failures.append(failure)
        self.failed(failure)
