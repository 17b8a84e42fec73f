"""Repositories and tags, and where tags pointed."""

from typing import Annotated

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from roadstead.augment.inspecting import inspect
from roadstead.auth.caller import Action
from roadstead.http.api import wire
from roadstead.http.api.call import Call
from roadstead.http.api.documented import PAGE, problems
from roadstead.http.api.errors import ParametersInvalidError
from roadstead.http.names import parse_name, parse_wanted
from roadstead.http.upstreams import check_writable, routed
from roadstead.oci.descriptor import Platform
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import ManifestUnknownError, ReadOnlyError

RepositoryQuery = Annotated[str, QueryParameter(pattern=wire.REPOSITORY, max_length=255, description="The repository.")]
TagQuery = Annotated[str, QueryParameter(pattern=wire.TAG, max_length=128, description="The tag.")]
ReferenceQuery = Annotated[str, QueryParameter(pattern=wire.REFERENCE, description="A tag, or a digest.")]
PlatformQuery = Annotated[
    str,
    QueryParameter(
        pattern=f"^$|{wire.PLATFORM}", description="Which image of an index is shown: by default linux/amd64, or any."
    ),
]
Last = Annotated[str, QueryParameter(max_length=255, description="Begin behind this one: `next` of the page before.")]
Number = Annotated[int, QueryParameter(ge=1, le=PAGE, description="How many at the most.")]
Before = Annotated[
    int, QueryParameter(ge=1, le=wire.MAX_POSITION, description="Lower positions alone: `next` of the page before.")
]


@get("/repositories", tags=["images"], summary="List repositories", responses=problems())
async def repositories(call: NamedDependency[Call], last: Last = "", n: Number = 100) -> wire.Repositories:
    """List the repositories that hold a manifest and that the caller may pull from. Needs `catalog`."""
    await call.needs(Action.CATALOG)
    n = min(n, call.services.catalog.max_repositories)
    page = await call.services.catalog.repositories(after=last, n=n, visible=call.request.rights.sight())
    return wire.Repositories(list(page.items), page.items[-1] if page.more else None)


@get("/repository", tags=["images"], summary="Show a repository", responses=problems(404))
async def repository(call: NamedDependency[Call], repository: RepositoryQuery) -> wire.Repository:
    """Show a repository. Needs `pull` on it."""
    name = RepositoryName.parse(repository)
    await call.needs(Action.PULL, name)
    await call.services.catalog.tags(name, after="", n=1)  # says so if there is none
    return wire.Repository(str(name), await call.administration.usage.bytes_of(name))


@get("/tags", tags=["images"], summary="List tags", responses=problems(404))
async def tags(call: NamedDependency[Call], repository: RepositoryQuery, last: Last = "", n: Number = 100) -> wire.Tags:
    """List the tags of a repository. Needs `pull` on it."""
    name = RepositoryName.parse(repository)
    await call.needs(Action.PULL, name)
    page = await call.services.catalog.tags(name, after=last, n=n)
    return wire.Tags(str(name), list(page.items), page.items[-1] if page.more else None)


@get("/tags/history", tags=["images"], summary="List where a tag pointed", responses=problems(404))
async def history(
    call: NamedDependency[Call],
    repository: RepositoryQuery,
    tag: TagQuery,
    before: Before = wire.MAX_POSITION,
    n: Number = 100,
) -> wire.History:
    """List the changes of a tag, the latest first. Needs `pull` on its repository."""
    name, of = RepositoryName.parse(repository), Tag.parse(tag)
    await call.needs(Action.PULL, name)
    found = await call.services.history.page(name, of, before=before, limit=n + 1)
    if not found and before == wire.MAX_POSITION:
        raise ManifestUnknownError(name, of)
    changes = [wire.change(one, name, of) for one in found[:n]]
    return wire.History(str(name), str(of), changes, changes[-1].position if len(found) > n else None)


@get("/image", tags=["images"], summary="Show an image", responses=problems(404))
async def image(
    call: NamedDependency[Call], repository: RepositoryQuery, reference: ReferenceQuery, platform: PlatformQuery = ""
) -> wire.Image:
    """Show what a pull of an image gets: layers and config, where it comes from, what was added, who has signed it.

    Names mean what they do in a pull: a default name is its upstream's, `as-pushed/…`, `as-of/TIME/…`, and
    `wt/TOKEN/…` for who has the token. Needs `pull` on the repository. An image that isn't here yet is fetched from
    its upstream, and made by the rule that matches.
    """
    wanted = Platform.parse(platform) if platform else None
    source = await call.image(repository)
    found = await inspect(source, repository, parse_wanted(reference), wanted, discreet=True)
    return wire.image(found, reference)


@post("/tags/restore", tags=["images"], summary="Put a tag back", status_code=200,
      responses=problems(404, 405, 413, 415))  # fmt: skip
async def restore(call: NamedDependency[Call], data: JSONBody[wire.RestoreTag]) -> wire.Restored:
    """Put a tag back to where it pointed at a time, from a position of its history on, or before its last change.

    Needs `push` on its repository.
    """
    found = await routed(call.request, {"name": data.repository}, call.services)
    named, tag = parse_name(found["name"]), Tag.parse(data.tag)
    await call.needs(Action.PUSH, named.repository)
    check_writable(found)
    if call.administration.read_only:
        raise ReadOnlyError
    if data.at is not None and data.position is not None:
        raise ParametersInvalidError("give at or position, not both")
    digest = await call.services.history.restore(
        named.writable(), tag, at=wire.aware(data.at), position=data.position, cause=call.cause
    )
    return wire.Restored(data.repository, str(tag), str(digest))


HANDLERS = (repositories, repository, tags, history, restore, image)
