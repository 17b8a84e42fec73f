"""Which names are an upstream's: pure, but for one question to the database (design decision 9).

An upstream's *space* is all names whose first component is its host: ``docker.io/library/busybox``. Its repositories
are kept here under these names, however they were asked for. A name without a host may be its too (``default_for``),
unless it is, or ever was, a repository of ours: so a deleted private name never becomes somebody else's public image.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from roadstead.oci.descriptor import Platform
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import DEFAULT_HOST, NameInvalidError, RepositoryName
from roadstead.proxy.ports import PulledStore
from roadstead.upstream.address import HUB_HOSTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Another registry, and how its images are treated here."""

    host: str
    default_for: tuple[Pattern, ...] = ()
    revalidate: timedelta = timedelta(minutes=5)
    missing_for: timedelta = timedelta(0)  # how long what wasn't there is believed not to be
    downloads: int = 0  # of blobs at a time on this machine; 0 is without limit
    keep: timedelta | None = None  # after the last pull; None for ever
    allow_push: bool = False
    whole: bool = False  # what is here under its default names doesn't count
    platforms: tuple[Platform, ...] = ()  # for which rules add; all where there are none


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of an upstream: its name here, and its name there."""

    upstream: Upstream
    repository: RepositoryName
    remote: RepositoryName


@dataclass(frozen=True, slots=True)
class Routed:
    """What a path's name stands for: ``name`` is what rights, rules and stores know.

    ``asked`` is how a client asked for an image of an upstream, where that is another name. ``namespace`` is the
    upstream that it named by ``?ns=``, ``read_only`` the one whose name it is, where a write is refused for that.
    """

    name: str
    asked: str | None = None
    namespace: str | None = None
    read_only: str | None = None


class Spaces:
    """The upstreams of a service."""

    def __init__(self, upstreams: Sequence[Upstream], store: PulledStore) -> None:
        self._by_host = {upstream.host: upstream for upstream in upstreams}
        self._store = store
        self._default_of = lru_cache(maxsize=8192)(default_space(upstreams))

    @property
    def hosts(self) -> Collection[str]:
        """Return the hosts of all upstreams."""
        return self._by_host.keys()

    def place(self, repository: RepositoryName) -> Place | None:
        """Return where a repository comes from; None for one of ours."""
        host, _, rest = repository.value.partition("/")
        upstream = self._by_host.get(host)
        return Place(upstream, repository, RepositoryName(rest)) if upstream is not None and rest else None

    async def route(self, text: str, namespace: str | None, *, writing: bool) -> Routed:
        """Return what a path's name, below no reserved component, stands for.

        `namespace` is what ``?ns=`` says: it counts for reads of configured upstreams, and then nothing else does.
        Where it is another, no default comes in either: the client means another registry's image of that name.
        """
        whole = self._named_by_host(text)
        if whole is not None:
            host = whole.partition("/")[0]
            return Routed(whole, None if whole == text else text, read_only=host if writing else None)
        if namespace and not writing:
            named = self._named_by_host(f"{namespace}/{text}")
            return Routed(named, text, namespace) if named is not None else Routed(text)
        upstream = self._default_of(text)
        if upstream is None or (not upstream.whole and await self._store.is_known(RepositoryName(text))):
            return Routed(text)
        if not writing:
            return Routed(self._named_by_host(f"{upstream.host}/{text}") or text, text)
        return Routed(text, read_only=None if upstream.allow_push else upstream.host)

    def _named_by_host(self, text: str) -> str | None:
        """Return the name here of an image that is named with its upstream's host; None where there is none such.

        Docker Hub goes by three hosts, and `busybox` there is short for `library/busybox`: clients know that of the
        registry that they believe they ask, and not of the names that others have for it.
        """
        host, slash, rest = text.partition("/")
        if not slash or not rest:
            return None
        if host not in self._by_host and host in HUB_HOSTS:
            host = DEFAULT_HOST
        if host not in self._by_host:
            return None
        return f"{host}/library/{rest}" if host == DEFAULT_HOST and "/" not in rest else f"{host}/{rest}"


def default_space(upstreams: Sequence[Upstream]) -> Callable[[str], Upstream | None]:
    """Return what finds the upstream that a name without a host may be of, unless it is ours. Pure."""
    hosts = {upstream.host for upstream in upstreams}
    defaults = [upstream for upstream in upstreams if upstream.default_for]

    def find(text: str) -> Upstream | None:
        if not defaults or text.partition("/")[0] in hosts:
            return None
        try:
            name = RepositoryName.parse(text)
        except NameInvalidError:  # whoever reads it next says so
            return None
        for upstream in defaults:
            if any(pattern.matches_repository(name) for pattern in upstream.default_for):
                return upstream
        return None

    return find
